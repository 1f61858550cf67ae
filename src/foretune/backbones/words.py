"""Texts to tokens that know their characters: words in their first tokens, long texts in overlapping windows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.backbones.tokenize import CHUNK, special_tokens
from foretune.data import store as stores
from foretune.data.cells import join_tokens
from foretune.data.store import CutReport, RaggedStore
from foretune.errors import BackboneError, ConfigError

if TYPE_CHECKING:
    from foretune.backbones.base import Backbone

OVERLAP = 0.25  # of a window that the next one repeats; BERT's SQuAD script: 128 of 384 (Devlin et al. 2019)
# Scripts without blanks between words: Thai, Lao, Burmese, Khmer, kana, Han, Hangul (whose particles stick to words).
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_MARKS = (
    "\u0300-\u036f\u0591-\u05bd\u064b-\u0652\u0900-\u0963\u0966-\u0dff"  # belong to the letter before them
)
_LETTER = rf"[^\W{_UNSPACED}]"
_WORD = re.compile(rf"[{_UNSPACED}]|{_LETTER}(?:{_LETTER}|[{_MARKS}])*|[^\w\s]")


def word_bounds(text: str) -> np.ndarray:
    """Return where the words of a text begin and end, (words, 2) characters.

    A word is a run of letters and digits, a single mark, or one character of a script without blanks.
    """
    return np.array([found.span() for found in _WORD.finditer(text)], dtype=np.int64).reshape(-1, 2)


def joined(words: Sequence[str]) -> tuple[str, np.ndarray]:
    """Return words as one text, and where each begins and ends in it, (words, 2) characters."""
    text, place = join_tokens(words), 0
    bounds: list[tuple[int, int]] = []
    for word in words:
        start = text.find(word, place)
        place = start + len(word)
        bounds.append((start, place))
    return text, np.array(bounds, dtype=np.int64).reshape(-1, 2)


@dataclass(frozen=True)
class Pieces:
    """The tokens of one text, without special ones: ids (n,) int32, and their characters [starts, ends) (n,)."""

    ids: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    def first_of(self, bounds: np.ndarray) -> np.ndarray:
        """Return each word's first token, (words,): the first that begins in it, else the one that covers it.

        -1 for a word that the tokenizer dropped. `bounds`: (words, 2) characters.
        """
        real = np.flatnonzero(self.ends > self.starts)
        if not len(real):
            return np.full(len(bounds), -1, dtype=np.int64)
        starts, ends = self.starts[real], self.ends[real]
        after = np.searchsorted(starts, bounds[:, 0], side="left")
        inside = (after < len(real)) & (starts[np.minimum(after, len(real) - 1)] < bounds[:, 1])
        before = np.maximum(after - 1, 0)
        covering = (after > 0) & (ends[before] > bounds[:, 0])
        found = np.where(inside, after, np.where(covering, before, -1))
        return np.where(found >= 0, real[found], -1)


def pieces(tokenizer: Any, texts: Sequence[str]) -> Iterator[Pieces]:
    """Yield the tokens of every text, whole. Raises BackboneError where the tokenizer keeps no offsets."""
    if not tokenizer.is_fast:
        raise BackboneError(
            f"{type(tokenizer).__name__} does not tell which characters a token stands for (it is no fast "
            "tokenizer). Choose another --backbone (`foretune models`)."
        )
    for start in range(0, len(texts), CHUNK):
        chunk = list(texts[start : start + CHUNK])
        encoded = tokenizer(
            chunk, add_special_tokens=False, truncation=False, return_offsets_mapping=True, verbose=False
        )
        for text, ids, offsets in zip(chunk, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            bounds = np.array(offsets, dtype=np.int64).reshape(-1, 2)
            yield Pieces(np.asarray(ids, dtype=np.int32), _past_blanks(text, bounds), bounds[:, 1])


def _past_blanks(text: str, bounds: np.ndarray) -> np.ndarray:
    """Return the tokens' starts: some tokenizers count the blank before a word to it."""
    starts = bounds[:, 0].copy()
    for number, (start, end) in enumerate(bounds.tolist()):
        while start < end and text[start].isspace():
            start += 1
        starts[number] = start
    return starts


def window_starts(length: int, room: int, overlap: int) -> np.ndarray:
    """Return where windows of `room` tokens begin in a text of `length`; the last ends where the text ends."""
    if length <= room:
        return np.zeros(1, dtype=np.int64)
    inner = np.arange(0, length - room, room - overlap)
    return np.append(inner, length - room).astype(np.int64)


