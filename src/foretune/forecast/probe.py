"""The linear probe: what a linear model on frozen features scores on examples that it has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from foretune.errors import ConfigError
from foretune.forecast.held_out import SHARES, neighbours, nested_losses, predictions, share_outputs, sides
from foretune.forecast.linear import principal_axes
from foretune.forecast.samples import check, is_regression, spread_order, strata, stratified_folds
from foretune.forecast.scores import check_metric, covariance, score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from foretune.forecast.samples import Floats, Ints

#: Tried besides the mean of all layers. Of MiniLM's six, the best of these was within 0.1 points of the best
#: of all on TREC-6, SST-2, SNIPS and the support tickets, and the last one up to 3.7 points below it.
LAST_LAYERS = 4
#: The learning curve's sizes as shares of the rows that a fold trains on.
CURVE_SHARES = (1 / 8, 1 / 4, 1 / 2, 1.0)
REPEATS = 3


@dataclass(frozen=True)
class Probe:
    """The cross-validated score of a linear probe and what it says of each example.

    `value` is the score of the held-out predictions, each from (folds - 1) / folds of the examples, `se` its
    standard error over draws of examples. `layer` counts from 0, None is the mean over all layers; `last` is
    the score of the last layer alone. `predictions` (n,) are class ids or quantities, `probabilities`
    (n, classes) in the order of `classes`, None for quantities. `rare` are the classes with fewer examples
    than folds: hardly learnt or measured.
    """

    value: float
    se: float
    last: float
    metric: str
    layer: int | None
    share: float
    folds: int
    predictions: NDArray[Any]
    probabilities: Floats | None
    classes: NDArray[Any]
    rare: tuple[int, ...]


@dataclass(frozen=True)
class LearningCurve:
    """Held-out scores (points,) by training rows (points,), and the covariance (points, points) of their errors."""

    sizes: Ints
    scores: Floats
    covariance: Floats
    metric: str

    @property
    def errors(self) -> Floats:
        """The standard error of each score (points,)."""
        import numpy as np

        return np.sqrt(np.diagonal(self.covariance))


def layer_features(features: NDArray[Any], layer: int | None) -> Floats:
    """Return one layer (n, width) of features (n, layers, width), or for None the mean over layers."""
    import numpy as np

    return features.mean(axis=1, dtype=np.float64) if layer is None else features[:, layer]


def probe_score(
    features: NDArray[Any],
    targets: NDArray[Any],
    *,
    metric: str | None = None,
    seed: int = 0,
    folds: int = 5,
    last_layers: int = LAST_LAYERS,
) -> Probe:
    """Cross-validate multinomial logistic regression, or ridge for quantities, on frozen features.

    features (n, layers, width), targets (n,); tried are the `last_layers` last layers and the mean of all.
    `metric` is accuracy (default for classes) or macro_f1, r2 (default for quantities), pearson or spearman.
    Raises DataError (see `samples.check`), and ConfigError for options out of range.
    """
    import numpy as np

    metric, targets = (
        _checked(features, targets, metric, folds, last_layers, layers=True),
        np.asarray(targets),
    )
    depth = features.shape[1]
    layers: list[int | None] = [*range(max(0, depth - last_layers), depth), *([None] if depth > 1 else [])]
    fold = stratified_folds(strata(targets), min(folds, len(targets)), np.random.default_rng(seed))
    axes = [principal_axes(layer_features(features, i)) for i in layers]
    lost = nested_losses(axes, targets, fold)  # (folds, layers)
    picks, best, last = lost.argmin(axis=1), int(lost.sum(axis=0).argmin()), layers.index(depth - 1)
    by_layer = {i: share_outputs(axes[i], targets, *sides(fold)) for i in {*map(int, picks), best, last}}
    outputs = np.empty_like(by_layer[last][0])
    for k, pick in enumerate(picks):
        outputs[fold == k] = by_layer[int(pick)][0][fold == k]
    found = predictions(outputs, targets)
    classes, counts = np.unique(targets, return_counts=True)
    regression = is_regression(targets)
    return Probe(
        value=score(metric, targets, found),
        se=float(covariance(metric, targets, found[None], seed=seed)[0, 0] ** 0.5),
        last=score(metric, targets, predictions(by_layer[last][0], targets)),
        metric=metric,
        layer=layers[best],
        share=by_layer[best][1],
        folds=int(fold.max()) + 1,
        predictions=found,
        probabilities=None if regression else np.exp(outputs),
        classes=classes[:0] if regression else classes,
        rare=() if regression else tuple(int(each) for each in classes[counts <= fold.max()]),
    )


def learning_curve(
    features: NDArray[Any],
    targets: NDArray[Any],
    *,
    sizes: Sequence[int] | None = None,
    repeats: int = REPEATS,
    share: float | None = None,
    metric: str | None = None,
    seed: int = 0,
    folds: int = 5,
) -> LearningCurve:
    """Return the probe's held-out score by the number of training rows.

    features (n, width) of one layer. A repeat cuts the examples into new folds; a fold's model trains on
    the first rows of one stratified order of the others, so that a larger size adds rows to the smaller.
    Sizes count training rows, by default an eighth, a quarter, half and all of those outside a fold; sizes
    that leave fewer than two rows per class, or exceed the rows there are, are left out. The penalty is
    chosen for each size; given the probe's `share`, from that and its neighbours only, which is quicker.
    The covariance adds the draw of examples and that of rows.
    Raises DataError and ConfigError as `probe_score` does.
    """
    import numpy as np

    metric, targets = _checked(features, targets, metric, folds, repeats), np.asarray(targets)
    counts = _sizes(sizes, targets, min(folds, len(targets)))
    shares = SHARES if share is None else neighbours(share)
    x, rng = principal_axes(features), np.random.default_rng(seed)
    found = np.stack([_repeat(x, targets, counts, shares, folds, rng) for _ in range(repeats)])
    n, points = len(targets), len(counts)
    scores = np.array([[score(metric, targets, each) for each in repeat] for repeat in found])
    examples = covariance(metric, targets, found.reshape(-1, n), seed=seed)
    noise = examples.reshape(repeats, points, repeats, points).mean(axis=(0, 2))
    if repeats > 1:
        noise = noise + np.diag(_rows_noise(scores, np.array(counts), n))
    return LearningCurve(np.array(counts), scores.mean(axis=0), noise, metric)


def _rows_noise(scores: Floats, sizes: Ints, n: int) -> Floats:
    """Return the variance (points,) that the draw of training rows gives mean scores.

    `scores` (repeats, points) vary less than those of fresh rows would: two repeats have about the share
    r = size / n of their rows in common, and what is common does not vary (Nadeau & Bengio 2003, Machine
    Learning 52:239, correct for it likewise). So one score varies by 1 / (1 - r) of what is seen, and the
    mean by the share r + (1 - r) / repeats of that. Few repeats see little: all sizes are taken together,
    as if variance fell as 1 / size.
    """
    import numpy as np

    shared = sizes / n
    per_row = (np.var(scores, axis=0, ddof=1) / (1 - shared) * sizes).mean()
    return per_row / sizes * (shared + (1 - shared) / len(scores))


def _checked(
    features: NDArray[Any],
    targets: NDArray[Any],
    metric: str | None,
    folds: int,
    least: int,
    *,
    layers: bool = False,
) -> str:
    """Return the metric to use once arrays and options are found to be usable."""
    import numpy as np

    targets = np.asarray(targets)
    check(np.asarray(features), targets, layers=layers)
    if folds < 3 or least < 1:
        raise ConfigError(
            "A probe needs at least 3 folds (nested cross-validation) and 1 layer or repeat;"
            f" found folds={folds} and {least}."
        )
    metric = metric or ("r2" if is_regression(targets) else "accuracy")
    check_metric(metric, targets)
    return metric


def _sizes(sizes: Sequence[int] | None, targets: NDArray[Any], folds: int) -> list[int]:
    import numpy as np

    most = len(targets) - -(-len(targets) // folds)  # what is left beside the largest fold
    least = 2 if is_regression(targets) else 2 * len(np.unique(targets))
    wanted = sorted(set(sizes) if sizes else {round(share * most) for share in CURVE_SHARES})
    usable = [size for size in wanted if min(least, most) <= size <= most]
    if not usable:
        raise ConfigError(
            f"No training size among {wanted} can be measured: expected {min(least, most)} to {most} rows."
        )
    return usable


def _repeat(
    x: Floats,
    targets: NDArray[Any],
    sizes: list[int],
    shares: Sequence[float],
    folds: int,
    rng: np.random.Generator,
) -> NDArray[Any]:
    """Return held-out predictions (sizes, n) of models trained on nested subsamples."""
    import numpy as np

    groups = strata(targets)
    fold = stratified_folds(groups, min(folds, len(targets)), rng)
    trains, tests = sides(fold)
    orders = [rows[spread_order(groups[rows], rng)] for rows in trains]
    cut = ([order[:size] for order in orders] for size in sizes)
    outputs = (share_outputs(x, targets, rows, tests, shares)[0] for rows in cut)
    return np.stack([predictions(each, targets) for each in outputs])
