"""Trivial models of masks and of boxes: what is usual in the training pictures, wherever one looks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretune.evaluation.counts import Floats
from foretune.evaluation.detection import DETECTION_METRICS, DetectionScores
from foretune.evaluation.segmentation import IGNORED, SEGMENTATION_METRICS, SegmentationScores

GRID = 64  # places per side at which the usual class is counted
CELLS = 8  # places per side at which the centres of boxes are counted


def mask_baselines(
    train: Iterable[NDArray[Any]], held_out: Iterable[NDArray[Any]], n_classes: int, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Return mean IoU and pixel accuracy, with intervals, of two baselines on the held-out masks.

    `majority` says the class of most training pixels everywhere, `position_majority` the most frequent class at
    that place of the picture (64 x 64 places). Masks are class numbers (height, width), `IGNORED` where none counts;
    each is looked at once and not kept.
    """
    counts = np.zeros((GRID, GRID, n_classes), dtype=np.int64)
    for mask in train:
        place = _at_grid(mask)
        rows, columns = np.nonzero(place != IGNORED)
        counts[rows, columns, place[rows, columns]] += 1
    everywhere = int(counts.sum(axis=(0, 1)).argmax())
    usual = np.where(counts.any(axis=-1), counts.argmax(axis=-1), everywhere)
    guesses = {"majority": np.full_like(usual, everywhere), "position_majority": usual}
    return _scored_masks(guesses, held_out, n_classes, seed)


def _at_grid(mask: NDArray[Any]) -> NDArray[Any]:
    rows, columns = (((np.arange(GRID) + 0.5) * side / GRID).astype(int) for side in mask.shape)
    return mask[rows][:, columns]


def _scored_masks(
    grids: dict[str, NDArray[Any]], held_out: Iterable[NDArray[Any]], n_classes: int, seed: int
) -> dict[str, dict[str, Any]]:
    scores = {name: SegmentationScores(n_classes) for name in grids}
    for mask in held_out:
        rows, columns = (np.arange(side) * GRID // side for side in mask.shape)
        for name, grid in grids.items():
            scores[name].update(grid[rows][:, columns][None], mask[None])
    results = {name: each.result(seed) for name, each in scores.items()}
    return {name: {key: result[key] for key in SEGMENTATION_METRICS} for name, result in results.items()}


def box_baselines(
    train: Sequence[NDArray[Any]],
    train_sizes: NDArray[Any],
    held_out: Sequence[NDArray[Any]],
    sizes: NDArray[Any],
    n_classes: int,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Return average precisions, with intervals, of one baseline on the held-out pictures.

    `usual_boxes` puts, in every picture, as many boxes of each class as there are on average, of the median
    size, where centres lie most often (8 x 8 places). Boxes: (boxes, 6) per picture: class, crowd, left, top,
    width, height; sizes: (pictures, 2) height and width (pixels).
    """
    relative = [_relative(boxes, size) for boxes, size in zip(train, train_sizes, strict=True)]
    found = [_usual(relative, c) for c in range(n_classes)]
    usual = np.concatenate([np.c_[np.full(len(each), c), each] for c, each in enumerate(found)])
    scores = DetectionScores(n_classes)
    for row, (boxes, size) in enumerate(zip(held_out, sizes, strict=True)):
        guess = usual.copy()
        guess[:, 2:] *= np.array([size[1], size[0]] * 2)
        scores.update(guess[None], boxes[None], np.array([row]))
    result = scores.result(seed)
    return {"usual_boxes": {name: result[name] for name in DETECTION_METRICS}}


def _relative(boxes: NDArray[Any], size: NDArray[Any]) -> Floats:
    """Return class, centre x, centre y, width and height relative to the picture; without crowds."""
    single = boxes[boxes[:, 1] == 0].astype(np.float64)
    sides = np.array([size[1], size[0]])
    return np.c_[single[:, 0], (single[:, 2:4] + single[:, 4:6] / 2) / sides, single[:, 4:6] / sides]


def _usual(pictures: Sequence[Floats], c: int) -> Floats:
    """Return score and relative left, top, width, height of the usual boxes of class `c`: (boxes, 5)."""
    boxes = np.concatenate([each[each[:, 0] == c, 1:] for each in pictures]) if pictures else np.zeros((0, 4))
    if not len(boxes):
        return np.zeros((0, 5))
    number = min(max(round(len(boxes) / len(pictures)), 1), CELLS**2)
    width, height = np.median(boxes[:, 2:], axis=0)
    cells = np.clip((boxes[:, :2] * CELLS).astype(int), 0, CELLS - 1) @ np.array([1, CELLS])
    counts = np.bincount(cells, minlength=CELLS**2)
    best = np.argsort(-counts, kind="stable")[:number]
    x, y = (best % CELLS + 0.5) / CELLS - width / 2, (best // CELLS + 0.5) / CELLS - height / 2
    return np.c_[counts[best] / len(boxes), x, y, np.full(number, width), np.full(number, height)]
