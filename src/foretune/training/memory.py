"""The memory of this machine and of this process: limits, what is free, what a stretch of work needs."""

from __future__ import annotations

import os
from pathlib import Path


def total_memory() -> int:
    """Return the memory this process may use at most, in bytes: the machine's, cut by the container's limit."""
    whole = _memory_info().get("MemTotal") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit, _ = cgroup_memory()
    return whole if limit is None else min(whole, limit)


def free_memory() -> int:
    """Return the memory still to be had, in bytes: what the machine could free, cut by the container's limit."""
    free = _memory_info().get("MemAvailable")
    if free is None:  # not Linux
        import psutil

        free = int(psutil.virtual_memory().available)
    limit, used = cgroup_memory()
    return free if limit is None else max(min(free, limit - used), 0)


def _memory_info(path: Path = Path("/proc/meminfo")) -> dict[str, int]:
    """Return the entries of /proc/meminfo in bytes; nothing where there is no such file."""
    try:
        pairs = [line.split(":") for line in path.read_text().splitlines()]
        return {name: int(value.split()[0]) * 1024 for name, value in pairs}
    except (OSError, ValueError, IndexError):
        return {}


def cgroup_memory(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> tuple[int | None, int]:
    """Return (limit, used) of the tightest memory group around this process, in bytes; (None, 0) without one.

    Used does not count file pages that are dropped when memory runs short. cgroup v2 with all parents, then v1.
    """
    found = [group for folder in _groups(root, own) if (group := _memory_group(folder)) is not None]
    return min(found, key=lambda group: group[0] - group[1]) if found else (None, 0)


def _groups(root: Path, own: Path) -> list[Path]:
    """Return the folders that may limit this process."""
    try:
        paths = [line.split(":", 2)[2] for line in own.read_text().splitlines() if line.startswith("0::")]
    except (OSError, IndexError):
        paths = []
    inner = [root / path.strip("/") for path in paths]
    return [
        *dict.fromkeys(p for leaf in [*inner, root] for p in (leaf, *leaf.parents) if p.is_relative_to(root)),
        root / "memory",
    ]


def _memory_group(folder: Path) -> tuple[int, int] | None:
    names = (
        ("memory.limit_in_bytes", "memory.usage_in_bytes")
        if folder.name == "memory"
        else ("memory.max", "memory.current")
    )
    try:
        limit, used = (int((folder / name).read_text()) for name in names)
        lines = (folder / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):  # no such group, or "max": no limit
        return None
    droppable = sum(int(line.split()[1]) for line in lines if line.startswith(("inactive_file ",)))
    return None if limit >= 1 << 60 else (limit, max(used - droppable, 0))


STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident() -> int | None:
    """Return the bytes of memory that this process holds now; None where the system does not tell."""
    return _status("VmRSS")


def peak_resident() -> int | None:
    """Return the most bytes that this process held since `reset_peak`; None where the system does not tell."""
    return _status("VmHWM")


def _status(name: str) -> int | None:
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")]
    return found[0] if found else None


def reset_peak() -> bool:
    """Let the peak start from what is held now; False where the system cannot (proc(5), clear_refs)."""
    try:
        CLEAR.write_text("5")
        return True
    except OSError:
        return False


def release_freed() -> bool:
    """Give freed memory back to the system, also where `keep_freed_memory` holds it; False without glibc."""
    import ctypes
    import gc

    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        return True
    except (OSError, AttributeError):
        return False
