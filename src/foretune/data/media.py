"""Tables that name pictures or sounds: which column does, of which kind, and where the files lie."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from foretune.data.text import counted, excerpt, is_blank, listed, row_list
from foretune.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pandas as pd

IMAGE, AUDIO = "image", "audio"
NOUNS = {IMAGE: "picture", AUDIO: "sound"}
_IMAGES = "jpg jpeg jpe jfif png gif bmp dib tif tiff webp avif jp2 j2k ppm pgm pbm pnm"
_SOUNDS = "wav flac ogg oga opus mp3 aif aiff aifc au snd caf w64 rf64 sph"
SUFFIXES = {
    **{f".{suffix}": IMAGE for suffix in _IMAGES.split()},
    **{f".{suffix}": AUDIO for suffix in _SOUNDS.split()},
}
#: Media that neither Pillow nor libsndfile decodes, and what turns them into some that are.
FOREIGN = {
    **dict.fromkeys((".m4a", ".aac", ".wma", ".mp4", ".mkv", ".webm", ".amr"), "ffmpeg -i FILE FILE.wav"),
    **dict.fromkeys((".heic", ".heif", ".svg", ".psd", ".raw", ".cr2", ".nef"), "magick FILE FILE.png"),
}
#: Names of path columns, the likeliest first.
_NAMES = """path file filename file_name filepath file_path audio_filepath image image_path image_file picture
photo img audio audio_path sound wav clip"""
_MASK_WORDS = ("mask", "segment", "annotation", "label", "target")
#: Where files named by a table often lie, relative to the table's folder.
_BESIDE = ("", "images", "image", "img", "clips", "wavs", "wav", "audio", "data")
_SAMPLE = 1000
_TRIED = 5

Item = TypeVar("Item")
Result = TypeVar("Result")


class BrokenMediaError(DataError):
    """One picture or sound cannot be decoded; `path` and `reason` let a run leave it out and go on."""

    def __init__(self, path: str | os.PathLike[str], reason: str, remedy: str = "") -> None:
        self.path, self.reason = os.fspath(path), reason
        super().__init__(f"{self.path}: {reason}. {remedy or 'Replace the file, or leave its row out.'}")


@dataclass(frozen=True)
class Media:
    """The column of a table that holds the paths of pictures or sounds; `kind` is "image" or "audio"."""

    column: str
    kind: str


def kind_of(name: str | os.PathLike[str]) -> str | None:
    """Return "image", "audio" or None by the ending of a file's name."""
    return SUFFIXES.get(os.path.splitext(os.fspath(name))[1].lower())  # noqa: PTH122 (Path is 10 times slower)


def is_hidden(name: str) -> bool:
    """Say whether a file or folder is the system's and no data: .DS_Store, __MACOSX, Thumbs.db …"""
    return name.startswith((".", "__MACOSX")) or name.lower() in ("thumbs.db", "desktop.ini", "@eadir")


def require(module: str, extra: str) -> None:
    """Raise ConfigError with the command that installs `module` where it is missing."""
    if find_spec(module) is None:
        raise ConfigError(f"{module} is not installed, run: pip install 'foretune[{extra}]'")


