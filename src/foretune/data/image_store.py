"""Pictures as a model's inputs: kept as paths, decoded in threads when a batch needs them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from foretune.data.images import open_image
from foretune.data.media import BrokenMediaError
from foretune.data.store import CutReport

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from foretune.data.image_augment import Augmentation

    Pixels = NDArray[np.uint8]


class Fit(Protocol):
    """How a picture of any size becomes one that the model takes, without chance."""

    @property
    def size(self) -> tuple[int, int]:
        """Return height and width of the result (pixels)."""

    @property
    def interpolation(self) -> str:
        """Return bilinear, bicubic, lanczos, box, hamming or nearest."""

    def key(self) -> str:
        """Return what decides the result besides the picture."""

    def __call__(self, picture: Pixels) -> Pixels:
        """Return (height, width, 3) of an RGB picture (h, w, 3)."""


@dataclass(frozen=True, eq=False)
class ImageStore:
    """n pictures, each a path or an RGB array (h, w, 3) uint8, and how they are prepared for a model.

    `augmentation`: what chance may change; None for evaluation. A picture counts as one in a batch's budget.
    """

    pictures: Sequence[Any]
    fit: Fit
    augmentation: Augmentation | None = None

    def __len__(self) -> int:
        return len(self.pictures)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Return 1 for every picture: (n,) int64."""
        return np.ones(len(self), dtype=np.int64)

    @property
    def cuts(self) -> CutReport:
        """Return a report of nothing: pictures are resized, never truncated."""
        return CutReport(examples=len(self))

    @property
    def varies(self) -> bool:
        """Return whether a picture differs from one reading to the next."""
        return self.augmentation is not None and self.augmentation.varies

    def augmented(self, augmentation: Augmentation) -> ImageStore:
        """Return the same pictures, varied by chance at every reading."""
        return replace(self, augmentation=augmentation)

    def plain(self) -> ImageStore:
        """Return the same pictures without augmentation."""
        return replace(self, augmentation=None)

    def key(self) -> str:
        """Return a hash (hex) of the files' bytes, in order, and of how they are prepared; computed once."""
        return self._key

    @cached_property
    def _key(self) -> str:
        # Size and time of a file are not enough: copies with other contents may share both.
        return hashlib.sha256("\n".join([self.fit.key(), *digests(self.pictures)]).encode()).hexdigest()

    def pixels(self, rows: NDArray[Any]) -> Pixels:
        """Return the pictures `rows` as the model takes them but for scale: (batch, height, width, 3) uint8.

        Raises BrokenMediaError naming the file that cannot be decoded.
        """
        chosen = [self.pictures[row] for row in rows]
        if not self.varies:
            return np.stack(in_order(self._plain, chosen))
        assert self.augmentation is not None
        # Drawn here, in order and before the threads start: the result does not depend on their timing.
        seeds = self.augmentation.seeds(len(chosen))
        return np.stack(in_order(self._varied, list(zip(chosen, seeds, strict=True))))

    def shown(self, row: int) -> Pixels:
        """Return picture `row` varied by a chance of its own, for people: (height, width, 3) uint8."""
        return self._varied((self.pictures[row], row)) if self.varies else self._plain(self.pictures[row])

    def _open(self, picture: Any) -> Pixels:
        if isinstance(picture, np.ndarray):
            return picture
        # Large JPEG files are decoded at a fraction of their size; twice the pixels needed keeps the resize's
        # result within rounding of that from the full size.
        return open_image(picture, shortest=2 * max(self.fit.size))

    def _plain(self, picture: Any) -> Pixels:
        return self.fit(self._open(picture))

    def _varied(self, drawn: tuple[Any, int]) -> Pixels:
        assert self.augmentation is not None
        picture, seed = drawn
        chance = np.random.default_rng(seed)
        return self.augmentation(self._open(picture), chance, self.fit.size, self.fit.interpolation)


def in_order(function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """Return `function` of every item, in order, computed in as many threads as there are cores."""
    workers = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4, len(items))
    if workers < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(workers, thread_name_prefix="pictures") as pool:
        return list(pool.map(function, items))


def digests(pictures: Sequence[Any]) -> list[str]:
    """Return the sha256 (hex) of every file's bytes or array. Raises BrokenMediaError for unreadable files."""
    return in_order(_digest, pictures)


_SEEN: dict[tuple[str, int, int], str] = {}


def _digest(picture: Any) -> str:
    """Return the sha256 (hex) of a file's bytes or an array; once per process for an unchanged file."""
    if isinstance(picture, np.ndarray):
        return hashlib.sha256(repr(picture.shape).encode() + picture.tobytes()).hexdigest()
    try:
        stat = Path(picture).stat()
        known = (str(picture), stat.st_size, stat.st_mtime_ns)
        if known not in _SEEN:
            with Path(picture).open("rb") as file:
                _SEEN[known] = hashlib.file_digest(file, "sha256").hexdigest()
        return _SEEN[known]
    except OSError as error:
        raise BrokenMediaError(picture, f"cannot be read ({error.strerror or error})") from error
