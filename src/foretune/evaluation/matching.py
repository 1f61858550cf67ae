"""Which detections are right: matched with true boxes at every IoU threshold, by COCO's greedy rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretune.evaluation.counts import Floats

#: The IoU from which a box counts as found (COCO).
THRESHOLDS = np.linspace(0.5, 0.95, 10)
#: Of one picture and class; the less sure ones do not count.
MOST_BOXES = 100


@dataclass(frozen=True)
class Boxes:
    """Boxes (n, 4): left, top, width, height."""

    values: NDArray[Any]

    @property
    def areas(self) -> Floats:
        """Return width times height: (n,)."""
        return self.values[:, 2] * self.values[:, 3]

    def __len__(self) -> int:
        return len(self.values)


def overlaps(found: Boxes, true: Boxes, crowd: NDArray[np.bool_] | None = None) -> Floats:
    """Return intersection over union (found, true); of a crowd, over the found box's own area."""
    a, b = found.values[:, None], true.values[None]
    low = np.maximum(a[..., :2], b[..., :2])
    high = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    shared = np.clip(high - low, 0, None).prod(axis=-1)
    union = found.areas[:, None] + true.areas[None] - shared
    if crowd is not None:
        union = np.where(crowd[None], found.areas[:, None], union)
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def match(found: Boxes, true: Boxes, crowd: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which boxes of one picture and class are right and which do not count: both (thresholds, found).

    `found` comes surest first: each takes the free true box that it overlaps most, if by the threshold
    or more; a crowd is never used up, and what only it explains does not count (pycocotools'
    `evaluateImg`).
    """
    right = np.zeros((len(THRESHOLDS), len(found)), dtype=bool)
    skipped = np.zeros_like(right)
    if not len(found) or not len(true):
        return right, skipped
    order = np.argsort(crowd, kind="stable")  # real boxes are tried before crowds
    shared, crowds = overlaps(found, true, crowd)[:, order], crowd[order]
    for level, threshold in enumerate(THRESHOLDS):
        free = np.ones(len(true), dtype=bool)
        for number, row in enumerate(shared):
            chosen = _best(row, free, crowds, min(float(threshold), 1 - 1e-10))
            if chosen is None:
                continue
            skipped[level, number] = crowds[chosen]
            right[level, number] = not crowds[chosen]
            free[chosen] = bool(crowds[chosen])
    return right, skipped


def _best(row: Floats, free: NDArray[np.bool_], crowds: NDArray[np.bool_], threshold: float) -> int | None:
    """Return the free real box with the largest overlap, else such a crowd, of at least `threshold`.

    Of equal overlaps the last one, as in pycocotools.
    """
    for group in (free & ~crowds, crowds):
        at = np.flatnonzero(group & (row >= threshold))
        if len(at):
            return int(at[len(at) - 1 - np.argmax(row[at][::-1])])
    return None
