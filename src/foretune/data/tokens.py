"""Sentences that come as lists of tokens with one tag for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from foretune.data.cells import is_list
from foretune.data.text import counted, is_missing, row_list
from foretune.errors import DataError

if TYPE_CHECKING:
    from foretune.data.sheet import Sheet

TOKEN_NAMES = ("tokens", "words", "token", "word", "text", "sentence", "词", "字")
_TAGS = [
    "tags",
    "ner_tags",
    "labels",
    "tag",
    "label",
    "slots",
    "bio",
    "pos_tags",
    "upos",
    "pos",
    "ner",
    "标签",
    "标注",
]


def token_columns(sheet: Sheet, text: str | None = None, target: str | None = None) -> tuple[str, str] | None:
    """Return the columns of tokens and of tags, those given or else told by name, or None.

    Both hold lists, in every row of the same length.
    """
    lists = [name for name in sheet.names if sheet.is_tokens(name)]
    tokens = text or _first(TOKEN_NAMES, lists)
    tagged = [name for name in sheet.names if name != tokens and _is_tags(sheet.values(name))]
    tags = target or _first(_TAGS, tagged) or (tagged[0] if len(tagged) == 1 else None)
    if tokens is None and len(lists) == 2 and tags in lists:
        tokens = next(name for name in lists if name != tags)
    if tokens is None or tags is None or tokens not in lists or tags not in tagged:
        return None
    return (tokens, tags) if not misaligned(sheet.values(tokens), sheet.values(tags)) else None


def _first(names: Sequence[str], found: Sequence[str]) -> str | None:
    folded = {name.strip().casefold(): name for name in found}
    return next((folded[name] for name in names if name in folded), None)


def _is_tags(values: Sequence[object]) -> bool:
    present = [value for value in values if not is_missing(value)]
    return bool(present) and all(
        isinstance(value, list | tuple) and all(isinstance(tag, str | int) for tag in value)
        for value in present
    )


def misaligned(tokens: Sequence[Any], tags: Sequence[Any]) -> list[int]:
    """Return the rows (from 0) that have not one tag for every token."""
    return [
        row
        for row, (words, marks) in enumerate(zip(tokens, tags, strict=True))
        if not is_list(words) or not is_list(marks) or len(words) != len(marks)
    ]


def check_tokens(tokens: Sequence[Any], tags: Sequence[Any] | None, where: str) -> None:
    """Raise DataError naming the rows without tokens, with blank tokens, or without one tag for every token."""
    faults = {
        "without a token": [row for row, words in enumerate(tokens) if not is_list(words) or not words],
        "with a blank token": [
            row
            for row, words in enumerate(tokens)
            if is_list(words) and not all(isinstance(word, str) and word.strip() for word in words)
        ],
        "without one tag for every token": [] if tags is None else misaligned(tokens, tags),
    }
    for fault, rows in faults.items():
        if rows:
            raise DataError(
                f"{where}: {counted(len(rows), 'sentence')} of {len(tokens):,} {fault} ({row_list(rows)}). "
                f"Correct or drop these rows."
            )
