"""Scores of predicted numbers."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from foretune.errors import DataError
from foretune.evaluation.counts import Floats, _ratio
from foretune.evaluation.intervals import CHUNK, NORMAL_ABOVE, Interval, Z, _interval
from foretune.evaluation.summed import SummedScores, resample_weights, score_interval

#: Metric name -> True when greater is better.
REGRESSION_METRICS: dict[str, bool] = {
    "rmse": False,
    "mae": False,
    "pearson": True,
    "spearman": True,
    "r2": True,
}

#: Spread below this share of the squares is rounding: a resample that drew one value only.
ROUNDING = 1e-12


def _variation(total: Floats, squares: Floats, n: Floats) -> Floats:
    """Return the sum of squared deviations from the mean (...), 0 where there are none but rounding."""
    spread = squares - total**2 / n
    return np.where(spread > ROUNDING * squares, spread, 0.0)


def _correlation(n: Floats, a: Floats, b: Floats, aa: Floats, bb: Floats, ab: Floats) -> Floats:
    """Return Pearson's r (...) of sums (...), 0 where one side is constant."""
    spread = np.sqrt(_variation(a, aa, n) * _variation(b, bb, n))
    return np.clip(_ratio(ab - a * b / n, spread), -1, 1)


def _centred(values: Floats) -> Floats:
    """Return `values` (n,) less their mean: exactly 0 where all are equal, and safe to square."""
    return values - values.mean() if np.ptp(values) > 0 else np.zeros_like(values)


def _ranks(weights: Floats, values: Floats) -> Floats:
    """Return the ranks (resamples, n) of `values` (n,) where value i occurs `weights[:, i]` times.

    Equal values share the mean of their ranks. A resample is ranked anew without being sorted anew: what
    is smaller stands in a running sum.
    """
    _, codes = np.unique(values, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    equal = np.add.reduceat(weights[:, order], starts, axis=1)
    smaller = np.cumsum(equal, axis=1) - equal
    return (smaller + (equal + 1) / 2)[:, codes]


def spearman(weights: Floats, predictions: Floats, targets: Floats) -> Floats:
    """Return Spearman's rank correlation (resamples,) of pairs (n,) drawn `weights` (resamples, n) times.

    It is 0 where one side is constant.
    """
    n = weights.sum(axis=1)
    a = _ranks(weights, predictions) - (n[:, None] + 1) / 2
    b = _ranks(weights, targets) - (n[:, None] + 1) / 2
    sums = [(weights * values).sum(axis=1) for values in (a, b, a * a, b * b, a * b)]
    return _correlation(n, *sums)


def _wide_interval(value: float, n: int) -> Interval:
    """Return the interval of Spearman's correlation of many pairs, on Fisher's scale.

    The standard error is sqrt((1 + r² / 2) / (n - 3)) (Bonett & Wright 2000, Psychometrika 65:23, eq. 3).
    """
    near = min(max(value, -1 + 1e-12), 1 - 1e-12)
    margin = Z * math.sqrt((1 + near**2 / 2) / (n - 3))
    return _interval(value, math.tanh(math.atanh(near) - margin), math.tanh(math.atanh(near) + margin))


class RegressionScores(SummedScores):
    """Streaming scores of a model that predicts numbers; `rmse` and `mae` in the units of the target.

    Holds two float64 per example. A correlation with constant predictions or targets is undefined and
    counts as 0; `r2` of constant targets is 1 for a perfect model and else 0, as in scikit-learn.
    """

    tops: ClassVar[dict[str, float]] = {}

    def update(
        self, predictions: NDArray[Any], targets: NDArray[Any], rows: NDArray[Any] | None = None
    ) -> None:
        """Count one batch: predictions (batch,), targets (batch,). Raises DataError for other or NaN input."""
        pairs = np.asarray(predictions), np.asarray(targets)
        if pairs[0].ndim != 1 or pairs[0].shape != pairs[1].shape:
            raise DataError(
                f"Expected predictions (batch,) and targets (batch,), found {pairs[0].shape} and"
                f" {pairs[1].shape}. Drop the last dimension of a head with one output."
            )
        for values, name, remedy in zip(
            pairs,
            ("predictions", "targets"),
            ("The model has diverged: lower the learning rate.", "Drop the rows without a target."),
            strict=True,
        ):
            bad = int(np.sum(~np.isfinite(values)))
            if bad:
                raise DataError(f"{bad} of {values.size} {name} are not finite. {remedy}")
        self._parts.append(np.column_stack(pairs).astype(np.float64))
        self.n += len(pairs[0])

    def pairs(self) -> tuple[Floats, Floats]:
        """Return all predictions (n,) and targets (n,), for charts. Raises DataError when there are none."""
        both = super().rows()
        return both[:, 0], both[:, 1]

    def rows(self) -> Floats:
        """Return (n, 9): 1, error, its square and size, then centred predictions and targets in powers."""
        predictions, targets = self.pairs()
        error, a, b = predictions - targets, _centred(predictions), _centred(targets)
        return np.column_stack([np.ones(self.n), error, error**2, np.abs(error), a, b, a * a, b * b, a * b])

    def metrics(self, sums: Floats) -> dict[str, Floats]:
        """Return each metric (...) but Spearman's correlation, which is no function of sums (..., 9)."""
        n, _, squares, sizes, *moments = np.moveaxis(sums, -1, 0)
        spread = _variation(moments[1], moments[3], n)
        unexplained = np.where(spread > 0, _ratio(squares, spread), squares > 0)
        return {
            "rmse": np.sqrt(squares / n),
            "mae": sizes / n,
            "pearson": _correlation(n, *moments),
            "r2": 1 - unexplained,
        }

    def point(self) -> dict[str, float]:
        """Return each metric of `REGRESSION_METRICS` without interval. Raises DataError when n is 0."""
        values = {**super().point(), "spearman": self._spearman()}
        return {name: values[name] for name in REGRESSION_METRICS}

    def result(self, seed: int = 0) -> dict[str, Any]:
        """Return all scores, ready for JSON: each metric as `{"value", "low", "high"}`, `bias` and `n`.

        `bias` is the mean of prediction - target. Spearman's correlation is ranked anew in each resample;
        above `NORMAL_ABOVE` examples it takes Bonett and Wright's standard error.
        """
        scores = {**super().result(seed), "spearman": self._spearman_interval(seed)}
        return {**{name: scores[name] for name in REGRESSION_METRICS}, "bias": scores["bias"], "n": self.n}

    def details(self, sums: Floats, resampled: Floats) -> dict[str, Any]:
        """Return the mean error."""
        return {"bias": float(sums[1] / sums[0])}

    def _spearman(self) -> float:
        return float(spearman(np.ones((1, self.n)), *self.pairs())[0])

    def _spearman_interval(self, seed: int) -> Interval:
        if self.n > NORMAL_ABOVE:
            return _wide_interval(self._spearman(), self.n)
        # A quarter of the usual chunk: eight arrays of this size live at once.
        chunks = resample_weights(self.n, seed, chunk=CHUNK // 4)
        drawn = np.concatenate([spearman(weights, *self.pairs()) for weights in chunks])
        return score_interval(self._spearman(), drawn, self.n, None)
