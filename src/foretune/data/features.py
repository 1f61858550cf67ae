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
    """Return the table with class names in place of class numbers, also in lists of them (the tags of tokens).

    Any number that is no class (the hub's test sets use -1) is a hidden label, so missing.
    """
    for column, note in notes.items():
        if column not in frame:
            continue
        names, inner = _names(note), _names(_inner(note))
        if names:
            frame = frame.assign(**{column: frame[column].map(dict(enumerate(names)))})
        elif inner:
            frame = frame.assign(**{column: [_named(cell, inner) for cell in frame[column].tolist()]})
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


def _named(numbers: Any, names: list[str]) -> list[str | None] | None:
    """Return class names for a list of class numbers; a missing list stays missing."""
    if numbers is None or not hasattr(numbers, "__len__"):
        return None
    return [names[number] if 0 <= number < len(names) else None for number in numbers]
