"""From a path to decoded text: missing files, compression and encodings, each with its remedy."""

from __future__ import annotations

import difflib
import gzip
import re
import shlex
import zlib
from pathlib import Path

from foretune.data.text import listed
from foretune.errors import DataError

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".txt": "txt",
    ".conll": "conll",
    ".bio": "conll",
    ".iob": "conll",
    ".iob2": "conll",
    ".conllu": "conllu",
}
SUPPORTED = "csv, tsv, jsonl, json, parquet, txt, conll or conllu, each also as .gz"
_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def file_format(name: str) -> str | None:
    """Return the format that the extension of `name` tells (`.gz` is ignored), or None."""
    return FORMATS.get(Path(name.lower().removesuffix(".gz")).suffix)


def missing_file(path: Path, note: str = "") -> DataError:
    """Return the error for a path that is not there, with the nearest names in its folder."""
    folder = path.parent
    if not folder.is_dir():
        return DataError(f"No such file: {path} (there is no folder {folder} either).{note}")
    names = sorted(item.name for item in folder.iterdir())
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
    tables = [name for name in names if file_format(name)]
    hint = ""
    if near:
        hint = f" Did you mean {' or '.join(repr(name) for name in near)}?"
    elif tables:
        hint = f" Tables in {folder}: {listed(tables)}."
    return DataError(f"No such file: {path}.{hint}{note}")


def directory_given(path: Path) -> DataError:
    """Return the error for a folder where a file is expected, naming the tables inside."""
    tables = sorted(item.name for item in path.iterdir() if file_format(item.name))
    hint = f"it holds {listed(tables)}" if tables else f"it holds no {SUPPORTED} file"
    return DataError(f"{path} is a directory, expected one file; {hint}. Pass the path of a file.")


def read_bytes(path: Path) -> bytes:
    """Return the decompressed bytes of a file. Raises DataError if unreadable, empty or damaged."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Check its permissions.") from error
    if not data:
        raise DataError(f"{path} is empty (0 bytes), expected a table. Was it written completely?")
    if data.startswith(b"\x1f\x8b") or path.name.lower().endswith(".gz"):
        data = _gunzip(data, path)
    return data


def _gunzip(data: bytes, path: Path) -> bytes:
    try:
        return gzip.decompress(data)
    except (EOFError, OSError, zlib.error) as error:
        what = "is cut off" if isinstance(error, EOFError) else "is not valid gzip"
        raise DataError(
            f"{path} {what} ({error}). Copy or download it again, or drop .gz from the name of an "
            f"uncompressed file; `gzip -t {shlex.quote(str(path))}` checks it."
        ) from error


def decode(data: bytes, name: str) -> str:
    """Return `data` as text: UTF-8 with or without byte-order mark.

    Raises DataError naming line and byte, with the `iconv` command if another encoding fits.
    """
    if data.startswith(_UTF16):
        raise DataError(f"{name} is UTF-16, expected UTF-8. Convert it: {_iconv(name, 'UTF-16')}")
    data = data.removeprefix(_BOM)
    if (zero := data.find(b"\0")) >= 0:
        raise DataError(
            f"{name} holds a NUL byte in line {_line(data, zero)} ({data.count(0):,} in all), expected "
            f"plain text. It may be a binary file or UTF-16; if the bytes are stray: tr -d '\\000'."
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _undecodable(data, error.start, name) from error


def _line(data: bytes, position: int) -> int:
    return data.count(b"\n", 0, position) + 1


def _undecodable(data: bytes, position: int, name: str) -> DataError:
    found = f"{name} is not UTF-8: line {_line(data, position)} holds byte 0x{data[position]:02X}"
    for encoding in _candidates(data):
        try:
            data.decode(encoding)
        except UnicodeDecodeError:
            continue
        return DataError(f"{found}. It decodes as {encoding}; convert it: {_iconv(name, encoding)}")
    return DataError(
        f"{found}, and it decodes neither as gb18030 nor as cp1252. Save it as UTF-8 in the program "
        f"that wrote it, or convert it with iconv -f ENCODING -t UTF-8."
    )


def _candidates(data: bytes) -> tuple[str, str]:
    """Order the encodings to try: Chinese text has its high bytes in runs, Western text has them single."""
    high = sum(len(run) for run in re.findall(rb"[\x80-\xff]+", data))
    runs = sum(len(run) for run in re.findall(rb"[\x80-\xff]{2,}", data))
    return ("gb18030", "cp1252") if 2 * runs >= high else ("cp1252", "gb18030")


def _iconv(name: str, encoding: str) -> str:
    command = f"iconv -f {encoding.upper()} -t UTF-8"
    if name == "standard input":
        return f"pipe it through `{command}`"
    path = Path(name)
    stem, suffix = path.name, "".join(path.suffixes[-2:] if path.suffix == ".gz" else path.suffixes[-1:])
    target = shlex.quote(str(path.with_name(stem.removesuffix(suffix) + ".utf8" + suffix)))
    if path.suffix == ".gz":
        return f"gunzip -c {shlex.quote(name)} | {command} | gzip > {target}"
    return f"{command} {shlex.quote(name)} > {target}"
