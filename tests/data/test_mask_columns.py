"""Two columns of paths are pictures and masks where the files say so; otherwise they are something else."""

import numpy as np
import pandas as pd
import pytest

from foretune.data.infer import infer_task
from foretune.data.mask_columns import mask_columns
from foretune.data.read import read_table
from foretune.errors import DataError

Image = pytest.importorskip("PIL.Image")

N, SIZE = 6, (20, 30)
FOUND = ("segmentation", "a", "b")


def photo(number, mode="RGB"):
    chance = np.random.default_rng(number)
    return Image.fromarray(chance.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).convert(mode)


def mask(number, mode="L"):
    ids = np.zeros(SIZE, dtype=np.uint8)
    ids[5:15, number : number + 8] = 1
    ids[:2] = 255
    if mode == "I;16":
        return Image.fromarray(ids.astype(np.uint16) * 200)
    if mode == "P":
        image = Image.fromarray(ids)
        image.putpalette([value for colour in range(256) for value in (colour, 0, 0)])
        return image
    return Image.fromarray(ids).convert(mode)


def write(folder, first, second, names=("a", "b"), endings=("jpg", "png")):
    """Write pictures and a csv of their paths; `first` and `second` make picture number n."""
    rows = []
    for number in range(N):
        cells = [f"{name}/{number}.{ending}" for name, ending in zip(names, endings, strict=True)]
        for cell, make in zip(cells, (first, second), strict=True):
            (folder / cell).parent.mkdir(parents=True, exist_ok=True)
            make(number).save(folder / cell)
        rows.append(",".join(cells))
    (folder / "list.csv").write_text("\n".join([",".join(names), *rows]) + "\n")
    return read_table(folder / "list.csv")


def infer(table, **options):
    found = infer_task(table, **options)
    return found.task, found.columns.text, found.columns.target


@pytest.mark.parametrize("mode", ["L", "P", "1", "I;16"])
def test_masks_are_told_by_their_files(tmp_path, mode):
    table = write(tmp_path, photo, lambda n: mask(n, mode))
    assert infer(table) == FOUND
    assert infer(table, task="segmentation") == infer(table, text="a") == infer(table, target="b") == FOUND


def test_the_order_of_the_columns_does_not_matter(tmp_path):
    table = write(tmp_path, mask, photo, endings=("png", "jpg"))
    assert infer(table) == ("segmentation", "b", "a")
    table = write(tmp_path, photo, mask, names=("image", "label"))
    assert infer(table) == ("segmentation", "image", "label")


@pytest.mark.parametrize(
    "second",
    [
        photo,  # in colour
        lambda n: photo(n, "L"),  # in grey, with hundreds of values
        lambda n: mask(n).resize((SIZE[1] // 2, SIZE[0])),  # of another size
        lambda n: mask(n, "RGB"),
    ],
)
def test_two_columns_of_pictures_are_no_masks(tmp_path, second):
    table = write(tmp_path, photo, second)
    assert mask_columns(table) is None
    assert infer(table.assign(label=["x", "y"] * 3)) == ("image-classification", "a", "label")
    assert infer(table, task="segmentation") == FOUND  # as told


def test_jpeg_masks_are_none(tmp_path):
    assert mask_columns(write(tmp_path, photo, mask, endings=("jpg", "jpg"))) is None


def test_two_columns_of_masks_need_names(tmp_path):
    table = write(tmp_path, mask, mask, endings=("png", "png"))
    assert mask_columns(table) is None and mask_columns(table, told=True) == ("a", "b")
    assert mask_columns(table.rename(columns={"a": "old_mask"})) == ("b", "old_mask")


def test_one_picture_is_not_its_own_mask(tmp_path):
    table = write(tmp_path, mask, mask, endings=("png", "png"))
    assert mask_columns(table.assign(b=table["a"])) is None


def test_a_column_of_labels_comes_first(tmp_path):
    table = write(tmp_path, photo, mask).assign(label=["x", "y"] * 3)
    assert infer(table) == ("image-classification", "a", "label")
    assert infer(table, task="segmentation") == infer(table, target="b") == FOUND


def test_other_columns_do_not_disturb(tmp_path):
    table = write(tmp_path, photo, mask).assign(id=range(N), split="train", thumb="t.png")
    assert infer(table) == FOUND


def test_missing_files_are_told_by_names():
    table = pd.DataFrame({"image": ["1.jpg", "2.jpg"], "mask": ["1.png", "2.png"]})
    assert mask_columns(table) == ("image", "mask") and infer(table)[0] == "segmentation"
    assert mask_columns(table.rename(columns={"mask": "label"})) is None


def test_one_broken_file_leaves_it_to_the_names(tmp_path):
    table = write(tmp_path, photo, mask)
    (tmp_path / "b" / "0.png").write_bytes(b"broken")
    assert mask_columns(table) is None
    assert mask_columns(table.rename(columns={"b": "segmentation"})) == ("a", "segmentation")


def test_tables_without_two_columns_of_paths(tmp_path):
    table = write(tmp_path, photo, mask)[["b"]]
    assert mask_columns(table) is mask_columns(table, told=True) is None
    with pytest.raises(DataError, match="no column of labels was found"):
        infer(table)


def test_masks_in_a_parquet_file(tmp_path, monkeypatch):
    monkeypatch.setenv("FORETUNE_CACHE", str(tmp_path / "cache"))
    table = write(tmp_path, photo, mask)
    cells = {n: [{"bytes": (tmp_path / p).read_bytes(), "path": p} for p in table[n]] for n in ("a", "b")}
    pd.DataFrame(cells).to_parquet(tmp_path / "a.parquet")
    assert infer(read_table(tmp_path / "a.parquet")) == FOUND


def test_the_names_beside_the_table_count(tmp_path):
    from foretune.prepare import prepare
    from foretune.recipe import Recipe

    write(tmp_path, photo, mask)
    (tmp_path / "classes.json").write_text('{"0": "road", "1": "car", "255": "sky"}')
    prepared = prepare(str(tmp_path / "list.csv"), None, None, Recipe())
    assert prepared.task.name == "segmentation" and prepared.task.labels == ("road", "car", "sky")
    assert "column 'a' holds the paths of pictures, column 'b' their masks" in prepared.notes[0]
