"""Tables that Arrow holds: parquet files, `datasets.Dataset` and the hub's sets, pictures and sounds in them too."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretune.data.features import Notes, media_kinds, parquet_notes, with_class_names
from foretune.data.files import read_bytes
from foretune.data.folders import split_name
from foretune.data.media_cells import Cell, cell_of, sniffed_kinds, unpacked_cells
from foretune.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_ROWS = 64  # of pictures or sounds that are held at a time
_GZIP = b"\x1f\x8b"


def read_parquet(path: Path) -> pd.DataFrame:
    """Return the table of a parquet file (also .gz); media in it become paths (`media_cells`).

    Class numbers become names where `datasets` noted them. Raises DataError where the file cannot be read.
    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = _source(path)
    try:
        with pq.ParquetFile(source()) as file:
            schema = file.schema_arrow
        notes = parquet_notes(schema.metadata)
        found = _media(schema, notes, partial(_parquet_batches, source), str(path))
        others = [name for name in schema.names if name not in found]
        frame = pd.read_parquet(source(), columns=others) if found else pd.read_parquet(source())
    except (pa.ArrowException, OSError, ValueError) as error:
        first = str(error).split("\n")[0]
        raise DataError(
            f"{path} is not a readable parquet file ({first}). Copy or write it again."
        ) from error
    return with_class_names(_joined(frame, found, schema.names), notes)


def read_dataset(source: Any, split: str) -> pd.DataFrame:
    """Return a datasets.Dataset, or `split` of a DatasetDict, as `read_parquet` does. Raises DataError."""
    if isinstance(source, dict):
        source = source[_split_of(source, split)]
    if not hasattr(source, "to_pandas") or not hasattr(source, "__len__"):
        raise DataError(f"A {type(source).__name__} cannot be read; pass a datasets.Dataset (not streaming).")
    features = source.features
    if not features:
        return source.to_pandas()
    notes, names = features.to_dict(), list(source.column_names)
    found = _media(features.arrow_schema, notes, partial(_dataset_batches, source), "The data set")
    left = source.remove_columns(list(found)) if found else source
    return with_class_names(_joined(left.to_pandas() if left.column_names else None, found, names), notes)


def read_hub(source: str, split: str) -> pd.DataFrame:
    """Return `split` (dev: validation) of the hub's data set `owner/name` or `owner/name:config`. Raises DataError."""
    import datasets

    repository, _, config = source.partition(":")
    split = {"dev": "validation"}.get(split, split)
    # Since version 4 datasets runs no code of a repository; before, it had to be told.
    safe = {"trust_remote_code": False} if int(datasets.__version__.split(".")[0]) < 4 else {}
    try:
        loaded = datasets.load_dataset(repository, config or None, split=split, **safe)
    except Exception as error:  # the hub client raises a dozen unrelated classes
        first = (str(error) or type(error).__name__).strip().split("\n")[0]
        raise DataError(
            f"{source!r} is no file here, and split {split!r} of a hub data set of that name cannot be "
            f"loaded: {first} Check the name (owner/name or owner/name:config), the split and the connection."
        ) from error
    return read_dataset(loaded, split)


def _split_of(source: Mapping[str, Any], split: str) -> str:
    """Return the name of the split in a DatasetDict, where dev may be called validation. Raises DataError."""
    wanted = split_name(split) or split
    found = next((name for name in source if name == split or split_name(str(name)) == wanted), None)
    if found is None:
        raise DataError(f"The DatasetDict has no split {split!r}. It has: {', '.join(map(str, source))}.")
    return found


def _source(path: Path) -> Callable[[], Any]:
    """Return a function that gives the file, or its bytes where it is packed. Raises DataError for an empty one."""
    try:
        with path.open("rb") as file:
            whole = file.read(2) not in (b"", _GZIP)
    except OSError:
        whole = False
    if whole:
        return lambda: path
    data = read_bytes(path)
    return lambda: io.BytesIO(data)


def _media(
    schema: pa.Schema, notes: Notes, batches: Callable[[list[str]], Iterable[Any]], name: str
) -> dict[str, list[str | None]]:
    """Return the paths of pictures and sounds by the columns that hold such, as noted or by their bytes."""
    noted = media_kinds(notes)
    holding = {field.name for field in schema if _holds_bytes(field.type)}
    unknown = sorted(holding - set(noted))

    def read(columns: list[str]) -> Iterable[dict[str, list[Cell]]]:
        for batch in batches(columns):
            yield {column: [cell_of(cell) for cell in batch[column].to_pylist()] for column in columns}

    kinds = {column: kind for column, kind in noted.items() if column in holding}
    kinds |= sniffed_kinds(read(unknown), unknown) if unknown else {}
    return unpacked_cells(partial(read, list(kinds)), kinds, name) if kinds else {}


def _holds_bytes(kind: pa.DataType) -> bool:
    """Say whether cells are bytes, or structs of bytes and path."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        inner = {field.name: field.type for field in kind}
        return set(inner) == {"bytes", "path"} and _holds_bytes(inner["bytes"])
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _parquet_batches(source: Callable[[], Any], columns: list[str]) -> Iterable[pa.RecordBatch]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(source()) as file:
        yield from file.iter_batches(batch_size=_ROWS, columns=columns)


def _dataset_batches(source: Any, columns: list[str]) -> Iterable[pa.Table]:
    # As Arrow, nothing is decoded.
    yield from source.select_columns(columns).with_format("arrow").iter(batch_size=_ROWS)


def _joined(frame: pd.DataFrame | None, found: dict[str, list[str | None]], names: list[str]) -> pd.DataFrame:
    """Return the table with the paths in the places of their columns."""
    import pandas as pd

    if not found:
        assert frame is not None
        return frame
    paths = pd.DataFrame(found, dtype=object)
    if frame is None or not len(frame.columns):
        return paths
    order = [name for name in names if name in paths or name in frame]
    return pd.concat([frame.reset_index(drop=True), paths], axis=1)[order]
