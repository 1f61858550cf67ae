"""Batches of near-equal length under a token budget, and O(1) access to the batch of any step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np


def cut_by_budget(lengths: np.ndarray, budget: int) -> list[tuple[int, int]]:
    """Cut ascending `lengths` into runs whose padded size, longest x count, stays within `budget` tokens.

    A single example longer than the budget is a run of its own. Returns (start, stop) pairs.
    """
    runs: list[tuple[int, int]] = []
    start = 0
    for position in range(1, len(lengths) + 1):
        full = position == len(lengths) or int(lengths[position]) * (position + 1 - start) > budget
        if full and position > start:
            runs.append((start, position))
            start = position
    return runs


def order_by_length(lengths: np.ndarray, seed: tuple[int, ...] | None = None) -> np.ndarray:
    """Return row numbers in ascending length; rows of equal length stand in random order under a seed."""
    if seed is None:
        return np.argsort(lengths, kind="stable")
    shuffled = np.random.default_rng(seed).permutation(len(lengths))
    return shuffled[np.argsort(lengths[shuffled], kind="stable")]


def split_rows(rows: np.ndarray, lengths: np.ndarray, budget: int) -> list[np.ndarray]:
    """Split a batch's `rows` into micro-batches of at most `budget` padded tokens each."""
    order = rows[np.argsort(lengths[rows], kind="stable")]
    return [order[start:stop] for start, stop in cut_by_budget(lengths[order], budget)]


@dataclass(frozen=True)
class BatchPlan:
    """Which rows make the batch of a step: the same for the same seed, on every machine and at any time.

    In each epoch the rows are sorted by length (ties at random) and cut by the token budget, so that
    little is padded; the batches then come in random order. As lengths do not change, every epoch has the
    same number of batches, and step s is batch s mod n of epoch s div n, found without walking there.
    """

    lengths: np.ndarray  # (n,) tokens
    batch_tokens: int
    seed: int

    @cached_property
    def _runs(self) -> list[tuple[int, int]]:
        return cut_by_budget(np.sort(self.lengths), self.batch_tokens)

    @property
    def steps_per_epoch(self) -> int:
        """Return the number of batches that cover every row once."""
        return len(self._runs)

    def rows(self, step: int) -> np.ndarray:
        """Return the row numbers of the batch of `step` (0-based)."""
        epoch, index = divmod(step, self.steps_per_epoch)
        start, stop = self._runs[self._batch_order(epoch)[index]]
        return self._order(epoch)[start:stop]

    def _order(self, epoch: int) -> np.ndarray:
        return self._remember(("order", epoch), lambda: order_by_length(self.lengths, (self.seed, 1, epoch)))

    def _batch_order(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng((self.seed, 2, epoch))
        return self._remember(("batches", epoch), lambda: rng.permutation(self.steps_per_epoch))

    @cached_property
    def _memory(self) -> dict:
        return {}

    def _remember(self, key: tuple[str, int], make) -> np.ndarray:  # type: ignore[no-untyped-def]
        """Keep the current epoch's arrays only."""
        if key not in self._memory:
            for old in [k for k in self._memory if k[0] == key[0]]:
                del self._memory[old]
            self._memory[key] = make()
        return self._memory[key]
