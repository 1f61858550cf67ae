"""The cache of unpacked media: folders of files that tasks open by their paths, within a budget of bytes.

A folder appears whole or not at all and is named by a hash of its contents. Whoever uses one holds a shared lock
on it until the process ends (flock(2)); making room takes those unused for longest that nobody holds.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from foretune.data.cache_size import free_bytes, size_limit
from foretune.data.store import cache_folder
from foretune.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

try:
    import fcntl
except ImportError:  # Windows: there only the folders of this very process are known to be in use
    fcntl = None  # type: ignore[assignment]

#: Left free on the disk besides what is unpacked.
SPARE_BYTES = 256 << 20
_DRAFT = ".tmp-"
_DEAD_SECONDS = 86_400.0  # a draft that nobody has touched for so long belonged to a process that was killed
_HELD: dict[Path, int] = {}  # folders that this process uses, and the open directory that carries the lock


def unpacked_folder() -> Path:
    """Return the folder that holds the folders of unpacked media."""
    return cache_folder() / "unpacked"


def unpacked(key: str, size: int, write: Callable[[Path], None], name: str) -> Path:
    """Return the folder called `key`; where it is not there yet, `write` is called with an empty one to fill.

    `size`: the bytes that will be written; `name`: of their source, for messages. It is not evicted while this
    process lives. Raises ResourceError where the disk is too small, OSError, and what `write` raises.
    """
    target = unpacked_folder() / key
    while not _hold(target):
        _fill(target, size, write, name)
    with suppress(OSError):  # a cache that may only be read
        os.utime(target)
    return target


def make_room(coming: int) -> None:
    """Delete the folders unused for longest until `coming` bytes fit below the limit, but none in use."""
    _sweep()
    held = {path: _bytes(path) for path in _entries()}
    total, parent = sum(held.values()), unpacked_folder()
    allowed = min(size_limit(parent, total), total + free_bytes(parent) - SPARE_BYTES)
    for path in sorted(held, key=_last_used):
        if total + coming <= allowed:
            return
        if _remove(path):
            total -= held[path]


def _fill(target: Path, size: int, write: Callable[[Path], None], name: str) -> None:
    """Write into a draft beside `target` and rename it, so that a broken off one is never used."""
    parent = target.parent
    parent.mkdir(parents=True, exist_ok=True)
    make_room(size)
    if shutil.disk_usage(parent).free < size + SPARE_BYTES:
        raise ResourceError(
            f"{name} unpacks to {size / 1e9:,.1f} GB, more than is free in {parent}. Set FORETUNE_CACHE to a "
            f"folder on a larger disk."
        )
    with tempfile.TemporaryDirectory(dir=parent, prefix=_DRAFT) as place:
        draft = Path(place) / "contents"
        draft.mkdir()
        write(draft)
        try:
            draft.rename(target)
        except OSError:
            if not target.is_dir():  # else another process was faster
                raise


def _hold(target: Path) -> bool:
    """Lock a folder against eviction for as long as this process lives; return whether it is there."""
    if fcntl is None:
        _HELD[target] = -1
        return target.is_dir()
    try:
        handle = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return False
    with suppress(OSError):  # a file system without locks
        fcntl.flock(handle, fcntl.LOCK_SH)  # waits while somebody moves it away
    if not _is_open(handle, target):
        os.close(handle)
        return False
    if (older := _HELD.pop(target, None)) is not None:
        os.close(older)
    _HELD[target] = handle
    return True


def _is_open(handle: int, target: Path) -> bool:
    """Say whether `target` still is the directory that was opened."""
    try:
        return os.path.samestat(os.fstat(handle), target.stat())
    except FileNotFoundError:
        return False


def _remove(target: Path) -> bool:
    """Delete a folder that no process holds; return whether it is gone. It disappears whole, before it is deleted."""
    try:
        with _alone(target), tempfile.TemporaryDirectory(dir=target.parent, prefix=_DRAFT) as place:
            target.rename(Path(place) / "contents")
        return True
    except OSError:
        return False


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Hold a folder exclusively. Raises OSError where anybody uses it."""
    if fcntl is None:
        if target in _HELD:
            raise BlockingIOError(f"{target} is in use")
        yield
        return
    handle = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _sweep() -> None:
    """Delete the drafts of processes that were killed."""
    for path in unpacked_folder().glob(f"{_DRAFT}*"):
        if _last_used(path) < time.time() - _DEAD_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def _entries() -> list[Path]:
    with suppress(OSError):
        return [p for p in unpacked_folder().iterdir() if p.is_dir() and not p.name.startswith(_DRAFT)]
    return []


def _last_used(folder: Path) -> float:
    with suppress(OSError):  # deleted meanwhile
        return folder.stat().st_mtime
    return 0.0


def _bytes(folder: Path) -> int:
    total = 0
    with suppress(OSError):  # deleted meanwhile
        for where, _, names in os.walk(folder):
            total += sum((Path(where) / name).stat().st_size for name in names)
    return total
