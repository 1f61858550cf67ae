"""Cells that hold more than one value: lists as JSON, parquet and the hub give them, and token lists as texts."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from foretune.data.text import has_cjk, is_blank, is_missing

if TYPE_CHECKING:
    import pandas as pd

_TOUCHING = re.compile(r"""['"]\s+['"]""")
_ARRAY = re.compile(r"array\((\[.*?\])(?:,\s*dtype=\w+)?\)", re.DOTALL)
#: Columns that the hub's sets keep dicts in; dicts elsewhere may be texts.
_OF_DICTS = ("answers", "answer", "translation", "objects")


def is_list(value: object) -> bool:
    """Say whether `value` is a list or a tuple."""
    return isinstance(value, list | tuple)


def plain_cells(frame: pd.DataFrame) -> pd.DataFrame:
    """Return `frame` with numpy arrays in its cells, as parquet and datasets give them, turned into lists."""
    import numpy as np

    for column in [name for name, kind in frame.dtypes.items() if str(kind) == "object"]:
        values = frame[column].tolist()
        if any(isinstance(value, np.ndarray | dict) for value in values):
            frame = frame.assign(**{str(column): _series([_plain(value) for value in values], frame)})
    return frame


def with_lists(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table of strings with columns of nothing but lists, as JSON or Python writes them, turned into lists.

    Likewise dicts, in columns that are called as those of the hub's sets (`answers`, `translation`, `objects`).
    """
    for column in frame.columns:
        dicts = str(column).strip().casefold() in _OF_DICTS
        lists = _read_cells(frame[column].tolist(), _list_in)
        if lists is None and dicts:
            lists = _read_cells(frame[column].tolist(), _dict_in)
        if lists is not None:
            frame = frame.assign(**{str(column): _series(lists, frame)})
    return frame


def _read_cells(cells: Sequence[Any], read: Callable[[str], Any]) -> list[Any] | None:
    """Return what strings hold by `read`, or None as soon as one holds nothing; missing cells stay."""
    if all(is_missing(cell) for cell in cells):
        return None
    found: list[Any] = []
    for cell in cells:
        if is_missing(cell):
            found.append(None)
        elif (items := read(str(cell).strip())) is not None:
            found.append(items)
        else:
            return None
    return found


def _list_in(text: str) -> list[Any] | None:
    if not (text.startswith("[") and text.endswith("]")):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    if _TOUCHING.search(text):  # as NumPy prints arrays; Python would make one string of two
        return None
    items = _literal(text)
    return items if isinstance(items, list) else None


def _dict_in(text: str) -> dict[Any, Any] | None:
    """Return the dict that a string holds as JSON or as Python writes it, with NumPy's arrays, too; None: none."""
    if not (text.startswith("{") and text.endswith("}")):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = _literal(_ARRAY.sub(r"\1", text))
    return found if isinstance(found, dict) else None


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def unnested(frame: pd.DataFrame) -> pd.DataFrame:
    """Return `frame` with a column `translation` of {"en": …, "de": …} in one column per language.

    That is how the hub's sets hold translations. `attrs["languages"]` names the columns in their order.
    """
    column = next((name for name in frame.columns if str(name).strip().casefold() == "translation"), None)
    cells = [] if column is None or frame[column].dtype != object else frame[column].tolist()
    texts = [cell for cell in cells if isinstance(cell, dict)]
    languages = list(dict.fromkeys(key for cell in texts for key in cell))
    wrong = any(not (value is None or isinstance(value, str)) for cell in texts for value in cell.values())
    if len(languages) < 2 or wrong or set(languages) & set(frame.columns):
        return frame
    rows = [cell if isinstance(cell, dict) else {} for cell in cells]
    place = list(frame.columns).index(column)
    found = frame.drop(columns=[column])
    for offset, language in enumerate(languages):
        found.insert(place + offset, language, _series([row.get(language) for row in rows], frame))
    found.attrs = {**frame.attrs, "languages": languages}
    return found


def _series(values: list[Any], frame: pd.DataFrame) -> pd.Series:
    import pandas as pd

    return pd.Series(values, index=frame.index, dtype=object)


def _plain(value: Any) -> Any:
    import numpy as np

    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def are_lists_of(values: Sequence[object], kinds: type | tuple[type, ...]) -> bool:
    """Say whether the cells that are not missing are lists of nothing but `kinds`, some of them not empty."""
    present = [value for value in values if not is_missing(value)]
    if not present or not all(is_list(value) for value in present):
        return False
    items = [item for value in present if isinstance(value, list | tuple) for item in value]
    return bool(items) and all(isinstance(item, kinds) for item in items)


def join_tokens(tokens: Sequence[str]) -> str:
    """Return the text of `tokens`: a blank between two of them unless both touch with Chinese characters."""
    parts = list(tokens[:1])
    for before, after in pairwise(tokens):
        together = has_cjk(before[-1:]) and has_cjk(after[:1])
        parts.append(after if together else f" {after}")
    return "".join(parts)


def as_texts(values: Sequence[Any]) -> list[Any]:
    """Return a column as texts: lists of tokens joined, every other cell as it is."""
    return [
        join_tokens([str(token) for token in value]) if is_list(value) and not is_blank(value) else value
        for value in values
    ]
