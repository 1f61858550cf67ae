"""Which two columns of a table hold the paths of pictures and of their masks: told by the files, then by names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foretune.data.images import PIXEL_LIMIT, opened, probe_image
from foretune.data.masks import open_mask
from foretune.data.media import IMAGE, Media, located, path_columns
from foretune.data.text import is_blank
from foretune.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

LOOKED_AT = 5  # rows whose files are opened
MOST_IDS = 64  # in one mask: drawings and photographs in grey have more
PIXELS_PER_ID = 4  # at least, so that tiny pictures in grey are no masks
_MODES = ("1", "L", "P", "I")
_TELLING = ("mask", "segment", "annotation")  # parts of names that are hardly anything else


def mask_columns(
    table: pd.DataFrame, text: str | None = None, target: str | None = None, *, told: bool = False
) -> tuple[str, str] | None:
    """Return the columns of pictures and of their masks, those given or else found, or None.

    Masks are files with one channel or a palette, few values and the size of their picture; the first rows are
    looked at. Where two columns could be either, or files are missing, the name tells (`mask`, `segmentation` …).
    `told`: it is known that there are masks, so a column's name, or that there are just two, is enough.
    """
    columns = [name for _, name, kind in sorted(path_columns(table)) if kind == IMAGE]
    pairs = [
        (picture, mask)
        for picture in columns
        for mask in columns
        if picture != mask and text in (None, picture) and target in (None, mask)
    ]
    seen = [pair for pair in pairs if are_masks(table, *pair)]
    named = [pair for pair in seen or pairs if _telling(pair[1]) and not _telling(pair[0])]
    if named:
        return named[0]
    if len(seen) == 1 or (told and seen):
        return seen[0]
    return pairs[0] if told and len(pairs) == (1 if text or target else 2) else None


def are_masks(table: pd.DataFrame, picture: str, mask: str) -> bool:
    """Say whether the first files of column `mask` are masks of those of `picture`; False where some are missing."""
    rows = [
        row
        for row in range(min(len(table), 2 * LOOKED_AT))
        if not any(is_blank(table[name].iloc[row]) for name in (picture, mask))
    ]
    few = table.iloc[rows[:LOOKED_AT]]
    try:
        paths = [located(few, Media(name, IMAGE))[name].tolist() for name in (picture, mask)]
        return bool(len(few)) and all(map(_fits, *paths))
    except DataError:  # missing or broken: named where they are used
        return False


def _fits(picture: str, mask: str) -> bool:
    with opened(mask, PIXEL_LIMIT) as image:
        size, plain = image.size, image.format != "JPEG" and image.mode.split(";")[0] in _MODES
    if not plain or Path(picture) == Path(mask) or size != probe_image(picture):
        return False
    ids = open_mask(mask)
    return len(np.unique(ids)) <= min(MOST_IDS, max(ids.size // PIXELS_PER_ID, 2))


def _telling(name: str) -> bool:
    return any(word in name.casefold() for word in _TELLING)
