"""Questions with the texts that answer them, as a model reads both: the question first, the text in windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.backbones.tokenize import pair_form
from foretune.backbones.words import best_window, pieces, room_for, window_starts
from foretune.data import store as stores
from foretune.data.store import CutReport, RaggedStore

if TYPE_CHECKING:
    from foretune.backbones.base import Backbone

LEAST = 8  # tokens of the text in a window
QUESTION_SHARE = 0.5  # of a window that a question may take; what is longer is cut at its end


@dataclass(frozen=True)
class PassageMap:
    """Which tokens of a store's rows belong to the texts, and which characters they stand for.

    (rows,): `first` is the place in the row of the first token of its text; it is token `shift` of the whole
    text; `count` tokens follow from there; those from `low` to `high` (of the whole text) are read best in this
    row. `starts` and `ends` (all tokens of the n texts,): characters; `offsets` (n + 1,): the tokens of text i.
    """

    first: np.ndarray
    shift: np.ndarray
    count: np.ndarray
    low: np.ndarray
    high: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    offsets: np.ndarray

    def characters(self, example: int, first: int, last: int) -> tuple[int, int]:
        """Return the characters [start, end) of the tokens `first` … `last` of a text."""
        base = int(self.offsets[example])
        return int(self.starts[base + first]), int(self.ends[base + last])

    def tokens(self, example: int, start: int, end: int) -> tuple[int, int] | None:
        """Return the first and last token of a text that hold characters [start, end); None where none does."""
        part = slice(int(self.offsets[example]), int(self.offsets[example + 1]))
        touched = np.flatnonzero((self.ends[part] > start) & (self.starts[part] < end))
        return (int(touched[0]), int(touched[-1])) if len(touched) else None


def encode_passages(
    backbone: Backbone, pairs: Sequence[tuple[str, str]], max_length: int, overlap: int
) -> tuple[RaggedStore, np.ndarray, PassageMap]:
    """Return windows of at most `max_length` tokens, the pair each comes from (rows,), and where the texts stand.

    `pairs`: (question, text). Windows of one text share `overlap` tokens, at most half a window. Of texts
    nothing is cut. Raises ConfigError where `max_length` does not fit.
    """
    tokenizer: Any = backbone.tokenizer  # type: ignore[attr-defined]
    form = pair_form(tokenizer)
    special = len(form.before) + len(form.between) + len(form.after)
    whole = room_for(backbone, max_length, special, 2 * LEAST)
    questions = [found.ids for found in pieces(tokenizer, [question for question, _ in pairs])]
    cut = [ids[: int(whole * QUESTION_SHARE)] for ids in questions]
    arrays: list[np.ndarray] = []
    types: list[np.ndarray] = []
    rows: list[tuple[int, ...]] = []
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    for number, text in enumerate(pieces(tokenizer, [text for _, text in pairs])):
        question, length = cut[number], len(text.ids)
        room = whole - len(question)
        starts = window_starts(length, room, min(overlap, room // 2))
        best = best_window(np.arange(length), starts, room, length)
        head = np.concatenate([form.before, question, form.between])
        for window, start in enumerate(starts.tolist()):
            own = np.flatnonzero(best == window)
            content = text.ids[start : start + room]
            arrays.append(np.concatenate([head, content, form.after]))
            types.append(form.types(len(question), len(content)))
            low, high = (int(own[0]), int(own[-1]) + 1) if len(own) else (start, start)
            rows.append((number, len(head), start, len(content), low, high))
        parts.append((text.starts, text.ends))
    lost = sum(len(a) - len(b) for a, b in zip(questions, cut, strict=True))
    unknown = -1 if tokenizer.unk_token_id is None else tokenizer.unk_token_id
    cuts = CutReport(
        len(pairs), sum(map(len, arrays)) + lost, sum(len(a) > len(b) for a, b in zip(questions, cut, strict=True)),
        lost, sum(int(np.count_nonzero(array == unknown)) for array in arrays),
    )  # fmt: skip
    two_types = form.second_type and getattr(backbone.model.config, "type_vocab_size", 0) > 1
    store = stores.build(arrays, cuts, {"token_type_ids": types} if two_types else None)
    return store, *_mapped(rows, parts)


def _mapped(
    rows: Sequence[tuple[int, ...]], parts: Sequence[tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, PassageMap]:
    owner, first, shift, count, low, high = np.array(rows, dtype=np.int64).reshape(-1, 6).T
    offsets = np.zeros(len(parts) + 1, dtype=np.int64)
    np.cumsum([len(starts) for starts, _ in parts], out=offsets[1:])
    none = np.zeros(0, dtype=np.int64)
    starts, ends = (
        np.concatenate([*(part[side] for part in parts), none]).astype(np.int32) for side in (0, 1)
    )
    return owner, PassageMap(first, shift, count, low, high, starts, ends, offsets)
