"""What features may take: bytes on the disk, the stores that must go for a new one, and memory instead."""

from __future__ import annotations

import errno
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from foretune.backbones import feature_files as files
from foretune.errors import ConfigError

LIMIT_VARIABLE = "FORETUNE_CACHE_BYTES"
LIMIT_BYTES, DISK_SHARE = 20 * 10**9, 0.2
MEMORY_SHARE = 0.25  # the rest is for training
UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def make_room(coming: int) -> None:
    """Delete the stores unused for longest until `coming` bytes fit. Raises OSError where they never will.

    Drafts count, but are never deleted: somebody is writing them.
    """
    held, stores = files.held_bytes(), files.stores()
    allowed = min(size_limit(), held + _free_bytes())
    least = held - sum(store.bytes for store in stores) + coming
    if least > allowed:  # then none of them need go
        raise _too_much(coming, allowed)
    for store in stores:
        if files.held_bytes() + coming <= allowed:
            return
        files.remove(store.path)
    if files.held_bytes() + coming > allowed:  # one belongs to somebody else
        raise _too_much(coming, allowed)


def _too_much(coming: int, allowed: int) -> OSError:
    return OSError(
        errno.ENOSPC, f"{coming / 1e6:,.1f} MB do not fit below {allowed / 1e6:,.1f} MB for all features"
    )


def size_limit() -> int:
    """Return the bytes that all stores may take together.

    $FORETUNE_CACHE_BYTES where it is set; else 20 % of what the disk would have free without the stores, and
    20 GB at most. Raises ConfigError where the variable is no size.
    """
    given = os.environ.get(LIMIT_VARIABLE, "").strip()
    if given:
        return _parse_size(given)
    return min(LIMIT_BYTES, int(DISK_SHARE * (_free_bytes() + files.held_bytes())))


def _parse_size(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*(?:([kmgt])(i?))?b?", text.lower(), flags=re.ASCII)
    if match is None:
        raise ConfigError(
            f"${LIMIT_VARIABLE} is {text!r}, which is no size. Give bytes, or a number with a unit such as 8GB, "
            "500MB or 1.5GiB; 0 keeps features off the disk."
        )
    number, unit, binary = match[1], match[2] or "", match[3]
    return int(float(number) * (1024 if binary else 1000) ** UNITS[unit])


def _free_bytes() -> int:
    folder = files.features_folder().absolute()
    for path in (folder, *folder.parents):
        with suppress(OSError):  # not made yet
            return shutil.disk_usage(path).free
    return 0


def memory_limit(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes that a store in memory may take: a quarter of what machine and container have free."""
    import psutil

    free = [psutil.virtual_memory().available]
    v2 = ("memory.max", "memory.current")
    v1 = ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")
    for limit, used in (v2, v1):
        with suppress(OSError, ValueError):  # the other version, or no limit
            free.append(int((root / limit).read_text()) - int((root / used).read_text()))
    return max(int(MEMORY_SHARE * min(free)), 0)


def report() -> dict[str, Any]:
    """Return what lies on the disk: folder, limit, bytes in all (drafts too), and each store, last used first.

    A store is `{"key", "bytes", "last_used"}`, the time in seconds since 1970.
    """
    return {
        "folder": str(files.features_folder()),
        "limit": size_limit(),
        "bytes": files.held_bytes(),
        "stores": [
            {"key": store.key, "bytes": store.bytes, "last_used": store.last_used}
            for store in reversed(files.stores())
        ],
    }


def clear() -> int:
    """Delete every store and the drafts of dead processes; return the bytes that this freed."""
    before = files.held_bytes()
    files.sweep()
    for store in files.stores():
        files.remove(store.path)
    return before - files.held_bytes()
