"""Masks give one class number per pixel; what would silently be wrong is refused."""

import json

import numpy as np
import pandas as pd
import pytest

from foretune.data.mask_classes import MaskClasses, read_classes
from foretune.data.masks import IGNORED, check_masks, found_classes, open_mask
from foretune.data.media import BrokenMediaError
from foretune.errors import DataError

Image = pytest.importorskip("PIL.Image")

IDS = np.array([[0, 7, 7], [255, 3, 0]], np.uint8)
CLASSES = MaskClasses(("sky", "road", "car"), (0, 7, 3), ignore=255)


def saved(folder, values, name="m.png", **options):
    picture = values if isinstance(values, Image.Image) else Image.fromarray(values)
    picture.save(folder / name, **options)
    return str(folder / name)


def broken(path, classes=None):
    with pytest.raises(BrokenMediaError) as caught:
        open_mask(path, classes)
    assert path in str(caught.value)
    return str(caught.value)


def test_ids_as_they_are(tmp_path):
    found = open_mask(saved(tmp_path, IDS))
    assert found.dtype == np.uint8 and np.array_equal(found, IDS)


def test_ids_that_are_called_otherwise():
    swapped = MaskClasses(("road", "sky"), (0, 7))
    assert CLASSES.renamed(swapped) == ["0 is 'road', not 'sky'", "7 is 'sky', not 'road'"]
    numbered = MaskClasses(("0", "3", "9"), (0, 3, 9))  # as found in masks without a list of names
    assert CLASSES.renamed(numbered) == numbered.renamed(CLASSES) == CLASSES.renamed(CLASSES) == []


def test_ids_become_class_numbers(tmp_path):
    found = open_mask(saved(tmp_path, IDS), CLASSES)
    assert found.dtype == np.int16 and found.tolist() == [[0, 1, 1], [IGNORED, 2, 0]]


def test_palettes_give_their_indices(tmp_path):
    picture = Image.fromarray(IDS)
    picture.putpalette(list(range(255, -1, -1)) * 3)
    assert picture.mode == "P"
    assert np.array_equal(open_mask(saved(tmp_path, picture)), IDS)


def test_16_bit_ids(tmp_path):
    values = IDS.astype(np.uint16) * 100
    path = saved(tmp_path, values)
    assert np.array_equal(open_mask(path), values)
    classes = MaskClasses(("a", "b", "c"), (0, 700, 300), ignore=25_500)
    assert open_mask(path, classes).tolist() == [[0, 1, 1], [IGNORED, 2, 0]]


def test_black_and_white(tmp_path):
    assert open_mask(saved(tmp_path, Image.fromarray(IDS > 3))).tolist() == [[0, 1, 1], [1, 0, 0]]


def test_ids_of_no_class_are_named(tmp_path):
    found = broken(saved(tmp_path, IDS), MaskClasses(("a", "b"), (0, 7)))
    assert "ids 3, 255 of no class (ids: 0, 7)" in found and "ignore_id" in found


COLOURED = MaskClasses(
    ("sky", "road", "car"), (0, 1, 2), 255, ((0, 0, 200), (90, 90, 90), (200, 0, 0)), ignore_colour=(0, 0, 0)
)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colours_need_a_table(tmp_path, mode):
    colours = np.array([*COLOURED.colours, COLOURED.ignore_colour], np.uint8)
    numbers = np.array([[0, 1, 2], [3, 2, 0]])
    path = saved(tmp_path, Image.fromarray(colours[numbers]).convert(mode))
    assert open_mask(path, COLOURED).tolist() == [[0, 1, 2], [IGNORED, 2, 0]]
    assert "colour picture (4 colours)" in broken(path) and "color [r, g, b]" in broken(path)
    assert "colour picture" in broken(path, CLASSES)


def test_colours_of_no_class_are_named(tmp_path):
    values = np.full((4, 4, 3), 90, np.uint8)
    values[1, 1] = (1, 2, 3)
    assert "colours that no class has: [1, 2, 3]" in broken(saved(tmp_path, values), COLOURED)


def test_jpegs_are_refused_whatever_their_name(tmp_path):
    path = saved(tmp_path, IDS, format="JPEG")
    assert "JPEG changes class ids" in broken(path) and "PNG" in broken(path)


@pytest.mark.parametrize("content", [b"", b"no mask", b"\x89PNG\r\n\x1a\n\0\0"])
def test_broken_files(tmp_path, content):
    (tmp_path / "m.png").write_bytes(content)
    assert broken(str(tmp_path / "m.png"))


# Classes


