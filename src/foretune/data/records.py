"""JSON Lines, JSON arrays and plain lines of text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretune.data.coco import coco_table, looks_like_coco
from foretune.data.squad import is_squad, parse_squad
from foretune.data.text import counted, excerpt, listed
from foretune.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_jsonl(text: str, name: str) -> pd.DataFrame:
    """Return the table of one JSON object per line; blank lines are left out.

    Raises DataError naming the lines that are truncated, invalid, or no object.
    """
    records, faults = [], []
    # Not splitlines(): JSON strings may hold U+2028 and other separators unescaped.
    lines = text.split("\n" if "\n" in text else "\r")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        record, fault = _parse_line(line, last=number == len(lines))
        records.append(record)
        if fault:
            faults.append((number, line, fault))
    if faults:
        raise _faulty(name, faults)
    return _table(records, name)


def _parse_line(line: str, last: bool) -> tuple[Any, str]:
    """Return the object in `line` and an empty string, or None and what is wrong."""
    try:
        record = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        if last:
            return None, f"is truncated, the file ends inside it ({error})"
        return None, f"is not valid JSON ({error})"
    if not isinstance(record, dict):
        return None, f"holds a JSON {_kind(record)}, not an object"
    if _SURROGATE.search(line) and not _encodable(record):
        return None, "holds half of a surrogate pair (\\ud800 to \\udfff), which is no character"
    return record, ""


def _encodable(record: dict[str, Any]) -> bool:
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind(value: object) -> str:
    kinds = {list: "array", str: "string", bool: "boolean", type(None): "null", dict: "object"}
    return kinds.get(type(value), "number")


def _faulty(name: str, faults: list[tuple[int, str, str]]) -> DataError:
    number, line, fault = faults[0]
    others = (
        f" {counted(len(faults), 'faulty line')}: {listed([f[0] for f in faults])}." if faults[1:] else ""
    )
    return DataError(
        f"{name}: line {number} {fault}; it begins {excerpt(line.strip())}.{others} "
        f'Expected one object per line, such as {{"text": "…", "label": "…"}}; correct or remove the line.'
    )


def parse_json(text: str, name: str) -> pd.DataFrame:
    """Return the table of a JSON array of objects, or of a SQuAD or COCO file; JSON Lines named .json are read so.

    `name` is the file's path: a COCO file's pictures are looked for beside it (`coco.coco_table`).

    Raises DataError naming the place of a syntax error or the first items that are no objects.
    """
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        if text.lstrip().startswith("{"):
            return parse_jsonl(text, name)
        line = f"line {error.lineno}: " if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(f"{name} is not valid JSON, {line}{error}. Is the file complete?") from error
    if is_squad(value):
        return parse_squad(value, name)
    if looks_like_coco(value):
        return coco_table(value, Path(name))
    if not isinstance(value, list):
        raise DataError(
            f"{name} holds one JSON {_kind(value)}{_keys(value)}, expected an array of objects: [{{…}}, {{…}}], a "
            f"file of questions as SQuAD's, with data and paragraphs, or of boxes as COCO's, with images, "
            f"annotations and categories."
        )
    return from_records(value, name)


def _keys(value: object) -> str:
    return f" with the keys {listed(list(map(str, value)))}" if isinstance(value, dict) and value else ""


def from_records(records: list[Any], name: str) -> pd.DataFrame:
    """Return the table of a list of dicts. Raises DataError naming the first items that are no dict."""
    wrong = [i for i, record in enumerate(records, start=1) if not isinstance(record, dict)]
    if wrong:
        kind = type(records[wrong[0] - 1]).__name__
        raise DataError(
            f"{name}: {counted(len(wrong), 'item')} of {len(records):,} (item {listed(wrong)}) not an object "
            f'but, for instance, {kind}. Expected {{"text": …, "label": …}} throughout.'
        )
    return _table(records, name)


def _table(records: list[dict[str, Any]], name: str) -> pd.DataFrame:
    import pandas as pd

    if not records:
        raise DataError(f"{name} holds no rows. Add at least two labelled rows.")
    frame = pd.DataFrame(records)
    for column in frame.select_dtypes("float").columns:
        values = [record.get(column) for record in records]
        whole = all(value is None or type(value) is int for value in values)
        if whole:  # pandas turns 7 beside a gap into 7.0
            frame[column] = pd.Series(values, dtype=object)
    return frame


def parse_lines(text: str, name: str) -> pd.DataFrame:
    """Return one row per line in column `text`; an empty line between others is a missing text.

    Raises DataError if there is no text at all.
    """
    import pandas as pd

    # Empty lines inside are kept as rows, so that row numbers stay line numbers.
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise DataError(f"{name} is empty, expected one text per line.")
    return pd.DataFrame({"text": [line or None for line in lines]})
