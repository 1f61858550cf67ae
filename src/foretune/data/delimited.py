"""Comma-, tab- and otherwise separated tables, read cell by cell as exact text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from foretune.data.text import counted, listed
from foretune.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pandas as pd

_NAMES = {"\t": "tab", ";": "semicolon", ",": "comma", "|": "vertical bar"}


def check_separator(separator: str | None) -> str | None:
    r"""Return the separator as one character; `"\t"` typed in a shell and `"tab"` mean a tab.

    Raises ConfigError if it is not one character.
    """
    if separator in ("\\t", "tab"):
        return "\t"
    if separator is not None and (len(separator) != 1 or separator in '"\r\n'):
        raise ConfigError(f"--separator is {separator!r}, expected one character such as ';' or 'tab'.")
    return separator


def parse_delimited(text: str, name: str, separator: str | None, default: str = ",") -> pd.DataFrame:
    """Return the table in `text`: every cell a string, empty cells missing, line breaks in quotes kept.

    `name` is the file for messages; `default` is the separator where none is given.
    Raises DataError for a wrong separator, ragged rows, unclosed quotes or bad column names.
    """
    import pandas as pd

    mark = separator or default
    with _long_fields():
        header = _header(text, name, mark, check=separator is None)
        rows = _rows(text, name, mark, len(header))
    if not rows:
        raise DataError(
            f"{name} has a header ({listed(header)}) but no rows. Add at least two labelled rows."
        )
    cells = ([cell or None for cell in column] for column in zip(*rows, strict=True))
    return pd.DataFrame(dict(zip(header, cells, strict=True)))


@contextmanager
def _long_fields() -> Iterator[None]:
    """Lift the csv module's limit of 131,072 characters a cell; long documents are ordinary here."""
    old = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(old)


class _FaultyQuotes(Exception):
    """A row whose quotation marks do not fit: the line in which it begins, and the csv module's words."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(line, reason)
        self.line, self.reason = line, reason


def _reader(text: str, mark: str, quoted: bool) -> Iterator[tuple[int, list[str]]]:
    """Yield the line in which a row begins (counted from 1) and its cells, leaving out blank lines."""
    lines = io.StringIO(text, newline="")
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    reader = csv.reader(lines, delimiter=mark, quoting=quoting, strict=True)
    start = 1
    try:
        for row in reader:
            if row:
                yield start, row
            start = reader.line_num + 1
    except csv.Error as error:
        raise _FaultyQuotes(start, str(error)) from error


def _header(text: str, name: str, mark: str, check: bool) -> list[str]:
    try:
        _, cells = next(_reader(text, mark, quoted=True), (0, []))
    except _FaultyQuotes:
        cells = text.lstrip().split("\n", 1)[0].split(mark)
    if not any(cell.strip() for cell in cells):
        raise DataError(f"{name} is empty, expected a header line such as text{mark}label.")
    if check and len(cells) == 1:
        _refuse_other_separator(cells[0], name, mark)
    header = [cell.strip() or f"column_{i}" for i, cell in enumerate(cells, start=1)]
    check_names(header, name)
    return header


def _refuse_other_separator(header: str, name: str, mark: str) -> None:
    for other in (mark_ for mark_ in _NAMES if mark_ != mark and mark_ in header):
        fix = {
            "\t": "rename it to .tsv or pass --separator tab",
            ",": "rename it to .csv or pass --separator ','",
        }
        raise DataError(
            f"{name} has one column {header!r} when read as {_NAMES.get(mark, mark)}-separated; it looks "
            f"{_NAMES[other]}-separated. To read it, {fix.get(other, f'pass --separator {other!r}')}."
        )


def check_names(names: list[str], where: str) -> None:
    """Raise DataError if two columns bear the same name."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        places = [
            f"{name!r} (columns {listed([i for i, n in enumerate(names, 1) if n == name])})" for name in twice
        ]
        raise DataError(
            f"{where} has columns of the same name: {listed(places)}. Rename all but one of each."
        )


def _rows(text: str, name: str, mark: str, width: int) -> list[list[str]]:
    """Return the rows below the header; tab-separated files may be written with or without quoting."""
    try:
        rows = [row for _, row in _reader(text, mark, quoted=True)][1:]
        if all(len(row) == width for row in rows):
            return rows
    except _FaultyQuotes:
        rows = []
    if mark == "\t":
        plain = [row for _, row in _reader(text, mark, quoted=False)][1:]
        if all(len(row) == width for row in plain):
            return plain
    raise _malformed(text, name, mark, width)


def _malformed(text: str, name: str, mark: str, width: int) -> DataError:
    try:
        sizes = [(line, len(row)) for line, row in _reader(text, mark, quoted=True)]
    except _FaultyQuotes as fault:
        return _quoting_error(name, fault)
    ragged = [f"line {line} ({counted(size, 'cell')})" for line, size in sizes if size != width]
    return DataError(
        f"{name}: {counted(len(ragged), 'row')} without the header's {counted(width, 'cell')}: "
        f"{listed(ragged)}. Put quotation marks around a text that holds a {_NAMES.get(mark, repr(mark))}: "
        f'"like{mark} this".'
    )


def _quoting_error(name: str, fault: _FaultyQuotes) -> DataError:
    unclosed = "unexpected end" in fault.reason
    what = (
        "opens a quotation mark that is never closed" if unclosed else f"has faulty quotes ({fault.reason})"
    )
    return DataError(
        f'{name}: the row that begins in line {fault.line} {what}. Inside a quoted text write every " as "", '
        f"and close the text with one."
    )
