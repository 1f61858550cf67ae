"""Texts to token ids, once: truncation that is counted, from the head, the tail or both."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

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
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str] | Sequence[tuple[str, str]],
    *,
    max_length: int,
    truncation: str = "head",
) -> RaggedStore:
    """Return the token ids of `texts`, special tokens included, at most `max_length` each.

    Of pairs the longer text is cut first; token_type_ids tell the two apart where the tokenizer has them.

    The result is cached on disk by the texts, the tokenizer and both options. Raises ConfigError where
    `max_length` leaves no room for a text.
    """
    if len(texts) and not isinstance(texts[0], str):
        return _tokenize_pairs(tokenizer, cast("Sequence[tuple[str, str]]", texts), max_length, truncation)
    texts = cast("Sequence[str]", texts)
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


def _tokenize_pairs(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]], max_length: int, truncation: str
) -> RaggedStore:
    form = pair_form(tokenizer)
    special = len(form.before) + len(form.between) + len(form.after)
    room = max_length - special
    if room < 2:
        raise ConfigError(
            f"max_tokens is {max_length}, but the special tokens of every pair are {special} already. "
            f"Set it to {special + 2} or more."
        )
    arrays: list[np.ndarray] = []
    types: list[np.ndarray] = []
    tokens = cut_examples = cut_tokens = unknown = 0
    firsts = _content(tokenizer, [first for first, _ in pairs])
    seconds = _content(tokenizer, [second for _, second in pairs])
    for first, second in zip(firsts, seconds, strict=True):
        whole = len(first) + len(second)
        tokens += whole + special
        unknown += _unknown(tokenizer, first) + _unknown(tokenizer, second)
        if whole > room:
            cut_examples, cut_tokens = cut_examples + 1, cut_tokens + whole - room
            first, second = cut_longest(first, second, room, truncation)
        arrays.append(np.concatenate([form.before, first, form.between, second, form.after]))
        types.append(form.types(len(first), len(second)))
    extras = {"token_type_ids": types} if form.second_type else None
    return stores.build(arrays, CutReport(len(pairs), tokens, cut_examples, cut_tokens, unknown), extras)


def _unknown(tokenizer: PreTrainedTokenizerBase, ids: np.ndarray) -> int:
    return 0 if tokenizer.unk_token_id is None else int(np.count_nonzero(ids == tokenizer.unk_token_id))


def cut_longest(
    first: np.ndarray, second: np.ndarray, room: int, truncation: str = "head"
) -> tuple[np.ndarray, np.ndarray]:
    """Return both cut to `room` ids together, the longer one first; `truncation` says which part of it stays."""
    short = min(len(first), len(second), room // 2)
    kept = min(len(first), max(room - len(second), short))
    if len(first) > len(second):
        kept = room - min(len(second), max(room - len(first), short))
    return cut(first, kept, truncation), cut(second, room - kept, truncation)


@dataclass(frozen=True)
class PairForm:
    """The special tokens that a tokenizer puts before, between and after two texts, and the second's token type."""

    before: np.ndarray
    between: np.ndarray
    after: np.ndarray
    second_type: int  # 0: the tokenizer does not tell the two apart
    between_types: tuple[int, ...] = ()

    def types(self, first: int, second: int) -> np.ndarray:
        """Return the token types of a pair of these lengths."""
        own = np.zeros(len(self.before) + first, dtype=np.int32)
        other = np.full(second + len(self.after), self.second_type, dtype=np.int32)
        return np.concatenate([own, np.asarray(self.between_types, dtype=np.int32), other])


def pair_form(tokenizer: PreTrainedTokenizerBase) -> PairForm:
    """Return how the tokenizer joins two texts, found by encoding a pair."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    encoded = tokenizer("a", "a", add_special_tokens=True, return_token_type_ids=True)
    full, types = encoded["input_ids"], encoded.get("token_type_ids")
    places = [i for i in range(len(full) - len(plain) + 1) if full[i : i + len(plain)] == plain]
    first, second = places[0], places[-1]
    between = full[first + len(plain) : second]
    kind = types[second] if types else 0
    told = tuple(types[first + len(plain) : second]) if types else (0,) * len(between)
    before, middle, after = (
        np.asarray(part, dtype=np.int32) for part in (full[:first], between, full[second + len(plain) :])
    )
    return PairForm(before, middle, after, int(kind), told)


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
    around = [ids.tolist() for ids in special_tokens(tokenizer)]  # M2M100 changes them by its source language
    return hashlib.sha256(f"{text}\n{around}".encode()).hexdigest()
