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
    """What the frozen features of one backbone say: the predictors, and the probe's learning curve."""

    predictors: dict[str, float]
    tokens: float  # mean length of an example
    fingerprint: str
    curve: Curve
    rows: np.ndarray  # (judged,) positions of the examples that were judged
    features: np.ndarray  # (judged, width) of the layer that the probe reads


def look(
    backbone: Backbone,
    examples: Examples,
    recipe: Recipe,
    runtime: Runtime,
    metric: str,
    most: int = SAMPLE,
    words: float | None = None,
) -> Look:
    """Return what the frozen features of at most `most` of `examples` say, for the seed of the recipe.

    `words`: what counted words score on them, where it was measured beside another backbone.
    """
    from threadpoolctl import threadpool_limits

    from foretune.forecast.bag_of_words import as_read, bag_of_words
    from foretune.forecast.probe import layer_features
    from foretune.forecast.transferability import measure

    assert examples.targets is not None
    rows = sample_rows(examples.targets, recipe.seed, most)
    sample = examples.take(rows)
    longest = recipe.max_tokens or min(backbone.max_length, LONGEST_BY_DEFAULT)
    store = backbone.preprocess(sample.inputs, max_length=longest, truncation=recipe.truncation)
    backbone.model.to(runtime.device)
    features, _ = Prefix(backbone, store, runtime, "fp32").stores([MEANS])[MEANS]
    matrix = features.rows(np.arange(len(store))).numpy()
    assert sample.targets is not None
    with threadpool_limits(1, user_api="blas"):  # small products: more threads only wait for each other
        found = measure(matrix, sample.targets, metric=metric, seed=recipe.seed)
    numbers = found.numbers | {"unknown": store.cuts.unknown_share}  # full fine-tuning learns new tokens
    if words is not None:
        numbers["bag_of_words"] = words
    elif backbone.unit == "tokens" and isinstance(sample.inputs[0], str):
        texts = as_read(sample.inputs, store.cuts, longest, recipe.truncation)
        numbers["bag_of_words"] = bag_of_words(texts, sample.targets, metric=metric, seed=recipe.seed)
    judged = layer_features(matrix, found.probe.layer)
    return Look(numbers, float(store.lengths.mean()), backbone.fingerprint(), found.curve, rows, judged)


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
