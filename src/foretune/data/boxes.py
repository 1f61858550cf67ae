"""Boxes (x, y, width, height) in pixels, checked against the sizes of their pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from foretune.data.text import counted, listed
from foretune.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: A box may pass the edge by this many pixels without a word: rounding does that.
ROUNDING_PIXELS = 1.0
#: Where more boxes than this share pass the edge, their numbers mean something else.
_MISREAD_SHARE = 0.2
_MEANING = "Expected [x, y, width, height] in pixels, x and y of the upper left corner"


@dataclass(frozen=True)
class CleanBoxes:
    """`boxes` (n, 4) float64 within their pictures, and `keep` (n,) bool: False where nothing has area."""

    boxes: NDArray[np.float64]
    keep: NDArray[np.bool_]
    warnings: tuple[str, ...]


def clean_boxes(
    values: Sequence[object], sizes: NDArray[np.int64], ids: Sequence[object], name: str
) -> CleanBoxes:
    """Return n boxes clipped to their pictures, whose `sizes` (n, 2) are width and height.

    Boxes without area are marked to be left out, both kinds with a warning that names ids. Raises DataError
    naming the ids of boxes that are no four finite numbers, have a negative size, lie wholly outside, or
    are evidently corners or fractions.
    """
    boxes = _numbers(values, ids, name)
    _refuse(ids, np.any(boxes[:, 2:] < 0, axis=1), name, "a negative width or height", _MEANING)
    _check_meaning(boxes, sizes, ids, name)
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]  # (n, 2) each: x, y
    flat = (boxes[:, 2:] == 0).any(axis=1)
    _refuse(ids, ~flat & ((low >= sizes) | (high <= 0)).any(axis=1), name, "no part in the picture", _MEANING)
    beyond = ~flat & ((low < -ROUNDING_PIXELS) | (high > sizes + ROUNDING_PIXELS)).any(axis=1)
    inside_low, inside_high = np.clip(low, 0, sizes), np.clip(high, 0, sizes)
    clipped = np.concatenate([inside_low, inside_high - inside_low], axis=1)
    warnings = [
        f"{name}: {counted(int(mask.sum()), 'box', 'boxes')} {what} (annotation {_named(ids, mask)})."
        for mask, what in ((beyond, "cut off at the edge of the picture"), (flat, "without area left out"))
        if mask.any()
    ]
    return CleanBoxes(clipped, ~flat, tuple(warnings))


def _numbers(values: Sequence[object], ids: Sequence[object], name: str) -> NDArray[np.float64]:
    wrong = np.array([not _is_box(value) for value in values], dtype=bool)
    _refuse(ids, wrong, name, "no box of four finite numbers", _MEANING)
    return np.array(values, dtype=np.float64).reshape(-1, 4)


def _is_box(value: object) -> bool:
    if not isinstance(value, list | tuple) or len(value) != 4:
        return False
    return all(
        isinstance(number, int | float) and not isinstance(number, bool) and abs(number) < 1e9
        for number in value
    )


def _check_meaning(
    boxes: NDArray[np.float64], sizes: NDArray[np.int64], ids: Sequence[object], name: str
) -> None:
    """Corners (x1, y1, x2, y2) and fractions of the picture pass every other check and teach nonsense."""
    if not len(boxes):
        return
    if boxes.max() <= 1 and sizes.min() > 2:
        raise DataError(f"{name}: all boxes lie between 0 and 1, so they seem to be fractions. {_MEANING}.")
    beyond = np.any(boxes[:, :2] + boxes[:, 2:] > sizes + ROUNDING_PIXELS, axis=1)
    as_corners = (boxes[:, 2:] > boxes[:, :2]).all(axis=1) & (boxes[:, 2:] <= sizes + ROUNDING_PIXELS).all(
        axis=1
    )
    if beyond.mean() > _MISREAD_SHARE and as_corners.all():
        raise DataError(
            f"{name}: {beyond.mean():.0%} of the boxes pass the edge of their picture (annotation "
            f"{_named(ids, beyond)}), and all fit as corners x1, y1, x2, y2. {_MEANING}."
        )


def _refuse(ids: Sequence[object], mask: NDArray[np.bool_], name: str, what: str, expected: str) -> None:
    if mask.any():
        number = int(mask.sum())
        raise DataError(
            f"{name}: {counted(number, 'box has', 'boxes have')} {what}: annotation {_named(ids, mask)}. "
            f"{expected}. Correct or remove {'it' if number == 1 else 'them'}."
        )


def _named(ids: Sequence[object], mask: NDArray[np.bool_]) -> str:
    return listed([ids[row] for row in np.flatnonzero(mask).tolist()])
