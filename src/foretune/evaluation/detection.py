"""Scores of object detection by COCO's rules: average precision over classes and overlaps, with intervals.

Average precision as in pycocotools (Lin et al. 2014; https://cocodataset.org/#detection-eval): IoU thresholds
0.5, 0.55, … 0.95, precision at 101 recalls, all areas, at most 100 boxes per picture and class; boxes around
crowds are neither right nor wrong.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretune.errors import ConfigError, DataError
from foretune.evaluation.average_precision import Found, average_precisions, resampled_precisions
from foretune.evaluation.counts import Floats
from foretune.evaluation.intervals import Interval, _interval
from foretune.evaluation.matching import MOST_BOXES, THRESHOLDS, Boxes, match
from foretune.evaluation.summed import check_any, score_interval

#: The metrics, and whether greater is better.
DETECTION_METRICS = {"map": True, "map50": True, "map75": True}
#: The columns of a detection and of a true box; boxes are left, top, width, height in pixels of the picture.
PREDICTED_COLUMNS = ("class", "score", "x", "y", "w", "h")
TRUE_COLUMNS = ("class", "crowd", "x", "y", "w", "h")
#: The class number of rows that only fill up a batch.
NOTHING = -1


class DetectionScores:
    """Streaming scores of boxes of `n_classes` classes.

    Holds one row per detection: picture, score, and whether it is right at each IoU threshold; matching is
    done once per picture. Raises ConfigError for fewer than 1 class.
    """

    def __init__(self, n_classes: int) -> None:
        if n_classes < 1:
            raise ConfigError(f"A detector needs at least 1 class, found n_classes={n_classes}.")
        self.n_classes = n_classes
        self.n = 0
        self._found: list[list[Found]] = [[] for _ in range(n_classes)]
        self._true: list[NDArray[np.int64]] = []
        self._rows: list[int] = []

    def update(self, predicted: NDArray[Any], true: NDArray[Any], rows: NDArray[Any] | None = None) -> None:
        """Match a batch: `predicted` (batch, most, 6) and `true` (batch, most, 6), columns as named above.

        Rows of class `NOTHING` are left out. `rows`: the pictures' numbers, which decide among detections of
        equal score. Raises DataError for other shapes, classes out of range or numbers that are not finite.
        """
        predicted, true = np.asarray(predicted, dtype=np.float64), np.asarray(true, dtype=np.float64)
        self._check(predicted, true)
        numbers = range(self.n, self.n + len(true)) if rows is None else rows.tolist()
        for number, guesses, truths in zip(numbers, predicted, true, strict=True):
            self._picture(int(number), guesses[guesses[:, 0] >= 0], truths[truths[:, 0] >= 0])

    def _picture(self, number: int, guesses: Floats, truths: Floats) -> None:
        counts = np.zeros(self.n_classes, dtype=np.int64)
        for c in np.unique(np.concatenate([guesses[:, 0], truths[:, 0]])).astype(int).tolist():
            own, real = guesses[guesses[:, 0] == c], truths[truths[:, 0] == c]
            best = np.argsort(-own[:, 1], kind="stable")[:MOST_BOXES]
            crowd = real[:, 1] > 0
            right, skipped = match(Boxes(own[best, 2:]), Boxes(real[:, 2:]), crowd)
            counts[c] = int((~crowd).sum())
            pictures = np.full(len(best), self.n, dtype=np.int64)
            self._found[c].append(Found(pictures, own[best, 1], right, skipped))
        self._true.append(counts)
        self._rows.append(number)
        self.n += 1

    def _check(self, predicted: Floats, true: Floats) -> None:
        if predicted.ndim != 3 or true.ndim != 3 or (predicted.shape[2], true.shape[2]) != (6, 6):
            raise DataError(
                f"Expected detections and boxes of the shape (batch, most, 6), found {predicted.shape} and "
                f"{true.shape}."
            )
        for values, what in ((predicted, "detections"), (true, "boxes")):
            if not np.isfinite(values).all():
                raise DataError(
                    f"Some {what} are not finite. The model has diverged: lower the learning rate."
                )
            highest = values[..., 0].max(initial=NOTHING)
            if highest >= self.n_classes:
                raise DataError(
                    f"The {what} hold the class number {highest:.0f}; expected 0 to {self.n_classes - 1}. Read them "
                    "with the classes the model was trained on."
                )

    def _all(self) -> tuple[list[Found], NDArray[np.int64]]:
        """Return the detections of each class, the surest first, and true boxes (pictures, classes)."""
        check_any(self.n)
        order = np.argsort(self._rows, kind="stable")  # equal scores: the earlier picture first, as in COCO
        place = np.empty(self.n, dtype=np.int64)
        place[order] = np.arange(self.n)
        found = [Found.joined(parts, place) for parts in self._found]
        return found, np.stack(self._true)[order]

    def point(self) -> dict[str, float]:
        """Return each metric without its interval. Raises DataError when nothing was counted."""
        found, true = self._all()
        precisions = np.stack([average_precisions(f, true[:, c]) for c, f in enumerate(found)])
        return {name: float(value) for name, value in means(precisions).items()}

    def result(self, seed: int = 0) -> dict[str, Any]:
        """Return all scores, ready for JSON.

        Each metric is `{"value", "low", "high"}` (bootstrap over pictures); `classes` lists `ap` and `ap50`
        with intervals and `support`, the number of true boxes; `n` counts pictures. A class without true
        boxes counts in no mean. Raises DataError when nothing was counted.
        """
        found, true = self._all()
        precisions = np.stack([average_precisions(f, true[:, c]) for c, f in enumerate(found)])
        drawn = resampled_precisions(found, true, seed)  # (resamples, classes, thresholds)
        resampled = means(drawn)
        scores = {
            name: score_interval(float(value), resampled[name], self.n, 1.0)
            for name, value in means(precisions).items()
        }
        pictures = (true > 0).sum(axis=0).tolist()
        classes = [
            {
                "ap": _of_class(precisions[c].mean(), drawn[:, c].mean(axis=-1), pictures[c]),
                "ap50": _of_class(precisions[c, 0], drawn[:, c, 0], pictures[c]),
                "support": int(true[:, c].sum()),
            }
            for c in range(self.n_classes)
        ]
        return {**scores, "classes": classes, "n": self.n}


def means(precisions: Floats) -> dict[str, Floats]:
    """Return map, map50 and map75 (...) of average precisions (..., classes, thresholds), NaN ones left out.

    0 where there is no class with a true box.
    """
    there = np.isfinite(precisions[..., 0])
    number = np.maximum(there.sum(axis=-1), 1)
    by_threshold = np.nansum(precisions, axis=-2) / number[..., None]
    at = {f"{threshold:.2f}": i for i, threshold in enumerate(THRESHOLDS)}
    return {
        "map": by_threshold.mean(axis=-1),
        "map50": by_threshold[..., at["0.50"]],
        "map75": by_threshold[..., at["0.75"]],
    }


def _of_class(value: float, resampled: Floats, pictures: int) -> Interval:
    """Return a class's interval; `pictures` hold boxes of it. Without any, nothing is known."""
    drawn = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or not len(drawn):
        return _interval(0.0, 0.0, 1.0)
    return score_interval(float(value), drawn, pictures, 1.0)
