"""What is wrong with a table before any training: errors for what cannot be used, warnings for the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from foretune.data.columns import Columns
from foretune.data.labels import label_names, label_texts, label_variants
from foretune.data.text import counted, fold, has_cjk, is_blank, listed, row_list
from foretune.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

RARE = 5


@dataclass(frozen=True)
class Audit:
    """Numbers and warnings about one table; lengths are in characters.

    `duplicates` counts the rows that repeat an earlier text, `conflicts` the distinct texts that stand
    with different labels; `classes` maps class names to rows, in the order of their class numbers.
    """

    where: str
    rows: int
    duplicates: int
    conflicts: int
    classes: dict[str, int]
    length_median: float
    length_p95: float
    length_max: int
    cjk_share: float
    warnings: list[str] = field(default_factory=list)


def audit(table: pd.DataFrame, columns: Columns, *, where: str = "train") -> Audit:
    """Return what `table` holds and what to know about it.

    Raises DataError naming the rows whose text is missing, blank or no string, or whose label is missing.
    """
    import numpy as np

    texts = check_texts(table[columns.text].tolist(), columns.text, where)
    labels = None if columns.target is None else label_texts(table[columns.target].tolist(), where)
    folded = [fold(text) for text in texts]
    repeats = _repeats(folded)
    conflicts = _conflicts(folded, labels) if labels is not None else {}
    lengths = np.array([len(text) for text in texts])
    warnings = _duplicate_warnings(repeats, conflicts, len(texts), where)
    if labels is not None:
        warnings = [*_label_warnings(labels, where), *warnings]
    return Audit(
        where=where,
        rows=len(texts),
        duplicates=len(repeats),
        conflicts=len(conflicts),
        classes=class_counts(labels or []),
        length_median=float(np.median(lengths)),
        length_p95=float(np.percentile(lengths, 95)),
        length_max=int(lengths.max()),
        cjk_share=sum(map(has_cjk, texts)) / len(texts),
        warnings=warnings,
    )


def check_texts(values: Sequence[object], column: str, where: str) -> list[str]:
    """Return the texts of a column. Raises DataError naming rows that are blank or no encodable string."""
    if not values:
        raise DataError(f"{where}: no rows, expected at least one text in column {column!r}.")
    blank = [row for row, value in enumerate(values) if is_blank(value)]
    if blank:
        raise DataError(
            f"{where}: {counted(len(blank), 'text')} of {len(values):,} in column {column!r} missing or only "
            f"white space ({row_list(blank)}). Drop these rows or fill them in."
        )
    other = [row for row, value in enumerate(values) if not isinstance(value, str)]
    if other:
        example = values[other[0]]
        raise DataError(
            f"{where}: {counted(len(other), 'value')} of {len(values):,} in column {column!r} not text but, "
            f"for instance, {example!r} ({type(example).__name__}) ({row_list(other)}). Choose the column of "
            f"texts with --text, or turn the values into strings."
        )
    texts = [value for value in values if isinstance(value, str)]
    _check_encodable(texts, column, where)
    return texts


def as_texts(texts: Any) -> list[str]:
    """Return one text or several as a list of strings. Raises DataError for anything else, naming the rows."""
    if isinstance(texts, str):
        return check_texts([texts], "input", "data")
    if hasattr(texts, "columns"):
        raise DataError("Found a table; expected texts. Give one column of it, such as table['text'].")
    if not hasattr(texts, "__iter__"):
        raise DataError(f"Found {texts!r} ({type(texts).__name__}); expected a text or several.")
    items = list(texts)
    return check_texts(items, "input", "data") if items else []


def _check_encodable(texts: Sequence[str], column: str, where: str) -> None:
    try:
        for text in texts:
            text.encode()
    except UnicodeEncodeError as error:
        bad = [row for row, text in enumerate(texts) if any("\ud800" <= c <= "\udfff" for c in text)]
        raise DataError(
            f"{where}: {counted(len(bad), 'text')} in column {column!r} with half of a surrogate pair, which "
            f"is no character ({row_list(bad)}). Decode the source again as UTF-8, or drop these rows."
        ) from error


def class_counts(labels: Sequence[str]) -> dict[str, int]:
    """Return the number of rows of each class, in the order of class numbers."""
    counts = Counter(labels)
    return {name: counts[name] for name in label_names(list(counts))}


def _repeats(folded: Sequence[str]) -> list[int]:
    """Return the rows whose text stands in an earlier row."""
    seen: set[str] = set()
    rows = []
    for row, text in enumerate(folded):
        if text in seen:
            rows.append(row)
        seen.add(text)
    return rows


def _conflicts(folded: Sequence[str], labels: Sequence[str]) -> dict[str, list[int]]:
    """Return the rows of each text that stands with more than one label."""
    first: dict[str, str] = {}
    mixed = {
        text for text, label in zip(folded, labels, strict=True) if first.setdefault(text, label) != label
    }
    rows: dict[str, list[int]] = {}
    for row, text in enumerate(folded):
        if text in mixed:
            rows.setdefault(text, []).append(row)
    return rows


def _label_warnings(labels: Sequence[str], where: str) -> list[str]:
    counts = class_counts(labels)
    warnings = [f"{where}: {warning}" for warning in label_variants(labels)]
    rare = [f"{name!r} ({count})" for name, count in counts.items() if count < RARE]
    if len(counts) == 1:
        warnings.append(f"{where}: all rows have the label {next(iter(counts))!r}")
    if rare:
        warnings.append(
            f"{where}: {counted(len(rare), 'class', 'classes')} with fewer than {RARE} examples: "
            f"{listed(rare, 10)}; fix: add examples, or merge them into other classes"
        )
    return warnings


def _duplicate_warnings(
    repeats: Sequence[int], conflicts: dict[str, list[int]], rows: int, where: str
) -> list[str]:
    warnings = []
    if repeats:
        warnings.append(
            f"{where}: {counted(len(repeats), 'text')} of {rows:,} ({len(repeats) / rows:.1%}) already in an "
            f"earlier row ({row_list(repeats)}); fix: drop the copies"
        )
    if conflicts:
        disputed = sorted(row for group in conflicts.values() for row in group)
        warnings.append(
            f"{where}: {counted(len(conflicts), 'text')} with different labels in different rows "
            f"({row_list(disputed)}); fix: decide on one label for each"
        )
    return warnings


def overlap(train: pd.DataFrame, other: pd.DataFrame, text_column: str, where: str) -> list[str]:
    """Return a warning if texts of `other`, called `where`, also stand in `train`, else an empty list."""
    known = {fold(text) for text in train[text_column].tolist() if isinstance(text, str)}
    rows = [
        row
        for row, text in enumerate(other[text_column].tolist())
        if isinstance(text, str) and text.strip() and fold(text) in known
    ]
    if not rows:
        return []
    return [
        f"{where}: {counted(len(rows), 'text')} of {len(other):,} ({len(rows) / len(other):.1%}) also in "
        f"train ({row_list(rows)}), which makes the score on {where} too good; fix: drop them from train"
    ]