@pytest.mark.parametrize(
    ("ids", "labels", "ignore"),
    [([0, 2, 5], ("0", "2", "5"), None), ([0, 1, 255], ("0", "1"), 255), ([0, 255], ("0", "255"), None)],
)
def test_classes_found_in_masks(tmp_path, ids, labels, ignore):
    paths = [saved(tmp_path, np.full((2, 2), value, np.uint8), f"{value}.png") for value in ids]
    found = found_classes(paths)
    assert (found.labels, found.ignore) == (labels, ignore)
    assert found.ids == tuple(map(int, labels))


def test_one_class_is_none(tmp_path):
    with pytest.raises(DataError, match=r"1 mask hold the ids 4, expected"):
        found_classes([saved(tmp_path, np.full((2, 2), 4, np.uint8))])


def write(folder, content):
    (folder / "classes.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder / "classes.json"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (["sky", "road"], MaskClasses(("sky", "road"), (0, 1))),
        ({"4": "sky", "2": "road"}, MaskClasses(("sky", "road"), (4, 2))),
        (
            {
                "classes": [{"id": 0, "name": "a"}, {"id": 1, "name": "b"}, {"id": 9, "name": "Void"}],
                "ignore_id": 9,
            },
            MaskClasses(("a", "b"), (0, 1), 9),
        ),
        ({"classes": ["a", "b"], "ignore_id": 255}, MaskClasses(("a", "b"), (0, 1), 255)),
        (
            {
                "classes": [{"id": i, "name": n, "color": [i] * 3} for i, n in enumerate("abv")],
                "ignore_id": 2,
            },
            MaskClasses(("a", "b"), (0, 1), 2, ((0, 0, 0), (1, 1, 1)), (2, 2, 2)),
        ),
    ],
)
def test_classes_json(tmp_path, content, expected):
    assert read_classes(write(tmp_path, content)) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "not valid JSON"),
        (5, "no list of classes"),
        ([{"id": 0}, {"id": 1}], "no list of classes"),
        ({"a": "sky", "b": "road"}, "no list of classes"),
        (["sky", "sky"], "name sky belongs to several"),
        ({"classes": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "id 1 belongs to several"),
        ({"classes": [{"id": 1, "name": "a"}]}, "1 classes that count"),
        ({"0": "a", "70000": "b"}, "70000 are not between 0 and 65,535"),
        ([{"id": 0, "name": "a", "color": [0, 0, 0]}, {"id": 1, "name": "b"}], "without a color: b"),
    ],
)
def test_faulty_classes_json(tmp_path, content, expected):
    file = write(tmp_path, content)
    with pytest.raises(DataError) as caught:
        read_classes(file)
    assert expected in str(caught.value) and str(file) in str(caught.value)


@pytest.mark.parametrize("classes", [CLASSES, COLOURED])
def test_a_table_carries_its_classes(classes):
    table = pd.DataFrame({"path": ["a"], "mask": ["b"]})
    table.attrs = json.loads(json.dumps(classes.attrs()))
    assert MaskClasses.of(table) == classes


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_numbers_of_every_width_agree(dtype):
    assert CLASSES.numbers(IDS.astype(dtype)).tolist() == [[0, 1, 1], [IGNORED, 2, 0]]
    assert CLASSES.numbers(np.array([1, 200], dtype)).tolist() == [CLASSES.UNKNOWN] * 2


def test_numbers_outside_every_range_are_unknown():
    assert CLASSES.numbers(np.array([-1, 70_000, 7])).tolist() == [CLASSES.UNKNOWN, CLASSES.UNKNOWN, 1]


# Checks of a whole table


def pairs(folder, sizes, masks):
    rows = []
    for number, (size, mask) in enumerate(zip(sizes, masks, strict=True)):
        picture = saved(folder, Image.new("RGB", size), f"p{number}.jpg")
        rows.append((picture, saved(folder, mask, f"m{number}.png")))
    table = pd.DataFrame(rows, columns=["path", "mask"])
    table.attrs.update(CLASSES.attrs())
    return table


def test_fitting_masks_pass(tmp_path):
    check_masks(pairs(tmp_path, [(3, 2), (3, 2)], [IDS, IDS]))


def test_other_sizes_are_named(tmp_path):
    table = pairs(tmp_path, [(3, 2), (2, 3)], [IDS, IDS])
    with pytest.raises(DataError, match=r"1 mask of 2 .* m1\.png is 3 x 2 and its picture 2 x 3"):
        check_masks(table)


def test_unknown_ids_are_found_by_decoding(tmp_path):
    table = pairs(tmp_path, [(3, 2)] * 3, [IDS, IDS + 1, IDS + 1])
    check_masks(table, decode=False)
    with pytest.raises(DataError, match=r"2 masks of 3 cannot be used, the first: .*m1\.png: ids 1, 4, 8"):
        check_masks(table)
