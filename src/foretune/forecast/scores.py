"""Scores of held-out predictions, and what they would be on other examples: the joint noise of several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from foretune.errors import ConfigError, did_you_mean
from foretune.evaluation.counts import metrics_from_counts
from foretune.forecast.samples import is_regression

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from foretune.forecast.samples import Floats

CLASS_METRICS = ("accuracy", "macro_f1")
QUANTITY_METRICS = ("r2", "pearson", "spearman")
RESAMPLES = 200


def check_metric(metric: str, targets: NDArray[Any]) -> None:
    """Raise ConfigError unless `metric` scores targets of this kind; all are at most 1, greater is better."""
    known = QUANTITY_METRICS if is_regression(targets) else CLASS_METRICS
    if metric not in known:
        raise ConfigError(
            f"The metric {metric!r} cannot be forecast for targets of {targets.dtype}; expected one of"
            f" {', '.join(known)}.{did_you_mean(metric, known)}"
        )


def score(metric: str, targets: NDArray[Any], predictions: NDArray[Any]) -> float:
    """Return the score of predictions (n,) of targets (n,): class ids, or quantities."""
    import numpy as np

    return float(_scores(metric, targets, predictions, np.ones((1, len(targets))))[0])


def covariance(metric: str, targets: NDArray[Any], predictions: NDArray[Any], *, seed: int) -> Floats:
    """Return the bootstrap covariance (sets, sets) of the scores of predictions (sets, n) of one sample.

    Every resample of examples scores all sets, so that what they have in common is not taken for noise
    between them (Efron & Tibshirani 1993, ch. 6). No variance of a class metric is below that of a proportion
    at the rule of succession, (right + 1) / (n + 2): a perfect score has no spread, but is not certain.
    """
    import numpy as np

    n = len(targets)
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(float)
    resampled = np.stack([_scores(metric, targets, each, drawn) for each in predictions])
    found = np.atleast_2d(np.cov(resampled))
    if metric in CLASS_METRICS:
        share = np.array([(n * score(metric, targets, each) + 1) / (n + 2) for each in predictions])
        np.fill_diagonal(found, np.maximum(np.diagonal(found), share * (1 - share) / n))
    return found


def _scores(metric: str, targets: NDArray[Any], predictions: NDArray[Any], weights: Floats) -> Floats:
    """Return the score under each row of example weights (resamples, n): (resamples,)."""
    if metric in CLASS_METRICS:
        return _class_scores(metric, targets, predictions, weights)
    if metric == "r2":
        return _r2(targets, predictions, weights)
    if metric == "spearman":
        targets, predictions = _ranks(targets), _ranks(predictions)
    return _correlation(targets, predictions, weights)


def _class_scores(metric: str, targets: NDArray[Any], predictions: NDArray[Any], weights: Floats) -> Floats:
    import numpy as np

    right = targets == predictions
    if metric == "accuracy":
        return weights @ right / weights.sum(axis=1)
    classes = np.union1d(targets, predictions)
    true, predicted = (each[:, None] == classes for each in (targets, predictions))
    counts = (weights @ part.astype(float) for part in (true & predicted, true, predicted))
    return metrics_from_counts(*counts)[metric]


def _r2(targets: NDArray[Any], predictions: NDArray[Any], weights: Floats) -> Floats:
    """Return 1 - squared error / squared distance from the mean; 0 where all targets drawn are one."""
    import numpy as np

    _, spread = _centred(targets, weights)
    error = weights @ np.square(targets - predictions)
    return 1 - np.divide(error, spread, out=np.ones_like(error), where=spread > 0)


def _centred(column: NDArray[Any], weights: Floats) -> tuple[Floats, Floats]:
    """Return a column (n,) less its mean under each row of weights, and the weighted sum of its squares.

    The sum is 0 where it is rounding error: of numbers that are all one, or nearly.
    """
    import numpy as np

    rest = column - (weights @ column / weights.sum(axis=1))[:, None]
    spread = (weights * np.square(rest)).sum(axis=1)
    return rest, np.where(spread > 1e-20 * (weights @ np.square(column)), spread, 0.0)


def _ranks(column: NDArray[Any]) -> Floats:
    """Return ranks (n,) from 1; equal values share their mean rank."""
    from scipy.stats import rankdata

    return rankdata(column)


def _correlation(a: Floats, b: Floats, weights: Floats) -> Floats:
    """Return the weighted correlation of a and b (n,) per row of weights; 0 where one has no spread."""
    import numpy as np

    (left, left_spread), (right, right_spread) = _centred(a, weights), _centred(b, weights)
    product, scale = (weights * left * right).sum(axis=1), np.sqrt(left_spread) * np.sqrt(right_spread)
    return np.divide(product, scale, out=np.zeros_like(product), where=scale > 0)
