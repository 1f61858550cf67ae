"""How a picture lands on a canvas: resized, cropped or padded, mirrored; its mask and boxes likewise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.data.mask_classes import MaskClasses
from foretune.errors import ConfigError

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

GREY = (124, 116, 104)  # ImageNet's mean colour: what is outside the picture
STRIDE = 32  # canvases are multiples of it: what networks of pictures reduce by
KEPT_SHARE = 0.3  # of a box's area that must be left inside a cropped view, else the object is gone


@dataclass(frozen=True)
class View:
    """A picture resized to `size` (height, width), whose top left corner lies at `corner` of a `canvas`.

    A negative corner, or a size beyond the canvas, crops. `mirrored`: left and right of the whole canvas are
    swapped.
    """

    size: tuple[int, int]
    corner: tuple[int, int]
    canvas: tuple[int, int]
    mirrored: bool = False

    def picture(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the canvas (height, width, 3) with an RGB picture (h, w, 3) on it; grey outside."""
        from PIL import Image

        height, width = self.size
        if pixels.shape[:2] != self.size:
            image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
            pixels = np.asarray(image)
        return self._placed(pixels, np.array(GREY, dtype=np.uint8))

    def mask(self, numbers: NDArray[Any]) -> NDArray[np.int16]:
        """Return the canvas (height, width) with a mask of class numbers (h, w) on it; ignored outside."""
        rows, columns = (
            np.minimum(((np.arange(new) + 0.5) * old / new).astype(np.int64), old - 1)
            for new, old in zip(self.size, numbers.shape, strict=True)
        )
        return self._placed(
            numbers[rows][:, columns].astype(np.int16), np.array(MaskClasses.IGNORED, dtype=np.int16)
        )

    def _placed(self, values: NDArray[Any], outside: NDArray[Any]) -> NDArray[Any]:
        canvas = np.empty((*self.canvas, *values.shape[2:]), dtype=values.dtype)
        canvas[...] = outside
        spans = [
            (max(start, 0), min(start + size, end), max(-start, 0))
            for start, size, end in zip(self.corner, self.size, self.canvas, strict=True)
        ]
        (top, bottom, down), (left, right, across) = spans
        canvas[top:bottom, left:right] = values[down : down + bottom - top, across : across + right - left]
        return np.ascontiguousarray(canvas[:, ::-1]) if self.mirrored else canvas

    def boxes(self, boxes: NDArray[Any], original: tuple[int, int]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return boxes as corners x1, y1, x2, y2 on the canvas (n, 4), and which are still to be seen (n,).

        `boxes`: (n, 4) left, top, width, height in a picture of `original` height and width.
        """
        scale = np.array([self.size[1] / original[1], self.size[0] / original[0]] * 2)
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1) * scale
        corners += np.array([self.corner[1], self.corner[0]] * 2)
        areas = np.prod(corners[:, 2:] - corners[:, :2], axis=1)
        clipped = np.clip(corners, 0, np.array([self.canvas[1], self.canvas[0]] * 2))
        sides = clipped[:, 2:] - clipped[:, :2]
        kept = (sides >= 1).all(axis=1) & (np.prod(sides, axis=1) >= KEPT_SHARE * areas)
        if self.mirrored:
            clipped[:, [0, 2]] = self.canvas[1] - clipped[:, [2, 0]]
        return clipped, kept


def rounded_up(size: tuple[int, int]) -> tuple[int, int]:
    """Return a height and width as the next multiples of `STRIDE`."""
    return -(-size[0] // STRIDE) * STRIDE, -(-size[1] // STRIDE) * STRIDE


@dataclass(frozen=True, kw_only=True)
class Jitter:
    """What chance does to a training view: its scale is drawn from `low` to `high`, half are mirrored.

    The range is that of common practice (Chen et al. 2017, DeepLab v3, section 4.1: 0.5 to 2). Raises
    ConfigError.
    """

    low: float = 0.5
    high: float = 2.0
    flip: float = 0.5

    def __post_init__(self) -> None:
        if not 0.1 <= self.low <= self.high <= 4:
            raise ConfigError(
                f"Scales run from {self.low} to {self.high}; expected numbers from 0.1 to 4, the lower first."
            )
        if not 0 <= self.flip <= 1:
            raise ConfigError(f"Option flip is {self.flip!r}; expected a share from 0 to 1.")

    def view(self, size: tuple[int, int], canvas: tuple[int, int], chance: Generator) -> View:
        """Return a random view of a picture of `size` (height, width) on a canvas."""
        factor = float(np.exp(chance.uniform(np.log(self.low), np.log(self.high))))
        height, width = (max(round(side * factor), 1) for side in size)
        top, left = (
            int(chance.integers(min(end - side, 0), max(end - side, 0) + 1))
            for side, end in zip((height, width), canvas, strict=True)
        )
        return View((height, width), (top, left), canvas, bool(chance.random() < self.flip))
