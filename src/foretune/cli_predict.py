"""Predictions for a file or standard input, written line by line."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from foretune.cli_files import check_folder, write_files
from foretune.cli_guard import is_utf8, say
from foretune.data.cells import is_list
from foretune.data.text import is_missing
from foretune.errors import ConfigError, DataError, ResourceError

if TYPE_CHECKING:
    import pandas as pd

    from foretune.model import Model
    from foretune.tasks.base import Examples

FORMATS = (".jsonl", ".csv", ".tsv", ".parquet")
PREDICTION = "prediction"  # the column of what `Model.predict` returns; the others keep their names
DIGITS = 7  # significant ones of a float32


def check_output(path: Path | None) -> None:
    """Raise ConfigError or ResourceError where predictions could not be written to `path`."""
    if path is None or not path.suffix:
        return  # a folder, which only some tasks write to: checked when the model is known
    _check_format(path)
    if path.is_dir():
        raise ConfigError(f"--output {path} is a folder. Give a file.")
    draft = _draft(path)
    try:
        draft.touch()
        draft.unlink()
    except OSError as error:
        raise ResourceError(
            f"--output {path} cannot be written: {error.strerror}. Give a file in a folder that is there."
        ) from error


def _check_format(path: Path) -> None:
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"--output is {str(path)!r}; expected a file ending in {', '.join(FORMATS)}.")


def run(
    model: Model,
    data: str,
    output: Path | None,
    out: TextIO,
    columns: dict[str, str | None],
    *,
    separator: str | None = None,
    quiet: bool = False,
    skip_broken: bool = False,
) -> int:
    """Predict every row of `data`, write to `output` or else to `out`, and return their number.

    `columns`: the names of the columns `text` and `second`, where they are not those of the training data.
    """
    from foretune.display import tracked

    key, folder = model.task.file_key, Path()
    if key is not None:
        folder = check_folder(output, FORMATS)
    elif output is not None:
        _check_format(output)
    table = _read(model, data, separator)
    if skip_broken:
        table = _without_broken(model, model.renamed(table, **columns))
        columns = {"text": None, "second": None}
    examples = _examples(model, table, data, columns, quiet)
    bar = output is not None or not out.isatty()
    items = tracked(_placed(model, examples), len(examples), quiet=quiet or not bar)
    if key is not None:
        write_files(items, examples.inputs, folder, key, out)
        return len(examples)
    if output is None:
        _write_jsonl(items, out)
        return len(examples)
    with _whole(output) as draft:
        _write(items, table, output, draft, model.task.headline)
    return len(examples)


def _without_broken(model: Model, table: pd.DataFrame) -> pd.DataFrame:
    from foretune.prepare import readable

    found, broken = readable(type(model.task), table, model.task.columns, True, "data")
    for text in broken:
        say(f"Warning: {text}", style="yellow")
    return found


def _placed(model: Model, examples: Examples) -> Iterator[dict[str, Any]]:
    """Yield the predictions; those of pictures and sounds begin with the file's path."""
    items = model.predictions(examples)
    if model.task.modality == "text":
        yield from items
        return
    for each, item in zip(examples.inputs, items, strict=True):
        yield {"path": os.fspath(each), **item}


def _examples(
    model: Model, table: pd.DataFrame, data: str, columns: dict[str, str | None], quiet: bool
) -> Examples:
    """Return the rows of the table as the task reads them, without targets."""
    from foretune.data.read import STDIN

    task, where = model.task, STDIN if data == "-" else data
    if task.modality == "text" and task.columns.second is None and columns["second"] is None:
        column = _text_column(model, table, columns["text"], quiet)
        columns = {"text": None if column == task.columns.text else column, "second": None}
    table = model.renamed(table, **columns)
    task.check(table, where=where, need_targets=False)
    return task.examples(table, where=where, need_targets=False)


