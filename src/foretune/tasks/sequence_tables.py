"""Reading tables of texts to be written, and what is odd about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foretune.data.audit import check_texts
from foretune.data.references import references as all_references
from foretune.data.text import counted, fold
from foretune.errors import DataError, did_you_mean

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from foretune.data.columns import Columns

REPEATED = 0.01  # share of rows from which on it is worth a warning


def read_texts(table: pd.DataFrame, column: str, where: str) -> list[str]:
    """Return a column's texts. Raises DataError where it is missing, or rows are blank or no text."""
    if column not in table:
        found = ", ".join(map(str, table.columns))
        raise DataError(
            f"{where}: there is no column {column!r}.{did_you_mean(column, table.columns)} Columns: {found}."
        )
    return check_texts(table[column].tolist(), column, where)


def read_targets(table: pd.DataFrame, column: str, references: str, where: str) -> np.ndarray:
    """Return the targets (n,) of objects: a text each, or a list where rows have several references.

    The first of a list is what is learnt. `references`: the column of lists, see `foretune.data.references`. Raises
    DataError.
    """
    import numpy as np

    texts = read_texts(table, column, where)
    found = all_references(table, column, references, where) or texts
    targets = np.empty(len(texts), dtype=object)
    for row, target in enumerate(found):  # as lists of equal length would become a matrix
        targets[row] = target
    return targets


def learnt(targets: np.ndarray) -> list[str]:
    """Return the text of every target that is learnt: its own, or the first of its references."""
    return [target if isinstance(target, str) else target[0] for target in targets.tolist()]


def audit_pairs(table: pd.DataFrame, columns: Columns, where: str) -> list[str]:
    """Return warnings about rows that repeat or only copy. Raises DataError for blank cells."""
    sources = [fold(text) for text in read_texts(table, columns.text, where)]
    if columns.target is None:
        return []
    targets = [fold(text) for text in read_texts(table, columns.target, where)]
    repeated = len(sources) - len(set(zip(sources, targets, strict=True)))
    copied = sum(source == target for source, target in zip(sources, targets, strict=True))
    warnings = []
    if repeated > REPEATED * len(sources):
        warnings.append(
            f"{where}: {counted(repeated, 'row')} of {len(sources):,} repeat an earlier pair of texts word for "
            "word. Drop them, or they count double."
        )
    if copied > REPEATED * len(sources):
        warnings.append(
            f"{where}: the target is the source itself in {counted(copied, 'row')} of {len(sources):,}. The model "
            "learns to copy from them; drop those that are not meant so."
        )
    return warnings
