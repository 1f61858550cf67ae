"""Masks and boxes drawn on pictures, small enough for a page that is one file."""

from __future__ import annotations

import colorsys
import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretune.evaluation.image_sections import data_uri
from foretune.evaluation.segmentation import IGNORED

SIDE = 320  # the longest side of one picture in the report (pixels)
SHARE = 0.6  # of a class's colour in an overlay
DASH = 6  # pixels of a dash, and of the gap behind it
TURN = 0.618034  # golden angle: neighbouring numbers get hues far apart, however many there are


def colour(number: int) -> tuple[int, int, int]:
    """Return the RGB colour of a class number; white for no class."""
    if number < 0:
        return 255, 255, 255
    saturation, value = (0.6, 0.85)[number % 2], (0.95, 0.7, 0.5)[number % 3]  # 0 and 8 have hues alike
    red, green, blue = colorsys.hsv_to_rgb((number * TURN) % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def opened(picture: Any) -> NDArray[np.uint8]:
    """Return a path's or an array's RGB pixels (h, w, 3). Raises BrokenMediaError."""
    from foretune.data.images import open_image

    return picture if isinstance(picture, np.ndarray) else open_image(picture)


def overlay(pixels: NDArray[np.uint8], mask: NDArray[Any]) -> NDArray[np.uint8]:
    """Return a picture (h, w, 3) under the colours of its classes (h, w); ignored pixels stay as they are."""
    colours = np.array([colour(number) for number in range(int(mask.max(initial=0)) + 1)], dtype=np.float64)
    mixed = (1 - SHARE) * pixels + SHARE * colours[np.maximum(mask, 0)]
    return np.where((mask == IGNORED)[..., None], pixels, np.rint(mixed)).astype(np.uint8)


def with_boxes(pixels: NDArray[np.uint8], true: NDArray[Any], predicted: NDArray[Any]) -> NDArray[np.uint8]:
    """Return a small picture with its boxes in the classes' colours: true ones dashed, predicted ones whole.

    Both (boxes, 6): class, any number, left, top, width, height in `pixels`. Lines are drawn when the picture is
    small already: on a large photograph they would vanish with its pixels.
    """
    from PIL import Image, ImageDraw

    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE))
    draw, factor = ImageDraw.Draw(image), image.width / pixels.shape[1]
    for boxes, whole in ((predicted, True), (true, False)):
        corners = factor * np.concatenate([boxes[:, 2:4], boxes[:, 2:4] + boxes[:, 4:]], axis=1)
        for number, sides in zip(boxes[:, 0].astype(int).tolist(), corners.tolist(), strict=True):
            if whole:
                draw.rectangle(sides, outline=colour(number), width=2)
                continue
            for dash in dashes(sides):
                draw.line(dash, fill=colour(number), width=2)
    return np.asarray(image)


def dashes(corners: Sequence[float]) -> Iterator[tuple[float, float, float, float]]:
    """Yield the dashes x1, y1, x2, y2 of a rectangle x1, y1, x2, y2."""
    left, top, right, bottom = corners
    for start in np.arange(left, right, 2 * DASH).tolist():
        for y in (top, bottom):
            yield start, y, min(start + DASH, right), y
    for start in np.arange(top, bottom, 2 * DASH).tolist():
        for x in (left, right):
            yield x, start, x, min(start + DASH, bottom)


def picture_uri(pixels: NDArray[np.uint8]) -> str:
    """Return a picture, reduced where it is large, as an address that a page can hold."""
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82)
    return data_uri(buffer.getvalue(), "jpeg")
