"""Masks of semantic segmentation: a picture of class ids for every picture, opened and checked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.data.folders import LEARNT
from foretune.data.images import PIXEL_LIMIT, image_sizes, opened
from foretune.data.mask_classes import MaskClasses
from foretune.data.media import BrokenMediaError, in_threads
from foretune.data.text import counted, listed
from foretune.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

#: The class number of pixels that count neither in the loss nor in a score.
IGNORED = MaskClasses.IGNORED
_LOSSY = ("JPEG", "MPO")


def open_mask(
    path: str | os.PathLike[str], classes: MaskClasses | None = None, size_limit: int = PIXEL_LIMIT
) -> NDArray[Any]:
    """Return a mask (height, width): its ids as in the file, or with `classes` their numbers 0, 1, … as int16.

    Ids are the values of a picture of one channel (uint8, or int32 where they are 16-bit) or the indices of
    a palette; a colour picture needs `classes` with colours. Ignored ids become `IGNORED`. A mask is never
    turned by EXIF.
    Raises BrokenMediaError naming the file where it cannot be decoded, is a JPEG (which blurs ids), is in
    colour, or holds an id or a colour that is none of `classes`.
    """
    with opened(path, size_limit) as image:
        if image.format in _LOSSY:
            raise BrokenMediaError(path, "a JPEG changes class ids at every edge", "Save masks as PNG.")
        values = _values(image)
    if values.ndim == 3:
        return _from_colours(path, values, classes)
    if classes is None:
        return values
    numbers = classes.numbers(values)
    if (unknown := numbers == classes.UNKNOWN).any():
        raise _unknown_ids(path, np.unique(values[unknown]), classes)
    return numbers


def _values(image: Any) -> NDArray[Any]:
    """Return (height, width) ids or (height, width, 3) colours."""
    if image.mode == "1":
        return np.array(image, dtype=np.uint8)
    if image.mode in ("L", "P"):
        return np.array(image)
    if image.mode == "I" or image.mode.startswith("I;"):
        return np.array(image).astype(np.int32)
    return np.array(image.convert("RGB"))


def _from_colours(
    path: str | os.PathLike[str], values: NDArray[np.uint8], classes: MaskClasses | None
) -> NDArray[np.int16]:
    if classes is None or not classes.colours:
        distinct = len(np.unique(values.reshape(-1, 3), axis=0))
        raise BrokenMediaError(
            path,
            f"the mask is a colour picture ({counted(distinct, 'colour')}), so its class ids cannot be told",
            "Save masks with one channel of ids, or give every class its color [r, g, b] in classes.json.",
        )
    numbers = classes.numbers_of_colours(values)
    if (unknown := numbers == classes.UNKNOWN).any():
        colours = np.unique(values[unknown], axis=0).tolist()
        raise BrokenMediaError(
            path, f"colours that no class has: {listed(colours, 3)}", "Add them to classes.json."
        )
    return numbers


def _unknown_ids(path: str | os.PathLike[str], wrong: NDArray[Any], classes: MaskClasses) -> BrokenMediaError:
    known = listed(sorted(classes.ids), 20)
    hint = "Add them to classes.json, or name one that does not count as ignore_id."
    return BrokenMediaError(path, f"ids {listed(wrong.tolist())} of no class (ids: {known})", hint)


def found_classes(paths: Sequence[str], fewest: int = LEARNT) -> MaskClasses:
    """Return the classes that masks without a list of names hold: every id, called by its number.

    All masks are decoded, in threads. 255 is ignored, the custom since Pascal VOC, unless the ids are just
    0 and 255: then it is the foreground. Raises DataError for fewer than `fewest` ids that count.
    """
    found = in_threads(lambda path: np.unique(_plain_ids(path)), paths)
    ids = sorted({int(value) for values in found for value in values})
    ignore = 255 if 255 in ids and ids != [0, 255] else None
    kept = [value for value in ids if value != ignore]
    if len(kept) < fewest:
        raise DataError(
            f"The {counted(len(paths), 'mask')} hold the ids {listed(ids)}, expected those of at least two classes."
        )
    return MaskClasses(tuple(map(str, kept)), tuple(kept), ignore)


def _plain_ids(path: str) -> NDArray[Any]:
    values = open_mask(path)
    if values.min(initial=0) < 0:
        raise BrokenMediaError(path, f"the mask holds the negative id {values.min()}")
    return values


def check_masks(table: pd.DataFrame, *, decode: bool = True) -> None:
    """Raise DataError naming the masks that do not fit: of another size than their picture, or broken.

    `table` has the columns and attrs of `foretune.data.mask_folders`. With `decode` every mask is opened, so
    that ids of no class are found as well.
    """
    pictures, masks = table["path"].tolist(), table["mask"].tolist()
    # A mask's own EXIF tag is not obeyed, so its size is that of the stored pixels.
    sizes, mask_sizes = image_sizes(pictures), np.array(in_threads(_stored_size, masks)).reshape(-1, 2)
    wrong = np.flatnonzero((sizes != mask_sizes).any(axis=1))
    if len(wrong):
        first = [
            f"{Path(masks[row]).name} is {_by(mask_sizes[row])} and its picture {_by(sizes[row])}"
            for row in wrong
        ]
        raise DataError(
            f"{counted(len(wrong), 'mask')} of {len(masks):,} of another size than the picture: {listed(first, 3)}. "
            f"Expected one id per pixel of the upright picture."
        )
    if decode:
        _check_ids(masks, MaskClasses.of(table))


def _check_ids(masks: Sequence[str], classes: MaskClasses) -> None:
    def reason(path: str) -> BrokenMediaError | None:
        try:
            open_mask(path, classes)
        except BrokenMediaError as error:
            return error
        return None

    faults = [error for error in in_threads(reason, masks) if error is not None]
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise DataError(
            f"{counted(len(faults), 'mask')} of {len(masks):,} cannot be used, the first: {faults[0]}"
        )


def _stored_size(path: str) -> tuple[int, int]:
    with opened(path, PIXEL_LIMIT) as image:
        return image.size


def _by(size: NDArray[np.int64]) -> str:
    return f"{size[0]} x {size[1]}"
