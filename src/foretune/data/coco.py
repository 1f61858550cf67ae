"""Detection in the layout of COCO (cocodataset.org/#format-data): one json of pictures, boxes, categories."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.data.boxes import clean_boxes
from foretune.data.files import decode, read_bytes
from foretune.data.folders import SPLITS, folders_in, split_name
from foretune.data.images import image_sizes
from foretune.data.media import IMAGE
from foretune.data.text import counted, listed
from foretune.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

Record = dict[str, Any]
_HEAD_BYTES = 4096
_TRIED = 20  # pictures that are looked for to find their folder
_ANY_SIZE = 10**9  # pixels of a side
_TOP_KEYS = re.compile(rb'"(images|annotations|categories|licenses)"\s*:')
#: Other annotations that COCO keeps beside its boxes.
_OTHER_KINDS = ("captions", "person_keypoints", "stuff", "panoptic")


def looks_like_coco(value: object) -> bool:
    """Say whether parsed json is an object with the lists `images` and `categories`."""
    return isinstance(value, dict) and all(
        isinstance(value.get(key), list) for key in ("images", "categories")
    )


def read_coco(path: str | os.PathLike[str], split: str = "train") -> pd.DataFrame:
    """Return a table with one row per picture from a json file, or from a folder's json of `split`.

    Columns: `path` (absolute), `boxes` (list of (x, y, width, height) in pixels, within the picture),
    `labels` (their category names), `id`, `width`, `height`, and `crowd_boxes`, `crowd_labels` of boxes
    around many objects at once (`iscrowd`). `attrs`: format "coco", media "image", labels (all category
    names in order), warnings (what was clipped or left out), and missing, in words, where some of the pictures are
    not there (`refuse_missing`). Raises DataError, naming ids, where no picture is found, for doubled ones, annotations
    of unknown pictures or categories, and boxes that cannot be (`clean_boxes`).
    """
    source = Path(path).expanduser().absolute()
    file = coco_file(source, split) if source.is_dir() else source
    if file is None:
        raise DataError(f"{source} holds no COCO json with images, annotations and categories.")
    return coco_table(_load(file), file, split)


def coco_table(content: Record, file: Path, split: str = "train") -> pd.DataFrame:
    """Return the table of the parsed json of `file`, for which `looks_like_coco` holds; see `read_coco`.

    Pictures are looked for beside the file, in `images` and in the folders that are called after its part:
    that of its name (`instances_val2017`), else `split`.
    """
    import pandas as pd

    file = file.expanduser().absolute()
    names = _categories(content["categories"], file)
    images, missing = _images(content["images"], file, split)
    found = content.get("annotations") or []
    rows, warnings = _rows(found, images, names, file)
    table = pd.DataFrame(rows)
    table.attrs.update(format="coco", media=IMAGE, labels=list(names.values()), warnings=list(warnings))
    if missing is not None:
        table.attrs["missing"] = missing
    return table


def coco_file(folder: Path, split: str = "train") -> Path | None:
    """Return the COCO json of `split` in `folder`, its `annotations` or the split's own folder, or None.

    Raises DataError naming the json files where there are some but none of that split.
    """
    wanted = split_name(split) or split
    own = [inner for inner in folders_in(folder) if (split_name(inner.name) or inner.name) == wanted]
    for inner in own:
        if found := _coco_files(inner):
            return found[0]
    files = _coco_files(folder) + _coco_files(folder / "annotations")
    named = [file for file in files if wanted in _splits_in(file.stem)]
    unnamed = [file for file in files if not _splits_in(file.stem)]
    if named or not files:
        return named[0] if named else None
    if wanted == "train" and len(unnamed) == 1:
        return unnamed[0]
    raise DataError(
        f"{folder} holds no COCO json of split {split!r}, only {listed([f.name for f in files])}. Pass the "
        f"path of the json file."
    )


def coco_divided(folder: Path) -> bool:
    """Say whether the COCO json files in `folder`, or the folders that hold them, are called after parts."""
    files = _coco_files(folder) + _coco_files(folder / "annotations")
    own = [inner for inner in folders_in(folder) if split_name(inner.name) and _coco_files(inner)]
    return bool(own) or any(_splits_in(file.stem) for file in files)


def _coco_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    files = [item for item in folder.iterdir() if item.is_file() and item.suffix.lower() == ".json"]
    kept = sorted(file for file in files if not file.name.startswith((".", *_OTHER_KINDS)))
    return [file for file in kept if _has_top_keys(file)]


def _has_top_keys(file: Path) -> bool:
    with file.open("rb") as stream:
        head = stream.read(_HEAD_BYTES).lstrip(b"\xef\xbb\xbf \t\r\n")
    return head.startswith(b"{") and _TOP_KEYS.search(head) is not None


def _splits_in(stem: str) -> set[str]:
    """Return the splits that words of a file's name stand for: `instances_val2017` is of dev."""
    return {split for word in re.findall("[a-z]+", stem.lower()) if (split := split_name(word))}


