"""Give a word-piece vocabulary the characters it lacks, instead of reading them all as one unknown token.

An English WordPiece vocabulary reads two thirds of a Chinese text as [UNK], and what is read so cannot be
told apart. Each unknown character that occurs often enough becomes a token of its own. Its embedding
starts at random, with the mean and spread of the table, and learns at a rate of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

MOST = 4000  # new tokens
CHUNK = 4096  # words per call of the tokenizer
OFTEN = 2  # occurrences from which on a character is worth a token


def unknown_characters(tokenizer: Any, texts: Iterable[str]) -> list[str]:
    """Return the characters that make words of `texts` unknown to the tokenizer, the most frequent first."""
    if tokenizer.unk_token_id is None:
        return []
    counts = Counter(word for text in texts for word in _words(tokenizer, text))
    known = tokenizer.get_vocab()
    characters: Counter[str] = Counter()
    for word, count in _unknown(tokenizer, counts):
        for character in word:
            if character not in known and f"##{character}" not in known:
                characters[character] += count
    often = [character for character, count in characters.most_common() if count >= OFTEN]
    # What the normaliser takes away (accents, control characters) would never be met as a token.
    return [c for c in often if "".join(_words(tokenizer, c)) == c][:MOST]


def _words(tokenizer: Any, text: str) -> list[str]:
    """Return the words that the tokenizer splits `text` into, as its normaliser leaves them."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or backend.pre_tokenizer is None:
        return text.split()
    clean = backend.normalizer.normalize_str(text) if backend.normalizer is not None else text
    return [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(clean)]


def _unknown(tokenizer: Any, counts: Counter[str]) -> Iterator[tuple[str, int]]:
    """Yield the words that become the unknown token, with their counts."""
    words = list(counts)
    for start in range(0, len(words), CHUNK):
        chunk = words[start : start + CHUNK]
        encoded = tokenizer(chunk, add_special_tokens=False)["input_ids"]
        for word, ids in zip(chunk, encoded, strict=True):
            if tokenizer.unk_token_id in ids:
                yield word, counts[word]


@torch.no_grad()
def add_tokens(tokenizer: Any, model: Any, tokens: list[str]) -> int:
    """Add `tokens` to the vocabulary and to the embedding table; return the first new id."""
    old = model.get_input_embeddings().weight
    spread, mean, first = old.std(0), old.mean(0), len(tokenizer)
    tokenizer.add_tokens(tokens)
    model.resize_token_embeddings(max(len(tokenizer), len(old)), mean_resizing=False)
    table = model.get_input_embeddings()
    assert isinstance(table, nn.Embedding)
    table.weight[first : len(tokenizer)] = mean + spread * torch.randn(len(tokenizer) - first, len(mean))
    return first
