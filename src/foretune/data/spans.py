"""Entities as spans of characters: the layouts in use, which end they mean, and what cannot be right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from foretune.data.cells import is_list
from foretune.data.text import counted, excerpt, is_missing, listed, row_list
from foretune.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

Span = tuple[int, int, str]  # first character, the one after the last, label

_STARTS = ("start", "start_offset", "begin", "start_idx", "from")
_ENDS = ("end", "end_offset", "stop", "end_idx", "to")
_LABELS = ("label", "type", "entity_type", "entity_group", "tag", "category", "labels")
_SURFACES = ("text", "surface", "word", "mention", "value", "entity", "span")


@dataclass(frozen=True)
class _Mark:
    """A span as it was written; `end` may turn out to mean the last character."""

    start: int
    end: int
    label: str
    surface: str | None = None


def is_spans(values: Sequence[object]) -> bool:
    """Say whether the cells that are not missing are lists of spans, at least one of them not empty."""
    present = [value for value in values if not is_missing(value)]
    read = [_marks(value) for value in present]
    return any(read) and all(marks is not None for marks in read)


def spans_column(table: pd.DataFrame) -> str | None:
    """Return the first column that holds spans of characters, or None."""
    names = [str(name) for name in table.columns if table[name].dtype == object]
    return next((name for name in names if is_spans(table[name].tolist())), None)


def normal_spans(texts: Sequence[str], values: Sequence[object], where: str = "train") -> list[list[Span]]:
    """Return the spans of every text in order of their starts, ends exclusive; a missing cell has none.

    A span is {"start", "end", "label"} (or usual other names), [start, end, label], or as in CLUENER
    {label: {surface: [[start, end]]}}. Where surfaces are given they tell whether ends are inclusive;
    otherwise ends are exclusive. Raises DataError naming rows whose spans cannot be read, lie outside
    their text, are empty, or differ from their surface.
    """
    read = [[] if is_missing(value) else _marks(value) for value in values]
    unread = [row for row, marks in enumerate(read) if marks is None]
    if unread:
        raise DataError(
            f"{where}: {counted(len(unread), 'row')} whose spans cannot be read ({row_list(unread)}), for "
            f'instance {excerpt(repr(values[unread[0]]))}. Expected a list of {{"start": 0, "end": 2, '
            f'"label": "X"}} or of [0, 2, "X"].'
        )
    marks = [row for row in read if row is not None]
    inclusive = _ends_are_inclusive(texts, marks)
    _check(texts, marks, inclusive, where)
    return [sorted((mark.start, mark.end + inclusive, mark.label) for mark in row) for row in marks]


def overlap_rows(spans: Sequence[Sequence[Span]]) -> list[int]:
    """Return the rows (from 0) in which spans share characters; tags of tokens can hold only one of such."""
    return [row for row, found in enumerate(spans) if len(without_overlaps(found)) < len(found)]


def without_overlaps(spans: Sequence[Span]) -> list[Span]:
    """Return the spans that share no character, the longest (then the first) kept, in order of starts."""
    kept: list[Span] = []
    for span in sorted(spans, key=lambda s: (s[0] - s[1], s)):
        if all(span[1] <= other[0] or other[1] <= span[0] for other in kept):
            kept.append(span)
    return sorted(kept)


def _marks(value: object) -> list[_Mark] | None:
    """Return the spans of a cell, or None where it holds something else."""
    if isinstance(value, dict):
        return _nested(value) if not _is_mark(value) else None
    if not is_list(value):
        return None
    marks = [_mark(item) for item in value]  # type: ignore[attr-defined]
    return None if any(mark is None for mark in marks) else [mark for mark in marks if mark is not None]


def _is_mark(value: dict[str, Any]) -> bool:
    return _get(value, _STARTS) is not None and _get(value, _ENDS) is not None


def _get(record: dict[str, Any], names: Sequence[str]) -> Any:
    return next((record[name] for name in names if record.get(name) is not None), None)


def _mark(item: object) -> _Mark | None:
    surface = None
    if isinstance(item, dict):
        label, surface = _get(item, _LABELS), _get(item, _SURFACES)
        item = [
            _get(item, _STARTS),
            _get(item, _ENDS),
            label[0] if is_list(label) and len(label) == 1 else label,
        ]
    if not isinstance(item, list | tuple) or len(item) != 3:
        return None
    start, end, label = item
    if not (_is_whole(start) and _is_whole(end) and isinstance(label, str) and label.strip()):
        return None
    return _Mark(int(start), int(end), label, surface if isinstance(surface, str) else None)


def _is_whole(value: object) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, float) and value.is_integer()
    )


def _nested(value: dict[str, Any]) -> list[_Mark] | None:
    """Read {label: {surface: [[start, end], …]}}, the layout of CLUENER's own files."""
    marks = list(_nested_marks(value))
    return None if any(mark is None for mark in marks) else [mark for mark in marks if mark is not None]


def _nested_marks(value: dict[str, Any]) -> Iterator[_Mark | None]:
    for label, surfaces in value.items():
        if surfaces is None:  # as pandas and Arrow fill up a label that a row does not have
            continue
        if not isinstance(surfaces, dict):
            yield None
            return
        for surface, places in surfaces.items():
            for place in places if is_list(places) else [] if places is None else [None]:
                found = _mark([*place, label]) if isinstance(place, list | tuple) else None
                yield found and _Mark(found.start, found.end, label, surface)


def _ends_are_inclusive(texts: Sequence[str], marks: Sequence[Sequence[_Mark]]) -> bool:
    """Say which reading of the ends fits more surfaces; exclusive where none are given."""
    exclusive = inclusive = 0
    for text, row in zip(texts, marks, strict=True):
        for mark in row:
            if mark.surface is not None:
                exclusive += text[mark.start : mark.end] == mark.surface
                inclusive += text[mark.start : mark.end + 1] == mark.surface
    return inclusive > exclusive


def _check(texts: Sequence[str], marks: Sequence[Sequence[_Mark]], inclusive: bool, where: str) -> None:
    faults = [
        (row, mark, fault)
        for row, (text, found) in enumerate(zip(texts, marks, strict=True))
        for mark in found
        if (fault := _fault(text, mark, inclusive))
    ]
    if not faults:
        return
    rows = sorted({row for row, _, _ in faults})
    row, mark, fault = faults[0]
    raise DataError(
        f"{where}: {counted(len(faults), 'span')} that cannot be right ({row_list(rows)}). In row {row + 1} "
        f"[{mark.start}, {mark.end}, {mark.label!r}] {fault}. Expected characters counted from 0, the end "
        f"one past the last; {listed(_remedies(faults))}."
    )


def _fault(text: str, mark: _Mark, inclusive: bool) -> str:
    end = mark.end + inclusive
    if mark.start < 0 or end > len(text):
        return f"lies outside the text of {counted(len(text), 'character')}"
    if mark.start >= end:
        return "is empty"
    if mark.surface is not None and text[mark.start : end] != mark.surface:
        return f"holds {excerpt(text[mark.start : end], 30)}, not {excerpt(mark.surface, 30)}"
    return ""


def _remedies(faults: Sequence[tuple[int, _Mark, str]]) -> list[str]:
    if any(mark.start == mark.end for _, mark, _ in faults):
        return ["if your ends name the last character, add 1 to each of them"]
    return ["if they count bytes or words, convert them, otherwise correct or drop these spans"]
