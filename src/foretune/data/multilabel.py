"""Several labels per text: from lists, from strings with a separator, or from columns of 0 and 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from foretune.data.cells import is_list
from foretune.data.conll import BIO_TAG
from foretune.data.labels import label_text
from foretune.data.text import counted, excerpt, is_blank, listed, row_list
from foretune.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from foretune.data.columns import Columns

SEPARATORS = (";", "|", ",", "；", "、", "，")
_SHARED = 0.9
_LONGEST = 60
_FLAGS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}


def label_lists(
    table: pd.DataFrame, columns: Columns, *, separator: str | None = None, where: str = "train"
) -> list[list[str]]:
    """Return the distinct labels of every row, in their order; an empty cell means no label.

    Labels are the names of `columns.targets` that hold 1, or those of the cells of `columns.target`: lists
    (of BIO tags the types of entities), or strings split at `separator` (see `label_separator`); without
    one, a cell is one label. Raises DataError naming rows and columns that hold something else.
    """
    if columns.targets:
        return _from_flags(table, columns.targets, where)
    assert columns.target is not None
    cells = table[columns.target].tolist()
    wrong = [row for row, cell in enumerate(cells) if isinstance(cell, dict) or _has_bad_item(cell)]
    if wrong:
        raise DataError(
            f"{where}: {counted(len(wrong), 'cell')} of column {columns.target!r} not labels "
            f"({row_list(wrong)}), for instance {excerpt(repr(cells[wrong[0]]))}. Expected a list of labels, "
            f"or labels with a separator between them; choose another column with --target."
        )
    if is_multi_hot(cells):
        raise DataError(
            f"{where}: column {columns.target!r} holds vectors of 0 and 1, such as {excerpt(repr(cells[0]))}, which do "
            "not name their labels. Expected lists of labels, or a column of 0 and 1 for each label."
        )
    split = [_labels(cell, separator) for cell in cells]
    if is_bio(cells):
        split = [[tag.partition("-")[2] for tag in tags if tag != "O"] for tags in split]
    return [list(dict.fromkeys(labels)) for labels in split]


def is_bio(cells: Sequence[Any]) -> bool:
    """Say whether the lists in `cells` are BIO tags, such as the slots of an utterance."""
    tags = {tag for cell in cells if is_list(cell) for tag in cell}
    return "O" in tags and len(tags) > 1 and all(isinstance(t, str) and BIO_TAG.fullmatch(t) for t in tags)


def is_multi_hot(cells: Sequence[Any]) -> bool:
    """Say whether the cells are vectors of 0 and 1, several numbers each and as many in every row."""
    if not cells or not all(is_list(cell) and len(cell) == len(cells[0]) > 1 for cell in cells):
        return False
    return all(isinstance(item, int | float) and item in (0, 1) for cell in cells for item in cell)


def without_labels(lists: Sequence[Sequence[str]], where: str = "train") -> list[str]:
    """Return a warning that counts the rows without any label, or an empty list."""
    rows = [row for row, labels in enumerate(lists) if not labels]
    if not rows:
        return []
    return [f"{where}: {counted(len(rows), 'row')} of {len(lists):,} without any label ({row_list(rows)})"]


def _has_bad_item(cell: Any) -> bool:
    return is_list(cell) and any(is_blank(item) or is_list(item) or isinstance(item, dict) for item in cell)


def _labels(cell: Any, separator: str | None) -> list[str]:
    if is_list(cell):
        return [label_text(item) for item in cell]
    if is_blank(cell):
        return []
    if separator is None or not isinstance(cell, str):
        return [label_text(cell)]
    return _split(cell, separator)


def _split(cell: str, separator: str) -> list[str]:
    return [part.strip() for part in cell.split(separator) if part.strip()]


def label_separator(values: Sequence[Any]) -> str | None:
    """Return what separates the labels in a column of strings, or None where each cell is one label.

    A separator is believed only where splitting leaves fewer names than there were, and nearly all parts of
    split cells also stand in a different cell: "Toys, Games" that is never seen apart stays one label.
    """
    cells = {value for value in values if isinstance(value, str) and not is_blank(value)}
    best = max(SEPARATORS, key=lambda mark: sum(mark in cell for cell in cells), default=None)
    return best if best is not None and _separates(cells, best) else None


def _separates(cells: set[str], mark: str) -> bool:
    split = [_split(cell, mark) for cell in cells]
    joined = [parts for parts in split if len(parts) > 1]
    seen: dict[str, int] = {}
    for parts in split:
        for part in set(parts):
            seen[part] = seen.get(part, 0) + 1
    parts = [part for row in joined for part in row]
    if not parts or len(seen) >= len(cells) or max(map(len, parts)) > _LONGEST:
        return False
    return sum(seen[part] > 1 for part in parts) >= _SHARED * len(parts)


def _from_flags(table: pd.DataFrame, targets: Sequence[str], where: str) -> list[list[str]]:
    lists: list[list[str]] = [[] for _ in range(len(table))]
    for name in targets:
        cells = table[name].tolist()
        flags = [None if is_blank(cell) else _FLAGS.get(str(cell).strip().casefold()) for cell in cells]
        wrong = [row for row, flag in enumerate(flags) if flag is None]
        if wrong:
            shown = listed(sorted({repr(cells[row]) for row in wrong}), 3)
            raise DataError(
                f"{where}: {counted(len(wrong), 'value')} of column {name!r} neither 0 nor 1 "
                f"({row_list(wrong)}): {shown}. With several columns in --target each says whether its "
                f"label applies; fill these in, or name other columns."
            )
        for labels, flag in zip(lists, flags, strict=True):
            if flag:
                labels.append(name)
    return lists
