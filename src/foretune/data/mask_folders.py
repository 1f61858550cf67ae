"""Folders of pictures and their masks as tables, and the classes that the masks hold."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretune.data.files import decode, read_bytes
from foretune.data.folders import LEARNT, files_in, folders_in, split_name
from foretune.data.mask_classes import MaskClasses, read_classes
from foretune.data.masks import found_classes
from foretune.data.media import IMAGE, is_hidden, kind_of
from foretune.data.text import counted, listed
from foretune.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

_PICTURES = ("images", "image", "imgs", "img")
_MASKS = ("masks", "mask", "labels", "annotations", "annotation", "segmentation")
_CLASSES, _SPLIT = "classes.json", "split.json"


def has_masks(folder: Path) -> bool:
    """Say whether `folder`, or a folder of a split in it, holds `images` and `masks`."""
    inner = [item for item in folders_in(folder) if split_name(item.name)]
    return any(_pair(place) is not None for place in (folder, *inner))


def masks_divided(folder: Path) -> bool:
    """Say whether folders or a split.json divide the pictures and masks of `folder`."""
    pair = _pair(folder)
    return pair is None or (folder / _SPLIT).is_file() or _split_inside(pair[0])


def read_masks(path: str | os.PathLike[str], split: str = "train", fewest: int = LEARNT) -> pd.DataFrame:
    """Return columns `path` and `mask` (absolute) of a folder with `images` and `masks` of the same stems.

    A split is taken from `split.json` ({"train": [stems], …}), or from folders (`images/train` and
    `masks/train`, or `train/images` and `train/masks`); without any, all rows are train. Names come from
    `classes.json` (`mask_classes.read_classes`), else every mask is opened once for its ids. `attrs`: format
    "masks", media "image", labels, ids, ignore, and colours where masks are coloured.
    Raises DataError naming pictures without a mask and masks without a picture, and where masks without names hold
    fewer than `fewest` classes.
    """
    import pandas as pd

    root = Path(path).expanduser().absolute()
    place = root if _pair(root) else _own_folder(root, split)
    pair = _pair(place)
    if pair is None:
        raise DataError(
            f"{root} holds no folders images and masks. Expected pictures and masks of the same stems."
        )
    pictures, masks = (_by_stem(_of_folder(folder, split)) for folder in pair)
    stems = _of_split(root, split, list(pictures), divided=place != root or _split_inside(pair[0]))
    _check_pairs(stems, pictures, masks, pair)
    rows = [(str(pictures[stem]), str(masks[_mask_stem(stem, masks)])) for stem in stems]
    table = pd.DataFrame(rows, columns=["path", "mask"])
    file = next((f / _CLASSES for f in (root, place) if (f / _CLASSES).is_file()), None)
    return _described(table, file, fewest)


def classes_beside(table: pd.DataFrame, masks: Sequence[str]) -> MaskClasses:
    """Return the classes of a table of pictures and masks, whose paths are `masks`.

    They are those that its reader found, else those of a `classes.json` where the table's file lies
    (`attrs["folder"]`), else every id that the masks hold. Raises DataError where they cannot be told.
    """
    return listed_classes(table) or found_classes(masks)


def listed_classes(table: pd.DataFrame) -> MaskClasses | None:
    """Return the classes that a table's reader found or that the `classes.json` where its file lies lists, or None."""
    if "ids" in table.attrs:
        return MaskClasses.of(table)
    file = Path(table.attrs.get("folder") or ".") / _CLASSES
    return read_classes(file) if file.is_file() else None


def _described(table: pd.DataFrame, classes_file: Path | None, fewest: int) -> pd.DataFrame:
    classes = read_classes(classes_file) if classes_file else found_classes(table["mask"].tolist(), fewest)
    table.attrs = {"format": "masks", "media": IMAGE, **classes.attrs()}
    return table


