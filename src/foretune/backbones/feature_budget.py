"""What features may take: bytes on the disk, the stores that must go for a new one, and memory instead."""

from __future__ import annotations

import errno
from contextlib import suppress
from pathlib import Path
from typing import Any

from foretune.backbones import feature_files as files
from foretune.data import cache_size

MEMORY_SHARE = 0.25  # the rest is for training


def make_room(coming: int) -> None:
    """Delete the stores unused for longest until `coming` bytes fit. Raises OSError where they never will.

    Drafts count, but are never deleted: somebody is writing them.
    """
    held, stores = files.held_bytes(), files.stores()
    allowed = min(size_limit(), held + cache_size.free_bytes(files.features_folder()))
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

    See `foretune.data.cache_size`. Raises ConfigError where $FORETUNE_CACHE_BYTES is no size.
    """
    return cache_size.size_limit(files.features_folder(), files.held_bytes())


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
