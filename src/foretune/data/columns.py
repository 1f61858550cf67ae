"""Which column holds the text and which the target: by name first, then by what the values are like."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from foretune.data.profile import Profile, profile
from foretune.data.text import is_blank, listed
from foretune.errors import DataError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

_TEXT = """text texts sentence message content review question query utterance title body document comment
abstract headline tweet post description summary phrase premise hypothesis sms email input
文本 内容 评论 句子 问题 标题 正文 文章 留言 新闻 摘要"""
_TARGET = """label labels target class category intent sentiment y emotion topic polarity tag stars rating
标签 类别 分类 情感 意图 情绪 主题 类型"""
TEXT_NAMES = frozenset(_TEXT.split())
# In order of preference, where a table has several.
TARGET_NAMES = tuple(_TARGET.split())
MOST_CLASSES = 1000


@dataclass(frozen=True)
class Columns:
    """The chosen columns; `reason` is a sentence or two for the user that say why these.

    `second` is what is read together with the text: the other text of a pair, the context of a question,
    the input beside an instruction. `targets` are the columns of 0 and 1 of several labels, with `target` None.
    """

    text: str
    target: str | None
    reason: str
    second: str | None = None
    targets: tuple[str, ...] = ()


def infer_columns(
    table: pd.DataFrame,
    *,
    text: str | None = None,
    target: str | None = None,
    need_target: bool = True,
    profiles: Sequence[Profile] | None = None,
) -> Columns:
    """Return the text column and the column of classes, those given or else guessed.

    Without `need_target` the target is None where none can be guessed safely. `profiles` are those of all
    columns, where they are known already. Raises DataError if a given column does not exist, nothing fits,
    or the target looks like an identifier or a regression.
    """
    names = [str(name) for name in table.columns]
    for given, option in ((text, "--text"), (target, "--target")):
        _check_exists(given, names, option)
    if text is not None and text == target:
        raise DataError(
            f"Text and target are both column {text!r}. Name two columns with --text and --target."
        )
    if profiles is None:
        profiles = [profile(name, table.iloc[:, i].tolist()) for i, name in enumerate(names)]
    if target is None:
        named = named_target(profiles, text, need_target)
    else:
        named = choice(_find(profiles, target), "as given")
    chosen_text = text_choice(profiles, text, named)
    chosen = named or guessed_target(profiles, chosen_text.column, need_target)
    if text is None and target is None and chosen is not None:
        _check_header(table, chosen_text.column.name, chosen.column.name)
    if chosen is not None:
        check_classes(chosen.column)
    return Columns(
        chosen_text.column.name, chosen.column.name if chosen else None, columns_reason(chosen_text, chosen)
    )


@dataclass(frozen=True)
class Choice:
    """A column, why it was chosen, and the names of others that would do."""

    column: Profile
    why: str
    others: tuple[str, ...] = ()


def choice(column: Profile, why: str, others: Sequence[Profile] = ()) -> Choice:
    """Return the choice of `column`, with those of `others` that are different columns."""
    return Choice(column, why, tuple(p.name for p in others if p is not column))


def _find(profiles: Sequence[Profile], name: str) -> Profile:
    return next(p for p in profiles if p.name == name)


def _check_exists(given: str | None, names: list[str], option: str) -> None:
    if given is not None and given not in names:
        raise DataError(
            f"There is no column {given!r}.{did_you_mean(given, names)} Columns: {', '.join(names)}. "
            f"Choose one with {option}."
        )


def name_stem(name: str) -> str:
    """Return the name without case and without the ending of a pair (`text_a`, `sentence2`)."""
    name = name.strip().casefold()
    return re.sub(r"([_ -][ab]|[_ -]?\d)$", "", name)


def named_target(profiles: Sequence[Profile], text: str | None, needed: bool) -> Choice | None:
    """Return the column that is called as targets usually are, or None."""
    named = [p for p in profiles if p.name != text and p.name.strip().casefold() in TARGET_NAMES and p.rows]
    if not needed:
        named = [p for p in named if not (p.is_identifier or p.is_regression)]
    named.sort(key=lambda p: TARGET_NAMES.index(p.name.strip().casefold()))
    return choice(named[0], "by its name", named) if named else None


def text_choice(profiles: Sequence[Profile], text: str | None, target: Choice | None) -> Choice:
    """Return the column of texts: as given, by its name, or the one that reads like text. Raises DataError."""
    if text is not None:
        return choice(_find(profiles, text), "as given")
    left = [p for p in profiles if p.is_textual and (target is None or p.name != target.column.name)]
    named = [p for p in left if name_stem(p.name) in TEXT_NAMES]
    prose = [p for p in left if p.prose >= 0.3]
    candidates = named or prose or (left if len(left) == 1 else [])
    if not candidates:
        raise DataError(
            f"No column looks like text. Columns: {', '.join(p.name for p in profiles)}. "
            f"Expected one of sentences or words; name it with --text."
        )
    best = max(candidates, key=lambda p: p.length)
    plausible = [
        p for p in left if p in named or (p.prose >= 0.3 and p.length >= 20 and 2 * p.distinct > p.rows)
    ]
    return choice(best, "by its name" if named else "it reads like text", plausible)


def guessed_target(profiles: Sequence[Profile], text: Profile | None, needed: bool) -> Choice | None:
    """Return the only column whose values could be classes. Raises DataError where one is needed and none is."""
    left = [p for p in profiles if p is not text and p.rows]
    lone = left if len(left) == 1 and left[0].distinct > 1 else []
    # A lone identifier or regression target is "guessed" so that the error can say what it is.
    fits = [p for p in left if _fits_target(p)] or lone or [p for p in left if p.is_regression]
    usable = [p for p in fits if not (p.is_identifier or p.is_regression)]
    if len(usable) == 1 or (needed and len(fits) == 1):
        column = (usable or fits)[0]
        return choice(column, f"{column.distinct:,} distinct values in {column.rows:,} rows")
    if not needed:
        return None
    found = f"could be {listed([repr(p.name) for p in fits])}" if fits else "cannot be told"
    names = ", ".join(p.name for p in profiles)
    raise DataError(f"The target column {found}. Columns: {names}. Name the column of labels with --target.")


def _fits_target(p: Profile) -> bool:
    few = 2 <= p.distinct <= max(2, min(MOST_CLASSES, p.rows // 2))
    return few and p.length <= 60 and not p.is_regression


def _check_header(table: pd.DataFrame, text: str, target: str) -> None:
    """A header that is itself a label, over texts of an unusual name, is the first row of data."""
    if name_stem(text) in TEXT_NAMES or target.strip().casefold() in TARGET_NAMES:
        return
    if any(value == target for value in table[target].tolist() if not is_blank(value)):
        raise DataError(
            f"The table seems to have no header line: its first line is {text[:60]!r}, {target!r}, and "
            f"{target!r} is also a value below. Add a first line such as text,label, or name the columns "
            f"with --text and --target."
        )


def check_classes(p: Profile) -> None:
    """Raise DataError where a target looks like quantities or identifiers rather than classes."""
    seen = f"{p.distinct:,} distinct values in {p.rows:,} rows"
    if p.is_regression:
        raise DataError(
            f"Target {p.name!r} looks like regression: fractional numbers, {seen}. Predict the numbers "
            f"with --task text-regression, choose a column of classes with --target, or turn them into classes."
        )
    if p.is_identifier:
        raise DataError(
            f"Target {p.name!r} looks like an identifier: {seen}. Classes repeat; choose the column of "
            f"labels with --target."
        )


def columns_reason(text: Choice, target: Choice | None) -> str:
    """Return the sentence that says which columns were taken, why, and which others could have been."""
    parts = [f"text is column {text.column.name!r} ({text.why})"]
    if text.others:
        others = listed([repr(name) for name in text.others])
        parts.append(f"{others} could be the text too, the longest was taken, --text chooses another")
    if target is None:
        parts.append("no target was found")
    else:
        parts.append(f"target is column {target.column.name!r} ({target.why})")
    if target is not None and target.others:
        parts.append(
            f"{listed([repr(name) for name in target.others])} could be the target too, see --target"
        )
    sentence = "; ".join(parts)
    return sentence[0].upper() + sentence[1:] + "."