def _read(model: Model, data: str, separator: str | None) -> pd.DataFrame:
    """Read the table; the recipe's separator is for files like those of the training."""
    import pandas as pd

    from foretune.data.files import file_format
    from foretune.data.folders import media_in
    from foretune.data.read import read_table
    from foretune.prepare import column_names

    if model.task.modality != "text" and (found := media_in(Path(data), model.task.modality)):
        return pd.DataFrame({model.task.columns.text: found})
    table = read_table(
        data,
        separator=separator,
        offline=model.recipe.offline,
        split="test",
        usual=model.recipe.separator if file_format(data) in ("csv", "tsv") else None,
        known=column_names(model.task.columns),
    )
    # A path per line, or a table of nothing else.
    if model.task.modality != "text" and len(table.columns) == 1:
        table.columns = pd.Index([model.task.columns.text])
    return table


def _text_column(model: Model, table: pd.DataFrame, text: str | None, quiet: bool) -> str:
    """Return the column given, else the model's own, else the only one, else the one that reads like text."""
    from foretune.data.columns import infer_columns

    own = model.task.columns.text
    if text is None and own in table.columns:
        return own
    if text is None and len(table.columns) == 1:
        return str(table.columns[0])
    chosen = infer_columns(table, text=text, need_target=False).text
    if text is None and not quiet:
        say(
            f"No column {own!r}, as in the training data: {chosen!r} is read. --text chooses another.",
            style="dim",
        )
    return chosen


def _check_names(table: pd.DataFrame, added: Sequence[str]) -> None:
    taken = [name for name in added if name in table.columns]
    if taken:
        raise DataError(
            f"The data have a column {taken[0]!r} already, which the predictions would overwrite. Rename "
            "it, or write .jsonl."
        )


def _draft(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Yield a temporary name that becomes `path` at the end, and disappears on an error."""
    from foretune.training.files import disk_errors

    draft = _draft(path)
    try:
        with disk_errors(path):
            yield draft
            draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _write(
    items: Iterable[dict[str, Any]], table: pd.DataFrame, output: Path, draft: Path, headline: str
) -> None:
    kind, items = output.suffix.lower(), iter(items)
    if kind == ".jsonl":
        with draft.open("w", encoding="utf-8", newline="") as file:
            _write_jsonl(items, file)
        return
    first = next(items)
    names = {key: PREDICTION if key == headline else key for key in first if key != "path"}
    _check_names(table, list(names.values()))
    found = chain([first], items)
    if kind == ".parquet":
        rows = [{names[key]: _cell(value) for key, value in item.items()} for item in found]
        table.assign(**{name: [row[name] for row in rows] for name in names.values()}).to_parquet(draft)
        return
    with draft.open("w", encoding="utf-8", newline="") as file:
        _write_delimited(found, table, file, "\t" if kind == ".tsv" else ",", names)


def _write_jsonl(items: Iterable[dict[str, Any]], file: TextIO) -> None:
    for row, item in enumerate(items, start=1):
        line = {"row": row, **rounded(item)}
        file.write(json.dumps(line, ensure_ascii=not is_utf8(file)) + "\n")


def _write_delimited(
    items: Iterable[dict[str, Any]], table: pd.DataFrame, file: TextIO, mark: str, names: dict[str, str]
) -> None:
    writer = csv.writer(file, delimiter=mark, lineterminator="\n")
    writer.writerow([*table.columns, *names.values()])
    for cells, item in zip(table.itertuples(index=False, name=None), items, strict=True):
        writer.writerow([*_cells(cells), *(_cell(item[key]) for key in names)])


def _cells(cells: Sequence[object]) -> list[object]:
    """Return a row's own cells: nothing for a missing one, lists and tables as JSON."""
    return [
        "" if is_missing(cell)
        else json.dumps(cell, ensure_ascii=False, default=_plain)
        if isinstance(cell, dict) or is_list(cell)
        else cell
        for cell in cells
    ]  # fmt: skip


def _plain(value: Any) -> Any:
    """Return numbers and arrays of NumPy as JSON knows them, anything else as text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _cell(value: Any) -> Any:
    """Return one cell of a table: a number or text as it is, anything nested as JSON."""
    value = rounded(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def rounded(value: Any) -> Any:
    """Return the value with its floats, nested ones too, cut to the digits of a float32."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
