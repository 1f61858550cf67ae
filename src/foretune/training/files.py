"""Folders that appear whole or not at all, with checksums, and errors that say what the disk lacks."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from foretune.errors import ResourceError

CHECKSUMS = "checksums.json"


def write_folder(target: Path, fill: Callable[[Path], None]) -> None:
    """Make folder `target` by `fill(draft)`: draft, checksums, fsync, rename. Raises ResourceError.

    A crash or a full disk at any point leaves either the whole folder or none, and never touches others.
    """
    draft = target.parent / f".tmp-{target.name}"
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        try:
            fill(draft)
            sums = {path.name: sha256(path) for path in sorted(draft.iterdir())}
            (draft / CHECKSUMS).write_text(json.dumps(sums, indent=1))
            for path in draft.iterdir():
                sync(path)
            sync(draft)
            shutil.rmtree(target, ignore_errors=True)
            draft.rename(target)
            sync(target.parent)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def holds_others(folder: Path, own: Collection[str]) -> bool:
    """Say whether a folder holds files, hidden ones aside, and none of the names `own`: it is somebody else's."""
    names = (
        {path.name for path in folder.iterdir() if not path.name.startswith(".")}
        if folder.is_dir()
        else set()
    )
    return bool(names) and names.isdisjoint(own)


def damage(folder: Path) -> str | None:
    """Return what is wrong with a folder that `write_folder` made, or None where it is whole."""
    try:
        sums = json.loads((folder / CHECKSUMS).read_text())
        if not isinstance(sums, dict) or not sums:
            return f"{CHECKSUMS} lists no file"
        for name, expected in sums.items():
            if sha256(folder / name) != expected:
                return f"{name} is damaged (its checksum differs)"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError) as error:
        return f"it cannot be read ({error})"
    return None


def sha256(path: Path) -> str:
    """Return a file's sha256 (hex)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Force a file's or folder's content to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Turn a full disk, a read-only one and missing permission into a ResourceError that names `target`."""
    from safetensors import SafetensorError

    try:
        yield
    except OSError as error:
        raise ResourceError(_explain(target, error)) from error
    except SafetensorError as error:  # its writer wraps the system's error as text
        raise ResourceError(_explain(target, OSError(errno.ENOSPC, str(error)))) from error


def _explain(target: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        free = shutil.disk_usage(_existing(target)).free
        return (
            f"{target} could not be written: the disk is full ({free / 1e6:,.0f} MB free). "
            "Free some space or give another --output. What was saved before is untouched."
        )
    return f"{target} could not be written: {error.strerror or error}. Check the path and its permissions."


def check_space(folder: Path, need: int) -> None:
    """Raise ResourceError where `folder` cannot be made or written, or its disk has less than `need` bytes."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".foretune-write-test"
        probe.write_bytes(b"x" * 4096)
        probe.unlink()
    free = shutil.disk_usage(folder).free
    if free < need:
        raise ResourceError(
            f"This run needs about {need / 1e6:,.0f} MB in {folder} (checkpoints and the finished model), but "
            f"only {free / 1e6:,.0f} MB are free. Free some space or give another --output."
        )


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
