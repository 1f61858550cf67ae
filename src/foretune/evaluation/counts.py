"""Every metric that needs no more than the confusion matrix, over any number of leading dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretune.errors import DataError

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

#: The metrics that are one number for the whole confusion matrix.
COUNT_METRICS = ("accuracy", "macro_f1", "weighted_f1", "macro_precision", "macro_recall")


def _ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> Floats:
    """Divide, and give 0 where the denominator is 0 (scikit-learn's `zero_division=0`)."""
    out = np.zeros(np.broadcast_shapes(np.shape(numerator), np.shape(denominator)))
    return np.divide(numerator, denominator, out=out, where=np.asarray(denominator) > 0)


def check_confusion(confusion: NDArray[Any]) -> Counts:
    """Return `confusion` (..., classes, classes) as int64. Raises DataError when it cannot be one."""
    matrix = np.asarray(confusion)
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2]:
        raise DataError(
            f"A confusion matrix has the shape (classes, classes), rows = true; found {matrix.shape}."
        )
    whole = np.issubdtype(matrix.dtype, np.integer) or bool(np.all(np.mod(matrix, 1) == 0))
    if not whole or bool(np.any(matrix < 0)):
        raise DataError("A confusion matrix holds counts: expected whole numbers from 0, found others.")
    return matrix.astype(np.int64)


def class_counts(confusion: NDArray[Any]) -> tuple[Counts, Counts, Counts]:
    """Return examples per class, each (..., classes): rightly predicted, true, and predicted."""
    matrix = check_confusion(confusion)
    return np.diagonal(matrix, axis1=-2, axis2=-1), matrix.sum(axis=-1), matrix.sum(axis=-2)


def metrics_from_counts(
    correct: NDArray[Any], true: NDArray[Any], predicted: NDArray[Any]
) -> dict[str, Floats]:
    """Return the metrics of examples per class, each argument (..., classes).

    Overall metrics have the shape (...), `precision`, `recall`, `f1` and `support` (..., classes).
    A macro mean runs over the classes that occur among the targets or the predictions, as in
    scikit-learn's `precision_recall_fscore_support` without `labels`.
    """
    per_class = {
        "precision": _ratio(correct, predicted),
        "recall": _ratio(correct, true),
        # F1 = 2 TP / (2 TP + FP + FN), and true + predicted = 2 TP + FN + FP.
        "f1": _ratio(2 * correct, true + predicted),
    }
    # Absent classes score 0 in each of the three, so a sum over all classes needs no mask.
    present = np.sum(true + predicted > 0, axis=-1)
    total = np.sum(true, axis=-1)
    overall = {f"macro_{name}": _ratio(values.sum(axis=-1), present) for name, values in per_class.items()}
    overall["accuracy"] = _ratio(np.sum(correct, axis=-1), total)
    overall["weighted_f1"] = _ratio(np.sum(per_class["f1"] * true, axis=-1), total)
    return {**overall, **per_class, "support": np.asarray(true, dtype=np.float64)}


def point_metrics(confusion: NDArray[Any]) -> dict[str, Floats]:
    """Return every count metric of a confusion matrix (..., classes, classes), rows = true.

    See `metrics_from_counts` for names and shapes. Raises DataError for anything but counts.
    """
    return metrics_from_counts(*class_counts(confusion))
