"""What `datasets` notes of its columns, also in parquet files: names of classes, pictures, sounds.

The notes have the form of `datasets.Features.to_dict()` and are read without importing `datasets`, which takes
seconds: {"label": {"_type": "ClassLabel", "names": [...]}, "image": {"_type": "Image"}}.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from foretune.data.media import AUDIO, IMAGE

if TYPE_CHECKING:
    import pandas as pd

Notes = dict[str, Any]
_KINDS = {"Image": IMAGE, "Audio": AUDIO}


def parquet_notes(metadata: Mapping[bytes, bytes] | None) -> Notes:
    """Return the notes in the metadata of a parquet file's schema; none where `datasets` did not write it."""
    try:
        notes = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return notes if isinstance(notes, dict) else {}


def media_kinds(notes: Notes) -> dict[str, str]:
    """Return "image" or "audio" for the columns that hold such."""
    return {name: _KINDS[note["_type"]] for name, note in notes.items() if _type(note) in _KINDS}


def with_class_names(frame: pd.DataFrame, notes: Notes) -> pd.DataFrame:
    """Return the table with class names in place of class numbers, also in lists and records (tags, objects).

    Any number that is no class (the hub's test sets use -1) is a hidden label, so missing.
    """
    for column, note in notes.items():
        if column not in frame:
            continue
        names = _names(note)
        if names:
            frame = frame.assign(**{column: frame[column].map(dict(enumerate(names)))})
        elif _holds_classes(note):
            frame = frame.assign(**{column: [_named(cell, note) for cell in frame[column].tolist()]})
    return frame


def _type(note: Any) -> str:
    return str(note.get("_type")) if isinstance(note, dict) else ""


def _inner(note: Any) -> Any:
    """Return the note of a list's items."""
    if isinstance(note, list):  # as lists were written before version 4
        return note[0] if note else None
    return note.get("feature") if isinstance(note, dict) else None


def _names(note: Any) -> list[str]:
    names = note.get("names") if _type(note) == "ClassLabel" else None
    return [str(name) for name in (names.values() if isinstance(names, dict) else names or [])]


def _fields(note: Any) -> Notes:
    """Return the notes of a record's fields."""
    return note if isinstance(note, dict) and "_type" not in note else {}


def _holds_classes(note: Any) -> bool:
    return bool(_names(note)) or any(
        map(_holds_classes, [*_fields(note).values(), *filter(None, [_inner(note)])])
    )


def _named(cell: Any, note: Any) -> Any:
    """Return a cell with class names for class numbers, however deep; a missing one stays missing."""
    if names := _names(note):
        known = isinstance(cell, int | float) or hasattr(cell, "__index__")
        return names[int(cell)] if known and 0 <= cell < len(names) else None
    inner = _inner(note)
    if isinstance(cell, dict):  # a record, or a list of records kept as a record of lists
        notes = _fields(note) or {key: [value] for key, value in _fields(inner).items()}
        return {key: _named(value, notes[key]) if key in notes else value for key, value in cell.items()}
    if inner is None or cell is None or isinstance(cell, str) or not hasattr(cell, "__len__"):
        return cell
    return [_named(item, inner) for item in cell]
