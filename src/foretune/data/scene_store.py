"""Pictures of any size with a mask or boxes each: decoded, resized and padded when a batch needs them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from foretune.data.image_store import digests, in_order
from foretune.data.images import image_sizes, open_image
from foretune.data.mask_classes import MaskClasses
from foretune.data.masks import open_mask
from foretune.data.scene_views import Jitter, View, rounded_up
from foretune.data.store import CutReport

if TYPE_CHECKING:
    from numpy.typing import NDArray

LONGEST = 640  # side (pixels) to which larger pictures are reduced, unless the user names one
NOTHING = -1  # the class of rows that only fill up a batch of boxes


class Annotations(Protocol):
    """The targets of pictures, and how they look on the pictures' views."""

    def __getitem__(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Return the targets of the pictures `rows` as they are scored: (batch, …), filled up."""

    def seen(self, rows: NDArray[Any], views: Sequence[View], sizes: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return what the model's batch holds of the targets, on the views of pictures of `sizes` (batch, 2)."""


@dataclass(frozen=True, eq=False)
class Masks:
    """Masks of class numbers, read from their files when they are needed."""

    paths: Sequence[str]
    classes: MaskClasses

    def __getitem__(self, rows: NDArray[Any]) -> NDArray[np.int16]:
        """Return masks (batch, height, width) of class numbers, filled up with `IGNORED`."""
        return filled(self._opened(rows))

    def seen(self, rows: NDArray[Any], views: Sequence[View], sizes: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return the masks on the canvas: (batch, height, width) int64."""
        masks = [view.mask(mask) for view, mask in zip(views, self._opened(rows), strict=True)]
        return {"masks": np.stack(masks).astype(np.int64)}

    def _opened(self, rows: NDArray[Any]) -> list[NDArray[np.int16]]:
        return in_order(lambda row: open_mask(self.paths[row], self.classes), np.asarray(rows).tolist())


def filled(masks: Sequence[NDArray[np.int16]]) -> NDArray[np.int16]:
    """Return masks of unequal sizes as one array (batch, highest, widest), filled up with `IGNORED`."""
    height, width = (max(mask.shape[axis] for mask in masks) for axis in (0, 1))
    batch = np.full((len(masks), height, width), MaskClasses.IGNORED, dtype=np.int16)
    for whole, mask in zip(batch, masks, strict=True):
        whole[: mask.shape[0], : mask.shape[1]] = mask
    return batch


@dataclass(frozen=True, eq=False)
class BoxLists:
    """The boxes of pictures, an array (boxes, 6) each: class, crowd (0 or 1), left, top, width, height."""

    lists: Sequence[NDArray[np.float32]]

    def __getitem__(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        """Return (batch, most, 6), filled up with the class `NOTHING`."""
        return self._filled([self.lists[row] for row in rows], 6)

    def seen(self, rows: NDArray[Any], views: Sequence[View], sizes: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return the boxes on the canvas, (batch, most, 5): class, x1, y1, x2, y2; crowds are left out."""
        found = []
        for row, view, size in zip(rows, views, sizes.tolist(), strict=True):
            single = self.lists[row][self.lists[row][:, 1] == 0]
            corners, kept = view.boxes(single[:, 2:].astype(np.float64), (size[0], size[1]))
            found.append(np.c_[single[:, 0], corners][kept])
        return {"boxes": self._filled(found, 5)}

    def _filled(self, lists: Sequence[NDArray[Any]], columns: int) -> NDArray[np.float32]:
        batch = np.zeros((len(lists), max([len(each) for each in lists], default=0), columns), np.float32)
        batch[..., 0] = NOTHING
        for whole, each in zip(batch, lists, strict=True):
            whole[: len(each)] = each
        return batch


@dataclass(frozen=True, eq=False)
class SceneStore:
    """n pictures, paths or RGB arrays (h, w, 3) uint8, each read at a size of its own.

    `side`: the longest side that every picture is brought to; None: as it is, but at most `LONGEST`.
    `annotations`: the targets, where the model's batch needs them. `jitter` and `canvas`: random views on
    canvases of one size, for training. A picture counts as one in a batch's budget.
    """

    pictures: Sequence[Any]
    side: int | None = None
    annotations: Annotations | None = None
    jitter: Jitter | None = None
    canvas: tuple[int, int] | None = None

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
        return self.jitter is not None

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Return height and width of every picture, from the files' headers: (n, 2)."""
        files = [row for row, picture in enumerate(self.pictures) if not isinstance(picture, np.ndarray)]
        sizes = np.zeros((len(self), 2), dtype=np.int64)
        sizes[files] = image_sizes([self.pictures[row] for row in files])[:, ::-1]
        for row, picture in enumerate(self.pictures):
            if isinstance(picture, np.ndarray):
                sizes[row] = picture.shape[:2]
        return sizes

    def fitted(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the height and width at which a picture of `size` is read."""
        factor = min(1.0, LONGEST / max(size)) if self.side is None else self.side / max(size)
        return max(round(size[0] * factor), 1), max(round(size[1] * factor), 1)

    def varied(self, jitter: Jitter) -> SceneStore:
        """Return the same pictures as random views, on canvases as large as the middle one of them."""
        middle = np.median([self.fitted((h, w)) for h, w in self.sizes.tolist()], axis=0)
        return replace(self, jitter=jitter, canvas=rounded_up((round(middle[0]), round(middle[1]))))

    def key(self) -> str:
        """Return a hash (hex) of the files' bytes, in order, and of the size they are read at."""
        parts = [str(self.side), str(self.canvas), *digests(self.pictures)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def batch(self, rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return the model's batch.

        `pixels` (batch, height, width, 3) uint8, padded below and on the right; `sizes` (batch, 4) int64: height
        and width of the pictures on the canvas, and of the originals; what the annotations add. Raises
        BrokenMediaError naming a file that cannot be decoded.
        """
        chosen = [self.pictures[row] for row in rows]
        pictures = in_order(self._open, chosen)
        sizes = np.array([picture.shape[:2] for picture in pictures], dtype=np.int64)
        views = self._views(sizes)
        pixels = in_order(lambda i: views[i].picture(pictures[i]), range(len(views)))
        shown = [view.canvas if self.varies else view.size for view in views]
        batch = {"pixels": np.stack(pixels), "sizes": np.c_[np.array(shown, dtype=np.int64), sizes]}
        return batch if self.annotations is None else batch | self.annotations.seen(rows, views, sizes)

    def _views(self, sizes: NDArray[np.int64]) -> list[View]:
        fitted = [self.fitted((h, w)) for h, w in sizes.tolist()]
        if self.jitter is None or self.canvas is None:
            canvas = rounded_up((max(h for h, _ in fitted), max(w for _, w in fitted)))
            return [View(size, (0, 0), canvas) for size in fitted]
        import torch

        # One seed a picture, from the generator whose state checkpoints hold: resumed runs see the same views.
        seeds = torch.randint(2**62, (len(fitted),)).tolist()
        pairs = zip(fitted, seeds, strict=True)
        return [self.jitter.view(size, self.canvas, np.random.default_rng(seed)) for size, seed in pairs]

    def _open(self, picture: Any) -> NDArray[np.uint8]:
        # Never decoded at a reduced size: boxes and masks are in the original's pixels.
        return picture if isinstance(picture, np.ndarray) else open_image(picture)
