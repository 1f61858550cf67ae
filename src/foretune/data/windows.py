"""Running text for causal language models: every token is predicted once, in windows the model can hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from foretune.data import store as stores
from foretune.data.paired_store import IGNORED
from foretune.data.store import CutReport, RaggedStore

LABELS = "labels"  # the extra array of a store: at every place the id that comes next
PIECE = 2000  # characters of the parts that one running text is held out by, about a window


@dataclass(frozen=True)
class TokenSequence:
    """A whole sequence of ids; those from place `first` on are predicted. `size`: bytes of the text they stand for."""

    ids: np.ndarray
    first: int
    size: int


@dataclass(frozen=True)
class Windows:
    """Rows of at most so many ids, the sequence that each comes from, and the bytes that it predicts."""

    store: RaggedStore
    owner: np.ndarray
    sizes: np.ndarray


def cut_windows(sequences: Sequence[TokenSequence], longest: int) -> Windows:
    """Return the sequences in rows of at most `longest` ids; the labels are the ids one place further on.

    A row's last label is the first id of the next row, so that no id is predicted twice or left out. Only the
    beginnings of prompts longer than half a row are cut away, where a row does not hold all.
    """
    rows: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    owner: list[int] = []
    sizes: list[float] = []
    cut: list[int] = []
    for number, sequence in enumerate(sequences):
        predicted = max(len(sequence.ids) - sequence.first, 1)
        start = _start(sequence, longest)
        cut += [start] if start else []
        for ids, own in _windows(sequence, start, longest):
            rows.append(ids)
            labels.append(own)
            owner.append(number)
            sizes.append(sequence.size * int((own != IGNORED).sum()) / predicted)
    tokens = sum(len(sequence.ids) for sequence in sequences)
    cuts = CutReport(len(sequences), tokens, len(cut), sum(cut))
    store = stores.build(rows, cuts, {LABELS: labels})
    return Windows(store, np.asarray(owner, dtype=np.int64), np.asarray(sizes))


def _start(sequence: TokenSequence, longest: int) -> int:
    """Return what to cut off a prompt so that all fits in one window; half a window of a prompt stays."""
    over = max(len(sequence.ids) - 1 - longest, 0)
    return min(over, max(sequence.first - 1 - longest // 2, 0))


def _windows(sequence: TokenSequence, start: int, longest: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    inputs, targets = sequence.ids[:-1], sequence.ids[1:].copy()
    targets[: sequence.first - 1] = IGNORED
    for begin in range(start, len(inputs), longest):
        yield inputs[begin : begin + longest], targets[begin : begin + longest]


def pieces(text: str, characters: int = PIECE) -> list[str]:
    """Return a text in parts of about so many characters, cut behind line ends where there are any.

    Joined, the parts are the text.
    """
    parts: list[str] = []
    current = ""
    for line in text.splitlines(keepends=True):
        while len(line) > characters:
            parts, current, line = [*parts, current], line[:characters], line[characters:]
        current += line
        if len(current) >= characters:
            parts, current = [*parts, current], ""
    return [part for part in [*parts, current] if part]
