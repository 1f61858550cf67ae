"""Examples of unequal length in flat, memory-mapped arrays: tokenised once, read without copying."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

CACHE_LIMIT_BYTES = 4 << 30
ARRAYS = ("flat.npy", "offsets.npy")
EXTRA = "extra-"  # begins the file name of an extra array
ABOUT = "about.json"  # of a cached store: its cut report and the arrays' checksums


@dataclass(frozen=True)
class CutReport:
    """What truncation and the vocabulary cost: counts over all examples."""

    examples: int = 0
    tokens: int = 0  # before truncation, special tokens included
    cut_examples: int = 0
    cut_tokens: int = 0
    unknown_tokens: int = 0

    def sentence(self, max_length: int) -> str | None:
        """Say in words what was cut, or return None where nothing was."""
        if not self.cut_examples:
            return None
        return (
            f"{self.cut_examples:,} of {self.examples:,} texts ({self.cut_examples / self.examples:.1%}) are "
            f"longer than {max_length} tokens; {self.cut_tokens / self.tokens:.1%} of all tokens were cut."
        )

    @property
    def unknown_share(self) -> float:
        """Return the share of tokens that the vocabulary does not know."""
        return self.unknown_tokens / self.tokens if self.tokens else 0.0


class Store(Protocol):
    """A model's inputs, one row each, in whatever form its backbone collates."""

    @property
    def lengths(self) -> np.ndarray:
        """Return what a batch's budget counts, (n,) int64: tokens of a text, 1 for a picture."""

    @property
    def cuts(self) -> CutReport:
        """Return what truncation cost."""

    @property
    def varies(self) -> bool:
        """Return whether a row differs from one reading to the next (augmentation): then nothing is cached."""

    def __len__(self) -> int:
        """Return n."""

    def key(self) -> str:
        """Return a hash (hex) of the contents."""


@dataclass(frozen=True)
class RaggedStore:
    """n arrays of ids, one after another: example i is `flat[offsets[i] : offsets[i + 1]]`.

    `flat`: (all tokens,) int32; `offsets`: (n + 1,) int64. `extras`: further arrays like `flat`, by the name under
    which the model takes them (token_type_ids …).
    """

    flat: np.ndarray
    offsets: np.ndarray
    cuts: CutReport
    extras: dict[str, np.ndarray] = field(default_factory=dict)
    varies = False

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.flat[self.offsets[row] : self.offsets[row + 1]]

    def extra(self, name: str, row: int) -> np.ndarray:
        """Return the example's part of the extra array `name`."""
        return self.extras[name][self.offsets[row] : self.offsets[row + 1]]

    @cached_property
    def lengths(self) -> np.ndarray:
        """Return the length of every example in tokens: (n,) int64."""
        return np.diff(self.offsets)

    def seen_ids(self) -> np.ndarray:
        """Return the sorted distinct ids of all examples."""
        return np.unique(self.flat)

    def padded(
        self, rows: np.ndarray, padding: int, name: str | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return ids (batch, longest) int64 filled up with `padding`, and the mask of real tokens.

        `name`: of the extra array to read in the ids' place.
        """
        flat = self.flat if name is None else self.extras[name]
        lengths = self.offsets[rows + 1] - self.offsets[rows]
        ids = np.full((len(rows), int(lengths.max(initial=0))), padding, dtype=np.int64)
        mask = np.arange(ids.shape[1]) < lengths[:, None]
        ids[mask] = np.concatenate([flat[self.offsets[row] : self.offsets[row + 1]] for row in rows])
        return ids, mask

    def key(self) -> str:
        """Return a hash (hex) of all tokens, their borders and the extra arrays; computed once."""
        return self._key

    @cached_property
    def _key(self) -> str:
        digest = hashlib.sha256(np.ascontiguousarray(self.offsets).data)
        digest.update(np.ascontiguousarray(self.flat).data)
        for name, values in sorted(self.extras.items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(values).data)
        return digest.hexdigest()


def cache_folder() -> Path:
    """Return the folder for things that can be made again: $FORETUNE_CACHE or ~/.cache/foretune."""
    given = os.environ.get("FORETUNE_CACHE")
    base = (
        Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "foretune"
    )
    return base


def build(
    arrays: Iterable[np.ndarray], cuts: CutReport, extras: dict[str, list[np.ndarray]] | None = None
) -> RaggedStore:
    """Return a store in memory from one int array per example, and one per example of every extra array."""
    parts = [np.asarray(array, dtype=np.int32) for array in arrays]
    offsets = np.zeros(len(parts) + 1, dtype=np.int64)
    np.cumsum([len(part) for part in parts], out=offsets[1:])
    return RaggedStore(
        _flat(parts), offsets, cuts, {name: _flat(each) for name, each in (extras or {}).items()}
    )


def _flat(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts).astype(np.int32) if parts else np.zeros(0, dtype=np.int32)


def load(key: str) -> RaggedStore | None:
    """Return the cached store called `key`, memory-mapped; None where it is missing or damaged."""
    folder = cache_folder() / "tokens" / key
    try:
        about = json.loads((folder / ABOUT).read_text())
        names = [name for name in about["sha256"] if name not in ARRAYS]
        if {name: _sha256(folder / name) for name in (*ARRAYS, *names)} != about["sha256"]:
            return None
        offsets = np.load(folder / "offsets.npy", allow_pickle=False)
        flat = np.load(folder / "flat.npy", mmap_mode="r", allow_pickle=False)
        extras = {
            name.removeprefix(EXTRA).removesuffix(".npy"): np.load(
                folder / name, mmap_mode="r", allow_pickle=False
            )
            for name in names
        }
        os.utime(folder)  # the entries unused for longest are deleted first
        return RaggedStore(flat, offsets, CutReport(**about["cuts"]), extras)
    except (OSError, EOFError, ValueError, TypeError, KeyError):
        return None


def save(key: str, store: RaggedStore) -> RaggedStore:
    """Write `store` to the cache under a temporary name, rename it, and return it memory-mapped.

    A cache that cannot be written (no space, no permission) is no error: the store in memory is returned.
    """
    parent = cache_folder() / "tokens"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _evict(parent, store.flat.nbytes)
        with tempfile.TemporaryDirectory(dir=parent, prefix=".tmp-") as name:
            draft = Path(name) / "store"
            draft.mkdir()
            np.save(draft / "flat.npy", store.flat)
            np.save(draft / "offsets.npy", store.offsets)
            for name, values in store.extras.items():
                np.save(draft / f"{EXTRA}{name}.npy", values)
            sums = {path.name: _sha256(path) for path in sorted(draft.iterdir())}
            (draft / ABOUT).write_text(json.dumps({"cuts": asdict(store.cuts), "sha256": sums}))
            shutil.rmtree(parent / key, ignore_errors=True)  # a damaged one
            draft.rename(parent / key)
    except OSError:
        return store
    return load(key) or store


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _evict(parent: Path, coming: int) -> None:
    """Delete the stores unused for longest until `coming` bytes fit below the limit."""
    stores = sorted((p for p in parent.iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime)
    sizes = {p: sum(f.stat().st_size for f in p.glob("*")) for p in stores}
    total = sum(sizes.values()) + coming
    for path in stores:
        if total <= CACHE_LIMIT_BYTES:
            return
        total -= sizes[path]
        shutil.rmtree(path, ignore_errors=True)
