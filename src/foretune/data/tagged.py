"""Sentences with tags, or texts with labelled spans, out of a table: read, checked, and what to know about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from foretune.data.audit import _duplicate_warnings as duplicate_warnings
from foretune.data.audit import _repeats as repeats
from foretune.data.audit import check_texts
from foretune.data.cells import as_texts, is_list
from foretune.data.spans import Span, normal_spans, overlap_rows
from foretune.data.text import counted, fold, is_missing, listed, row_list
from foretune.data.tokens import check_tokens
from foretune.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from foretune.data.columns import Columns


@dataclass(frozen=True)
class Tagged:
    """Inputs in the table's order: lists of words with a tag for each (`tags`), or texts with `spans` of characters."""

    inputs: list[Any]
    tags: list[list[str]] | None = None
    spans: list[list[Span]] | None = None

    @property
    def in_words(self) -> bool:
        """Return whether the inputs are lists of words."""
        return bool(self.inputs) and is_list(self.inputs[0])


def read_tagged(table: pd.DataFrame, columns: Columns, *, where: str) -> Tagged:
    """Return the sentences (`columns.text`) of a table with their tags or spans (`.target`, where it is not None).

    Raises DataError naming the rows that are blank, have not one tag for every word, or spans that cannot be right.
    """
    inputs = table[columns.text].tolist()
    present = [value for value in inputs if not is_missing(value)]
    target = None if columns.target is None else table[columns.target].tolist()
    if present and is_list(present[0]):
        check_tokens(inputs, target, where)
        words = [list(row) for row in inputs]
        return Tagged(words, tags=None if target is None else [[str(tag) for tag in row] for row in target])
    texts = check_texts(inputs, columns.text, where)
    if target is None:
        return Tagged(texts)
    if target and all(isinstance(cell, str) for cell in target):
        raise DataError(
            f"{where}: column {columns.target!r} holds strings, expected entities as "
            '[{"start": 0, "end": 2, "label": "X"}], or lists of words with lists of tags. Name it with --target.'
        )
    spans = normal_spans(texts, target, where)
    return Tagged(texts, spans=[_trimmed(*pair) for pair in zip(texts, spans, strict=True)])


def _trimmed(text: str, spans: Sequence[Span]) -> list[Span]:
    """Return the spans without the blanks at their ends, which no one means, each once."""
    found = []
    for start, end, label in spans:
        inner = text[start:end]
        left = start + len(inner) - len(inner.lstrip())
        right = end - len(inner) + len(inner.rstrip())
        if left < right:
            found.append((left, right, label))
    return list(dict.fromkeys(found))


def tagged_warnings(data: Tagged, where: str) -> list[str]:
    """Return warnings: repeated sentences, spans that overlap, tags that are numbers."""
    warnings = duplicate_warnings(
        repeats([fold(text) for text in as_texts(data.inputs)]), {}, len(data.inputs), where
    )
    overlapping = overlap_rows(data.spans or [])
    if overlapping:
        warnings.append(
            f"{where}: {counted(len(overlapping), 'row')} with spans that share characters "
            f"({row_list(overlapping)}); only the longest of such is learnt, the others count as missed"
        )
    tags = {str(tag) for row in data.tags or [] for tag in row}
    if tags and all(tag.isdigit() for tag in tags):
        numbers = listed([str(number) for number in sorted(map(int, tags))])
        warnings.append(
            f"{where}: the tags are numbers ({numbers}); fix: write their names (O, B-PER …), "
            "so that entities are found and scored as such"
        )
    return warnings
