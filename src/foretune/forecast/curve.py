"""What more labels would bring: a power law through measured scores, with an honest interval.

score(n) = a - b n^-c: the error falls as a power of the training rows towards a floor that more data do not
remove (Cortes et al. 1993, "Learning curves: asymptotic values and rate of convergence", NeurIPS 6;
Hestness et al. 2017, arXiv:1712.00409, for deep networks; Viering & Loog 2021, arXiv:2103.10948, review the
evidence and where it fails). Only for metrics that are at most 1 and where greater is better.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from foretune.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from foretune.forecast.samples import Floats

LEVEL = 0.90
DRAWS = 1000
#: Exponents that are tried. Viering & Loog (2021, §4) collect fits from 0.1 (deep networks; Hestness et al.
#: 2017) to 1 and above (simple models near their asymptote).
EXPONENTS = (0.1, 2.0)
#: Before the points speak, an exponent is taken to be log-normal with this median and log deviation. Of
#: medians from 0.2 to 0.7, error and bias were least at 0.2 and 0.3 for probes of TREC-6, SST-2, SNIPS and the
#: support tickets: 88 curves of 100 to 800 rows, the truth measured at 2 to 20 times as many.
TYPICAL_EXPONENT, EXPONENT_SPREAD = 0.3, 0.6
#: Model error beyond the points: the gain varies by this log deviation, and each doubling may close this share
#: of the room above by surprise, as where a class starts to be learnt only with more rows.
GAIN_SPREAD, SURPRISE = 0.1, 0.005
#: No score is known better than this; correlations of errors are taken at this share of what they seem.
LEAST_ERROR, TRUST = 0.001, 0.9
#: Beyond this many times the rows measured, a target counts as out of reach: nobody can know.
REACH = 100


class Interval(NamedTuple):
    """A forecast score and its 90 % interval."""

    value: float
    low: float
    high: float


class Labels(NamedTuple):
    """The training rows that a target needs, None where it is out of reach, and the 90 % interval.

    `low` None: out of reach even at the best; `high` None: it may never be reached.
    """

    value: int | None
    low: int | None
    high: int | None


@dataclass(frozen=True)
class Curve:
    """The fitted law a - b n^-c, and draws of what else the points allow.

    `reference` is the largest number of rows measured; no forecast lies outside `floor` to `ceiling`. A row
    of `draws` (draws, 5) holds the score at the reference, the gap from there to the asymptote, the exponent,
    the factor on gains beyond the reference, and the share of the room above that each doubling closes
    besides.
    """

    a: float
    b: float
    c: float
    reference: float
    points: int
    floor: float
    ceiling: float
    draws: Floats


def fit_curve(
    sizes: NDArray[Any], scores: NDArray[Any], errors: NDArray[Any], *, ceiling: float = 1.0, seed: int = 0
) -> Curve:
    """Fit the power law to scores (points,) at training rows `sizes` (points,).

    `errors` are standard errors (points,) or a covariance (points, points). Weighted least squares with
    a <= ceiling, b >= 0 and the exponent in `EXPONENTS`, drawn to `TYPICAL_EXPONENT` as far as the points
    leave it open. The uncertainty is a parametric bootstrap: points and typical exponent are drawn anew and
    fitted again (Efron & Tibshirani 1993, §6.5; Bardsley et al. 2014, SIAM J. Sci. Comput. 36:A1895, on why
    the prior's centre is drawn too), and model error is added beyond the points. Points of one size leave
    the gap open: it is then anything up to the ceiling. Raises DataError for points that cannot be fitted.
    """
    import numpy as np

    sizes, scores, noise = _checked(sizes, scores, errors, ceiling)
    rng, typical = np.random.default_rng(seed), float(np.log(TYPICAL_EXPONENT))
    reference, root = float(sizes.max()), np.linalg.cholesky(noise)
    ((level, gap, exponent, misfit),) = _fit(
        sizes / reference, scores[None], root, np.array([typical]), ceiling
    )
    # Points that miss the law by more than their errors say that law or errors are wrong (Birge 1932).
    root = root * max(1.0, misfit / max(1, len(sizes) - 2)) ** 0.5
    drawn = scores + rng.standard_normal((DRAWS, len(scores))) @ root.T
    centres = typical + EXPONENT_SPREAD * rng.standard_normal(DRAWS)
    found = _fit(sizes / reference, drawn, root, centres, ceiling)[:, :3]
    if len(np.unique(sizes)) == 1:
        found[:, 1] = rng.random(DRAWS) * (ceiling - found[:, 0])
    factor = np.exp(GAIN_SPREAD * rng.standard_normal(DRAWS))
    surprise = SURPRISE * np.abs(rng.standard_normal(DRAWS))
    return Curve(
        a=float(level + gap),
        b=float(gap * reference**exponent),
        c=float(exponent),
        reference=reference,
        points=len(sizes),
        floor=min(0.0, float(scores.min())),
        ceiling=ceiling,
        draws=np.column_stack([found, factor, surprise]),
    )


def _checked(
    sizes: NDArray[Any], scores: NDArray[Any], errors: NDArray[Any], ceiling: float
) -> tuple[Floats, Floats, Floats]:
    """Return sizes, scores (points,) and covariance (points, points) in float64."""
    import numpy as np

    sizes, scores, errors = (np.asarray(each, dtype=np.float64) for each in (sizes, scores, errors))
    points = len(sizes)
    covariance = np.diag(np.square(errors)) if errors.ndim == 1 else errors
    if not points or sizes.shape != scores.shape or covariance.shape != (points, points):
        raise DataError(
            "A learning curve needs as many sizes, scores and errors, at least one;"
            f" found {sizes.shape}, {scores.shape} and {errors.shape}."
        )
    if not all(np.isfinite(each).all() for each in (sizes, scores, covariance)) or (sizes < 1).any():
        raise DataError("A learning curve needs finite scores and errors at sizes of 1 row or more.")
    if (scores > ceiling).any():
        raise DataError(
            f"A score of {scores.max():.4g} is above the ceiling of {ceiling:.4g} for the metric."
        )
    variance = np.maximum(np.diagonal(covariance), LEAST_ERROR**2)
    # What is left of a covariance from few repeats may be singular; this much trust never is.
    return sizes, scores, TRUST * covariance + np.diag(variance - TRUST * np.diagonal(covariance))


def _fit(shares: Floats, scores: Floats, root: Floats, centres: Floats, ceiling: float) -> Floats:
    """Return score at the reference, gap, exponent and squared misfit of each row of scores: (rows, 4).

    scores (rows, points), `shares` (points,) are sizes over the reference, `root` the Cholesky factor of the
    errors' covariance, `centres` (rows,) the logarithms of the exponents expected. For a given exponent
    the law is linear in asymptote and gap, so every exponent of a grid is solved exactly and the best taken.
    """
    import numpy as np
    from scipy.linalg import solve_triangular

    exponents = np.geomspace(*EXPONENTS, 41)
    falls = -(shares[:, None] ** -exponents)  # (points, exponents): score = asymptote + gap * fall
    whole, one, fall = (
        solve_triangular(root, each, lower=True) for each in (scores.T, np.ones((len(shares), 1)), falls)
    )
    asymptote, gap, misfit = _bounded(whole.T, one[:, 0], fall.T, ceiling)
    surprise = (np.log(exponents) - centres[:, None]) / EXPONENT_SPREAD
    best = (misfit + np.square(surprise)).argmin(axis=1)
    rows = np.arange(len(best))
    asymptote, gap = asymptote[rows, best], gap[rows, best]
    return np.column_stack([asymptote - gap, gap, exponents[best], misfit[rows, best]])


def _bounded(y: Floats, one: Floats, fall: Floats, ceiling: float) -> tuple[Floats, Floats, Floats]:
    """Return asymptote <= ceiling, gap >= 0 and squared misfit of y ~ asymptote one + gap fall.

    y (rows, points), one (points,), fall (exponents, points); all results (rows, exponents). With two
    unknowns and two bounds the least misfit lies inside or on one of the bounds, or at their corner.
    """
    import numpy as np

    a11, a12, a22 = one @ one, fall @ one, np.square(fall).sum(axis=1)
    y1, y2, yy = (y @ one)[:, None], y @ fall.T, np.square(y).sum(axis=1)[:, None]
    determinant = a11 * a22 - np.square(a12)
    solvable = determinant > 1e-9 * a11 * a22  # not where all sizes are one
    determinant = np.where(solvable, determinant, 1.0)
    inside = (a22 * y1 - a12 * y2) / determinant, (a11 * y2 - a12 * y1) / determinant
    flat = np.minimum(y1 / a11, ceiling) + 0 * y2, np.zeros_like(y2)
    high = np.full_like(y2, ceiling), np.maximum((y2 - ceiling * a12) / a22, 0.0)

    def misfit(asymptote: Floats, gap: Floats) -> Floats:
        squares = yy + asymptote**2 * a11 + gap**2 * a22
        return squares - 2 * (asymptote * y1 + gap * y2 - asymptote * gap * a12)

    losses = [misfit(*each) for each in (inside, flat, high)]
    losses[0] = np.where(solvable & (inside[0] <= ceiling) & (inside[1] >= 0), losses[0], np.inf)
    best = np.argmin(losses, axis=0)
    asymptote, gap = (np.choose(best, [each[i] for each in (inside, flat, high)]) for i in (0, 1))
    return asymptote, gap, np.maximum(np.min(losses, axis=0), 0.0)


def _scores(curve: Curve, rows: float) -> Floats:
    """Return the score of each draw at this many training rows (draws,); none falls with more rows."""
    import numpy as np

    level, gap, exponent, factor, surprise = curve.draws.T
    share = rows / curve.reference
    gain = gap * (1 - share**-exponent)
    if share > 1:
        gain = gain * factor + surprise * np.log2(share) * (curve.ceiling - level)
    return np.clip(level + gain, curve.floor, curve.ceiling)


def forecast_at(curve: Curve, n: float) -> Interval:
    """Return the score to expect of `n` training rows, and where 90 % of the draws lie.

    It is the expected score on unlimited held-out data: a test set adds its own sampling noise. Neither the
    value nor its bounds fall as n grows, and none exceeds the ceiling. Raises DataError below one row.
    """
    import numpy as np

    if not n >= 1:
        raise DataError(f"A score can be forecast for 1 training row or more, not for {n}.")
    low, value, high = np.quantile(_scores(curve, n), [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2])
    return Interval(float(value), float(low), float(high))


def labels_for(curve: Curve, target: float) -> Labels:
    """Return the fewest training rows at which `target` is forecast, and at which its bounds reach it.

    A target not reached at `REACH` times the rows measured is out of reach (None).
    """
    return Labels(
        _rows(curve, target, "value"), low=_rows(curve, target, "high"), high=_rows(curve, target, "low")
    )


def _rows(curve: Curve, target: float, bound: str) -> int | None:
    """Return the fewest rows at which this field of the forecast reaches the target, by bisection."""
    low, high = 0, int(REACH * curve.reference)
    if getattr(forecast_at(curve, high), bound) < target:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if getattr(forecast_at(curve, middle), bound) < target:
            low = middle
        else:
            high = middle
    return high
