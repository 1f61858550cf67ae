"""Zip files of media, unpacked once into the cache; whatever an archive must not do is refused."""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
import zlib
from functools import partial
from pathlib import Path, PurePosixPath

from foretune.data.media import is_hidden
from foretune.data.text import counted, excerpt, listed
from foretune.data.unpacked import unpacked
from foretune.errors import DataError, ResourceError

ENTRY_LIMIT = 2_000_000
#: Media are compressed already; only text and pixels of one colour shrink a hundredfold.
RATIO_LIMIT = 100
#: Small archives may shrink as they like: 1 GB does no harm.
HARMLESS_BYTES = 1 << 30
_BLOCK = 1 << 20


def unpack(path: str | os.PathLike[str]) -> Path:
    """Return the folder with the contents of a zip file, unpacked into the cache where it is not there yet.

    An archive of the same bytes is unpacked once, and kept while this process lives (`unpacked`). Hidden files and
    `__MACOSX` are left out.
    Raises DataError for a damaged or encrypted archive, a file that would land outside the folder (absolute
    path, `..`), a link, or a decompression bomb; ResourceError where the disk is too small.
    """
    source = Path(path).expanduser()
    try:
        with zipfile.ZipFile(source) as archive:
            entries = _checked(archive, source)
            size = sum(info.file_size for info in entries)
            return unpacked(_key(source), size, partial(_unpack, archive, entries), str(source))
    except (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise DataError(f"{source} is no readable zip file ({error}). Copy or download it again.") from error
    except OSError as error:
        raise ResourceError(
            f"{source} cannot be unpacked: {error}. Unpack it yourself and pass the folder, or set "
            f"FORETUNE_CACHE to a folder on a disk with more space."
        ) from error


def _key(source: Path) -> str:
    import hashlib

    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def _checked(archive: zipfile.ZipFile, source: Path) -> list[zipfile.ZipInfo]:
    """Return the files to unpack, after every check that the archive's list of contents allows."""
    infos = archive.infolist()
    unsafe = [info.filename for info in infos if not _is_safe(info)]
    if unsafe:
        raise DataError(
            f"{source}: {counted(len(unsafe), 'entry', 'entries')} with an absolute path, `..` or a link: "
            f"{listed([excerpt(name) for name in unsafe], 3)}. Such an archive can write anywhere and is not "
            f"unpacked; make it anew from its folder."
        )
    if any(info.flag_bits & 1 for info in infos):
        raise DataError(f"{source} is encrypted. Unpack it with its password and pass the folder.")
    files = [info for info in infos if not info.is_dir() and not _hidden(info.filename)]
    _check_size(files, source)
    return files


def _is_safe(info: zipfile.ZipInfo) -> bool:
    name = info.filename
    mode = info.external_attr >> 16
    strange = "\\" in name or "\0" in name or (len(name) > 1 and name[1] == ":")
    kind = stat.S_IFMT(mode)
    plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
    return plain and not strange and not name.startswith("/") and ".." not in PurePosixPath(name).parts


def _hidden(name: str) -> bool:
    return any(is_hidden(part) for part in PurePosixPath(name).parts)


def _check_size(files: list[zipfile.ZipInfo], source: Path) -> None:
    """Raise DataError for an archive that claims more than an honest one would."""
    if not files:
        raise DataError(f"{source} holds no files. Expected a folder of pictures or sounds per class.")
    total = sum(info.file_size for info in files)
    if len(files) > ENTRY_LIMIT or total > max(HARMLESS_BYTES, RATIO_LIMIT * source.stat().st_size):
        raise DataError(
            f"{source} would unpack to {counted(len(files), 'file')} and {total / 1e9:,.1f} GB from "
            f"{source.stat().st_size / 1e6:,.1f} MB; it may be a decompression bomb and is not unpacked. If you "
            f"trust it, unpack it yourself and pass the folder."
        )


def _unpack(archive: zipfile.ZipFile, files: list[zipfile.ZipInfo], folder: Path) -> None:
    for info in files:
        _write(archive, info, folder / info.filename)


def _write(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
    # zipfile reads no more than the size an entry claims and compares its checksum at the end.
    path.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(info) as packed, path.open("wb") as file:
        shutil.copyfileobj(packed, file, _BLOCK)
