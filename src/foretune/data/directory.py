"""A folder (or a zip file of one) as a table: of boxes, of masks, or of classes, by what it holds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from foretune.data.archive import unpack
from foretune.data.coco import coco_divided, coco_file, read_coco
from foretune.data.files import directory_given, file_format
from foretune.data.folders import LEARNT, files_in, folders_in, read_folder, split_name, unwrapped
from foretune.data.mask_folders import has_masks, masks_divided, read_masks
from foretune.data.text import listed
from foretune.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


def read_directory(path: str | os.PathLike[str], split: str = "train") -> pd.DataFrame:
    """Return the table of a folder or zip file of media; `attrs["format"]` is coco, masks or folder.

    `split` chooses among the parts that a folder is divided into (`folders.read_folder`, `coco.coco_file`,
    `mask_folders.read_masks`); what is not divided is that part as a whole. Raises DataError where the folder is
    none of these, naming the tables in it, and where it is to be learnt from and holds one class only.
    """
    given = Path(path).expanduser()
    top = (unpack(given) if is_zip(given) else given).absolute()
    root = unwrapped(top)
    around = {split_name(name) for name in root.relative_to(top).parts} - {None, split_name(split)}
    fewest = LEARNT if split_name(split) == "train" else 1
    if not around and not _divided(root):
        split = "train"  # which is all that an undivided folder holds
    if has_masks(root):
        return read_masks(root, split, fewest)
    if coco_file(root, split) is not None:
        return read_coco(root, split)
    tables = [item for item in files_in(root) if file_format(item.name)]
    if tables and len(folders_in(root)) < 2:
        raise _zipped_tables(given, tables) if is_zip(given) else directory_given(root)
    return read_folder(root, split, fewest)


def _divided(root: Path) -> bool:
    if has_masks(root):
        return masks_divided(root)
    return coco_divided(root) or any(split_name(f.name) for f in folders_in(root) if folders_in(f))


def _zipped_tables(archive: Path, tables: list[Path]) -> DataError:
    return DataError(
        f"{archive} holds {listed([table.name for table in tables])}, expected pictures or sounds. Unpack it and pass "
        f"the path of a file; a single table may be compressed as .gz."
    )


def is_zip(path: Path) -> bool:
    """Say whether `path` is a file whose name ends like a zip file's."""
    return path.suffix.lower() == ".zip" and path.is_file()
