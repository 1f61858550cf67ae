"""Intervals that hold what they say: conformal prediction across data sets.

Residuals come from models that never saw the data set of the outcome (leave one group out), each divided
by the spread that the model expected there, so that hard candidates get wide intervals and easy ones narrow.
With weights the method is that of Barber, Candès, Ramdas & Tibshirani (2023), "Conformal prediction beyond
exchangeability", Annals of Statistics 51:816.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from foretune.evaluation.intervals import clopper_pearson

Floats = NDArray[np.float64]
LEVEL = 0.9
_ROUNDING = 1e-9  # 0.9 * 10 must count as 9


def quantile(
    scores: ArrayLike, weights: ArrayLike | None = None, level: float = LEVEL, own: float = 1.0
) -> float:
    """Return the smallest score under which, the new one counted as infinite, `level` of all weight lies.

    scores (n,), weights (n,), `own` the weight of the new score. Without weights it is the
    ceil((n + 1) level)-th smallest score, which a new exchangeable one exceeds with probability 1 - level at
    most (Vovk, Gammerman & Shafer 2005); infinite where n is too small for that.
    """
    values = np.asarray(scores, dtype=np.float64)
    masses = np.ones_like(values) if weights is None else np.asarray(weights, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(masses[order])
    wanted = level * (masses.sum() + own)
    position = int(np.searchsorted(reached, wanted * (1 - _ROUNDING)))
    return float(values[order[position]]) if position < len(values) else float("inf")


def group_quantile(
    scores: ArrayLike, groups: Sequence[str] | NDArray[np.str_], level: float = LEVEL
) -> float:
    """Return the quantile for an outcome of a *new* group, each group counting as one.

    Exact for exchangeable groups whatever the dependence inside them (Lee, Barber & Willett 2023,
    "Distribution-free inference with hierarchical data", HCP), at a price: with fewer than
    level / (1 - level) groups, 9 at 90 %, it is infinite, and for some dozens it is wide.
    """
    return quantile(scores, group_weights(groups), level)


def group_weights(groups: Sequence[str] | NDArray[np.str_]) -> Floats:
    """Return the weights (n,) with which every group counts as one."""
    _, inverse, counts = np.unique(np.asarray(groups, dtype=str), return_inverse=True, return_counts=True)
    return 1.0 / counts[inverse]


def leave_one_group_out(
    groups: Sequence[str] | NDArray[np.str_],
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield (rows outside, rows inside) for every group, in sorted order."""
    names = np.asarray(groups, dtype=str)
    for name in np.unique(names):
        yield np.flatnonzero(names != name), np.flatnonzero(names == name)


def cv_plus(
    predictions: ArrayLike,
    scales: ArrayLike,
    residuals: ArrayLike,
    weights: ArrayLike | None = None,
    level: float = LEVEL,
) -> tuple[float, float]:
    """Return the CV+ interval (low, high) of a new point (Barber, Candès, Ramdas & Tibshirani 2021, section 3).

    For each of the n outcomes: predictions (n,) for the new point by the model that did not see that
    outcome's group, scales (n,) the spread that this model expects at the new point, residuals (n,) the
    outcome's |residual| / spread under the same model. Infinite where n is too small for the level.
    """
    centre, spread = np.asarray(predictions, dtype=np.float64), np.asarray(scales, dtype=np.float64)
    reach = np.asarray(residuals, dtype=np.float64) * spread
    return -quantile(reach - centre, weights, level), quantile(centre + reach, weights, level)


def coverage(inside: ArrayLike, level: float = 0.95) -> dict[str, float]:
    """Return the share of True with its exact interval (Clopper & Pearson 1934), and n.

    The interval takes the n as independent; outcomes of one data set are not quite.
    """
    found: NDArray[Any] = np.asarray(inside, dtype=bool)
    n, hits = found.size, int(found.sum())
    if not n:
        raise ValueError("coverage of nothing: expected at least one forecast with its outcome")
    low, high = clopper_pearson(hits, n, level)
    return {"value": hits / n, "low": low, "high": high, "n": n}
