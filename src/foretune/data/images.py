"""Pictures as arrays of 8-bit RGB, whatever they are in the file; what cannot be decoded names itself."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.data.media import IMAGE, BrokenMediaError, conversion, in_threads, kind_of, require
from foretune.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Pixels of one picture: 300 MB as RGB. A file of some kilobytes can claim a thousand times as many.
PIXEL_LIMIT = 100_000_000
#: Only these are tried: for others (EPS, WMF …) Pillow starts other programs or keeps no promise of safety.
_FORMATS = ("JPEG", "MPO", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM")
_ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 swap width and height


def open_image(
    path: str | os.PathLike[str], size_limit: int = PIXEL_LIMIT, *, shortest: int | None = None
) -> NDArray[np.uint8]:
    """Return a picture, turned upright by its EXIF tag, as RGB: (height, width, 3) uint8.

    Grey and palette pictures become RGB, transparent ones stand on white, 16-bit values are scaled, of an
    animation or a file of many pages the first is taken. With `shortest`, JPEG pictures of which both sides
    are at least twice as long as that are decoded at 1/2, 1/4 or 1/8 of their size, which is several times
    faster and still leaves `shortest` pixels for a later resize.
    Raises BrokenMediaError naming the file where it is missing, truncated, no picture, or has more than
    `size_limit` pixels (found before decoding).
    """
    with opened(path, size_limit) as image:
        turns = _orientation(image)
        if shortest is not None:
            image.draft(None, (shortest, shortest))
        return np.array(_turned(_rgb(image), turns))


def probe_image(path: str | os.PathLike[str], size_limit: int = PIXEL_LIMIT) -> tuple[int, int]:
    """Return (width, height) of the picture as `open_image` gives it, from the file's header alone.

    Raises BrokenMediaError as `open_image` does, but a file that breaks off after its header is not noticed.
    """
    with opened(path, size_limit) as image:
        width, height = image.size
        return (height, width) if _orientation(image) >= 5 else (width, height)


def image_sizes(paths: Sequence[str]) -> NDArray[np.int64]:
    """Return width and height of every picture: (n, 2) int64. Raises BrokenMediaError for the first broken."""
    return np.array(in_threads(probe_image, paths), dtype=np.int64).reshape(-1, 2)


def find_broken(paths: Sequence[str], kind: str = IMAGE) -> dict[str, str]:
    """Return the reason of every picture or sound (`kind` "image" or "audio") whose header is unreadable.

    Nothing is decoded, so that a file damaged further on is found only when it is used.
    """
    from foretune.data.sounds import probe_sound

    probe = probe_image if kind == IMAGE else probe_sound

    def reason(path: str) -> str | None:
        try:
            probe(path)
        except BrokenMediaError as error:
            return error.reason
        return None

    reasons = in_threads(reason, paths)
    return {path: found for path, found in zip(paths, reasons, strict=True) if found is not None}


@contextmanager
def opened(path: str | os.PathLike[str], limit: int) -> Iterator[Any]:
    """Yield the Pillow image of a file, not yet decoded; whatever goes wrong becomes a BrokenMediaError."""
    formats = _formats()
    from PIL import Image

    try:
        with Image.open(path, formats=formats) as image:
            width, height = image.size
            if width * height > limit:
                raise BrokenMediaError(path, _too_large(f"{width:,} x {height:,} pixels", limit))
            yield image
    except (BrokenMediaError, ConfigError):
        raise
    except Exception as error:  # Pillow's readers raise a dozen unrelated classes for damaged files
        remedy = "" if kind_of(path) == IMAGE else conversion(os.fspath(path))
        raise BrokenMediaError(path, _reason(path, error, limit), remedy) from error


@cache
def _formats() -> tuple[str, ...]:
    require("PIL", "image")
    from PIL import Image

    Image.init()  # which of them this build of Pillow has
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _too_large(size: str, limit: int) -> str:
    return f"has {size}, more than the limit of {limit:,}; it may be a decompression bomb"


def _reason(path: str | os.PathLike[str], error: Exception, limit: int) -> str:
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return _too_large("too many pixels", limit)
    if isinstance(error, UnidentifiedImageError):
        if not Path(path).stat().st_size:
            return "the file is empty (0 bytes)"
        return "no picture, or of an unknown format"
    return f"the picture is damaged or cut off ({str(error).splitlines()[0] if str(error) else error!r})"


def _orientation(image: Any) -> int:
    """Return the EXIF orientation, 1 to 8, read from the header only (so before decoding)."""
    # Pillow itself turns TIFF. A PNG may have its tag behind the pixels, where probing does not look.
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return 1
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged tag does not spoil the picture
        return 1
    return value if value in range(1, 9) else 1


def _turned(image: Any, orientation: int) -> Any:
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return image.transpose(turns[orientation]) if orientation in turns else image


def _rgb(image: Any) -> Any:
    from PIL import Image

    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        # Pillow's own conversion would clip at 255.
        wide = image.mode.startswith("I;16") or image.format == "PPM"
        return Image.fromarray(_to_8_bits(np.asarray(image), wide and image.mode != "F")).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _to_8_bits(values: NDArray[Any], wide: bool) -> NDArray[np.uint8]:
    """Return grey values (height, width) as uint8: 16-bit (`wide`) ones by 255 / 65535, others stretched.

    Floats within 0 and 1 keep that scale; other 32-bit values have none, so their own range is spread.
    """
    if wide:
        return np.rint(values / 257).astype(np.uint8)
    known = np.nan_to_num(values.astype(np.float64))
    low, high = known.min(), known.max()
    if values.dtype.kind == "f" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    return np.rint((known - low) / max(high - low, 1e-12) * 255).astype(np.uint8)
