"""Seeded, stratified splits that never put copies of one text on two sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from foretune.data.text import counted, fold
from foretune.errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

TRAIN = "train"


def split(
    texts: Sequence[str], labels: NDArray[np.integer] | None, *, fractions: Mapping[str, float], seed: int
) -> dict[str, Ints]:
    """Return ascending row numbers per part: `train` first, then the parts named in `fractions`.

    Stratified by class; rows whose texts differ only by case and white space stay together, so a part may
    miss its size by less than the largest such group per class. The same arguments give the same split
    on every machine. Time is O(n log n).
    Raises ConfigError for fractions outside (0, 1), DataError if a part would be empty.
    """
    import numpy as np

    _check(texts, labels, fractions)
    groups = _groups(texts)
    classes = np.zeros(len(texts), np.int64) if labels is None else np.unique(labels, return_inverse=True)[1]
    part_of_group = _assign(groups, classes, fractions, seed)
    _keep_classes_in_train(part_of_group, groups, classes)
    part_of_row = part_of_group[groups]
    parts = {name: np.flatnonzero(part_of_row == i) for i, name in enumerate([TRAIN, *fractions])}
    _check_filled(parts, len(texts), fractions)
    return parts


def _check(texts: Sequence[str], labels: NDArray[np.integer] | None, fractions: Mapping[str, float]) -> None:
    if labels is not None and len(labels) != len(texts):
        raise ConfigError(f"{len(texts):,} texts but {len(labels):,} labels; expected one label per text.")
    if TRAIN in fractions:
        raise ConfigError("'train' gets the rest of the rows; leave it out of the fractions.")
    wrong = {name: value for name, value in fractions.items() if not 0 < value < 1}
    if wrong or sum(fractions.values()) >= 1:
        raise ConfigError(
            f"Split fractions are {dict(fractions)}; expected each above 0 and all together below 1."
        )


def _check_filled(parts: Mapping[str, Ints], rows: int, fractions: Mapping[str, float]) -> None:
    empty = [name for name, members in parts.items() if not len(members)]
    if empty:
        raise DataError(
            f"{counted(rows, 'row')} cannot be split by {dict(fractions)}: nothing is left for "
            f"{' and '.join(empty)}. Add rows, choose larger fractions, or give each part a file."
        )


def _groups(texts: Sequence[str]) -> Ints:
    """Return a group number per row, equal for copies of one text, counted in order of appearance."""
    import numpy as np

    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(fold(text), len(numbers)) for text in texts], dtype=np.int64)


def _assign(groups: Ints, classes: Ints, fractions: Mapping[str, float], seed: int) -> Ints:
    """Return the part of each group: 0 for train, i for the i-th fraction.

    A group counts for the class of its first row.
    """
    import numpy as np

    _, first_rows, sizes = np.unique(groups, return_index=True, return_counts=True)
    class_of_group = classes[first_rows]
    quotas = _quotas(class_of_group, sizes, list(fractions.values()))
    # random() and a stable sort: permutation() may change its algorithm between versions of numpy.
    order = np.argsort(np.random.Generator(np.random.PCG64(seed)).random(len(sizes)), kind="stable")
    parts = [0] * len(sizes)
    for group, label, size in zip(
        order.tolist(), class_of_group[order].tolist(), sizes[order].tolist(), strict=True
    ):
        parts[group] = _take(quotas[label], size)
    return np.array(parts, dtype=np.int64)


def _take(left: list[int], size: int) -> int:
    """Put a group into the first part with room for all of it, otherwise into train."""
    for part, room in enumerate(left):
        if size <= room:
            left[part] -= size
            return part + 1
    return 0


def _quotas(class_of_group: Ints, sizes: Ints, fractions: Sequence[float]) -> list[list[int]]:
    """Return rows wanted per class and part, rounded so that the parts' totals are right as well."""
    import numpy as np

    rows = np.bincount(class_of_group, weights=sizes).astype(np.int64)
    # One text of every class is train's, so a class of one text gives nothing away.
    spare = np.where(np.bincount(class_of_group) > 1, rows - 1, 0)
    quotas = np.zeros((len(rows), len(fractions)), dtype=np.int64)  # (classes, parts)
    for part, fraction in enumerate(fractions):
        exact = np.minimum(fraction * rows, spare)
        quotas[:, part] = np.floor(exact + 1e-9)
        spare -= quotas[:, part]
        short = round(fraction * int(rows.sum())) - int(quotas[:, part].sum())
        by_remainder = np.argsort(quotas[:, part] - exact, kind="stable")
        raised = [label for label in by_remainder if spare[label] > 0][: max(0, short)]
        quotas[raised, part] += 1
        spare[raised] -= 1
    return [list(map(int, row)) for row in quotas]


def _keep_classes_in_train(part_of_group: Ints, groups: Ints, classes: Ints) -> None:
    """Move one text of every class that train would miss into train (in place)."""
    import numpy as np

    present = np.zeros(int(classes.max(initial=-1)) + 1, dtype=bool)
    present[classes[part_of_group[groups] == 0]] = True
    for label in np.flatnonzero(~present):
        members = groups[classes == label]
        if not (part_of_group[members] == 0).any():
            part_of_group[members[0]] = 0
