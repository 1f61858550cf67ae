"""What a column is like: how many distinct values, how long, how much like prose or numbers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from foretune.data.text import has_cjk, is_blank

SAMPLE = 2000
FEW_ROWS = 20


@dataclass(frozen=True)
class Profile:
    """Properties of a column, over its values that are not blank.

    `length` is the mean length in characters, `strings` and `prose` are shares between 0 and 1; prose
    means white space between words or Chinese, Japanese or Korean characters.
    """

    name: str
    rows: int
    missing: int
    distinct: int
    strings: float
    length: float
    prose: float
    numeric: bool
    fractional: bool

    @property
    def is_textual(self) -> bool:
        """Whether the values are strings that are not all numbers."""
        return self.rows > 0 and self.strings >= 0.9 and not self.numeric

    @property
    def is_regression(self) -> bool:
        """Whether the values are fractional numbers, too many to be classes."""
        many = self.distinct > FEW_ROWS or (self.rows >= FEW_ROWS and 2 * self.distinct > self.rows)
        return self.fractional and many

    @property
    def is_identifier(self) -> bool:
        """Whether nearly every row (from 20 rows on) has a value of its own."""
        return self.rows >= FEW_ROWS and self.distinct >= 0.9 * self.rows


def profile(name: str, values: Sequence[object]) -> Profile:
    """Return the profile of a column; length and prose are taken from at most 2,000 values."""
    present = [value for value in values if not is_blank(value)]
    # Drawn, not every n-th: rows often alternate, by class or by pair. Seeded, so that guesses are stable.
    sample = present if len(present) <= SAMPLE else random.Random(0).sample(present, SAMPLE)
    strings = [value for value in sample if isinstance(value, str)]
    numbers = _numbers(present)
    return Profile(
        name=name,
        rows=len(present),
        missing=len(values) - len(present),
        distinct=_distinct(present),
        strings=len(strings) / max(1, len(sample)),
        length=sum(len(str(value)) for value in sample) / max(1, len(sample)),
        prose=sum(_is_prose(value) for value in strings) / max(1, len(strings)),
        numeric=bool(numbers),
        fractional=any(not number.is_integer() for number in numbers or ()),
    )


def _distinct(values: Sequence[object]) -> int:
    """Count distinct values; 0 for lists and other values that cannot be counted."""
    try:
        return len(set(values))
    except TypeError:
        return 0


def _is_prose(value: str) -> bool:
    return len(value.split(None, 1)) > 1 or has_cjk(value)


def _numbers(values: Sequence[object]) -> list[float] | None:
    """Return the values as numbers, or None as soon as one is not a number."""
    numbers = []
    for value in values:
        if isinstance(value, bool):
            return None
        try:
            numbers.append(float(value))  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return None
    return numbers
