"""95 % intervals for metrics, and paired tests of two models on the same examples.

Intervals are bootstrap percentile intervals (Efron & Tibshirani 1993, *An Introduction to the Bootstrap*,
ch. 13). Drawing n examples with replacement and counting them anew is exactly one multinomial draw of n
over the cells of the confusion matrix, so count metrics need neither the predictions nor O(n) work.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from foretune.errors import DataError
from foretune.evaluation.counts import (
    COUNT_METRICS,
    Floats,
    check_confusion,
    metrics_from_counts,
    point_metrics,
)

RESAMPLES = 1000
LEVEL = 0.95
#: Numbers held at once while resampling: 4 million of 8 bytes are 32 MB.
CHUNK = 4_000_000
#: Above this many examples the mean is normal for all that matters (central limit theorem).
NORMAL_ABOVE = 20_000
#: The 97.5 % quantile of the standard normal distribution.
Z = 1.959963984540054


class Interval(TypedDict):
    """A value and its 95 % interval, in the units of the value."""

    value: float
    low: float
    high: float


def _percentiles(values: NDArray[Any], axis: int = 0) -> tuple[Any, Any]:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=axis)
    return low, high


def _interval(value: Any, low: Any, high: Any) -> Interval:
    """Make an interval that holds its value.

    Where classes are rare, resampled macro means lie to one side of the observed one and a percentile
    interval can miss it; the interval is then widened up to the value.
    """
    return Interval(value=float(value), low=float(min(low, value)), high=float(max(high, value)))


def clopper_pearson(successes: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Return the exact interval of a proportion (Clopper & Pearson 1934, Biometrika 26:404).

    Raises DataError unless 0 <= successes <= n and n > 0.
    """
    from scipy.special import betaincinv

    if n <= 0 or not 0 <= successes <= n:
        raise DataError(f"A proportion needs 0 <= successes <= n and n > 0; found {successes} of {n}.")
    tail = (1 - level) / 2
    low = betaincinv(successes, n - successes + 1, tail) if successes else 0.0
    high = betaincinv(successes + 1, n - successes, 1 - tail) if successes < n else 1.0
    return float(low), float(high)


def resample_counts(
    confusion: NDArray[Any], resamples: int, rng: np.random.Generator, chunk: int = CHUNK
) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
    """Yield bootstrap resamples of (correct, true, predicted), each (resamples in this chunk, classes).

    Only cells that are not 0 are drawn (a cell of 0 stays 0), and no (resamples, classes, classes)
    array is ever made: at most about `chunk` numbers are held, whatever the number of classes.
    """
    classes = len(confusion)
    rows, columns = np.nonzero(confusion)
    cells = confusion[rows, columns]
    by_column = np.argsort(columns, kind="stable")
    true_classes, row_starts = np.unique(rows, return_index=True)
    predicted_classes, column_starts = np.unique(columns[by_column], return_index=True)
    n, right = int(cells.sum()), rows == columns
    step = max(1, chunk // max(len(cells), classes))
    for start in range(0, resamples, step):
        drawn = rng.multinomial(n, cells / n, size=min(step, resamples - start))
        correct, true, predicted = np.zeros((3, len(drawn), classes), dtype=np.int64)
        correct[:, rows[right]] = drawn[:, right]
        true[:, true_classes] = np.add.reduceat(drawn, row_starts, axis=1)
        predicted[:, predicted_classes] = np.add.reduceat(drawn[:, by_column], column_starts, axis=1)
        yield correct, true, predicted


def _bootstrap(confusion: NDArray[Any], resamples: int, seed: int) -> dict[str, Floats]:
    """Return resampled metrics: overall ones (resamples,), `f1` (resamples, classes; NaN where absent)."""
    parts: dict[str, list[Floats]] = {name: [] for name in (*COUNT_METRICS, "f1")}
    for correct, true, predicted in resample_counts(confusion, resamples, np.random.default_rng(seed)):
        metrics = metrics_from_counts(correct, true, predicted)
        # A class that a resample lacks has no F1 there; 0 would drag the interval of rare classes down.
        metrics["f1"] = np.where(true + predicted > 0, metrics["f1"], np.nan)
        for name, values in parts.items():
            values.append(metrics[name])
    return {name: np.concatenate(values) for name, values in parts.items()}


def _f1_interval(value: float, resampled: Floats, hits: int, union: int) -> Interval:
    """Return the interval of one class's F1 from its resamples (resamples,), NaN where undefined.

    Without spread (no or only errors) it comes from the exact interval of the Jaccard index
    J = TP / (TP + FP + FN), a proportion of the `union` examples that are or were called this class,
    through the monotone F1 = 2 J / (1 + J).
    """
    resampled = resampled[~np.isnan(resampled)]
    if not union or not len(resampled):
        return _interval(value, 0.0, 1.0)  # a class that never occurs: nothing is known
    if resampled.min() < resampled.max():
        return _interval(value, *_percentiles(resampled))
    low, high = clopper_pearson(hits, union)
    return _interval(value, 2 * low / (1 + low), 2 * high / (1 + high))


def count_intervals(
    confusion: NDArray[Any], *, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[dict[str, Interval], list[Interval]]:
    """Return the interval of every metric in `COUNT_METRICS`, and of the F1 of each class.

    When all examples are right or all are wrong the bootstrap has no spread; accuracy then takes its
    exact Clopper-Pearson interval, and so do the other overall metrics, for which it is an
    approximation. Raises DataError for a matrix without examples.
    """
    matrix = check_confusion(confusion)
    n, correct = int(matrix.sum()), int(np.trace(matrix))
    if n == 0:
        raise DataError("There are no examples to score: expected at least 1, found 0. Check the split.")
    point, resampled = point_metrics(matrix), _bootstrap(matrix, resamples, seed)
    exact = clopper_pearson(correct, n) if correct in (0, n) else None
    overall = {
        name: _interval(point[name], *(exact or _percentiles(resampled[name]))) for name in COUNT_METRICS
    }
    hits, union = np.diagonal(matrix), matrix.sum(axis=0) + matrix.sum(axis=1) - np.diagonal(matrix)
    f1 = [
        _f1_interval(float(point["f1"][c]), resampled["f1"][:, c], int(hits[c]), int(union[c]))
        for c in range(len(matrix))
    ]
    return overall, f1


def mean_interval(values: NDArray[Any], *, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Return the mean of `values` (n,) with its bootstrap percentile interval.

    Above `NORMAL_ABOVE` values the interval is mean ± 1.96 standard errors instead: there the two agree
    by the central limit theorem, and memory and time stay O(n). Raises DataError when empty or not finite.
    """
    sample = np.asarray(values)
    n = sample.size
    if n == 0 or not np.all(np.isfinite(sample)):
        raise DataError(
            f"A mean needs finite values: found {n}, {int(np.sum(~np.isfinite(sample)))} not finite."
        )
    mean = float(np.mean(sample, dtype=np.float64))
    if n > NORMAL_ABOVE:
        margin = Z * float(np.std(sample, ddof=1, dtype=np.float64)) / n**0.5
        return _interval(mean, mean - margin, mean + margin)
    rng, step = np.random.default_rng(seed), max(1, CHUNK // n)
    sizes = [min(step, resamples - start) for start in range(0, resamples, step)]
    means = [
        sample[rng.integers(0, n, size=(size, n), dtype=np.int32)].mean(axis=1, dtype=np.float64)
        for size in sizes
    ]
    return _interval(mean, *_percentiles(np.concatenate(means)))
