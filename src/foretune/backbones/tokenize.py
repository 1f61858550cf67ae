"""Texts to token ids, once: truncation that is counted, from the head, the tail or both."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from foretune.data import store as stores
from foretune.data.fingerprint import fingerprint
from foretune.data.store import CutReport, RaggedStore
from foretune.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHUNK = 2048  # texts per call of the tokenizer
CACHED_FROM = 500  # fewer texts are tokenised faster than a cache is read
HEAD_SHARE = (
    0.25  # of what is kept by head+tail; Sun et al. 2019 (How to fine-tune BERT), section 5.3.1: 128 of 510
)


def tokenize(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, max_length: int, truncation: str = "head"
) -> RaggedStore:
    """Return the token ids of `texts`, special tokens included, at most `max_length` each.

    The result is cached on disk by the texts, the tokenizer and both options. Raises ConfigError where
    `max_length` leaves no room for a text.
    """
    if len(texts) < CACHED_FROM:
        return _tokenize(tokenizer, texts, max_length, truncation)
    parts = (fingerprint(texts, None), _tokenizer_hash(tokenizer), str(max_length), truncation)
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:40]
    return stores.load(key) or stores.save(key, _tokenize(tokenizer, texts, max_length, truncation))


def _tokenize(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int, truncation: str
) -> RaggedStore:
    prefix, suffix = special_tokens(tokenizer)
    room = max_length - len(prefix) - len(suffix)
    if room < 1:
        raise ConfigError(
            f"max_tokens is {max_length}, but the special tokens of every text are {max_length - room} already. "
            f"Set it to {max_length - room + 1} or more."
        )
    nothing = np.array(
        [tokenizer.pad_token_id or 0], dtype=np.int32
    )  # what is read of a text without a token
    arrays: list[np.ndarray] = []
    tokens = cut_examples = cut_tokens = unknown = 0
    for ids in _content(tokenizer, texts):
        tokens += len(ids) + len(prefix) + len(suffix)
        unknown += (
            int(np.count_nonzero(ids == tokenizer.unk_token_id)) if tokenizer.unk_token_id is not None else 0
        )
        if len(ids) > room:
            cut_examples, cut_tokens = cut_examples + 1, cut_tokens + len(ids) - room
            ids = cut(ids, room, truncation)
        whole = np.concatenate([prefix, ids, suffix])
        arrays.append(whole if len(whole) else nothing)
    return stores.build(arrays, CutReport(len(texts), tokens, cut_examples, cut_tokens, unknown))


def _content(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Iterator[np.ndarray]:
    """Yield the ids of every text without special tokens, whole."""
    for start in range(0, len(texts), CHUNK):
        chunk = list(texts[start : start + CHUNK])
        encoded = tokenizer(
            chunk, add_special_tokens=False, truncation=False, return_attention_mask=False, verbose=False
        )
        for ids in encoded["input_ids"]:
            yield np.asarray(ids, dtype=np.int32)


def cut(ids: np.ndarray, room: int, truncation: str) -> np.ndarray:
    """Return `room` of the ids: the first, the last, or a quarter from the head and the rest from the tail."""
    if truncation == "head":
        return ids[:room]
    if truncation == "tail":
        return ids[-room:]
    head = max(round(room * HEAD_SHARE), 1)
    return np.concatenate([ids[:head], ids[len(ids) - (room - head) :]])


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids that the tokenizer puts before and after a text, found by encoding one."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a", add_special_tokens=True)["input_ids"]
    for start in range(len(full) - len(plain) + 1):
        if full[start : start + len(plain)] == plain:
            before, after = full[:start], full[start + len(plain) :]
            return np.asarray(before, dtype=np.int32), np.asarray(after, dtype=np.int32)
    return np.zeros(0, np.int32), np.zeros(0, np.int32)


def _tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(text.encode()).hexdigest()
