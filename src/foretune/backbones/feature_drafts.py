"""Where features are written: a draft on the disk that becomes a store, or memory; and stores opened again."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Protocol

import numpy as np

from foretune.backbones import feature_files as files
from foretune.backbones.feature_budget import make_room
from foretune.backbones.feature_layout import RAW, FeatureStore, Layout, Places

FORMAT = 1
LENGTHS = "lengths.npy"
OPEN_FILES = 64  # of a draft; a process may have few (256 on macOS)
DAMAGE = (
    ValueError, TypeError, LookupError, AttributeError, EOFError, RecursionError,
    FileNotFoundError, NotADirectoryError, IsADirectoryError,
)  # fmt: skip


class Draft(Protocol):
    """Where a writer puts raw rows."""

    places: Places

    def put(self, chunk: int, first: int, raw: np.ndarray) -> None:
        """Keep raw rows (number, width) as those of `chunk` from row `first` on. Raises OSError."""

    def finish(self, key: str) -> FeatureStore:
        """Return the store of what was put, or of what another process made first. Raises OSError."""

    def abandon(self) -> None:
        """Drop everything."""


class MemoryDraft:
    """A store in memory, for this process alone."""

    def __init__(self, layout: Layout, places: Places) -> None:
        self.layout, self.places = layout, places
        self.arrays = [np.empty((rows, layout.width), RAW[layout.dtype]) for rows in places.rows]

    def put(self, chunk: int, first: int, raw: np.ndarray) -> None:
        """Copy raw rows."""
        self.arrays[chunk][first : first + len(raw)] = raw

    def finish(self, key: str) -> FeatureStore:
        """Return the store; nobody else can load it."""
        return FeatureStore(self.layout, self.places, self.arrays)

    def abandon(self) -> None:
        """Let the memory go."""
        self.arrays = []


class DiskDraft:
    """A draft on the disk; its space is taken at the start, so that a full disk is found then."""

    def __init__(self, layout: Layout, places: Places) -> None:
        self.layout, self.places = layout, places
        files.features_folder().mkdir(parents=True, exist_ok=True)
        files.sweep()
        make_room(layout.bytes + layout.lengths.nbytes + (len(places.rows) + 4) * 4096)  # whole blocks
        self.draft, self._files = files.draft_path(), dict[int, FileIO]()
        try:
            self.draft.mkdir()
            np.save(self.draft / LENGTHS, layout.lengths)
            for chunk, rows in enumerate(places.rows):
                _allocate(self.draft / _name(chunk), rows * layout.row_bytes)
        except BaseException:
            self.abandon()
            raise

    def put(self, chunk: int, first: int, raw: np.ndarray) -> None:
        """Write raw rows. Raises OSError."""
        # Not through a mapping: where the disk fails, writing to one kills the process (SIGBUS), and what was
        # written would count as this process's memory. It is no faster either.
        if not len(raw):
            return
        left, offset = raw.data.cast("B"), first * self.layout.row_bytes
        while left:
            done = os.pwrite(self._file(chunk).fileno(), left, offset)
            left, offset = left[done:], offset + done

    def _file(self, chunk: int) -> FileIO:
        if chunk not in self._files:
            if len(self._files) == OPEN_FILES:
                self._close()
            self._files[chunk] = FileIO(self.draft / _name(chunk), "r+")
        return self._files[chunk]

    def _close(self) -> None:
        while self._files:
            self._files.popitem()[1].close()

    def finish(self, key: str) -> FeatureStore:
        """Checksum everything, and publish it unless another process was first. Raises OSError."""
        self._close()
        about = {"format": FORMAT, "key": key, "tail": self.layout.tail, "dtype": self.layout.dtype}
        files.write_about(self.draft, about | {"borders": self.layout.borders.tolist()})
        winner = load(key)
        if winner is not None and winner.layout == self.layout:
            self.abandon()
            return winner
        arrays = _map(self.draft, self.layout, self.places)  # before another process can delete it
        files.publish(self.draft, key)
        return FeatureStore(self.layout, self.places, arrays)

    def abandon(self) -> None:
        """Delete the draft."""
        with suppress(OSError):  # what it held is not wanted any more
            self._close()
        shutil.rmtree(self.draft, ignore_errors=True)


def load(key: str) -> FeatureStore | None:
    """Return the store of `key`, memory-mapped and marked as used now; None where it is missing or damaged.

    Every file is checked, an unchanged one once per process. What is damaged is deleted.
    """
    files.sweep()
    found: FeatureStore | None = None
    for folder in files.builds(key):
        if found is not None:  # two processes finished in the same instant
            files.remove(folder)
            continue
        try:
            found = _open(folder, key)
            files.touch(folder)
        except DAMAGE:
            files.remove(folder)
        except OSError:  # it cannot be read, now or by this user: not used, but not ours to delete
            continue
    return found


def _open(folder: Path, key: str) -> FeatureStore:
    """Return the store in `folder` after checking it. Raises one of DAMAGE, or OSError."""
    about = files.read_about(folder)
    if (about["format"], about["key"]) != (FORMAT, key):
        raise ValueError("another format or another key")
    layout = Layout(np.load(folder / LENGTHS, allow_pickle=False), tuple(about["tail"]), about["dtype"])
    places = Places(layout.lengths, np.array(about["borders"], dtype=np.int64))
    expected = {_name(chunk): rows * layout.row_bytes for chunk, rows in enumerate(places.rows)}
    if {name: size for name, (size, _) in about["files"].items() if name != LENGTHS} != expected:
        raise ValueError("the files do not hold the examples")
    return FeatureStore(layout, places, _map(folder, layout, places))


def _map(folder: Path, layout: Layout, places: Places) -> list[np.ndarray]:
    return [
        np.asarray(np.memmap(folder / _name(chunk), RAW[layout.dtype], "r", shape=(rows, layout.width)))
        if rows  # an empty file cannot be mapped
        else np.empty((0, layout.width), RAW[layout.dtype])
        for chunk, rows in enumerate(places.rows)
    ]


def _name(chunk: int) -> str:
    return f"chunk-{chunk:05d}.bin"


def _allocate(path: Path, size: int) -> None:
    """Make a file of `size` bytes whose blocks are taken, where the system can do that."""
    with path.open("wb") as file:
        if size and hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(file.fileno(), 0, size)
                return
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                    raise
        file.truncate(size)
