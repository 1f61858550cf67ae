"""The folders of the feature store: named by key and build, published whole, checksummed, swept."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foretune.data.store import cache_folder

ABOUT = "about.json"  # what a store holds, and the size and checksum of its files
FOREIGN_SECONDS = 86400.0  # processes of another host cannot be seen: a draft silent for a day is dead
CLOCK_SECONDS = 2.0  # what the time at which a process began may be off by

STORE = re.compile(r"(?P<key>[^.].*)-[0-9a-f]{8}")  # no draft, which begins with a dot
DRAFT = re.compile(r"\.draft-(?P<pid>\d+)-(?P<host>[0-9a-f]{8})-(?P<born>\d+)-[0-9a-f]{8}")


def features_folder() -> Path:
    """Return the folder that holds the stores, one folder for each."""
    return cache_folder() / "features"


@dataclass(frozen=True)
class Stored:
    """A store on the disk; `last_used` in seconds since 1970."""

    key: str
    path: Path
    bytes: int
    last_used: float


def stores() -> list[Stored]:
    """Return the stores on the disk, whole or damaged, the one unused for longest first."""
    found = []
    for path in _entries():
        if name := STORE.fullmatch(path.name):
            with suppress(OSError):  # deleted meanwhile
                found.append(Stored(name["key"], path, _bytes(path), path.stat().st_mtime))
    return sorted(found, key=lambda store: (store.last_used, store.path))


def builds(key: str) -> list[Path]:
    """Return the folders that hold `key`: none or one, more where processes finished in the same instant."""
    return sorted(path for path in _entries() if (name := STORE.fullmatch(path.name)) and name["key"] == key)


def held_bytes() -> int:
    """Return the bytes of all stores and drafts."""
    return sum(_bytes(path) for path in _entries())


def draft_path() -> Path:
    """Return a new draft's path, whose name says who writes it: process, host, time (seconds since 1970)."""
    return features_folder() / f".draft-{os.getpid()}-{_host()}-{int(time.time())}-{secrets.token_hex(4)}"


def publish(draft: Path, key: str) -> None:
    """Make a finished draft durable and the only store of `key`. Raises OSError.

    Every build has a name of its own, so that nobody can mix two or delete the wrong one.
    """
    for path in [*draft.iterdir(), draft]:
        _sync(path)
    for older in builds(key):
        remove(older)
    draft.rename(features_folder() / f"{key}-{secrets.token_hex(4)}")
    _sync(features_folder())


def remove(folder: Path) -> None:
    """Delete a folder where that is allowed: first out of sight, whole. Who has its files mapped can read on."""
    grave = draft_path()
    with suppress(OSError):
        folder.rename(grave)
        shutil.rmtree(grave, ignore_errors=True)


def touch(folder: Path) -> None:
    """Mark a store as used now; a folder that may only be read is left as it is."""
    with suppress(OSError):
        os.utime(folder)


def write_about(folder: Path, content: dict[str, Any]) -> None:
    """Write what the store holds, with the size and checksum of every file that lies there."""
    sums = {path.name: [path.stat().st_size, _sha256(path)] for path in sorted(folder.iterdir())}
    content = content | {"files": sums}
    (folder / ABOUT).write_text(json.dumps({"sha256": _json_sum(content), "content": content}))


def read_about(folder: Path) -> dict[str, Any]:
    """Return what the store holds, after checking every file.

    Raises ValueError where one is not as it was written, OSError where it cannot be read, and what Python
    raises for JSON of another form.
    """
    outer = json.loads((folder / ABOUT).read_text())
    content = outer["content"]
    if _json_sum(content) != outer["sha256"]:
        raise ValueError(f"{ABOUT} is damaged")
    for name, (size, expected) in content["files"].items():
        _check(folder / name, size, expected)
    return content


_CHECKED: set[tuple[str, int, int, str]] = set()  # path, bytes, time of change (ns), checksum


def _check(path: Path, size: int, expected: str) -> None:
    """Raise ValueError where the file is not as it was written; an unchanged one is read once per process."""
    found = path.stat()
    mark = (str(path), found.st_size, found.st_mtime_ns, expected)
    if mark in _CHECKED:
        return
    if found.st_size != size or _sha256(path) != expected:
        raise ValueError(f"{path.name} is damaged")
    _CHECKED.add(mark)


def sweep() -> None:
    """Delete the drafts of dead processes."""
    for path in _entries():
        if (name := DRAFT.fullmatch(path.name)) and not _alive(path, name):
            shutil.rmtree(path, ignore_errors=True)


def _alive(draft: Path, name: re.Match[str]) -> bool:
    import psutil

    if name["host"] != _host():
        return _last_change(draft) > time.time() - FOREIGN_SECONDS
    try:
        writer = psutil.Process(int(name["pid"]))
        if writer.status() == psutil.STATUS_ZOMBIE:
            return False
        return writer.create_time() <= int(name["born"]) + CLOCK_SECONDS  # else the number was given again
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _last_change(folder: Path) -> float:
    times = [0.0]
    with suppress(OSError):  # deleted meanwhile
        times += [path.stat().st_mtime for path in [folder, *folder.iterdir()]]
    return max(times)


def _entries() -> list[Path]:
    try:
        return [path for path in features_folder().iterdir() if path.is_dir()]
    except OSError:
        return []


def _bytes(folder: Path) -> int:
    total = 0
    with suppress(OSError):  # deleted meanwhile
        for path in folder.iterdir():
            total += path.stat().st_size
    return total


def _host() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _json_sum(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
