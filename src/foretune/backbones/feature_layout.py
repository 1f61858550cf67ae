"""What a feature store holds, where each example lies in it, and how a batch is read from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

CHUNK_BYTES = 64 << 20  # a file ends before it grows larger, unless one example alone does
#: NumPy has no bfloat16: its 16 bits are stored as an integer.
RAW: dict[str, np.dtype[Any]] = {"bf16": np.dtype(np.uint16), "fp32": np.dtype(np.float32)}


@dataclass(frozen=True, eq=False)
class Layout:
    """What a store holds, known before it is written.

    `lengths`: (n,) int64, the rows of every example (its tokens; 1 for a pooled vector or a whole image map);
    `tail`: the shape of one row, such as (hidden,) or (layers, hidden); `dtype`: "bf16" or "fp32".
    """

    lengths: np.ndarray
    tail: tuple[int, ...]
    dtype: str

    def __post_init__(self) -> None:
        if self.dtype not in RAW:
            raise ValueError(f"dtype is {self.dtype!r}, expected one of {', '.join(RAW)}")
        lengths = np.asarray(self.lengths)
        if lengths.ndim != 1 or (lengths.size and (lengths.dtype.kind not in "iu" or lengths.min() < 0)):
            raise ValueError("lengths must be one whole number, 0 or more, for every example")
        if any(size < 1 for size in self.tail):
            raise ValueError(f"tail is {self.tail}, expected sizes of 1 or more")
        object.__setattr__(self, "lengths", lengths.astype(np.int64))
        object.__setattr__(self, "tail", tuple(int(size) for size in self.tail))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Layout)
            and (self.tail, self.dtype) == (other.tail, other.dtype)
            and np.array_equal(self.lengths, other.lengths)
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def width(self) -> int:
        """Return the numbers in one row."""
        return math.prod(self.tail)

    @property
    def row_bytes(self) -> int:
        """Return the bytes of one row."""
        return self.width * RAW[self.dtype].itemsize

    @property
    def bytes(self) -> int:
        """Return the bytes of all rows."""
        return int(self.lengths.sum()) * self.row_bytes

    @cached_property
    def borders(self) -> np.ndarray:
        """Return where the chunks begin: chunk c holds the examples borders[c] to borders[c + 1] - 1."""
        offsets = np.append(0, np.cumsum(self.lengths)) * self.row_bytes
        borders = [0]
        while borders[-1] < len(self.lengths):
            last = np.searchsorted(offsets, offsets[borders[-1]] + CHUNK_BYTES, side="right") - 1
            borders.append(max(int(last), borders[-1] + 1))
        return np.array(borders, dtype=np.int64)


class Places:
    """Where every example lies: `chunk` and `first` row in it, (n,) int64; `rows` of every chunk.

    Raises ValueError where `borders` do not go from 0 to n.
    """

    def __init__(self, lengths: np.ndarray, borders: np.ndarray) -> None:
        if borders[0] != 0 or borders[-1] != len(lengths):
            raise ValueError("the chunks do not hold all examples")
        offsets = np.append(0, np.cumsum(lengths))
        self.chunk = np.repeat(np.arange(len(borders) - 1), np.diff(borders))
        self.first = offsets[:-1] - offsets[borders[self.chunk]]
        self.rows = np.diff(offsets[borders]).tolist()


class FeatureStore:
    """Features of n examples, read-only, memory-mapped or in memory.

    `arrays`: one (rows, width) array of raw numbers for every chunk.
    """

    def __init__(self, layout: Layout, places: Places, arrays: list[np.ndarray]) -> None:
        self.layout = layout
        self.nbytes = layout.bytes
        self._places, self._arrays = places, arrays
        self._one_row = bool((layout.lengths == 1).all())

    def __len__(self) -> int:
        return len(self.layout.lengths)

    def rows(self, examples: np.ndarray) -> torch.Tensor:
        """Return the rows of `examples` one after another, in that order: (sum of lengths, *tail) float32."""
        examples = np.asarray(examples, dtype=np.int64)
        lengths = self.layout.lengths[examples]
        out = np.empty((int(lengths.sum()), self.layout.width), RAW[self.layout.dtype])
        self._copy(examples, np.cumsum(lengths) - lengths, out)
        return to_float(out).reshape(len(out), *self.layout.tail)

    def padded(self, examples: np.ndarray) -> torch.Tensor:
        """Return `examples` with zeros behind their ends: (batch, longest, *tail) float32."""
        examples = np.asarray(examples, dtype=np.int64)
        longest = int(self.layout.lengths[examples].max(initial=0))
        out = np.zeros((len(examples) * longest, self.layout.width), RAW[self.layout.dtype])
        self._copy(examples, np.arange(len(examples)) * longest, out)
        return to_float(out).reshape(len(examples), longest, *self.layout.tail)

    def _copy(self, examples: np.ndarray, starts: np.ndarray, out: np.ndarray) -> None:
        """Copy the rows of example i to `out` (rows, width), from row starts[i] on."""
        chunks, firsts = self._places.chunk[examples], self._places.first[examples]
        if self._one_row:  # there may be thousands in a batch: no loop over examples
            for chunk in np.unique(chunks):
                here = chunks == chunk
                out[starts[here]] = self._arrays[chunk][firsts[here]]
            return
        lengths = self.layout.lengths[examples]
        columns = (chunks.tolist(), firsts.tolist(), starts.tolist(), lengths.tolist())
        for chunk, first, start, length in zip(*columns, strict=True):
            out[start : start + length] = self._arrays[chunk][first : first + length]


def to_raw(rows: torch.Tensor, layout: Layout) -> np.ndarray:
    """Return rows (number, *tail) of any float type and device as raw numbers (number, width), rounded once."""
    import torch

    wanted = torch.bfloat16 if layout.dtype == "bf16" else torch.float32
    flat = rows.detach().to(wanted).cpu().contiguous().reshape(len(rows), layout.width)
    return flat.view(torch.int16).numpy().view(np.uint16) if layout.dtype == "bf16" else flat.numpy()


def to_float(raw: np.ndarray) -> torch.Tensor:
    """Return raw numbers as a float32 tensor of the same shape, which for float32 shares their memory."""
    import torch

    if raw.dtype == RAW["bf16"]:
        return torch.from_numpy(raw.view(np.int16)).view(torch.bfloat16).float()
    return torch.from_numpy(raw)
