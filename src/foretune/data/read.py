"""Any supported source of labelled texts as one pandas table."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from foretune.data.arrow import read_dataset, read_hub, read_parquet
from foretune.data.cells import plain_cells, unnested, with_lists
from foretune.data.columns import TEXT_NAMES, name_stem
from foretune.data.conll import looks_like_conll, parse_conll
from foretune.data.delimited import check_names, check_separator, parse_delimited
from foretune.data.files import (
    SUPPORTED,
    decode,
    directory_given,
    file_format,
    missing_file,
    read_bytes,
)
from foretune.data.media_cells import unpacked_frame
from foretune.data.objects import with_boxes
from foretune.data.records import from_records, parse_json, parse_jsonl, parse_lines
from foretune.data.text import counted
from foretune.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

STDIN = "standard input"
Marks = tuple[str | None, str | None]  # the separator that is given, and the usual one
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(:[\w.-]+)?")
_SQUAD = re.compile(r'"paragraphs"\s*:|"data"\s*:\s*\[\s*(\{|$)|^\{\s*$')
_FOREIGN = (".xlsx", ".xls", ".ods", ".zip", ".arrow", ".feather", ".pkl", ".xml", ".html")


def read_table(
    source: Any,
    *,
    separator: str | None = None,
    offline: bool = False,
    split: str = "train",
    stdin: TextIO | None = None,
    usual: str | None = None,
    known: Collection[str] = (),
) -> pd.DataFrame:
    """Return the table that `source` stands for, with rows counted from 0.

    `source` is the path of a csv, tsv, jsonl, json, parquet, txt, conll or conllu file (also .gz), of a folder or
    zip file of pictures or sounds (`read_directory`), `-` for standard input (`stdin`, by default the process's),
    a DataFrame, a `datasets.Dataset`, a list of dicts, a dict of lists, or a hub id `owner/name` or
    `owner/name:config`, of which `split` is taken. Cells of csv and tsv are strings, only empty ones missing; the
    other sources keep their types. Nothing is stripped.
    Lists in cells are Python lists; pictures and sounds in cells become paths, a column of translations one for each
    language (`cells.unnested`), a column of objects one of boxes and one of labels (`objects.with_boxes`).
    `attrs["format"]` names the format of a file that was read, `attrs["folder"]` where it lies.
    `usual`: the separator where none is given and the first line holds it; `known`: names of columns, which tell a
    header from a text where no file's name tells the format.
    Raises DataError naming the lines, rows or columns at fault; ConfigError for a wrong separator.
    """
    marks, known = (check_separator(separator), check_separator(usual)), {name.casefold() for name in known}
    if not isinstance(source, str | os.PathLike):
        frame, name = _from_object(source, split), type(source).__name__
    elif source == "-":
        frame, name = _from_stdin(stdin, marks, known), STDIN
    else:
        frame, name = _from_path(source, marks, offline, split, known), os.fspath(source)
    return _checked(frame, name)


def _checked(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    if not len(frame) or not len(frame.columns):
        size = f"{counted(len(frame), 'row')} and {counted(len(frame.columns), 'column')}"
        raise DataError(f"{name} has {size}. Expected at least two labelled rows.")
    names = [str(column) for column in frame.columns]
    check_names(names, name)
    attrs = frame.attrs
    frame = plain_cells(frame.reset_index(drop=True))
    frame.columns = names
    frame.attrs = attrs
    return with_boxes(unnested(unpacked_frame(frame)))


def _from_path(
    source: str | os.PathLike[str], marks: Marks, offline: bool, split: str, known: Collection[str]
) -> pd.DataFrame:
    path = Path(source).expanduser()
    if path.is_dir() or (path.suffix.lower() == ".zip" and path.is_file()):
        return _from_folder(path, split)
    if path.exists():
        frame = _from_file(path, marks, known)
        frame.attrs["folder"] = str(path.absolute().parent)  # relative paths in its cells count from there
        return frame
    hub_like = isinstance(source, str) and _is_hub_id(source)
    if hub_like and not offline:
        return read_hub(str(source), split)
    note = " Working offline, the hub was not asked." if hub_like else ""
    raise missing_file(path, note)


def _from_folder(path: Path, split: str) -> pd.DataFrame:
    from foretune.data.directory import read_directory

    if path.is_dir() and not any(path.iterdir()):
        raise directory_given(path)
    return read_directory(path, split)


def _is_hub_id(source: str) -> bool:
    """`data/train` where a folder `data` exists is a mistyped path rather than a hub id."""
    if not _HUB_ID.fullmatch(source) or file_format(source) or source.lower().endswith((".gz", *_FOREIGN)):
        return False
    return not Path(source).parent.is_dir()


def _from_file(path: Path, marks: Marks, known: Collection[str]) -> pd.DataFrame:
    kind, name = file_format(path.name), str(path)
    if kind is None and path.suffix and marks == (None, None):
        raise DataError(
            f"{name}: unknown format {path.suffix!r}, expected {SUPPORTED}. Convert or rename it."
        )
    if kind == "parquet":
        return read_parquet(path)
    return _parse(decode(read_bytes(path), name), name, kind, marks, known)


def _parse(text: str, name: str, kind: str | None, marks: Marks, known: Collection[str]) -> pd.DataFrame:
    mark = _mark(text, marks)
    if kind is None or (kind == "txt" and mark is not None):
        kind = _sniff(text, mark, known)
    if kind in ("txt", "tsv") and mark is None and looks_like_conll(text):
        kind = "conll"
    if kind in ("csv", "tsv"):
        frame = with_lists(parse_delimited(text, name, mark, "\t" if kind == "tsv" else ","))
    elif kind in ("conll", "conllu"):
        frame = parse_conll(text, name, universal=kind == "conllu")
    else:
        frame = {"jsonl": parse_jsonl, "json": parse_json, "txt": parse_lines}[kind](text, name)
    frame.attrs.setdefault("format", kind)
    return frame


def _mark(text: str, marks: Marks) -> str | None:
    """Return the separator that is given, else the usual one where the first line is a header that holds it."""
    mark, usual = marks
    first = text.lstrip().split("\n", 1)[0]
    if mark is None and usual is not None and usual in first and not first.startswith(("{", "[")):
        return usual
    return mark


def _sniff(text: str, mark: str | None, known: Collection[str]) -> str:
    """Tell the format of text without a file name by its first line that is not blank."""
    first = text.lstrip().split("\n", 1)[0].rstrip("\r")
    if mark is not None:
        return "csv"
    if first.startswith("{"):
        return "json" if _SQUAD.search(first[:500]) else "jsonl"
    if re.match(r"\[\s*(\{|$)", first):
        return "json"
    tabbed = "\t" in first
    cells = [cell.strip('"') for cell in first.split("\t" if tabbed else ",")]
    # A header is plain words of which one is a known or usual name; a sentence with commas is not.
    named = [cell.casefold() in known for cell in cells]
    plain = all(name or re.fullmatch(r"\w[\w-]*", cell) for name, cell in zip(named, cells, strict=True))
    if plain and (any(named) or any(name_stem(cell) in TEXT_NAMES for cell in cells)):
        return "tsv" if tabbed else "csv"
    return "txt"


def _from_stdin(stdin: TextIO | None, marks: Marks, known: Collection[str]) -> pd.DataFrame:
    stream = sys.stdin if stdin is None else stdin
    # Bytes where there are any: the stream's own decoder follows the locale and hides the bad line.
    raw = getattr(stream, "buffer", None)
    text = decode(raw.read(), STDIN) if raw is not None else stream.read().removeprefix("\ufeff")
    if not text.strip():
        raise DataError("Standard input is empty, expected a table or one text per line.")
    return _parse(text, STDIN, None, marks, known)


def _from_object(source: Any, split: str) -> pd.DataFrame:
    import pandas as pd

    if isinstance(source, pd.DataFrame):
        return source.copy(deep=False)
    # By module name, because importing datasets takes seconds.
    if type(source).__module__.split(".")[0] == "datasets":
        return read_dataset(source, split)
    if isinstance(source, dict):
        return _from_columns(source)
    if isinstance(source, list | tuple):
        return from_records(list(source), "The list")
    raise DataError(
        f"A {type(source).__name__} is no table. Expected a path, a hub id, a DataFrame, a datasets.Dataset, "
        f"a list of dicts or a dict of lists."
    )


def _from_columns(columns: dict[Any, Any]) -> pd.DataFrame:
    import pandas as pd

    scalars = [
        name for name, values in columns.items() if isinstance(values, str) or not hasattr(values, "__len__")
    ]
    if scalars:
        raise DataError(f"Columns {scalars} hold no list. Expected a dict of lists of equal length.")
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"The columns differ in length: {lengths}. Expected one value per row in each.")
    return pd.DataFrame({name: list(values) for name, values in columns.items()})
