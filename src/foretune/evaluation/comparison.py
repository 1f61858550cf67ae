"""Two models on the same examples: is the difference more than chance?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretune.errors import DataError
from foretune.evaluation.intervals import LEVEL, clopper_pearson

#: Three cells are cheap to draw, and a p-value wants more resamples than an interval.
PAIRED_RESAMPLES = 10_000


def _discordant(correct_a: NDArray[Any], correct_b: NDArray[Any]) -> tuple[int, int, int]:
    """Return (only a right, only b right, n). Raises DataError for unpaired or empty input."""
    a, b = np.asarray(correct_a), np.asarray(correct_b)
    if a.shape != b.shape or a.ndim != 1 or a.size == 0:
        raise DataError(
            f"A paired test needs two arrays (n,), n > 0, over the same examples; found {a.shape}, {b.shape}."
            " Score both models on the same rows in the same order."
        )
    if not (np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all()):
        raise DataError("A paired test needs True or False per example (right or wrong); found other values.")
    a, b = a.astype(bool), b.astype(bool)
    return int(np.sum(a & ~b)), int(np.sum(~a & b)), a.size


def paired_bootstrap(
    correct_a: NDArray[Any], correct_b: NDArray[Any], *, seed: int = 0, resamples: int = PAIRED_RESAMPLES
) -> dict[str, float]:
    """Return the accuracy of a minus that of b with its 95 % interval and a two-sided p-value.

    Arguments are (n,) booleans over the same examples. A resample of pairs is a multinomial draw over
    (only a right, only b right, both alike). The p-value is the share of resampled differences as far from
    the observed one as 0 is (Efron & Tibshirani 1993, ch. 16), with the observed sample counted in
    (Davison & Hinkley 1997, §4.2.3). If all pairs fall in one cell there is no spread; the interval then
    comes from the exact bound on the share of pairs outside it. Raises DataError for unpaired input.
    """
    only_a, only_b, n = _discordant(correct_a, correct_b)
    share = np.array([only_a, only_b, n - only_a - only_b]) / n
    observed = (only_a - only_b) / n
    drawn = np.random.default_rng(seed).multinomial(n, share, size=resamples)
    differences = (drawn[:, 0] - drawn[:, 1]) / n
    low, high = np.quantile(differences, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    if n in (only_a, only_b, n - only_a - only_b):
        outside = clopper_pearson(0, n)[1] * (2 if observed else 1)
        low, high = max(-1.0, observed - outside), min(1.0, observed + outside)
    # The tolerance keeps ties, which are the rule with counts, on the side of the null hypothesis.
    as_far = np.abs(differences - observed) >= abs(observed) - 1e-12
    p_value = (int(as_far.sum()) + 1) / (resamples + 1)
    return {
        "difference": observed,
        "low": min(float(low), observed),
        "high": max(float(high), observed),
        "p_value": p_value,
    }


def mcnemar(correct_a: NDArray[Any], correct_b: NDArray[Any]) -> dict[str, float]:
    """Return the exact McNemar test: `only_a`, `only_b` (examples) and the two-sided `p_value`.

    Under the null hypothesis the examples on which exactly one model is right split as a fair coin
    (McNemar 1947, Psychometrika 12:153, with the binomial in place of chi-squared). Raises DataError for
    unpaired input.
    """
    from scipy.special import bdtr

    only_a, only_b, _ = _discordant(correct_a, correct_b)
    discordant = only_a + only_b
    p_value = min(1.0, 2 * float(bdtr(min(only_a, only_b), discordant, 0.5))) if discordant else 1.0
    return {"only_a": only_a, "only_b": only_b, "p_value": p_value}