def in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Return `function` of every item, in order, computed in threads (files are mostly waited for)."""
    with ThreadPoolExecutor(thread_name_prefix="media") as pool:
        return list(pool.map(function, items))


def media_of(table: pd.DataFrame) -> Media | None:
    """Return the column of paths to pictures or sounds, or None where there is none.

    At least nine in ten of the column's first values must end like a file of one kind. Of several columns
    the best known name wins, then the first; one that is called like a mask or a label comes last.
    """
    found = [(rank, Media(name, kind)) for rank, name, kind in path_columns(table)]
    return min(found, key=lambda item: item[0])[1] if found else None


def path_columns(table: pd.DataFrame) -> Iterable[tuple[tuple[bool, int], str, str]]:
    """Return rank, name and kind ("image" or "audio") of the columns of paths; `media_of` takes the lowest rank."""
    names = _NAMES.split()
    for column in map(str, table.columns):
        kind = _kind_of_values(table[column].iloc[:_SAMPLE].tolist())
        if kind is not None:
            name = column.strip().casefold()
            rank = names.index(name) if name in names else len(names)
            yield (_mask_like(name), rank), column, kind


def _mask_like(name: str) -> bool:
    return any(word in name.casefold() for word in _MASK_WORDS)


def _kind_of_values(values: Sequence[object]) -> str | None:
    given = [value for value in values if not is_blank(value)]
    if not given or not all(isinstance(value, str | os.PathLike) for value in given):
        return None
    kinds = [kind_of(value) or _foreign_kind(value) for value in given]  # type: ignore[arg-type]
    return next((kind for kind in NOUNS if kinds.count(kind) >= 0.9 * len(given)), None)


def _foreign_kind(name: str | os.PathLike[str]) -> str | None:
    command = FOREIGN.get(Path(name).suffix.lower(), "")
    return {"ffmpeg": AUDIO, "magick": IMAGE}.get(command.split(" ")[0])


def located(
    table: pd.DataFrame,
    media: Media,
    folder: str | os.PathLike[str] | None = None,
    *,
    some_missing: bool = False,
) -> pd.DataFrame:
    """Return the table with absolute paths in `media.column`, and `attrs["media"]` set.

    Relative paths count from `folder` (else from `attrs["folder"]`, where the table's file lies, else from
    the working folder), or from a folder such as `images` in it. Raises DataError naming the rows without
    a path, with a file of another kind, or whose file is missing; with `some_missing` only where all are.
    """
    values = table[media.column].tolist()
    _check_paths(values, media)
    start = Path(folder or table.attrs.get("folder") or ".").expanduser().absolute()
    first = values[:_TRIED]  # not just one, which may be the one that is missing
    base = next((start / part for part in _BESIDE if any((start / part / v).exists() for v in first)), start)
    paths = [os.path.join(base, value) for value in values]  # noqa: PTH118 (a million of them)
    missing = [row for row, path in enumerate(paths) if not os.path.isfile(path)]  # noqa: PTH113
    if missing and not (some_missing and len(missing) < len(paths)):
        raise _missing(values, missing, media.column, start)
    changed = table.copy(deep=False)
    changed[media.column] = paths
    changed.attrs["media"] = media.kind
    return changed


def _check_paths(values: Sequence[object], media: Media) -> None:
    blank = [row for row, value in enumerate(values) if is_blank(value)]
    if blank:
        raise DataError(
            f"{row_list(blank).capitalize()} of column {media.column!r}: no path. Expected the path of a "
            f"{NOUNS[media.kind]} in every row; remove the rows or fill them in."
        )
    others = [row for row, value in enumerate(values) if kind_of(str(value)) != media.kind]
    if others:
        first = str(values[others[0]])
        raise DataError(
            f"{row_list(others).capitalize()} of column {media.column!r}: no {NOUNS[media.kind]} that can be "
            f"read, for instance {excerpt(first)}. {conversion(first)}"
        )


def conversion(name: str) -> str:
    """Return what to do with a file that is no picture or sound of a known format."""
    command = FOREIGN.get(Path(name).suffix.lower())
    if command:
        return f"Convert such files first: {command}"
    if "://" in name:
        return "Download the files and name them by their paths."
    return f"Pictures end in {listed(_IMAGES.split(), 6)}; sounds in {listed(_SOUNDS.split(), 6)}."


def _missing(values: Sequence[object], missing: list[int], column: str, start: Path) -> DataError:
    files = listed([f"{values[row]} (row {row + 1:,})" for row in missing], 3)
    return DataError(
        f"{counted(len(missing), 'file')} of {len(values):,} named in column {column!r} not found: {files}. "
        f"Relative paths are looked up in {start}. Correct the paths, or remove the rows."
    )
