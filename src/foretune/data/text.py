"""Small helpers on texts and rows that reading, auditing and splitting share."""

from __future__ import annotations

import numbers
import re
from collections.abc import Sequence

SHOWN_ROWS = 5
_CJK = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]")


def fold(text: str) -> str:
    """Return `text` without case and with white space folded, so that copies of one text become equal."""
    return " ".join(text.casefold().split())


def has_cjk(text: str) -> bool:
    """Say whether `text` holds a Chinese, Japanese or Korean character."""
    return _CJK.search(text) is not None


def is_missing(value: object) -> bool:
    """Say whether `value` is None, NaN, or pandas' NA or NaT; an empty string is not missing."""
    if value is None:
        return True
    if isinstance(value, str):
        return False
    # By name, because pandas must not be imported for this.
    if type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, numbers.Real) and bool(value != value)


def is_blank(value: object) -> bool:
    """Say whether `value` is missing or a string of nothing but white space."""
    return is_missing(value) or (isinstance(value, str) and not value.strip())


def listed(items: Sequence[object], shown: int = SHOWN_ROWS) -> str:
    """Return the first `shown` items joined by commas, then how many more there are."""
    more = f" and {len(items) - shown:,} more" if len(items) > shown else ""
    return ", ".join(str(item) for item in items[:shown]) + more


def row_list(indices: Sequence[int]) -> str:
    """Return `"row 3"` or `"rows 3, 8 and 4 more"` for 0-based `indices`; users count rows from 1."""
    return ("row " if len(indices) == 1 else "rows ") + listed([int(index) + 1 for index in indices])


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return `"1 row"` or `"1,200 rows"`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def excerpt(text: str, width: int = 60) -> str:
    """Return the beginning of `text` in quotes, at most `width` characters long."""
    return repr(text if len(text) <= width else text[:width] + "…")
