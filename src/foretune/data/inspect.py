"""A look at a table before anything else: its columns, classes, lengths and what to mend."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TextIO

from foretune.data.audit import Audit, audit, class_counts
from foretune.data.cells import as_texts
from foretune.data.columns import Columns
from foretune.data.infer import infer_task
from foretune.data.labels import label_texts
from foretune.data.media import media_of
from foretune.data.profile import profile
from foretune.data.read import STDIN, read_table
from foretune.data.text import excerpt, is_blank

if TYPE_CHECKING:
    import pandas as pd

# Tasks of one label a row, and those whose rows are all there is.
CLASSIFYING = ("text-classification", "image-classification", "audio-classification")
WITHOUT_TARGET = ("similarity", "text-generation")


def inspect_data(
    source: Any,
    *,
    text: str | None = None,
    second: str | None = None,
    target: str | None = None,
    task: str = "auto",
    separator: str | None = None,
    offline: bool = False,
    split: str = "train",
    stdin: TextIO | None = None,
) -> dict[str, Any]:
    """Return what `source` holds, as values that JSON can hold; arguments as for `read_table`.

    Keys: file, rows, columns (name, role, type, distinct, missing, example), text, second, target, reason, task
    (None without a target), classes (name to rows, of tasks with one label a row), lengths in characters (median,
    p95, max; None for pictures and sounds), duplicates, conflicts, cjk_share, warnings. Raises what reading,
    choosing columns and auditing raise.
    """
    table = read_table(source, separator=separator, offline=offline, split=split, stdin=stdin)
    plain = task == "auto" and table.attrs.get("format") == "txt"  # learnt as it is, as a fit would
    found = infer_task(table, text=text, second=second, target=target, task=task, need_target=plain)
    columns, name = found.columns, _source_name(source)
    learnt = columns.target is not None or bool(columns.targets) or found.task in WITHOUT_TARGET
    return {
        "file": name,
        "rows": len(table),
        "columns": _describe(table, columns),
        "text": columns.text,
        "second": columns.second,
        "target": ",".join(columns.targets) or columns.target,
        "reason": found.reason,
        "task": found.task if learnt else None,
        **_content(table, columns, found.task, name),
    }


def _content(table: pd.DataFrame, columns: Columns, task: str, name: str) -> dict[str, Any]:
    """Return the numbers about texts and labels, as far as the task has such."""
    labelled = columns if task in CLASSIFYING else replace(columns, target=None)
    warnings = list(table.attrs.get("warnings", ()))
    if "missing" in table.attrs:  # pictures of a COCO file
        warnings.append(table.attrs["missing"])
    if media_of(table[[columns.text]]) is not None:
        classes = (
            {}
            if labelled.target is None
            else class_counts(label_texts(table[labelled.target].tolist(), name))
        )
        rest = {"duplicates": 0, "conflicts": 0, "cjk_share": 0.0, "warnings": warnings}
        return {"classes": classes, "lengths": None, **rest}
    if task == "text-generation" and table.attrs.get("format") == "txt":
        return {
            **_numbers(audit(_running(table, columns), labelled, where=name)),
            "duplicates": 0,
            "warnings": [],
        }
    values = as_texts(table[columns.text].tolist())
    if columns.second is not None:  # copies are pairs that occur twice
        others = as_texts(table[columns.second].tolist())
        values = [
            f"{one}\n{two}" if isinstance(one, str) else one for one, two in zip(values, others, strict=True)
        ]
    numbers = _numbers(audit(table.assign(**{columns.text: values}), labelled, where=name))
    return {**numbers, "warnings": [*warnings, *numbers["warnings"]]}


def _running(table: pd.DataFrame, columns: Columns) -> pd.DataFrame:
    """Return the lines of a running text that are not blank; they may recur."""
    return table[[not is_blank(line) for line in table[columns.text].tolist()]]


def _source_name(source: Any) -> str:
    if isinstance(source, str) and source == "-":
        return STDIN
    return os.fspath(source) if isinstance(source, str | os.PathLike) else type(source).__name__


def _describe(table: pd.DataFrame, columns: Columns) -> list[dict[str, Any]]:
    roles = {columns.text: "text", columns.second: "second", columns.target: "target"}
    roles |= dict.fromkeys(columns.targets, "target")
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
