"""Targets of tasks on texts: what the user named, and which columns hold classes, labels or numbers."""

from __future__ import annotations

from dataclasses import dataclass

from foretune.data.columns import (
    TARGET_NAMES,
    Choice,
    Columns,
    choice,
    columns_reason,
    guessed_target,
    named_target,
    text_choice,
)
from foretune.data.multilabel import label_separator
from foretune.data.sheet import Sheet
from foretune.data.text import listed
from foretune.data.tokens import TOKEN_NAMES, token_columns
from foretune.errors import DataError

SCORE_NAMES = ("score", "similarity", "rating", "stars", "value", "price", "分数", "得分", "评分", "相似度")
_LABELS = "labels tags genres categories topics keywords classes 标签 类别 关键词"
TOKENS_READ = "its tokens are read as one text"
LABELS_NAMES = tuple(_LABELS.split())


@dataclass(frozen=True)
class Given:
    """The columns that the user named, and whether a target must be found."""

    text: str | None = None
    second: str | None = None
    target: str | None = None
    targets: tuple[str, ...] = ()
    need: bool = True


def misfit(sheet: Sheet, task: str, expected: str, remedy: str) -> DataError:
    """Return the error for a table that does not fit the task that was told."""
    return DataError(
        f"The data do not fit --task {task}: expected {expected}. Columns: {', '.join(sheet.names)}. {remedy}"
    )


def one_target(given: Given, task: str) -> None:
    """Raise DataError where several targets were named for a task that takes one."""
    if given.targets:
        raise DataError(
            f"--target names {len(given.targets)} columns ({listed([repr(t) for t in given.targets])}), "
            f"which is for --task multi-label; name one column for {task}."
        )


def tokens_as_text(sheet: Sheet, *targets: str | None) -> str | None:
    """Return the column of tokens where no column holds texts: its sentences are the texts."""
    if any(sheet.is_prose(name) for name in sheet.names if name not in targets):
        return None
    found = token_columns(sheet)
    return found[0] if found and found[0] not in targets else None


def text_of(sheet: Sheet, given: Given, target: Choice | None, without: tuple[str, ...] = ()) -> Choice:
    """Return the column of texts, or that of tokens where there is none. Raises DataError."""
    tokens = tokens_as_text(sheet, *without, target.column.name if target else None)
    if given.text is None and tokens is not None:
        return choice(sheet.profile(tokens), TOKENS_READ)
    return text_choice(sheet.profiles(without), given.text, target)


def class_target(sheet: Sheet, given: Given, without: tuple[str | None, ...]) -> Choice | None:
    """Return the column of labels: as given, by its name, or the only one that could be."""
    if given.target is not None:
        return choice(sheet.profile(given.target), "as given")
    profiles = sheet.profiles(without)
    named = named_target(profiles, None, given.need)
    if named is not None or not profiles:
        return named
    # The texts are left out already, and texts that are not chosen are no classes either.
    left = [p for p in profiles if not sheet.is_prose(p.name)] or profiles
    return guessed_target(left, None, given.need)


def number_target(sheet: Sheet, given: Given, without: tuple[str | None, ...]) -> Choice | None:
    """Return the column of numbers: as given, by its name, the only fractional one, or the only one."""
    if given.target is not None:
        return choice(sheet.profile(given.target), "as given")
    numbers = [p for p in sheet.profiles(without) if p.numeric]
    known = (*TARGET_NAMES, *SCORE_NAMES)
    named = sorted(
        (p for p in numbers if p.name.strip().casefold() in known),
        key=lambda p: known.index(p.name.strip().casefold()),
    )
    if named:
        return choice(named[0], "by its name", named)
    fractional = [p for p in numbers if p.fractional]
    if len(fractional) == 1:
        return choice(fractional[0], "the only fractional numbers")
    return choice(numbers[0], "the only numbers") if len(numbers) == 1 else None


def labels_target(sheet: Sheet, given: Given) -> Choice | None:
    """Return the column of lists of labels or of strings of several: as given, by its name, or the only one."""
    if given.target is not None:
        return choice(sheet.profile(given.target), "as given")
    names = [name for name in sheet.names if name != given.text and name.casefold() not in TOKEN_NAMES]
    known = (*LABELS_NAMES, *TARGET_NAMES)
    found = [name for name in names if name.strip().casefold() in known and holds_several(sheet, name)]
    found.sort(key=lambda name: known.index(name.strip().casefold()))
    if found:
        return choice(sheet.profile(found[0]), "by its name", [sheet.profile(name) for name in found])
    lists = [name for name in names if sheet.is_tokens(name)]
    return choice(sheet.profile(lists[0]), "the only lists") if len(lists) == 1 else None


def holds_several(sheet: Sheet, name: str) -> bool:
    """Say whether cells are lists of strings or of whole numbers, or strings with a separator between labels."""
    if sheet.is_lists(name):
        return True
    return sheet.is_text(name) and label_separator(sheet.values(name)) is not None


def binary_columns(sheet: Sheet, text: str | None = None) -> list[str]:
    """Return the columns of 0 and 1 if there are two or more, and no other column but texts and identifiers."""
    flags = [name for name in sheet.names if name != text and sheet.is_binary(name)]
    rest = [p for p in sheet.profiles(without=(text, *flags)) if p.rows]
    other = [
        p for p in rest if not (p.is_identifier or p.prose >= 0.3 or p.name.casefold() in ("id", "index"))
    ]
    return flags if len(flags) > 1 and not other else []


def text_and_target(text: Choice, target: Choice | None) -> Columns:
    """Return a text and a target with the sentence that says why these."""
    return Columns(text.column.name, target.column.name if target else None, columns_reason(text, target))
