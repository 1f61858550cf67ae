"""A folder or zip file is read as what it holds."""

import json
import shutil

import numpy as np
import pytest

from foretune.data.directory import is_zip, read_directory
from foretune.errors import DataError

Image = pytest.importorskip("PIL.Image")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("FORETUNE_CACHE", str(tmp_path_factory.mktemp("cache")))


def picture(path, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4) % 3).convert(mode).save(path)


def classes(root):
    for name in ("cat/1.png", "dog/1.png"):
        picture(root / name)


def masks(root):
    picture(root / "images" / "a.png")
    picture(root / "masks" / "a.png", "L")


def coco(root):
    picture(root / "images" / "1.png")
    content = {
        "images": [{"id": 1, "file_name": "1.png", "width": 4, "height": 3}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (root / "annotations.json").write_text(json.dumps(content))


LAYOUTS = [("folder", classes, 2), ("masks", masks, 1), ("coco", coco, 1)]


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(("kind", "make", "rows"), LAYOUTS)
def test_layouts(tmp_path, kind, make, rows, zipped):
    source = tmp_path / "set"
    make(source)
    if zipped:  # with the folder itself inside, as most archives have it
        source = shutil.make_archive(str(tmp_path / "set"), "zip", tmp_path, "set")
    table = read_directory(source)
    assert (table.attrs["format"], table.attrs["media"], len(table)) == (kind, "image", rows)


@pytest.mark.parametrize("split", ["train", "test"])
def test_splits(tmp_path, split):
    for name in ("train", "test"):
        classes(tmp_path / name)
    assert read_directory(tmp_path, split)["path"].str.contains(f"/{split}/").all()


def test_a_folder_of_tables_names_them(tmp_path):
    (tmp_path / "labels.csv").write_text("path,label\n1.png,cat\n")
    picture(tmp_path / "images" / "1.png")
    with pytest.raises(DataError, match=r"is a directory.*labels\.csv"):
        read_directory(tmp_path)
    archive = shutil.make_archive(str(tmp_path.parent / "tables"), "zip", tmp_path)
    with pytest.raises(DataError, match=r"tables\.zip holds labels\.csv.* Unpack it"):
        read_directory(archive)


def test_a_folder_of_nothing(tmp_path):
    with pytest.raises(DataError, match="no folders and no media"):
        read_directory(tmp_path)


def test_zip_by_name(tmp_path):
    (tmp_path / "a.ZIP").write_bytes(b"")
    assert is_zip(tmp_path / "a.ZIP") and not is_zip(tmp_path / "b.zip") and not is_zip(tmp_path)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(("kind", "make", "rows"), LAYOUTS)
def test_what_is_not_divided_is_the_part_asked_for(tmp_path, kind, make, rows, zipped):
    """A test set of its own, also in a folder that is called so."""
    for name in ("new", "test"):
        make(tmp_path / name / name)
        source = tmp_path / name
        if zipped:
            source = shutil.make_archive(str(tmp_path / f"{name}-zip"), "zip", tmp_path / name)
        table = read_directory(source, "test")
        assert (table.attrs["format"], len(table)) == (kind, rows)
    with pytest.raises(DataError, match="dev"):
        read_directory(source, "dev")


def test_a_coco_json_of_the_part_alone(tmp_path):
    coco(tmp_path)
    (tmp_path / "annotations.json").rename(tmp_path / "test.json")
    assert len(read_directory(tmp_path, "test")) == 1
    with pytest.raises(DataError, match=r"only test\.json"):
        read_directory(tmp_path, "train")


def test_annotations_of_json_are_no_masks(tmp_path):
    coco(tmp_path)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations.json").rename(tmp_path / "annotations" / "instances.json")
    assert read_directory(tmp_path).attrs["format"] == "coco"


@pytest.mark.parametrize("place", ["", "test"])
def test_one_class_is_enough_to_be_scored_but_not_to_be_learnt_from(place, tmp_path):
    for number in range(3):
        picture(tmp_path / "pets" / place / "cat" / f"{number}.png")
    assert read_directory(tmp_path / "pets", "test")["label"].tolist() == ["cat"] * 3
    if not place:
        with pytest.raises(DataError, match="one class only"):
            read_directory(tmp_path / "pets")


def test_masks_of_one_class_are_enough_to_be_scored_but_not_to_be_learnt_from(tmp_path):
    picture(tmp_path / "images" / "a.png")
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.full((3, 4), 2, dtype=np.uint8)).save(tmp_path / "masks" / "a.png")
    assert read_directory(tmp_path, "test").attrs["ids"] == [2]
    with pytest.raises(DataError, match="two classes"):
        read_directory(tmp_path)