def _load(file: Path) -> Record:
    try:
        content = json.loads(decode(read_bytes(file), str(file)))
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{file} is not valid JSON ({error}). Is the file complete?") from error
    if not looks_like_coco(content):
        found = f"the keys {listed(list(content))}" if isinstance(content, dict) else "no object"
        raise DataError(f"{file} has {found}, expected the COCO lists images, annotations and categories.")
    return content


def _categories(records: Sequence[Record], file: Path) -> dict[Any, str]:
    """Return the category names by id, in the order of the file."""
    _need(records, ("id", "name"), "category", file)
    names = [str(record["name"]) for record in records]
    _unique([record["id"] for record in records], "category id", file)
    _unique(names, "category name", file)
    if not names:
        raise DataError(
            f"{file} lists no categories, expected at least one such as {{'id': 1, 'name': 'cat'}}."
        )
    return dict(zip((record["id"] for record in records), names, strict=True))


def refuse_missing(table: pd.DataFrame) -> None:
    """Raise DataError where pictures of a COCO table are missing."""
    if "missing" in table.attrs:
        raise DataError(f"{table.attrs['missing']} Or leave them out with --skip-broken.")


def _images(records: Sequence[Record], file: Path, split: str) -> tuple[dict[Any, Record], str | None]:
    """Return path, width and height of the pictures by id, and which are missing, in words.

    Sizes that the file lacks are looked up; missing pictures have room for any box.
    """
    _need(records, ("id", "file_name"), "image", file)
    if not records:
        raise DataError(f"{file} lists no images.")
    _unique([record["id"] for record in records], "image id", file)
    base = _base(file, [str(record["file_name"]) for record in records[:_TRIED]], split)
    images: dict[Any, Record] = {r["id"]: {"path": os.path.join(base, str(r["file_name"]))} for r in records}  # noqa: PTH118
    missing = {key for key, image in images.items() if not os.path.isfile(image["path"])}  # noqa: PTH113
    said = None
    if missing:
        first = listed(
            [f"{Path(i['path']).name} (id {key})" for key, i in images.items() if key in missing], 3
        )
        said = (
            f"{file}: {counted(len(missing), 'picture')} of {len(images):,} not found: {first}. Looked in "
            f"{base}; expected them beside the json file or in the folder images."
        )
    if said is not None and len(missing) == len(images):
        raise DataError(said)
    for record, size in zip(records, _sizes(records, images, missing), strict=True):
        images[record["id"]].update(width=int(size[0]), height=int(size[1]))
    return images, said


def _sizes(
    records: Sequence[Record], images: dict[Any, Record], missing: Collection[Any]
) -> NDArray[np.int64]:
    sizes = np.array(
        [[_positive(record.get("width")), _positive(record.get("height"))] for record in records],
        dtype=np.int64,
    )
    gone = np.array([record["id"] in missing for record in records])
    sizes[gone] = _ANY_SIZE
    unknown = np.flatnonzero((sizes == 0).any(axis=1)).tolist()
    sizes[unknown] = image_sizes([images[records[row]["id"]]["path"] for row in unknown])
    return sizes


def _positive(value: object) -> int:
    return int(value) if isinstance(value, int | float) and 1 <= value < 1e9 else 0


