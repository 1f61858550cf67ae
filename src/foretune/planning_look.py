"""What the frozen features of a backbone say of a data set, judged on a sample of its examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from foretune.assemble import LONGEST_BY_DEFAULT
from foretune.recipe import Recipe
from foretune.tasks.base import Examples
from foretune.training.inference import Runtime
from foretune.training.prefix import MEANS, Prefix

if TYPE_CHECKING:
    from foretune.backbones.base import Backbone
    from foretune.forecast.curve import Curve

SAMPLE = 2000  # examples whose features are judged


@dataclass(frozen=True)
class Look:
    """What the frozen features of one backbone say: the predictors, and the learning curve's forecasts."""

    predictors: dict[str, float]
    tokens: float  # mean length of an example
    fingerprint: str
    curve: Curve | None = None  # where a target score is asked for


def look(
    backbone: Backbone,
    examples: Examples,
    recipe: Recipe,
    runtime: Runtime,
    metric: str,
    curve: bool = False,
    most: int = SAMPLE,
) -> Look:
    """Return what the frozen features of at most `most` of `examples` say, for the seed of the recipe."""
    from threadpoolctl import threadpool_limits

    from foretune.forecast.probe import probe_score
    from foretune.forecast.transferability import predictors

    assert examples.targets is not None
    sample = examples.take(sample_rows(examples.targets, recipe.seed, most))
    longest = recipe.max_tokens or min(backbone.max_length, LONGEST_BY_DEFAULT)
    store = backbone.preprocess(sample.inputs, max_length=longest, truncation=recipe.truncation)
    backbone.model.to(runtime.device)
    features, _ = Prefix(backbone, store, runtime, "fp32").stores([MEANS])[MEANS]
    matrix = features.rows(np.arange(len(store))).numpy()
    assert sample.targets is not None
    with threadpool_limits(1, user_api="blas"):  # small products: more threads only wait for each other
        found = predictors(matrix, sample.targets, metric=metric, seed=recipe.seed)
        last = probe_score(matrix[:, -1:], sample.targets, metric=metric, seed=recipe.seed)
        found["probe_last"] = last.value  # what the top layer hides, fine-tuning brings out
        law = _curve(matrix, sample.targets, metric, recipe.seed) if curve else None
    return Look(found, float(store.lengths.mean()), backbone.fingerprint(), law)


def _curve(features: np.ndarray, targets: np.ndarray, metric: str, seed: int) -> Curve:
    """Return the learning curve of the probe on these features."""
    from foretune.forecast.curve import fit_curve
    from foretune.forecast.probe import layer_features, learning_curve, probe_score

    layer = probe_score(features, targets, metric=metric, seed=seed).layer
    measured = learning_curve(layer_features(features, layer), targets, metric=metric, seed=seed)
    return fit_curve(measured.sizes, measured.scores, measured.covariance, seed=seed)


def sample_rows(targets: np.ndarray, seed: int, most: int = SAMPLE) -> np.ndarray:
    """Return at most `most` rows, in order, every class with its share and at least one row."""
    if len(targets) <= most:
        return np.arange(len(targets))
    rng = np.random.default_rng((seed, 3))
    order = rng.permutation(len(targets))
    if not np.issubdtype(targets.dtype, np.integer) or targets.ndim != 1:
        return np.sort(order[:most])
    first = np.array([order[np.flatnonzero(targets[order] == c)[0]] for c in np.unique(targets)])
    rest = order[~np.isin(order, first)][: max(most - len(first), 0)]
    return np.sort(np.concatenate([first, rest]))
