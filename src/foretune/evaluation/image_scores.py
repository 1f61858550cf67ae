"""Scores of picture classifiers: those of any classifier, and how often the truth is among the top five."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretune.evaluation.intervals import clopper_pearson
from foretune.evaluation.metrics import CLASSIFICATION_METRICS, ClassificationScores

TOP = 5
#: Metric name -> True when greater is better. With five classes or fewer there is no top-5 accuracy.
IMAGE_METRICS: dict[str, bool] = {**CLASSIFICATION_METRICS, "top5_accuracy": True}


class ImageScores(ClassificationScores):
    """Streaming scores of a single-label classifier; with more than five classes also `top5_accuracy`."""

    def __init__(self, n_classes: int) -> None:
        super().__init__(n_classes)
        self._hits = 0

    def update(
        self, probabilities: NDArray[Any], targets: NDArray[Any], rows: NDArray[Any] | None = None
    ) -> None:
        """Count one batch: probabilities (batch, classes) float32, targets (batch,) int64. Raises DataError."""
        super().update(probabilities, targets, rows)
        probabilities, targets = np.asarray(probabilities), np.asarray(targets)
        on_truth = probabilities[np.arange(len(targets)), targets][:, None]
        # Of equals the lower class id counts as better, as in argmax.
        before = np.arange(probabilities.shape[1]) < targets[:, None]
        better = (probabilities > on_truth) | ((probabilities == on_truth) & before)
        self._hits += int((better.sum(axis=1) < TOP).sum())

    def merge(self, other: ClassificationScores) -> None:
        """Add the examples of `other`. Raises ConfigError."""
        super().merge(other)
        self._hits += other._hits if isinstance(other, ImageScores) else 0

    def point(self) -> dict[str, float]:
        """Return each metric without interval. Raises DataError when nothing was counted."""
        top = {"top5_accuracy": self._hits / max(self.n, 1)} if self.n_classes > TOP else {}
        return {**super().point(), **top}

    def result(self, seed: int = 0) -> dict[str, Any]:
        """Return all scores with 95 % intervals (Clopper and Pearson's for the top five), ready for JSON."""
        found = super().result(seed)
        if self.n_classes <= TOP:
            return found
        low, high = clopper_pearson(self._hits, self.n)
        return {"top5_accuracy": {"value": self._hits / self.n, "low": low, "high": high}, **found}