def _base(file: Path, first: Sequence[str], split: str) -> Path:
    """Return the folder in which one of the first pictures lies: beside the json, in images, or in its split's."""
    here, above = file.parent, file.parent.parent
    subset = file.stem.split("_")[-1]  # instances_train2017
    part = next(iter(sorted(_splits_in(file.stem))), split_name(split) or split)
    parts = dict.fromkeys((subset, split, *SPLITS.get(part, ())))
    inside = ["", "images", *parts, *(f"images/{part}" for part in parts)]
    places = [folder / name for folder in (here, above) for name in inside]
    return next((place for place in places if any((place / name).is_file() for name in first)), here)


def _rows(
    annotations: Sequence[Record], images: dict[Any, Record], names: dict[Any, str], file: Path
) -> tuple[list[Record], tuple[str, ...]]:
    """Return one record per picture with its boxes, and warnings."""
    _need(annotations, ("image_id", "category_id", "bbox"), "annotation", file)
    ids = [annotation.get("id", f"number {i}") for i, annotation in enumerate(annotations, start=1)]
    _known(annotations, ids, "image_id", images, file)
    _known(annotations, ids, "category_id", names, file)
    sizes = [(images[a["image_id"]]["width"], images[a["image_id"]]["height"]) for a in annotations]
    boxes = [annotation["bbox"] for annotation in annotations]
    clean = clean_boxes(boxes, np.array(sizes, dtype=np.int64).reshape(-1, 2), ids, str(file))
    rows = {
        key: {**image, "id": key, "boxes": [], "labels": [], "crowd_boxes": [], "crowd_labels": []}
        for key, image in images.items()
    }
    for annotation, box, keep in zip(annotations, clean.boxes.tolist(), clean.keep.tolist(), strict=True):
        if keep:
            crowd = "crowd_" if annotation.get("iscrowd") else ""
            rows[annotation["image_id"]][f"{crowd}boxes"].append(tuple(box))
            rows[annotation["image_id"]][f"{crowd}labels"].append(names[annotation["category_id"]])
    return list(rows.values()), clean.warnings


def _need(records: Sequence[Any], keys: tuple[str, ...], noun: str, file: Path) -> None:
    wrong = [
        number
        for number, record in enumerate(records, start=1)
        if not isinstance(record, dict) or not all(_is_given(record.get(key), key) for key in keys)
    ]
    if wrong:
        raise DataError(
            f"{file}: {noun} number {listed(wrong)} lacks one of {', '.join(keys)}. Add it, or remove the entry."
        )


def _is_given(value: object, key: str) -> bool:
    return value is not None and (key == "bbox" or isinstance(value, int | float | str))


def _unique(values: Sequence[Any], noun: str, file: Path) -> None:
    doubled = [value for value, count in Counter(values).items() if count > 1]
    if doubled:
        raise DataError(f"{file}: {noun} {listed(doubled)} more than once. Each must stand there once.")


def _known(
    annotations: Sequence[Record], ids: Sequence[Any], key: str, known: dict[Any, Any], file: Path
) -> None:
    wrong = [i for i, annotation in enumerate(annotations) if annotation[key] not in known]
    if wrong:
        values = listed(sorted({str(annotations[i][key]) for i in wrong}))
        raise DataError(
            f"{file}: {counted(len(wrong), 'annotation')} with unknown {key} {values}: annotation "
            f"{listed([ids[i] for i in wrong])}. Add the {key.removesuffix('_id')}, or remove them."
        )


def check_coco_sizes(table: pd.DataFrame) -> None:
    """Raise DataError naming the pictures whose real size is not that of the json: the boxes would not fit."""
    real = image_sizes(table["path"].tolist())
    said = table[["width", "height"]].to_numpy(dtype=np.int64)
    wrong = np.flatnonzero((real != said).any(axis=1))
    if not len(wrong):
        return
    swapped = (real[wrong] == said[wrong][:, ::-1]).all()
    noun, keys = ("id", table["id"].tolist()) if "id" in table else ("row", range(1, len(table) + 1))
    first = [f"{noun} {keys[r]}: {_by(said[r])} in the data, {_by(real[r])} in the file" for r in wrong]
    hint = " They carry an EXIF rotation: draw the boxes on upright pictures." if swapped else ""
    raise DataError(
        f"{counted(len(wrong), 'picture')} of another size than their boxes are made for: {listed(first, 3)}."
        f"{hint} Correct the data or the pictures."
    )


def _by(size: NDArray[np.int64]) -> str:
    return f"{size[0]} x {size[1]}"