def _pair(folder: Path) -> tuple[Path, Path] | None:
    """Return the folders of pictures and of masks in `folder`, or None."""
    inner = {item.name.lower(): item for item in folders_in(folder)} if folder.is_dir() else {}
    pictures = next((inner[name] for name in _PICTURES if name in inner), None)
    masks = next((inner[name] for name in _MASKS if name in inner and not _only_json(inner[name])), None)
    return (pictures, masks) if pictures and masks else None


def _only_json(folder: Path) -> bool:
    """Say whether a folder called `annotations` holds json files and no masks, as COCO's does."""
    return any(f.suffix.lower() == ".json" for f in files_in(folder)) and not _by_stem(folder)


def _own_folder(root: Path, split: str) -> Path:
    wanted = split_name(split) or split
    inner = folders_in(root) if root.is_dir() else []
    return next((f for f in inner if (split_name(f.name) or f.name) == wanted and _pair(f)), root)


def _of_folder(folder: Path, split: str) -> Path:
    """Return the folder of `split` in `folder`, which is `folder` itself where no splits are in it."""
    if not _split_inside(folder):
        return folder
    inner = {split_name(item.name) or item.name: item for item in folders_in(folder)}
    wanted = split_name(split) or split
    if wanted not in inner:
        names = listed([item.name for item in inner.values()])
        raise DataError(f"{folder} holds no split {split!r}. Its splits: {names}.")
    return inner[wanted]


def _split_inside(folder: Path) -> bool:
    return any(split_name(item.name) for item in folders_in(folder))


def _by_stem(folder: Path) -> dict[str, Path]:
    files = [f for f in sorted(folder.iterdir()) if kind_of(f.name) == IMAGE and not is_hidden(f.name)]
    return {file.stem: file for file in files}


def _of_split(root: Path, split: str, stems: list[str], divided: bool) -> list[str]:
    """Return the stems that split.json gives to `split`; all where folders divide already or nothing does."""
    file, wanted = root / _SPLIT, split_name(split) or split
    if not file.is_file():
        if wanted != "train" and not divided:
            raise DataError(
                f"{root} is not divided into splits, so {split!r} cannot be taken from it. Add {_SPLIT}."
            )
        return stems
    parts = _parts(file)
    chosen = parts.get(split) or next((p for name, p in parts.items() if split_name(name) == wanted), None)
    if chosen is None:
        raise DataError(f"{file} has no split {split!r}. It has: {listed(list(parts))}.")
    return [Path(name).stem if kind_of(name) else name for name in chosen]


def _parts(file: Path) -> dict[str, list[str]]:
    try:
        parts: Any = json.loads(decode(read_bytes(file), str(file)))
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{file} is not valid JSON ({error}).") from error
    if not isinstance(parts, dict) or not all(_is_names(names) for names in parts.values()):
        raise DataError(
            f'{file} is no split. Expected lists of stems: {{"train": ["a", "b"], "test": ["c"]}}.'
        )
    return parts


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _mask_stem(stem: str, masks: dict[str, Path]) -> str:
    return stem if stem in masks else f"{stem}_mask"


def _check_pairs(
    stems: Sequence[str], pictures: dict[str, Path], masks: dict[str, Path], pair: tuple[Path, Path]
) -> None:
    no_picture = [stem for stem in stems if stem not in pictures]
    no_mask = [stem for stem in stems if _mask_stem(stem, masks) not in masks]
    used = {_mask_stem(stem, masks) for stem in pictures}
    orphans = [stem for stem in masks if stem not in used]
    faults = (
        (no_picture, f"listed in {_SPLIT}, but not in {pair[0]}"),
        (no_mask, f"without a mask in {pair[1]}"),
        (orphans, f"in {pair[1]} without a picture in {pair[0]}"),
    )
    for names, what in faults:
        if names:
            raise DataError(
                f"{counted(len(names), 'file')} {what}: {listed(names, 3)}. Expected a picture and a mask of the "
                f"same stem; add the files, or remove the others."
            )
    if not stems:
        raise DataError(f"{pair[0]} holds no pictures.")
