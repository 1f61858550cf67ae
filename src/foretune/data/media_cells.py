"""Pictures and sounds that stand in the cells of a table, written once into the cache of unpacked media.

`datasets` stores them as {"bytes", "path"}: the bytes of a file as it was and its name, or only the path of a file.
Tasks open files by their paths, so the bytes become files; never more than a batch of them is in memory.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretune.data.media import AUDIO, FOREIGN, IMAGE, kind_of
from foretune.data.unpacked import unpacked

if TYPE_CHECKING:
    import pandas as pd

Cell = tuple[bytes | None, str | None]  # the bytes of a file and its name
#: Returns the cells of every column again from the first row, in batches.
Read = Callable[[], Iterable[Mapping[str, list[Cell]]]]
_NAME_CHARACTERS = 50  # a file system's limit is 255 bytes, a character takes up to 4
_HEAD = 16
#: How files begin, by their ending (`.` stands for any byte); see `man 5 magic`.
_MAGIC = [
    (re.compile(pattern, re.DOTALL), suffix)
    for pattern, suffix in (
        (rb"\x89PNG\r\n\x1a\n", ".png"), (rb"\xff\xd8\xff", ".jpg"), (rb"GIF8[79]a", ".gif"),
        (rb"BM....\0\0\0\0", ".bmp"), (rb"II\*\0|MM\0\*", ".tif"), (rb"RIFF....WEBP", ".webp"),
        (rb"....ftypavi[fs]", ".avif"), (rb"....ftyp(hei[cx]|mif1)", ".heic"), (rb"\0\0\0\x0cjP  ", ".jp2"),
        (rb"P[1-6]\s", ".ppm"),
        (rb"(RIFF|RF64)....WAVE", ".wav"), (rb"fLaC", ".flac"), (rb"OggS", ".ogg"), (rb"ID3|\xff[\xe2-\xff]", ".mp3"),
        (rb"FORM....AIF[FC]", ".aiff"), (rb"\.snd", ".au"), (rb"caff", ".caf"), (rb"....ftypM4A", ".m4a"),
    )
]  # fmt: skip


def unpacked_cells(read: Read, kinds: Mapping[str, str], name: str) -> dict[str, list[str | None]]:
    """Return the paths of the files that stand in the columns of `kinds` ("image" or "audio" each), by column.

    `read` is called once to hash the bytes, and again to write them where the cache does not hold them yet; `name`
    is of the data, for messages. A cell without bytes keeps its path. Raises ResourceError where the disk is too small.
    """
    found: dict[str, list[str | None]] = {column: [] for column in kinds}
    inside: dict[str, int] = {}  # names of files in the folder of these media, and their bytes
    for batch in read():
        for column, kind in kinds.items():
            for data, path in batch[column]:
                found[column].append(path or None if data is None else file_name(data, path, kind))
                if data is not None:
                    inside[str(found[column][-1])] = len(data)
    if not inside:
        return found
    key = hashlib.sha256("\n".join(sorted(inside)).encode()).hexdigest()[:32]
    folder = unpacked(key, sum(inside.values()), lambda place: _write(read, kinds, place), name)
    return {
        column: [str(folder / path) if path in inside else path for path in paths]
        for column, paths in found.items()
    }


def unpacked_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table in memory with paths in place of the pictures and sounds that its cells hold as bytes."""
    holding = [str(name) for name in frame.columns if _holds_bytes(frame[name])]

    def read(columns: Iterable[str]) -> list[dict[str, list[Cell]]]:
        return [{column: [cell_of(cell) for cell in frame[column].tolist()] for column in columns}]

    kinds = sniffed_kinds(read(holding), holding)
    found = unpacked_cells(lambda: read(kinds), kinds, "The table")
    return frame.assign(**found) if found else frame


def _holds_bytes(column: pd.Series) -> bool:
    first = (
        next((cell for cell in column.tolist() if cell is not None), None) if column.dtype == object else None
    )
    return isinstance(first, bytes) or (isinstance(first, dict) and set(first) == {"bytes", "path"})


def _write(read: Read, kinds: Mapping[str, str], folder: Path) -> None:
    for batch in read():
        for column, kind in kinds.items():
            for data, path in batch[column]:
                if data is not None:
                    file = folder / file_name(data, path, kind)
                    file.parent.mkdir(exist_ok=True)
                    file.write_bytes(data)


def file_name(data: bytes, path: str | None, kind: str) -> str:
    """Return the name of a file with these bytes, in one of 256 folders: its hash, its stem, and its ending.

    The ending is that of `path` where it is one of media, else what the bytes begin like. Nothing else of `path`
    can lead anywhere.
    """
    digest = hashlib.sha256(data).hexdigest()[:32]
    given = Path((path or "").replace("\\", "/")).name
    stem = re.sub(r"[^\w-]+", "_", Path(given).stem).strip("_")[:_NAME_CHARACTERS]
    suffix = Path(given).suffix.lower()
    if kind_of(given) != kind and suffix not in FOREIGN:
        suffix = sniffed(data) or {IMAGE: ".png", AUDIO: ".wav"}[kind]
    return f"{digest[:2]}/{digest}{'-' if stem else ''}{stem}{suffix}"


def sniffed(data: bytes) -> str | None:
    """Return the ending of the files that begin like this, or None where it is no known picture or sound."""
    return next((suffix for magic, suffix in _MAGIC if magic.match(data[:_HEAD])), None)


def cell_of(value: Any) -> Cell:
    """Return the bytes and the name in a cell: a struct of both, or bytes alone; nothing in any other."""
    if isinstance(value, dict):
        return value.get("bytes"), value.get("path")
    return (value if isinstance(value, bytes) else None), None


def sniffed_kinds(batches: Iterable[Mapping[str, list[Cell]]], columns: Iterable[str]) -> dict[str, str]:
    """Return "image" or "audio" for those of `columns` whose first bytes are such."""
    found: dict[str, str] = {}
    waiting = set(columns)
    for batch in batches if waiting else ():
        for column in sorted(waiting):
            first = next((data for data, _ in batch[column] if data is not None), None)
            if first is not None:
                waiting.remove(column)
                kind = kind_of(f"a{sniffed(first) or ''}")
                found |= {} if kind is None else {column: kind}
        if not waiting:
            break
    return found
