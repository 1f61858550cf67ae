"""Several references for one text: a column of lists beside the target, as sets with several annotators have it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from foretune.data.cells import are_lists_of, is_list
from foretune.data.text import counted, excerpt, is_blank, is_missing, row_list
from foretune.errors import DataError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

NONE = "none"  # given as the column: the target alone counts
_SHARE = 0.9  # of the lists hold the target, where nobody has named their column


def references_column(table: pd.DataFrame, target: str) -> str | None:
    """Return the first column of lists of texts that hold the row's target, or None."""
    wanted = table[target].tolist()
    others = [str(name) for name in table.columns if str(name) != target and table[name].dtype == object]
    return next((name for name in others if _holds(table[name].tolist(), wanted)), None)


def _holds(cells: Sequence[Any], wanted: Sequence[Any]) -> bool:
    if not are_lists_of(cells, str):
        return False
    pairs = [(cell, text) for cell, text in zip(cells, wanted, strict=True) if is_list(cell) and cell]
    return sum(text in cell for cell, text in pairs) >= _SHARE * len(pairs)


def references(
    table: pd.DataFrame, target: str, column: str = "", where: str = "train"
) -> list[list[str]] | None:
    """Return every row's references, the target first and none twice; None where each row has its target alone.

    `column`: the one that holds lists of them, or "none"; where it is empty, `references_column` looks for one.
    Raises DataError where the column is missing, or naming rows that are neither lists of texts nor empty.
    """
    name = column or references_column(table, target)
    if name is None or (name == NONE and NONE not in table):
        return None
    if name not in table:
        raise DataError(
            f"{where}: there is no column {name!r} of references.{did_you_mean(name, table.columns)} Columns: "
            f"{', '.join(map(str, table.columns))}. Correct --option references, or leave it out: lists that hold the "
            f"target are found."
        )
    cells = [[] if is_missing(cell) else cell for cell in table[name].tolist()]
    _check(cells, name, where)
    pairs = zip(table[target].tolist(), cells, strict=True)
    found = [
        list(dict.fromkeys([text, *(each for each in cell if not is_blank(each))])) for text, cell in pairs
    ]
    return found if any(len(row) > 1 for row in found) else None


def _check(cells: Sequence[Any], name: str, where: str) -> None:
    wrong = [
        row
        for row, cell in enumerate(cells)
        if not is_list(cell) or not all(isinstance(each, str) or is_missing(each) for each in cell)
    ]
    if wrong:
        raise DataError(
            f"{where}: {counted(len(wrong), 'cell')} of column {name!r} no list of references ({row_list(wrong)}), "
            f'for instance {excerpt(repr(cells[wrong[0]]))}. Expected lists of texts such as ["one", "another"].'
        )
