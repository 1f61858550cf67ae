"""Give a word-piece vocabulary the characters it lacks, instead of reading them all as one unknown token.

An English WordPiece vocabulary reads two thirds of a Chinese text as [UNK], and what is read so cannot be
told apart. Each unknown character that occurs often enough becomes a token of its own. Its embedding
starts at random, with the mean and spread of the table, and learns at a rate of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

MOST = 4000  # new tokens
OFTEN = 2  # occurrences from which on a character is worth a token


def unknown_characters(tokenizer: Any, texts: Iterable[str]) -> list[str]:
    """Return the characters of `texts` that the tokenizer does not know, the most frequent first."""
    if tokenizer.unk_token_id is None:
        return []
    counts = Counter(character for text in texts for character in text if not character.isspace())
    often = [character for character, count in counts.most_common() if count >= OFTEN]
    if not often:
        return []
    encoded = tokenizer(often, add_special_tokens=False)["input_ids"]
    unknown = [c for c, ids in zip(often, encoded, strict=True) if tokenizer.unk_token_id in ids]
    return unknown[:MOST]


@torch.no_grad()
def add_tokens(tokenizer: Any, model: Any, tokens: list[str]) -> int:
    """Add `tokens` to the vocabulary and to the embedding table; return the first new id."""
    old = model.get_input_embeddings().weight
    first, spread, mean = len(old), old.std(0), old.mean(0)
    tokenizer.add_tokens(tokens)
    model.resize_token_embeddings(max(len(tokenizer), first), mean_resizing=False)
    table = model.get_input_embeddings()
    assert isinstance(table, nn.Embedding)
    table.weight[first:] = mean + spread * torch.randn(table.num_embeddings - first, table.embedding_dim)
    return first
