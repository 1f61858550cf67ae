"""The pictures whose masks or boxes are predicted worst, with what was predicted, for the report."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from foretune.evaluation.detection import NOTHING
from foretune.evaluation.matching import Boxes, match
from foretune.evaluation.segmentation import IGNORED

if TYPE_CHECKING:
    from foretune.tasks.base import Examples

SHOWN = 6  # pictures at most: masks of whole pictures are large


class _Worst:
    """The examples of the lowest scores."""

    def __init__(self, examples: Examples, k: int) -> None:
        self.examples, self.k = examples, min(k, SHOWN)
        self._heap: list[tuple[float, int, dict[str, Any]]] = []

    def _keep(self, row: int, score: float, found: dict[str, Any]) -> None:
        place = {
            "row": int(self.examples.rows[row]), "picture": self.examples.inputs[row], "score": score
        }  # fmt: skip
        entry = (-score, -row, {**place, **found})
        if len(self._heap) < self.k:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)

    def top(self) -> list[dict[str, Any]]:
        """Return row, picture, score, and what was true and predicted of each, the worst first."""
        return [found for *_, found in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]


class WorstMasks(_Worst):
    """By the share of right pixels; `true` and `predicted` are class numbers (height, width)."""

    def update(self, rows: NDArray[Any], outputs: NDArray[Any], targets: NDArray[Any]) -> None:
        """Look through one batch of masks (batch, height, width)."""
        for row, predicted, true in zip(rows.tolist(), outputs, targets, strict=True):
            inside = predicted >= 0  # the rest fills up the batch
            height, width = int(inside[:, 0].sum()), int(inside[0].sum())
            predicted, true = predicted[:height, :width].astype(np.int16), true[:height, :width]
            counted = true != IGNORED
            right = float((predicted == true)[counted].mean()) if counted.any() else 1.0
            self._keep(row, right, {"true": true.copy(), "predicted": predicted})


class WorstBoxes(_Worst):
    """By the F1 of boxes at an IoU of 0.5; `true` (boxes, 6) and `predicted` as in `DetectionScores`."""

    def __init__(self, examples: Examples, k: int, least: float) -> None:
        super().__init__(examples, k)
        self.least = least

    def update(self, rows: NDArray[Any], outputs: NDArray[Any], targets: NDArray[Any]) -> None:
        """Look through one batch of boxes, both (batch, most, 6)."""
        for row, predicted, true in zip(rows.tolist(), outputs, targets, strict=True):
            guess = predicted[(predicted[:, 0] != NOTHING) & (predicted[:, 1] >= self.least)]
            real = true[(true[:, 0] != NOTHING) & (true[:, 1] == 0)]
            right = 0
            for c in np.unique(real[:, 0]):
                own, there = guess[guess[:, 0] == c], real[real[:, 0] == c]
                hits, _ = match(Boxes(own[:, 2:]), Boxes(there[:, 2:]), np.zeros(len(there), dtype=bool))
                right += int(hits[0].sum())
            f1 = 2 * right / (len(guess) + len(real)) if len(guess) + len(real) else 1.0
            self._keep(row, f1, {"true": real.copy(), "predicted": guess.copy()})
