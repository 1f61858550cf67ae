"""Classification scores, accumulated batch by batch without keeping any probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretune.errors import ConfigError, DataError
from foretune.evaluation.counts import point_metrics
from foretune.evaluation.intervals import count_intervals, mean_interval

__all__ = ["CLASSIFICATION_METRICS", "ClassificationScores", "check_batch", "point_metrics"]

#: Metric name -> True when greater is better.
CLASSIFICATION_METRICS: dict[str, bool] = {
    "accuracy": True,
    "macro_f1": True,
    "weighted_f1": True,
    "macro_precision": True,
    "macro_recall": True,
    "log_loss": False,
}

#: A probability of 0 on the truth would cost infinitely much; like scikit-learn we stop at float32's epsilon.
FLOOR = float(np.finfo(np.float32).eps)
#: How far a row of probabilities may be from 1: a softmax in bf16 over many classes is this inexact.
SUM_TOLERANCE = 0.05


def check_batch(probabilities: NDArray[Any], targets: NDArray[Any], n_classes: int) -> None:
    """Raise DataError unless `probabilities` (batch, n_classes) and `targets` (batch,) fit together."""
    if probabilities.ndim != 2 or probabilities.shape[1] != n_classes:
        raise DataError(
            f"Expected probabilities (batch, {n_classes}), found the shape {probabilities.shape}."
        )
    if targets.shape != probabilities.shape[:1] or not np.issubdtype(targets.dtype, np.integer):
        raise DataError(
            f"Expected {len(probabilities)} whole-number targets, one per prediction; found the shape"
            f" {targets.shape} of {targets.dtype}."
        )
    if targets.size and not 0 <= int(targets.min()) <= int(targets.max()) < n_classes:
        raise DataError(
            f"Targets run from {targets.min()} to {targets.max()}; expected 0 to {n_classes - 1}."
            " Encode labels with the classes the model was trained on."
        )
    if not np.all(np.isfinite(probabilities)):
        bad = int(np.sum(~np.isfinite(probabilities).all(axis=1)))
        raise DataError(
            f"{bad} of {len(targets)} predictions are not finite. The model has diverged or overflowed:"
            " lower the learning rate, or evaluate in float32."
        )
    sums = probabilities.sum(axis=1, dtype=np.float64)
    if np.any(probabilities < 0) or np.any(np.abs(sums - 1) > SUM_TOLERANCE):
        raise DataError(
            "Expected probabilities that sum to 1, found other scores. Apply softmax to logits first."
        )


class ClassificationScores:
    """Streaming scores of a single-label classifier with `n_classes` classes.

    Holds the confusion matrix (classes, classes; rows = true) and one float32 of log loss per example.
    Raises ConfigError for fewer than 1 class.
    """

    def __init__(self, n_classes: int) -> None:
        if n_classes < 1:
            raise ConfigError(f"A classifier needs at least 1 class, found n_classes={n_classes}.")
        self.n_classes = n_classes
        self.confusion = np.zeros((n_classes, n_classes), dtype=np.int64)
        self._losses: list[NDArray[np.float32]] = []

    def update(
        self, probabilities: NDArray[Any], targets: NDArray[Any], rows: NDArray[Any] | None = None
    ) -> None:
        """Count one batch: probabilities (batch, classes) float32, targets (batch,) int64.

        A tie goes to the lower class id. Raises DataError for wrong shapes, targets out of range,
        non-finite probabilities, or logits.
        """
        probabilities, targets = np.asarray(probabilities), np.asarray(targets)
        check_batch(probabilities, targets, self.n_classes)
        np.add.at(self.confusion, (targets, probabilities.argmax(axis=1)), 1)
        on_truth = probabilities[np.arange(len(targets)), targets].astype(np.float32)
        self._losses.append(-np.log(np.clip(on_truth, FLOOR, 1 - FLOOR)))

    def merge(self, other: ClassificationScores) -> None:
        """Add the examples of `other`, for example another process's shard. Raises ConfigError."""
        if other.n_classes != self.n_classes:
            raise ConfigError(f"Cannot merge scores of {other.n_classes} classes into {self.n_classes}.")
        self.confusion += other.confusion
        self._losses.extend(other._losses)

    @property
    def n(self) -> int:
        """Examples counted so far."""
        return int(self.confusion.sum())

    def losses(self) -> NDArray[np.float32]:
        """Return the log loss of each example (n,) in nats, in the order of the updates."""
        return np.concatenate(self._losses) if self._losses else np.zeros(0, dtype=np.float32)

    def point(self) -> dict[str, float]:
        """Return each metric of `CLASSIFICATION_METRICS` without intervals, cheap enough for every step.

        Raises DataError when nothing was counted.
        """
        if self.n == 0:
            raise DataError("There are no examples to score: expected at least 1, found 0. Check the split.")
        values = point_metrics(self.confusion)
        scores = {name: float(values[name]) for name in CLASSIFICATION_METRICS if name in values}
        return {**scores, "log_loss": float(self.losses().mean(dtype=np.float64))}

    def result(self, seed: int = 0) -> dict[str, Any]:
        """Return all scores, ready for JSON.

        Each metric of `CLASSIFICATION_METRICS` is `{"value", "low", "high"}` with its 95 % interval;
        `per_class` lists precision, recall, f1 (with interval) and support; `confusion` is nested lists;
        `n` counts examples. Raises DataError when nothing was counted.
        """
        overall, f1 = count_intervals(self.confusion, seed=seed)
        values = point_metrics(self.confusion)
        per_class = [
            {
                "precision": float(values["precision"][c]),
                "recall": float(values["recall"][c]),
                "f1": f1[c],
                "support": int(values["support"][c]),
            }
            for c in range(self.n_classes)
        ]
        return {
            **overall,
            "log_loss": mean_interval(self.losses(), seed=seed),
            "per_class": per_class,
            "confusion": self.confusion.tolist(),
            "n": self.n,
        }
