"""How well frozen features fit a task, without training: H-score, LogME and nearest neighbours.

All take features (n, width) of one layer and targets (n,): whole numbers are classes, floats a quantity to
predict. All are pure functions of the arrays, unchanged when examples change their order, and raise
DataError for arrays that cannot be measured (see `samples.check`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from foretune.forecast.samples import check, indicators, is_regression

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from foretune.forecast.curve import Curve
    from foretune.forecast.probe import Probe
    from foretune.forecast.samples import Floats

#: An eigenvalue below this share of the largest is rounding error of the eigenvalue problem, not a direction.
RANK_TOLERANCE = 1e-10
#: The least share of the targets' mean square that LogME takes for noise: without it, targets that are an
#: exact linear function of the features have infinite evidence.
NOISE_FLOOR = 1e-9
#: LogME's fixed point: it stops where no ratio of precisions moves by more than this share, or at the limit.
TOLERANCE, ITERATIONS = 1e-6, 200
#: Bytes of similarities that nearest neighbours hold at once, 8 for each.
CHUNK_BYTES = 64_000_000


def h_score(features: NDArray[Any], targets: NDArray[Any]) -> float:
    """Return tr(Σ_α⁻¹ (1 - α) Σ_B): how much of the features' spread is spread between classes.

    Σ_B is the covariance of the class means (Bao et al. 2019, "An information-theoretic approach to
    transferability in task transfer learning", ICIP), Σ_α = (1 - α) Σ + α tr(Σ)/d I the features'
    covariance shrunken as Ledoit & Wolf (2004) do (Ibrahim et al. 2021, "Newer is not always better",
    eq. 5). From 0 to classes - 1; unchanged by rotation, shift and scale. For a quantity, Σ_B is the
    covariance of the means as a linear function of it, so the score lies in 0 to 1 like R².
    """
    import numpy as np
    from scipy.linalg import cho_factor, cho_solve
    from sklearn.covariance import ledoit_wolf_shrinkage

    x, y = _centred(features, targets)
    n, width = x.shape
    spread = float(np.square(x).sum()) / n / width
    if spread == 0:
        return 0.0  # the same features for every example
    x /= np.sqrt(spread)  # the score does not depend on scale; the factorisation's accuracy may
    shrinkage = min(1.0, float(ledoit_wolf_shrinkage(x, assume_centered=True)))
    covariance = (1 - shrinkage) * (x.T @ x) / n
    # The floor keeps the matrix positive definite where nothing is shrunken, as on duplicated columns.
    covariance.flat[:: width + 1] += max(shrinkage, RANK_TOLERANCE * np.trace(covariance))
    basis, sizes = _orthonormal(y)
    means = (x.T @ basis[:, sizes]) / np.sqrt(n)  # (width, rank): Σ_B = means meansᵀ
    return float((1 - shrinkage) * np.sum(means * cho_solve(cho_factor(covariance), means)))


def _centred(features: NDArray[Any], targets: NDArray[Any]) -> tuple[Floats, Floats]:
    """Return features (n, width) and target columns (n, outputs) in float64, less their means."""
    import numpy as np

    check(features, targets)
    x, y = features.astype(np.float64), indicators(targets)
    return x - x.mean(axis=0), y - y.mean(axis=0)


def _orthonormal(columns: Floats) -> tuple[Floats, NDArray[Any]]:
    """Return left singular vectors (n, outputs) of columns (n, outputs), and which of them count."""
    import numpy as np

    vectors, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    return vectors, sizes > RANK_TOLERANCE**0.5 * sizes.max()


def log_me(features: NDArray[Any], targets: NDArray[Any]) -> float:
    """Return the log evidence per example of a Bayesian linear model on the features, in nats.

    The model is y = F w + noise with precisions α of w and β of the noise that maximise the evidence; for
    classes, the mean over one-vs-rest 0/1 targets (You et al. 2021, "LogME: practical assessment of
    pre-trained models for transfer learning", ICML, algorithm 1). Solved as in the journal paper (You et
    al. 2022, "Ranking and tuning pre-trained models", JMLR 23:203): one singular value decomposition, then
    O(width) per iteration. Unchanged by rotation and scale of the features; a quantity's unit counts.
    """
    import numpy as np

    check(features, targets)
    return float(_evidence(features.astype(np.float64), indicators(targets)).mean())


def log_me_gain(features: NDArray[Any], targets: NDArray[Any]) -> float:
    """Return what the features add to the log evidence per example of the mean alone, in nats; never below 0.

    LogME of features and targets less their means, less log N(y | mean, its best variance). Unlike `log_me`
    it compares between data sets: shift and unit do not count, and rare classes bring nothing for free.
    """
    import numpy as np

    x, y = _centred(features, targets)
    alone = -np.log(2 * np.pi * np.e * np.square(y).mean(axis=0)) / 2
    return float(np.maximum(_evidence(x, y) - alone, 0.0).mean())


def _evidence(x: Floats, y: Floats) -> Floats:
    """Return the maximal log evidence per example of each target column: x (n, width), y (n, outputs)."""
    import numpy as np

    n, (squares, vectors) = len(y), _left_singular(x)
    total = np.maximum(np.square(y).sum(axis=0), np.finfo(np.float64).tiny)
    inside = np.square(vectors.T @ y)  # (rank, outputs): squared targets along each singular vector
    outside = np.maximum(total - inside.sum(axis=0), NOISE_FLOOR * total)

    def parts(ratio: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        shrink = ratio / (ratio + squares[:, None])  # ratio: α/β of each output (outputs,)
        residual = (inside * shrink**2).sum(axis=0) + outside
        weights = (inside * (1 - shrink) ** 2 / squares[:, None]).sum(axis=0)
        # The noise precision that is best for this ratio is n / (residual + ratio * weights).
        best = n * np.log(n / (2 * np.pi * np.e * (residual + ratio * weights)))
        return residual, weights, (1 - shrink).sum(axis=0), (best + np.log(shrink).sum(axis=0)) / (2 * n)

    if not len(squares):
        return n * np.log(n / (2 * np.pi * np.e * total)) / (2 * n)
    # The evidence may have several peaks: start the fixed point at the best of a coarse grid of ratios.
    grid = squares.mean() * np.logspace(-9, 9, 37)
    found = np.array([parts(np.full(y.shape[1], ratio))[3] for ratio in grid])
    ratio, best = grid[found.argmax(axis=0)], found.max(axis=0)
    for _ in range(ITERATIONS):
        residual, weights, used, _ = parts(ratio)  # `used` is γ, the number of well-determined weights
        # Without signal α grows for ever; the grid's end is then as good as infinity.
        step = np.clip(used * residual / np.maximum((n - used) * weights, 1e-300), grid[0], grid[-1])
        moved, ratio = np.abs(np.log(step / ratio)).max(), step
        best = np.maximum(best, parts(ratio)[3])
        if moved < TOLERANCE:
            break
    return best


def _left_singular(x: Floats) -> tuple[Floats, Floats]:
    """Return squared singular values (rank,) and left singular vectors (n, rank) of x (n, width)."""
    import numpy as np

    x = x / max(float(np.abs(x).max()), np.finfo(np.float64).tiny)
    n, width = x.shape
    # The smaller of the two Gram matrices: many times cheaper than a decomposition of x itself.
    squares, vectors = np.linalg.eigh(x.T @ x if width < n else x @ x.T)
    counts = squares > RANK_TOLERANCE * max(float(squares[-1]), np.finfo(np.float64).tiny)
    squares, vectors = squares[counts], vectors[:, counts]
    return squares, x @ vectors / np.sqrt(squares) if width < n else vectors


def knn_accuracy(features: NDArray[Any], targets: NDArray[Any], *, k: int = 10) -> float:
    """Return the share of examples whose k nearest other examples (cosine, centred features) vote for them.

    Leave one out. Neighbours as near as the k-th all vote, a tied vote goes to the nearer neighbours, and
    then to the lower class. For a quantity: R² of the neighbours' mean, which is below 0 where the overall
    mean predicts better.
    """
    import numpy as np

    x, _ = _centred(features, targets)
    y, regression = indicators(targets), is_regression(targets)
    unit = x / np.maximum(np.linalg.norm(x, axis=1), np.finfo(np.float64).tiny)[:, None]
    n, k = len(y), min(k, len(y) - 1)
    step = max(1, CHUNK_BYTES // (8 * n))
    voted = np.concatenate(
        [_votes(unit, y, range(i, min(i + step, n)), k, even=regression) for i in range(0, n, step)]
    )
    if regression:
        return float(1 - np.square(y - voted).sum() / np.square(y - y.mean()).sum())
    return float(np.mean(voted.argmax(axis=1) == y.argmax(axis=1)))


def _votes(unit: Floats, y: Floats, rows: range, k: int, *, even: bool) -> Floats:
    """Return the mean of y (n, outputs) over the neighbours of each of `rows`: (rows, outputs).

    Unless `even`, near neighbours weigh a little more, too little to outvote one of the k.
    """
    import numpy as np

    similarity = unit[rows.start : rows.stop] @ unit.T  # (rows, n)
    similarity[np.arange(len(rows)), rows] = -np.inf
    # Rounding must not part copies of one example: those within 1e-9 of the k-th are as near.
    border = np.partition(similarity, -k, axis=1)[:, -k, None] - 1e-9
    nearness = np.where(similarity >= border, 1 + (0 if even else similarity / (4 * k)), 0.0)
    return (nearness @ y) / nearness.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class Measured:
    """All that the frozen features say: the numbers for the quality model, the probe, and its learning curve."""

    numbers: dict[str, float]
    probe: Probe
    curve: Curve


def predictors(
    features: NDArray[Any], targets: NDArray[Any], *, metric: str | None = None, seed: int = 0
) -> dict[str, float]:
    """Return the numbers of `measure`, one flat dict."""
    return measure(features, targets, metric=metric, seed=seed).numbers


def measure(
    features: NDArray[Any], targets: NDArray[Any], *, metric: str | None = None, seed: int = 0
) -> Measured:
    """Return everything that these measures say of features (n, layers, width).

    The numbers: n, layers, width; classes, majority (its share), entropy of the labels (nats), smallest
    (class's share) and rare (classes with fewer examples than folds), all 0 for quantities; probe, probe_se,
    probe_last (of the last layer alone), probe_depth (0 first layer, 1 last, 0.5 the mean of all); at the
    probe's layer knn, h_score, h_share (of its maximum), log_me, log_me_gain (quantities in units of their
    deviation); of its learning curve curve_a, curve_c, curve_slope (the last doubling's gain), curve_x2 and
    curve_x5 (expected gains at that many times n) with curve_x2_width and curve_x5_width (half-widths).
    Always the same names, always finite. Raises DataError.
    """
    import numpy as np

    from foretune.forecast.curve import fit_curve
    from foretune.forecast.probe import layer_features, learning_curve, probe_score

    targets = np.asarray(targets)
    probe = probe_score(features, targets, metric=metric, seed=seed)
    x = layer_features(features, probe.layer)
    points = learning_curve(x, targets, share=probe.share, metric=probe.metric, seed=seed)
    curve = fit_curve(points.sizes, points.scores, points.covariance, seed=seed)
    found = {
        "n": len(targets),
        "layers": features.shape[1],
        "width": features.shape[2],
        **_label_terms(targets),
        **_probe_terms(probe, features.shape[1]),
        **_feature_terms(x, targets),
        **_curve_terms(curve, len(targets)),
    }
    return Measured({name: float(value) for name, value in found.items()}, probe, curve)


def _probe_terms(probe: Probe, depth: int) -> dict[str, float]:
    return {
        "rare": len(probe.rare),
        "probe": probe.value,
        "probe_se": probe.se,
        "probe_last": probe.last,
        "probe_depth": 0.5 if probe.layer is None else probe.layer / max(1, depth - 1),
    }


def _feature_terms(x: Floats, targets: NDArray[Any]) -> dict[str, float]:
    y = (targets - targets.mean()) / targets.std() if is_regression(targets) else targets
    h, most = h_score(x, y), max(1, min(indicators(y).shape[1] - 1, x.shape[1]))
    return {
        "knn": knn_accuracy(x, y),
        "h_score": h,
        "h_share": h / most,
        "log_me": log_me(x, y),
        "log_me_gain": log_me_gain(x, y),
    }


def _label_terms(targets: NDArray[Any]) -> dict[str, float]:
    import numpy as np

    if is_regression(targets):
        return dict.fromkeys(("classes", "majority", "entropy", "smallest"), 0.0)
    shares = np.unique(targets, return_counts=True)[1] / len(targets)
    return {
        "classes": len(shares),
        "majority": shares.max(),
        "entropy": -(shares * np.log(shares)).sum(),
        "smallest": shares.min(),
    }


def _curve_terms(curve: Curve, n: int) -> dict[str, float]:
    from foretune.forecast.curve import forecast_at

    half, now, twice, five = (forecast_at(curve, share * n) for share in (0.5, 1, 2, 5))
    return {
        "curve_a": curve.a,
        "curve_c": curve.c,
        "curve_slope": now.value - half.value,
        "curve_x2": twice.value - now.value,
        "curve_x2_width": (twice.high - twice.low) / 2,
        "curve_x5": five.value - now.value,
        "curve_x5_width": (five.high - five.low) / 2,
    }
