"""The k most confident wrong predictions: where a model is surest and mistaken, the label often is too."""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretune.errors import ConfigError, DataError
from foretune.evaluation.metrics import check_batch


class Mistakes:
    """A streaming keeper of the `k` wrong predictions with the highest probability, in O(k) memory.

    Raises ConfigError for a negative `k`.
    """

    def __init__(self, k: int = 50) -> None:
        if k < 0:
            raise ConfigError(f"The number of mistakes to keep must be 0 or more, found k={k}.")
        self.k = k
        # (probability, -row, true id, predicted id): the heap's smallest is the first to go, and equal
        # probabilities keep the lower row, so the outcome does not hang on the order of batches.
        self._heap: list[tuple[float, int, int, int]] = []

    def update(self, rows: NDArray[Any], probabilities: NDArray[Any], targets: NDArray[Any]) -> None:
        """Look through one batch: rows (batch,), probabilities (batch, classes), targets (batch,).

        Raises DataError for shapes that do not fit, targets out of range or non-finite probabilities.
        """
        rows, probabilities, targets = np.asarray(rows), np.asarray(probabilities), np.asarray(targets)
        check_batch(probabilities, targets, probabilities.shape[-1])
        if rows.shape != targets.shape:
            raise DataError(f"Expected one row number per target, found {rows.shape} for {targets.shape}.")
        predicted = probabilities.argmax(axis=1)
        confidence = probabilities.max(axis=1)
        wrong = np.flatnonzero(predicted != targets)
        for i in wrong[np.lexsort((rows[wrong], -confidence[wrong]))][: self.k]:
            self._push((float(confidence[i]), -int(rows[i]), int(targets[i]), int(predicted[i])))

    def _push(self, entry: tuple[float, int, int, int]) -> None:
        if len(self._heap) < self.k:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)

    def top(self) -> list[tuple[int, int, int, float]]:
        """Return (row, true id, predicted id, probability), the most confident mistake first."""
        return [(-row, true, predicted, p) for p, row, true, predicted in sorted(self._heap, reverse=True)]
