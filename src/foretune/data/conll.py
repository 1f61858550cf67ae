"""CoNLL files: one token a line with its tags in columns beside it, an empty line after every sentence."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from foretune.data.text import counted, excerpt, listed
from foretune.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

BIO_TAG = re.compile(r"O|[BIESLUM]-\S+")
# https://universaldependencies.org/format.html; sentences keep those that are worth a label.
CONLLU = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
_KEPT = {
    "form": "tokens",
    "lemma": "lemma",
    "upos": "tags",
    "xpos": "xpos",
    "feats": "feats",
    "deprel": "deprel",
}
UPOS = frozenset(
    [
        "ADJ",
        "ADP",
        "ADV",
        "AUX",
        "CCONJ",
        "DET",
        "INTJ",
        "NOUN",
        "NUM",
        "PART",
        "PRON",
        "PROPN",
        "PUNCT",
        "SCONJ",
        "SYM",
        "VERB",
        "X",
        "_",
    ]
)
_DOCUMENT = "-DOCSTART-"
_SNIFFED_LINES = 2000
_SNIFFED_LEAST = 3

Line = tuple[int, list[str]]  # its number in the file, counted from 1, and its cells; none where it is empty


def parse_conll(text: str, name: str, *, universal: bool = False) -> pd.DataFrame:
    """Return one row per sentence: `tokens` and `tags` (the last column), both lists of strings.

    Columns between the two are kept as `column_2` and so on; with `universal` (CoNLL-U) `tags` is upos, and
    lemma, xpos, feats and deprel stand beside it, while word ranges and empty nodes are left out. A file of
    one column has no `tags`. `attrs["format"]` is "conll"; `attrs["names"]` says which column a number or
    a CoNLL-U name means. Raises DataError naming the lines whose columns, token or tag are wrong.
    """
    import pandas as pd

    lines = _lines(text, universal)
    width = len(CONLLU) if universal else _usual_width(lines, name)
    lines = lines if universal else _without_comments(lines, width)
    _check_widths(lines, width, name)
    if universal:
        lines = [line for line in lines if not line[1] or line[1][0].isdecimal()]
    headers = CONLLU if universal else _headers(width)
    columns = _columns(lines, headers, universal)
    _check_cells(lines, headers, columns, name)
    sentences = _sentences(lines, name)
    table = pd.DataFrame(
        {
            columns[header]: [[cells[i] for cells in sentence] for sentence in sentences]
            for i, header in enumerate(headers)
            if header in columns
        }
    )
    table.attrs["format"] = "conll"
    table.attrs["names"] = _aliases(headers, columns)
    return table


def looks_like_conll(text: str) -> bool:
    """Say whether `text` is token lines whose last column holds nothing but BIO tags, or but universal ones.

    Other tag sets cannot be told from ordinary words: name such a file .conll.
    """
    lines = _lines(text[: 200 * _SNIFFED_LINES], False)[:_SNIFFED_LINES]
    widths = Counter(len(cells) for _, cells in lines if cells)
    if not widths or (width := widths.most_common(1)[0][0]) < 2:
        return False
    # The last line may be cut off by the excerpt.
    rows = [cells for _, cells in _without_comments(lines, width) if cells]
    rows = rows[:-1] if len(rows) > _SNIFFED_LEAST else rows
    if len(rows) < _SNIFFED_LEAST or any(len(cells) != width for cells in rows):
        return False
    tags = {cells[-1] for cells in rows}
    return (all(map(BIO_TAG.fullmatch, tags)) and tags != {"O"}) or (tags <= UPOS and len(tags) > 1)


def _lines(text: str, universal: bool) -> list[Line]:
    """Return every line split into cells, documents' marks as empty lines, comments of CoNLL-U left out."""
    numbered = [(number, line.strip(" \r")) for number, line in enumerate(text.split("\n"), start=1)]
    if universal:
        numbered = [(number, line) for number, line in numbered if not line.startswith("#")]
    numbered = [(number, "" if line.startswith(_DOCUMENT) else line) for number, line in numbered]
    full = [line for _, line in numbered if line.strip() and not line.startswith("# ")]
    # Tabs only where every line has them: tokens may hold blanks. Not split(): no-break blanks are no marks.
    mark = re.compile("\t" if universal or (full and all("\t" in line for line in full)) else "[ \t]+")
    return [(number, mark.split(line) if line.strip() else []) for number, line in numbered]


def _usual_width(lines: list[Line], name: str) -> int:
    widths = Counter(len(cells) for _, cells in lines if cells)
    if not widths:
        raise DataError(f"{name} is empty, expected a token and its tag on every line.")
    return widths.most_common(1)[0][0]


def _without_comments(lines: list[Line], width: int) -> list[Line]:
    """Leave out `# …` where a sentence begins and the columns do not fit: `#` may also be a token."""
    kept: list[Line] = []
    for number, cells in lines:
        at_start = not kept or not kept[-1][1]
        if not (cells and cells[0].startswith("#") and at_start and len(cells) != width):
            kept.append((number, cells))
    return kept


def _check_widths(lines: list[Line], width: int, name: str) -> None:
    wrong = [(number, cells) for number, cells in lines if cells and len(cells) != width]
    if not wrong:
        return
    shown = [f"line {number} ({len(cells)}: {excerpt(' '.join(cells), 30)})" for number, cells in wrong]
    raise DataError(
        f"{name}: {counted(len(wrong), 'line')} without the {counted(width, 'column')} of the others: "
        f"{listed(shown)}. Expected a token and its tag, separated by a tab throughout or by blanks "
        f"throughout, and an empty line between sentences; correct these lines."
    )


def _headers(width: int) -> tuple[str, ...]:
    middle = [f"column_{number}" for number in range(2, width)]
    return ("tokens", *middle, *(["tags"] if width > 1 else []))


def _columns(lines: list[Line], headers: tuple[str, ...], universal: bool) -> dict[str, str]:
    """Return the table's column of every header that is kept."""
    if not universal:
        return {header: header for header in headers}
    tag = headers.index("upos")
    labelled = any(cells[tag] != "_" for _, cells in lines if cells)
    return {header: column for header, column in _KEPT.items() if labelled or header != "upos"}


def _check_cells(lines: list[Line], headers: tuple[str, ...], columns: dict[str, str], name: str) -> None:
    for what, column in (("token", "tokens"), ("tag", "tags")):
        place = next((i for i, header in enumerate(headers) if columns.get(header) == column), None)
        if place is None:
            continue
        empty = "_" if what == "tag" and "upos" in headers else ""
        wrong = [number for number, cells in lines if cells and cells[place].strip() == empty]
        if wrong:
            raise DataError(
                f"{name}: {counted(len(wrong), 'line')} without a {what} (line {listed(wrong)}). Expected a "
                f"token and its tag on every line; fill these in, or remove the lines."
            )


def _sentences(lines: list[Line], name: str) -> list[list[list[str]]]:
    sentences: list[list[list[str]]] = [[]]
    for _, cells in lines:
        if cells:
            sentences[-1].append(cells)
        elif sentences[-1]:
            sentences.append([])
    sentences = [sentence for sentence in sentences if sentence]
    if not sentences:
        raise DataError(f"{name} holds no sentence, expected a token and its tag on every line.")
    return sentences


def _aliases(headers: tuple[str, ...], columns: dict[str, str]) -> dict[str, str]:
    numbers = {str(i): columns[header] for i, header in enumerate(headers, start=1) if header in columns}
    return numbers | {header: column for header, column in columns.items() if header != column}
