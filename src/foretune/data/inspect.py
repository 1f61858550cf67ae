"""A look at a table before anything else: its columns, classes, lengths and what to mend."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TextIO

from foretune.data.audit import Audit, audit
from foretune.data.columns import Columns, infer_columns
from foretune.data.profile import profile
from foretune.data.read import STDIN, read_table
from foretune.data.text import excerpt, is_blank

if TYPE_CHECKING:
    import pandas as pd


def inspect_data(
    source: Any,
    *,
    text: str | None = None,
    target: str | None = None,
    separator: str | None = None,
    offline: bool = False,
    split: str = "train",
    stdin: TextIO | None = None,
) -> dict[str, Any]:
    """Return what `source` holds, as values that JSON can hold; arguments as for `read_table`.

    Keys: file, rows, columns (name, role, type, distinct, missing, example), text, target, reason, task
    (None without a target), classes (name to rows), lengths in characters (median, p95, max), duplicates,
    conflicts, cjk_share, warnings. Raises what reading, choosing columns and auditing raise.
    """
    table = read_table(source, separator=separator, offline=offline, split=split, stdin=stdin)
    columns = infer_columns(table, text=text, target=target, need_target=False)
    name = _source_name(source)
    return {
        "file": name,
        "rows": len(table),
        "columns": _describe(table, columns),
        "text": columns.text,
        "target": columns.target,
        "reason": columns.reason,
        "task": None if columns.target is None else "text-classification",
        **_numbers(audit(table, columns, where=name)),
    }


def _source_name(source: Any) -> str:
    if isinstance(source, str) and source == "-":
        return STDIN
    return os.fspath(source) if isinstance(source, str | os.PathLike) else type(source).__name__


def _describe(table: pd.DataFrame, columns: Columns) -> list[dict[str, Any]]:
    roles = {columns.text: "text", columns.target: "target"}
    described = []
    for name in table.columns:
        values = table[name].tolist()
        column = profile(name, values)
        example = next((value for value in values if not is_blank(value)), None)
        described.append(
            {
                "name": name,
                "role": roles.get(name),
                "type": str(table[name].dtype),
                "distinct": column.distinct,
                "missing": column.missing,
                "example": None if example is None else excerpt(str(example)),
            }
        )
    return described


def _numbers(found: Audit) -> dict[str, Any]:
    return {
        "classes": found.classes,
        "lengths": {"median": found.length_median, "p95": found.length_p95, "max": found.length_max},
        "duplicates": found.duplicates,
        "conflicts": found.conflicts,
        "cjk_share": found.cjk_share,
        "warnings": found.warnings,
    }
