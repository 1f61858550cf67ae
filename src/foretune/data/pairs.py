"""Two columns of texts that belong together, told by their names or by what they are like."""

from __future__ import annotations

from typing import NamedTuple

from foretune.data.columns import TEXT_NAMES, name_stem
from foretune.data.sheet import Sheet
from foretune.data.text import is_blank

# What is compared or judged: first and second text.
_JUDGED = """premise hypothesis|question answer|question sentence|question passage|question context|claim evidence
context response|post reply|前提 假设|问题 答案|问题 回答|问题 句子"""
# What is looked for in what; such pairs need no target.
_FOUND = """query document|query passage|query positive|query doc|query text|anchor positive|question document
查询 文档|查询 段落"""
_ENDINGS = (
    ("1", "2"),
    ("_a", "_b"),
    ("-a", "-b"),
    (" a", " b"),
    ("_left", "_right"),
    ("一", "二"),
    ("A", "B"),
)
FOUND_PAIRS = tuple(
    (pair.split()[0], pair.split()[1]) for line in _FOUND.split("\n") for pair in line.split("|")
)
NAMED_PAIRS = FOUND_PAIRS + tuple(
    (pair.split()[0], pair.split()[1]) for line in _JUDGED.split("\n") for pair in line.split("|")
)
LONGER = 3.0
# Names that only count columns, as spreadsheets and files without a header line give them.
_COUNTED = ("c", "col", "column", "field", "f", "x", "v", "var")


class Pair(NamedTuple):
    """The columns of a pair, and why these."""

    first: str
    second: str
    why: str


def pair_of(
    sheet: Sheet, text: str | None = None, second: str | None = None, target: str | None = None
) -> Pair | None:
    """Return the two text columns, those given or else guessed; None where no pair can be told.

    By name (`sentence1` and `sentence2`, `premise` and `hypothesis` …), else the only two columns of prose
    where neither has a name that a lone text or its title has and their mean lengths differ less than
    3 to 1. Columns that are identifiers, numbers or few repeated values are never taken.
    """
    if text is not None and second is not None:
        return Pair(text, second, "as given")
    usable = [
        name for name in sheet.names if name != target and (name in (text, second) or _usable(sheet, name))
    ]
    for first, other in _named(usable):
        if text in (None, first) and second in (None, other):
            return Pair(first, other, "by their names" if not (text or second) else "by its name")
    return _partner(sheet, usable, text, second) if text or second else _by_kind(sheet, usable)


def is_found_pair(pair: Pair) -> bool:
    """Say whether the names are those of a search, such as query and document."""
    return (pair.first.strip().casefold(), pair.second.strip().casefold()) in FOUND_PAIRS


def _usable(sheet: Sheet, name: str) -> bool:
    """Short texts such as single words will do if they are not classes."""
    p = sheet.profile(name)
    return sheet.is_prose(name) or (p.is_textual and p.distinct > max(2, p.rows // 5))


def _named(names: list[str]) -> list[tuple[str, str]]:
    folded = {name.strip().casefold(): name for name in reversed(names)}
    pairs = [(folded[a], folded[b]) for a, b in NAMED_PAIRS if a in folded and b in folded]
    for name in names:
        pairs += [(name, partner) for partner in _partners(name) if partner in names]
    return pairs


def _partners(name: str) -> list[str]:
    """Return what the second text is called where the first is called `name`: `text_b` for `text_a`."""
    partners = [f"{name}2"]
    for one, two in _ENDINGS:
        bare_one, bare_two = one.strip("_- "), two.strip("_- ")
        if name.endswith(one) and name[: -len(one)].strip("_- ").casefold() not in _COUNTED:
            partners.append(name[: -len(one)] + two)
        if name.casefold() == bare_one.casefold():
            partners.append(bare_two.upper() if name.isupper() else bare_two.lower())
    return partners


def _partner(sheet: Sheet, usable: list[str], text: str | None, second: str | None) -> Pair | None:
    """Return the pair of one given column and the only column of prose beside it."""
    left = [name for name in usable if name not in (text, second) and sheet.is_prose(name)]
    if len(left) != 1:
        return None
    why = "the only other text"
    return Pair(text, left[0], why) if text is not None else Pair(left[0], str(second), why)


def _by_kind(sheet: Sheet, usable: list[str]) -> Pair | None:
    prose = [name for name in usable if sheet.is_prose(name)]
    if len(prose) != 2 or any(name_stem(name) in TEXT_NAMES or _is_header(sheet, name) for name in prose):
        return None
    short, long = sorted(sheet.profile(name).length for name in prose)
    return Pair(prose[0], prose[1], "two texts of like length") if long < LONGER * short else None


def _is_header(sheet: Sheet, name: str) -> bool:
    """Say whether a name is a sentence, so the first row of a table without a header line."""
    return len(name.split()) > 3 or is_blank(name)