def best_window(places: np.ndarray, starts: np.ndarray, room: int, length: int) -> np.ndarray:
    """Return for every token place (n,) the window in which it has most context on its poorer side, (n,).

    The text's own borders are no lack of context (as in Devlin et al. 2019, run_squad: "max context").
    """
    ends = starts + room
    before = np.where(starts[None, :] == 0, length, places[:, None] - starts[None, :])
    after = np.where(ends[None, :] >= length, length, ends[None, :] - 1 - places[:, None])
    inside = (places[:, None] >= starts[None, :]) & (places[:, None] < ends[None, :])
    return np.where(inside, np.minimum(before, after), -1).argmax(axis=1)


@dataclass(frozen=True)
class WordMap:
    """Where the words of n examples stand in the rows of a store.

    `bounds` (words, 2): characters of the example's text; `offsets` (n + 1,): the words of example i;
    `rows` and `places` (words,): the row in which a word is read and its first token there, -1 where it has
    none; `shared` (words,): whether that token is also the one of the word before.
    """

    bounds: np.ndarray
    offsets: np.ndarray
    rows: np.ndarray
    places: np.ndarray
    shared: np.ndarray

    def of(self, example: int) -> slice:
        """Return the words of an example."""
        return slice(int(self.offsets[example]), int(self.offsets[example + 1]))


def encode_words(
    backbone: Backbone, texts: Sequence[str], bounds: Sequence[np.ndarray], max_length: int
) -> tuple[RaggedStore, np.ndarray, WordMap]:
    """Return windows of at most `max_length` tokens, the text that each comes from (rows,), and the words' places.

    `bounds`: of the words of each text, (words, 2). Nothing is cut. Raises ConfigError where `max_length` does
    not fit the model.
    """
    tokenizer: Any = backbone.tokenizer  # type: ignore[attr-defined]
    prefix, suffix = special_tokens(tokenizer)
    room = room_for(backbone, max_length, len(prefix) + len(suffix))
    arrays: list[np.ndarray] = []
    owner: list[int] = []
    rows: list[np.ndarray] = []
    places: list[np.ndarray] = []
    for number, found in enumerate(pieces(tokenizer, texts)):
        first = found.first_of(bounds[number])
        starts = window_starts(len(found.ids), room, int(room * OVERLAP))
        window = best_window(np.maximum(first, 0), starts, room, len(found.ids))
        rows.append(np.where(first >= 0, window + len(arrays), -1))
        places.append(np.where(first >= 0, first - starts[window] + len(prefix), -1))
        for start in starts:
            arrays.append(np.concatenate([prefix, found.ids[start : start + room], suffix]))
            owner.append(number)
    empty = np.array([tokenizer.pad_token_id or 0], dtype=np.int32)  # what is read of a text without a token
    store = stores.build([array if len(array) else empty for array in arrays], CutReport())
    return _counted(store, len(texts), tokenizer), np.array(owner, dtype=np.int64), _map(bounds, rows, places)


def room_for(backbone: Backbone, max_length: int, special: int, least: int = 1) -> int:
    """Return the tokens that are left of `max_length` beside the special ones. Raises ConfigError for too few."""
    if max_length > backbone.max_length:
        raise ConfigError(
            f"max_tokens is {max_length}, but {backbone.name} takes at most {backbone.max_length} tokens. "
            f"Set it to {backbone.max_length} or less; longer texts are read in windows of that length."
        )
    if max_length - special < least:
        raise ConfigError(
            f"max_tokens is {max_length}, which leaves no room for a text beside {special} other tokens. "
            f"Set it to {special + least} or more."
        )
    return max_length - special


def _counted(store: RaggedStore, examples: int, tokenizer: Any) -> RaggedStore:
    """Return the store with a report of its tokens: nothing was cut, some may be unknown."""
    unknown = -1 if tokenizer.unk_token_id is None else tokenizer.unk_token_id
    cuts = CutReport(examples, len(store.flat), 0, 0, int(np.count_nonzero(store.flat == unknown)))
    return RaggedStore(store.flat, store.offsets, cuts, store.extras)


def _map(bounds: Sequence[np.ndarray], rows: list[np.ndarray], places: list[np.ndarray]) -> WordMap:
    offsets = np.zeros(len(bounds) + 1, dtype=np.int64)
    np.cumsum([len(each) for each in bounds], out=offsets[1:])
    none = [np.zeros(0, dtype=np.int64)]
    row, place = np.concatenate(rows or none), np.concatenate(places or none)
    shared = np.zeros(len(row), dtype=bool)
    shared[1:] = (row[1:] >= 0) & (row[1:] == row[:-1]) & (place[1:] == place[:-1])
    whole = np.concatenate([*bounds, np.zeros((0, 2), dtype=np.int64)])
    return WordMap(whole, offsets, row.astype(np.int32), place.astype(np.int32), shared)
