"""The outputs of frozen layers, computed once: unpadded, checksummed, memory-mapped, read by the batch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from foretune.backbones.feature_budget import clear, memory_limit, report, size_limit
from foretune.backbones.feature_drafts import FORMAT, DiskDraft, Draft, MemoryDraft, load
from foretune.backbones.feature_layout import FeatureStore, Layout, Places, to_raw

if TYPE_CHECKING:
    import torch

__all__ = [
    "FeatureStore", "FeatureWriter", "Layout", "NoRoom", "clear", "create", "load", "report", "size_limit",
    "store_key",
]  # fmt: skip


class NoRoom(Exception):
    """Neither disk nor memory takes the features: the frozen layers must run in every step."""


def store_key(**parts: str | int) -> str:
    """Return the key (sha256, hex) of all that features depend on: weights, layer, preprocessing, data, dtype …"""
    text = json.dumps({"format": FORMAT, "parts": parts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class FeatureWriter:
    """Takes every example once, in any order; as a context manager it deletes what was not finished."""

    def __init__(self, key: str, layout: Layout, draft: Draft) -> None:
        self.key, self.layout = key, layout
        self._draft: Draft | None = draft
        self._written = np.zeros(len(layout.lengths), dtype=bool)

    def write(self, examples: np.ndarray, rows: torch.Tensor) -> None:
        """Store `rows`, (sum of lengths, *tail) of any float type on any device, as those of `examples`.

        Raises ValueError where they do not fit the layout or were written before, NoRoom where the disk fails.
        """
        draft, examples = self._still_open(), np.asarray(examples, dtype=np.int64)
        self._check(examples, tuple(rows.shape))
        raw = to_raw(rows, self.layout)
        try:
            for chunk, first, begin, end in _runs(examples, self.layout, draft.places):
                draft.put(chunk, first, raw[begin:end])
        except OSError as error:
            self.abandon()
            raise NoRoom(f"The features could not be written: {error}") from error
        self._written[examples] = True

    def finish(self) -> FeatureStore:
        """Check that every example was written, make the store durable and return it.

        Where another process was first, its store is returned. Raises ValueError where examples are missing,
        NoRoom where the disk fails; either way nothing stays behind.
        """
        draft = self._still_open()
        try:
            if not self._written.all():
                missing = np.flatnonzero(~self._written)
                raise ValueError(f"{len(missing)} examples were not written, the first is {missing[0]}")
            store = draft.finish(self.key)
        except OSError as error:
            self.abandon()
            raise NoRoom(f"The features could not be written: {error}") from error
        except BaseException:
            self.abandon()
            raise
        self._draft = None
        return store

    def abandon(self) -> None:
        """Delete the draft; after `finish` there is none."""
        if self._draft is not None:
            self._draft.abandon()
        self._draft = None

    def __enter__(self) -> FeatureWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abandon()

    def _still_open(self) -> Draft:
        if self._draft is None:
            raise ValueError("this writer was finished or abandoned")
        return self._draft

    def _check(self, examples: np.ndarray, shape: tuple[int, ...]) -> None:
        if examples.ndim != 1 or (
            examples.size and not 0 <= examples.min() <= examples.max() < len(self._written)
        ):
            raise ValueError(f"examples must be numbers from 0 to {len(self._written) - 1}")
        if self._written[examples].any() or len(np.unique(examples)) < len(examples):
            raise ValueError("an example is written twice")
        expected = (int(self.layout.lengths[examples].sum()), *self.layout.tail)
        if shape != expected:
            raise ValueError(f"rows are {shape}, expected {expected}")


def create(key: str, layout: Layout) -> FeatureWriter:
    """Return a writer to the disk, or where budget or disk do not allow it, to memory. Raises NoRoom.

    Raises ConfigError where $FORETUNE_CACHE_BYTES is no size.
    """
    places = Places(layout.lengths, layout.borders)
    try:
        return FeatureWriter(key, layout, DiskDraft(layout, places))
    except OSError as error:
        limit = memory_limit()
        if layout.bytes > limit:
            raise NoRoom(
                f"The features take {layout.bytes / 1e6:,.1f} MB. The disk does not take them ({error}), "
                f"and in memory they may take {limit / 1e6:,.1f} MB."
            ) from error
    return FeatureWriter(key, layout, MemoryDraft(layout, places))


def _runs(examples: np.ndarray, layout: Layout, places: Places) -> Iterator[tuple[int, int, int, int]]:
    """Yield what lies together in `examples` and in a chunk: chunk, its first row, and the rows [begin, end)."""
    chunks, lengths = places.chunk[examples], layout.lengths[examples]
    together = (np.diff(examples, prepend=-2) == 1) & (np.diff(chunks, prepend=-1) == 0)
    heads = np.flatnonzero(~together)
    begins = (np.cumsum(lengths) - lengths)[heads]
    ends = np.append(begins, lengths.sum())[1:]
    columns = (chunks[heads], places.first[examples[heads]], begins, ends)
    yield from zip(*(column.tolist() for column in columns), strict=True)
