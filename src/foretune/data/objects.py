"""Boxes in the cells of a table, as `datasets` keeps them: a column of objects, or one of boxes and one of labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.data.boxes import clean_boxes
from foretune.data.cells import is_list
from foretune.data.images import image_sizes
from foretune.data.text import is_missing, listed
from foretune.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

_BOXES = ("bbox", "bboxes", "boxes", "box")
_LABELS = ("category", "categories", "label", "labels", "class", "classes", "category_id")
_CROWD = ("iscrowd", "is_crowd")
#: The columns of a table of boxes: (x, y, width, height) in pixels, and their names.
BOXES, LABELS = "boxes", "labels"


def holds_boxes(table: pd.DataFrame) -> bool:
    """Say whether a table has the columns `boxes` and `labels`, and lists in them."""
    if not {BOXES, LABELS} <= set(table.columns):
        return False
    cells = [cell for name in (BOXES, LABELS) for cell in table[name].tolist() if not is_missing(cell)]
    return bool(cells) and all(is_list(cell) for cell in cells)


def with_boxes(frame: pd.DataFrame) -> pd.DataFrame:
    """Return `frame` with a column of objects as `boxes`, `labels`, `crowd_boxes` and `crowd_labels`.

    Its cells are {"bbox": [...], "category": [...]}, or a list of {"bbox", "category"}; a table without such a
    column, or with boxes of its own, stays as it is. Raises DataError naming the rows whose objects have other
    numbers of boxes than of names, or no name.
    """
    found = None if {BOXES, LABELS} & set(frame.columns) else _objects(frame)
    if found is None:
        return frame
    column, keys = found
    rows = [_row(cell, keys) for cell in frame[column].tolist()]
    wrong = [number for number, row in enumerate(rows, start=1) if row is None]
    if wrong:
        raise DataError(
            f"Column {column!r}: rows {listed(wrong)} hold objects without a name, or other numbers of boxes than of "
            f"names. Expected {{'{keys[0]}': [[x, y, width, height], …], '{keys[1]}': [name, …]}}."
        )
    names = (BOXES, LABELS, "crowd_boxes", "crowd_labels")
    cells = {name: [row[i] for row in rows if row is not None] for i, name in enumerate(names)}
    table = frame.drop(columns=[column]).assign(**cells)
    table.attrs = {**frame.attrs, "format": "objects"}
    return table


def clean_rows(
    paths: Sequence[str], boxes: Sequence[Any], labels: Sequence[Any], where: str
) -> tuple[list[list[list[float]]], list[list[str]], tuple[str, ...]]:
    """Return each picture's boxes within it and their names, without those that have no area, and warnings.

    `boxes`: a list of (x, y, width, height) per picture. Raises DataError as `clean_boxes` does, naming boxes by
    row and number, both from 1, and BrokenMediaError for pictures without a readable header.
    """
    counts = [len(row) for row in boxes]
    sizes = np.repeat(image_sizes(paths), counts, axis=0)
    ids = [f"row {row}, box {i}" for row, n in enumerate(counts, start=1) for i in range(1, n + 1)]
    clean = clean_boxes([box for row in boxes for box in row], sizes, ids, where)
    ends = np.cumsum(counts)[:-1]
    kept = np.split(clean.keep, ends)
    inside = [row[keep].tolist() for row, keep in zip(np.split(clean.boxes, ends), kept, strict=True)]
    names = [
        [str(name) for name, keep in zip(row, mask, strict=True) if keep]
        for row, mask in zip(labels, kept, strict=True)
    ]
    return inside, names, clean.warnings


def _objects(frame: pd.DataFrame) -> tuple[str, tuple[str, str, str | None]] | None:
    """Return the column of objects and their keys of boxes, names and crowds."""
    for column in frame.columns:
        cells = frame[column].tolist() if frame[column].dtype == object else []
        first = next((cell for cell in cells if cell is not None and cell != []), None)
        record = first[0] if is_list(first) and first else first
        if not isinstance(record, dict):
            continue
        known = {str(key).casefold(): str(key) for key in record}
        box, label, crowd = (
            next((known[name] for name in names if name in known), None)
            for names in (_BOXES, _LABELS, _CROWD)
        )
        if box is not None and label is not None:
            return str(column), (box, label, crowd)
    return None


def _row(cell: Any, keys: tuple[str, str, str | None]) -> tuple[list[Any], ...] | None:
    """Return boxes and names of single objects, then of crowds; None where they cannot be told."""
    if is_missing(cell):
        return [], [], [], []
    records = cell if is_list(cell) else _records(cell, keys)
    if records is None or not all(isinstance(record, dict) for record in records):
        return None
    found: tuple[list[Any], ...] = ([], [], [], [])
    for record in records:
        label = record.get(keys[1])
        if is_missing(label) or isinstance(label, list | dict):
            return None
        place = 2 if keys[2] and record.get(keys[2]) else 0
        found[place].append(record.get(keys[0]))
        found[place + 1].append(str(label))
    return found


def _records(cell: Any, keys: tuple[str, str, str | None]) -> list[dict[str, Any]] | None:
    """Return one record per object of a record of lists."""
    lists = {key: cell.get(key) for key in keys if key is not None} if isinstance(cell, dict) else {}
    kept = {key: values for key, values in lists.items() if isinstance(values, list | tuple)}
    if not set(keys[:2]) <= set(kept) or len({len(values) for values in kept.values()}) != 1:
        return None
    return [dict(zip(kept, values, strict=True)) for values in zip(*kept.values(), strict=True)]
