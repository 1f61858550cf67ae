"""Folders and tables of pictures with masks, in their several layouts."""

import json

import numpy as np
import pandas as pd
import pytest

from foretune.data.mask_folders import classes_beside, has_masks, read_masks
from foretune.errors import DataError

Image = pytest.importorskip("PIL.Image")

NAMED = {
    "classes": [{"id": 0, "name": "sky"}, {"id": 1, "name": "road"}, {"id": 2, "name": "Void"}],
    "ignore_id": 2,
}


def make(root, *stems, images="images", masks="masks", ending=""):
    for stem in stems:
        for folder, name, mode in ((images, f"{stem}.jpg", "RGB"), (masks, f"{stem}{ending}.png", "L")):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4) % 3).convert(mode).save(
                root / folder / name
            )
    return root


def write(root, name, content):
    (root / name).write_text(json.dumps(content))


def stems(table):
    assert table["path"].str.endswith(".jpg").all() and table["mask"].str.endswith(".png").all()
    return [path.split("/")[-1].removesuffix(".jpg") for path in table["path"]]


def refused(read, *arguments):
    with pytest.raises(DataError) as caught:
        read(*arguments)
    return str(caught.value)


def test_pictures_and_masks_of_the_same_stems(tmp_path):
    write(make(tmp_path, "b", "a"), "classes.json", NAMED)
    table = read_masks(tmp_path)
    assert table["path"].tolist() == [str(tmp_path / "images" / f"{s}.jpg") for s in "ab"]
    assert table["mask"].tolist() == [str(tmp_path / "masks" / f"{s}.png") for s in "ab"]
    assert (table.attrs["format"], table.attrs["media"]) == ("masks", "image")
    assert (table.attrs["labels"], table.attrs["ids"], table.attrs["ignore"]) == (["sky", "road"], [0, 1], 2)


def test_without_names_the_ids_are_the_classes(tmp_path):
    assert read_masks(make(tmp_path, "a"))["mask"].size == 1
    assert read_masks(tmp_path).attrs["labels"] == ["0", "1", "2"]


def test_masks_with_an_ending(tmp_path):
    assert stems(read_masks(make(tmp_path, "a", "b", ending="_mask"))) == ["a", "b"]


def test_other_names_of_the_folders(tmp_path):
    assert stems(read_masks(make(tmp_path, "a", images="img", masks="Labels"))) == ["a"]


def test_splits_in_a_file(tmp_path):
    write(make(tmp_path, "a", "b", "c"), "split.json", {"train": ["c", "a.jpg"], "val": ["b"]})
    assert stems(read_masks(tmp_path)) == ["c", "a"] and stems(read_masks(tmp_path, "dev")) == ["b"]
    assert "no split 'test'. It has: train, val" in refused(read_masks, tmp_path, "test")


@pytest.mark.parametrize("inner", [("images/{}", "masks/{}"), ("{}/images", "{}/masks")])
def test_splits_in_folders(tmp_path, inner):
    for split, names in (("train", ["a", "b"]), ("val", ["c"])):
        make(tmp_path, *names, images=inner[0].format(split), masks=inner[1].format(split))
    write(tmp_path, "classes.json", NAMED)
    assert has_masks(tmp_path)
    assert stems(read_masks(tmp_path)) == ["a", "b"] and stems(read_masks(tmp_path, "dev")) == ["c"]
    assert read_masks(tmp_path).attrs["labels"] == ["sky", "road"]
    assert refused(read_masks, tmp_path, "test")


def test_recognised_by_both_folders(tmp_path):
    (tmp_path / "images").mkdir()
    assert not has_masks(tmp_path)
    (tmp_path / "masks").mkdir()
    assert has_masks(tmp_path)


def test_a_picture_without_a_mask_and_a_mask_without_a_picture(tmp_path):
    make(tmp_path, "a", "b", "c")
    (tmp_path / "masks" / "b.png").unlink()
    assert "1 file without a mask" in refused(read_masks, tmp_path) and "masks: b." in refused(
        read_masks, tmp_path
    )
    (tmp_path / "images" / "b.jpg").unlink()
    (tmp_path / "images" / "c.jpg").unlink()
    assert "without a picture" in refused(read_masks, tmp_path) and ": c." in refused(read_masks, tmp_path)


def test_other_faults(tmp_path):
    assert "no folders images and masks" in refused(read_masks, tmp_path)
    make(tmp_path, "a")
    assert "not divided into splits" in refused(read_masks, tmp_path, "test")
    write(tmp_path, "split.json", {"train": ["a", "z"]})
    assert "listed in split.json" in refused(read_masks, tmp_path) and ": z." in refused(read_masks, tmp_path)
    for content in ({"train": "a"}, ["a"], {"train": [1]}):
        write(tmp_path, "split.json", content)
        assert "is no split" in refused(read_masks, tmp_path)


def test_a_folder_without_pictures(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    assert "holds no pictures" in refused(read_masks, tmp_path)


def beside(root, masks=("masks/a.png",), **attrs):
    table = pd.DataFrame({"image": ["images/a.jpg"], "mask": ["masks/a.png"]})
    table.attrs.update({"folder": str(root), **attrs})
    return classes_beside(table, [str(root / mask) for mask in masks])


def test_classes_of_a_table(tmp_path):
    make(tmp_path, "a")
    assert beside(tmp_path).labels == ("0", "1", "2")  # by the masks
    write(tmp_path, "classes.json", NAMED)
    assert beside(tmp_path, masks=()).labels == ("sky", "road")  # by the names beside the table
    known = beside(tmp_path, masks=(), labels=["x", "y"], ids=[0, 1], ignore=None)
    assert known.labels == ("x", "y")  # as its reader found


def test_classes_that_cannot_be_told(tmp_path):
    make(tmp_path, "a")
    Image.new("L", (4, 3)).save(tmp_path / "masks" / "a.png")
    assert "expected those of at least two classes" in refused(beside, tmp_path)
