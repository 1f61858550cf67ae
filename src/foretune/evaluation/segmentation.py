"""Scores of semantic segmentation: mean IoU and pixel accuracy, with intervals over the pictures."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from foretune.errors import ConfigError, DataError
from foretune.evaluation.counts import Counts, Floats, _ratio, metrics_from_counts
from foretune.evaluation.intervals import Interval, _interval
from foretune.evaluation.summed import SummedScores, score_interval

#: The metrics, and whether greater is better.
SEGMENTATION_METRICS = {"miou": True, "pixel_accuracy": True}
#: The class number of pixels that do not count.
IGNORED = -1


def confusion_of(predicted: NDArray[Any], true: NDArray[Any], n_classes: int) -> Counts:
    """Return the confusion matrix (classes, classes; rows = true) of one picture's class numbers.

    Both have the same shape. Pixels whose true class is `IGNORED` are left out. Raises DataError for other
    shapes or numbers.
    """
    predicted, true = np.asarray(predicted), np.asarray(true)
    if predicted.shape != true.shape:
        raise DataError(
            f"A predicted mask has the shape {predicted.shape} and the true one {true.shape}; expected the same."
        )
    kept = true != IGNORED
    rows, columns = true[kept].astype(np.int64), predicted[kept].astype(np.int64)
    for numbers, what in ((rows, "true"), (columns, "predicted")):
        if numbers.size and not 0 <= int(numbers.min()) <= int(numbers.max()) < n_classes:
            raise DataError(
                f"The {what} masks hold the class numbers {numbers.min()} to {numbers.max()}; expected 0 to "
                f"{n_classes - 1}. Read them with the classes the model was trained on."
            )
    return np.bincount(rows * n_classes + columns, minlength=n_classes**2).reshape(n_classes, n_classes)


def iou_of(correct: NDArray[Any], true: NDArray[Any], predicted: NDArray[Any]) -> Floats:
    """Return intersection over union of each class, NaN where it neither occurs nor is predicted.

    Each argument counts pixels: (..., classes), as the result (Everingham et al. 2010, section 4.4).
    """
    union = true + predicted - correct
    return np.where(union > 0, _ratio(correct, union), np.nan)


class SegmentationScores(SummedScores):
    """Streaming scores of masks with `n_classes` classes.

    Holds, per picture, how many pixels of each class are right, true and predicted, and one confusion matrix
    of all pixels. The mean IoU is over the classes that occur or are predicted, of all pictures together.
    Raises ConfigError for fewer than 1 class.
    """

    tops: ClassVar[dict[str, float]] = {"miou": 1.0, "pixel_accuracy": 1.0}

    def __init__(self, n_classes: int) -> None:
        if n_classes < 1:
            raise ConfigError(f"A segmenter needs at least 1 class, found n_classes={n_classes}.")
        super().__init__()
        self.n_classes = n_classes
        self.confusion = np.zeros((n_classes, n_classes), dtype=np.int64)

    def update(self, predicted: NDArray[Any], true: NDArray[Any], rows: NDArray[Any] | None = None) -> None:
        """Count a batch of masks of class numbers, both (batch, height, width).

        What is padded, as what is ignored, is `IGNORED` in `true`. Raises DataError as `confusion_of` does.
        """
        matrices = [confusion_of(p, t, self.n_classes) for p, t in zip(predicted, true, strict=True)]
        if not matrices:
            return
        stacked = np.stack(matrices)
        self.confusion += stacked.sum(axis=0)
        self._add(np.diagonal(stacked, axis1=1, axis2=2), stacked.sum(axis=2), stacked.sum(axis=1))

    def _counts(self, sums: Floats) -> tuple[Floats, Floats, Floats]:
        """Return right, true and predicted pixels, each (..., classes), of sums (..., columns)."""
        correct, true, predicted = np.split(sums[..., 1:], 3, axis=-1)
        return correct, true, predicted

    def metrics(self, sums: Floats) -> dict[str, Floats]:
        """Return mean IoU and pixel accuracy (...) of sums (..., columns); 0 where no pixel counts."""
        correct, true, predicted = self._counts(sums)
        iou = iou_of(correct, true, predicted)
        there = np.isfinite(iou)
        return {
            "miou": _ratio(np.nansum(iou, axis=-1), there.sum(axis=-1)),
            "pixel_accuracy": _ratio(correct.sum(axis=-1), true.sum(axis=-1)),
        }

    def details(self, sums: Floats, resampled: Floats) -> dict[str, Any]:
        """Return IoU, precision, recall and F1 (the Dice coefficient) of each class, and the confusion matrix.

        `support` counts true pixels. A class that neither occurs nor is predicted has no IoU: its value is 0
        and its interval everything.
        """
        counts, drawn = self._counts(sums), self._counts(resampled)
        values, iou, drawn_iou = metrics_from_counts(*counts), iou_of(*counts), iou_of(*drawn)
        per_class = []
        for c in range(self.n_classes):
            jaccard = _of_class(iou[c], drawn_iou[:, c], self.n)
            entry: dict[str, Any] = {name: float(values[name][c]) for name in ("precision", "recall")}
            entry |= {"iou": jaccard, "f1": _dice(jaccard), "support": int(values["support"][c])}
            per_class.append(entry)
        return {"per_class": per_class, "confusion": self.confusion.tolist()}


def _of_class(value: float, resampled: Floats, n: int) -> Interval:
    drawn = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or not len(drawn):
        return _interval(0.0, 0.0, 1.0)
    return score_interval(float(value), drawn, n, 1.0)


def _dice(jaccard: Interval) -> Interval:
    """Return F1 = 2 J / (1 + J) of an IoU's interval: the map is monotone, so its ends are the ends."""
    low, value, high = (2 * j / (1 + j) for j in (jaccard["low"], jaccard["value"], jaccard["high"]))
    return _interval(value, low, high)
