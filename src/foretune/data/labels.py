"""Labels as class numbers: canonical names, a fixed order, and what to say when they do not fit."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from foretune.data.text import counted, is_blank, listed, row_list
from foretune.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_INTEGER = re.compile(r"[+-]?[0-9]+")
_WHOLE = re.compile(r"[+-]?[0-9]+\.0+")
_SHOWN_VARIANTS = 10


@dataclass(frozen=True)
class LabelEncoding:
    """Class names in the order of their numbers, and one class number per row, int64 `(rows,)`."""

    names: tuple[str, ...]
    ids: NDArray[np.int64]


def label_text(value: object) -> str:
    """Return the canonical string of a label: strings exactly as they are, True as `true`, 3.0 as `3`."""
    import numpy as np

    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def label_names(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the distinct labels in order: by number if all are integers, otherwise by code point."""
    distinct = set(labels)
    if all(_INTEGER.fullmatch(name) for name in distinct):
        return tuple(sorted(distinct, key=lambda name: (int(name), name)))
    return tuple(sorted(distinct))


def label_texts(values: Sequence[object], where: str = "train") -> list[str]:
    """Return the canonical strings of labels. Raises DataError naming rows that are missing or lists."""
    missing = [row for row, value in enumerate(values) if is_blank(value)]
    if missing:
        raise DataError(
            f"{where}: {counted(len(missing), 'label')} of {len(values):,} missing ({row_list(missing)}). "
            f"Label these rows or drop them."
        )
    lists = [
        row for row, value in enumerate(values) if hasattr(value, "__len__") and not isinstance(value, str)
    ]
    if lists:
        raise DataError(
            f"{where}: {counted(len(lists), 'label')} not a single value but a "
            f"{type(values[lists[0]]).__name__} ({row_list(lists)}). Give one label "
            f"per row, or learn several labels per text with --task multi-label."
        )
    return [label_text(value) for value in values]


def encode_labels(
    values: Sequence[object], *, names: Sequence[str] | None = None, where: str = "train"
) -> LabelEncoding:
    """Return class names and class numbers; `names` fixes the classes, as for development and test rows.

    Numbers and truth values that are written otherwise than in `names` (1.0 for 1, True for true) are the same.

    Raises DataError if labels are missing, unknown to `names`, or (without `names`) all the same.
    """
    import numpy as np

    labels = label_texts(values, where)
    if not labels:
        raise DataError(f"{where}: no labels, expected one per row.")
    known = _known(labels, where) if names is None else tuple(names)
    if len(set(known)) < len(known):
        raise ConfigError(f"Class names are repeated: {listed(known)}. Expected each once.")
    numbers = {name: number for number, name in enumerate(known)}
    values_of = Counter(map(_value, known))
    same = {_value(name): name for name in known if values_of[_value(name)] == 1}
    labels = [label if label in numbers else same.get(_value(label), label) for label in labels]
    _check_unseen(labels, numbers, where)
    return LabelEncoding(known, np.array([numbers[label] for label in labels], dtype=np.int64))


def _value(label: str) -> str:
    """Return a label without what files write differently: the point of a whole number, the case of true and false."""
    if label.casefold() in ("true", "false"):
        return label.casefold()
    return label.partition(".")[0] if _WHOLE.fullmatch(label) else label


def _known(labels: list[str], where: str) -> tuple[str, ...]:
    names = label_names(labels)
    if len(names) < 2:
        raise DataError(
            f"{where}: all {len(labels):,} rows have the label {names[0]!r}. A classifier needs at least two "
            f"classes; add examples of another, or choose another column with --target."
        )
    return names


def _check_unseen(labels: list[str], numbers: dict[str, int], where: str) -> None:
    unseen = [row for row, label in enumerate(labels) if label not in numbers]
    if not unseen:
        return
    strange = label_names([labels[row] for row in unseen])
    offers = listed([_offer(name, numbers) for name in strange])
    raise DataError(
        f"{where}: {counted(len(unseen), 'row')} ({row_list(unseen)}) with labels that are not among the "
        f"training classes: {offers}. Training classes: {listed(list(numbers), 20)}. Correct these "
        f"labels, drop the rows, or add such examples to the training data."
    )


def _offer(name: str, known: dict[str, int]) -> str:
    hint = did_you_mean(name, known).strip()
    return f"{name!r} ({hint})" if hint else repr(name)


def _variant_key(label: str) -> str:
    return "".join(unicodedata.normalize("NFKC", label).casefold().split())


def label_variants(values: Sequence[object]) -> list[str]:
    """Return a warning for each group of labels that differ only by case, white space or character width."""
    counts = Counter(label_text(value) for value in values if not is_blank(value))
    groups: dict[str, list[str]] = {}
    for label in counts:
        groups.setdefault(_variant_key(label), []).append(label)
    return [_variant_warning(group, counts) for _, group in sorted(groups.items()) if len(group) > 1]


def _variant_warning(group: list[str], counts: Counter[str]) -> str:
    group = sorted(group, key=lambda label: (-counts[label], label))
    first = f"{group[0]!r} ({counted(counts[group[0]], 'row')})"
    rest = [f"{label!r} ({counts[label]:,})" for label in group[1:]]
    return (
        f"{listed([first, *rest], _SHOWN_VARIANTS)} may be one label; fix: make them all {group[0].strip()!r}"
    )
