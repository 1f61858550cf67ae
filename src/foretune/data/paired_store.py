"""What an encoder-decoder reads and what it is to write: two ragged stores, row by row."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from foretune.data.store import CutReport, RaggedStore

IGNORED = -100  # the label of places that do not count, as torch's cross-entropy has it


@dataclass(frozen=True)
class PairedStore:
    """Sources and targets, both as token ids; a batch's budget counts the tokens of both."""

    source: RaggedStore
    target: RaggedStore
    varies = False

    def __len__(self) -> int:
        return len(self.source)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Return the tokens of source and target together: (n,) int64."""
        return self.source.lengths + self.target.lengths

    @property
    def states(self) -> np.ndarray:
        """Return the tokens of every source, of each of which the encoder gives a state: (n,) int64."""
        return self.source.lengths

    @property
    def cuts(self) -> CutReport:
        """Return what truncation cost sources and targets together; each counts as a text."""
        ours, theirs = self.source.cuts, self.target.cuts
        return replace(
            ours,
            examples=ours.examples + theirs.examples,
            tokens=ours.tokens + theirs.tokens,
            cut_examples=ours.cut_examples + theirs.cut_examples,
            cut_tokens=ours.cut_tokens + theirs.cut_tokens,
            unknown_tokens=ours.unknown_tokens + theirs.unknown_tokens,
        )

    def key(self) -> str:
        """Return a hash (hex) of all tokens of both sides."""
        return hashlib.sha256(f"{self.source.key()} {self.target.key()}".encode()).hexdigest()


@dataclass(frozen=True)
class LabelRows:
    """The tokens of a ragged store as labels: `labels[rows]` is (batch, longest) int64, filled up with -100.

    `name`: of the store's extra array that holds the labels; None: its ids are.
    """

    store: RaggedStore
    name: str | None = None

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self.store.padded(rows, IGNORED, self.name)[0]

    def __len__(self) -> int:
        return len(self.store)
