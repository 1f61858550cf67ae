"""What every measure of frozen features needs first: checked arrays, classes, folds, nested subsamples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from foretune.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]
    Ints = NDArray[np.int64]

#: Below this even a wide interval says nothing: 10 right of 10 still leaves 69 to 100 % (Clopper-Pearson).
MIN_EXAMPLES = 10


def is_regression(targets: NDArray[Any]) -> bool:
    """Return whether targets (n,) are numbers to predict (a float dtype) and not class ids (whole, bool)."""
    return targets.dtype.kind == "f"


def check(features: NDArray[Any], targets: NDArray[Any], *, layers: bool = False) -> None:
    """Raise DataError unless features (n, width), or (n, layers, width), and targets (n,) can be measured.

    Expected are finite numbers, at least `MIN_EXAMPLES` examples and two different targets.
    """
    import numpy as np

    shape = "(n, layers, width)" if layers else "(n, width)"
    if features.ndim != 2 + layers or targets.shape != features.shape[:1] or 0 in features.shape[1:]:
        raise DataError(
            f"Expected features {shape} and targets (n,); found {features.shape} and {targets.shape}."
        )
    if targets.dtype.kind not in "iubf":
        raise DataError(
            f"Expected targets as class ids or numbers, found {targets.dtype}. Encode them first."
        )
    if len(targets) < MIN_EXAMPLES:
        raise DataError(
            f"{len(targets)} labelled examples are too few for a forecast: expected at least {MIN_EXAMPLES}."
            " Label more, or fit without a forecast."
        )
    if not np.isfinite(features).all() or not np.isfinite(targets).all():
        raise DataError(
            "The features or targets hold NaN or infinity. Compute the backbone's features in float32, and"
            " leave out rows without a target."
        )
    if (targets == targets[0]).all():
        raise DataError(f"All {len(targets)} targets are {targets[0]}; expected two different ones at least.")


def indicators(targets: NDArray[Any]) -> Floats:
    """Return what a linear model fits: a 0/1 column per class (n, classes), or the numbers (n, 1)."""
    import numpy as np

    if is_regression(targets):
        return targets.astype(np.float64)[:, None]
    return (targets[:, None] == np.unique(targets)).astype(np.float64)


def strata(targets: NDArray[Any]) -> Ints:
    """Return the stratum of each example (n,), from 0: its class, or the fifth that its number lies in."""
    import numpy as np

    if is_regression(targets):
        targets = np.searchsorted(np.quantile(targets, (0.2, 0.4, 0.6, 0.8)), targets)
    return np.unique(targets, return_inverse=True)[1].astype(np.int64)


def spread_order(groups: Ints, rng: np.random.Generator) -> Ints:
    """Return a random order (n,) of which every beginning holds each group by its share.

    Member j of a group of m, in random order, stands at (j + u) / m with one random u in [0, 1) per group.
    """
    import numpy as np

    place, order = np.empty(len(groups)), rng.permutation(len(groups))
    for group in np.unique(groups):
        members = order[groups[order] == group]
        place[members] = (np.arange(len(members)) + rng.random()) / len(members)
    return np.argsort(place, kind="stable").astype(np.int64)


def stratified_folds(groups: Ints, folds: int, rng: np.random.Generator) -> Ints:
    """Return the fold of each example (n,), 0 to folds - 1: equal in size, and in each group, up to one.

    A group with fewer members than folds is missing from some of them.
    """
    import numpy as np

    order = rng.permutation(len(groups))
    fold = np.empty(len(groups), dtype=np.int64)
    # Dealt like cards, group after group: the next group goes on where the last one ended.
    fold[order[np.argsort(groups[order], kind="stable")]] = np.arange(len(groups)) % folds
    return fold
