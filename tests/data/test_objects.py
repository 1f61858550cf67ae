"""Boxes in the cells of tables: columns of objects, as the hub's sets hold them, and lists of boxes and labels."""

import io
import json

import pandas as pd
import pytest

from foretune.data.infer import infer_task
from foretune.data.objects import clean_rows, holds_boxes, with_boxes
from foretune.data.read import read_table
from foretune.errors import DataError

ROWS = [
    {"bbox": [[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 5.0, 5.0]], "category": [1, 0]},
    {"bbox": [], "category": []},
    {"bbox": [[2.0, 2.0, 4.0, 4.0]], "category": [1]},
]


def png(width=8, height=6):
    image = pytest.importorskip("PIL.Image")
    data = io.BytesIO()
    image.new("RGB", (width, height), (200, 0, 0)).save(data, "PNG")
    return data.getvalue()


def stored(kind):
    """Return a set with objects as the hub keeps them: one record of lists, or a list of records."""
    datasets = pytest.importorskip("datasets")
    names = datasets.ClassLabel(names=["cat", "dog"])
    box = datasets.Sequence(datasets.Value("float32"), length=4)
    if kind == "lists":
        objects, rows = {"bbox": datasets.List(box), "category": datasets.List(names)}, ROWS
    else:
        make = datasets.Sequence if kind == "sequence" else datasets.List
        objects = make({"bbox": box, "category": names})
        rows = ROWS
        if kind == "records":
            rows = [
                [dict(zip(r, values, strict=True)) for values in zip(*r.values(), strict=True)] for r in ROWS
            ]
    cells = [{"bytes": png(8, 6 + i), "path": f"{i}.png"} for i in range(3)]
    features = datasets.Features({"image": datasets.Image(), "objects": objects})
    return datasets.Dataset.from_dict({"image": cells, "objects": rows}, features=features)


@pytest.mark.parametrize("kind", ["lists", "sequence", "records"])
@pytest.mark.parametrize("as_file", [True, False])
def test_objects_of_the_hub_are_boxes_with_names(tmp_path, cache, kind, as_file):
    data = stored(kind)
    if as_file:
        data.to_parquet(tmp_path / "a.parquet")
        data = tmp_path / "a.parquet"
    table = read_table(data)
    assert table["labels"].tolist() == [["dog", "cat"], [], ["dog"]] and "objects" not in table
    assert table["boxes"].tolist() == [row["bbox"] for row in ROWS]
    found = infer_task(table)
    assert (found.task, found.columns.text, found.columns.target) == ("detection", "image", "boxes")


def test_lists_of_boxes_and_labels_are_told(tmp_path):
    lines = []
    for i, row in enumerate(ROWS):
        (tmp_path / f"{i}.png").write_bytes(png())
        names = [["cat", "dog"][number] for number in row["category"]]
        lines.append(json.dumps({"path": f"{i}.png", "boxes": row["bbox"], "labels": names}))
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    found = infer_task(read_table(tmp_path / "a.jsonl"))
    assert (found.task, found.columns.text, found.columns.target) == ("detection", "path", "boxes")


def test_crowds_stand_apart():
    cells = [{"bbox": [[1, 1, 2, 2], [3, 3, 4, 4]], "label": ["a", "b"], "iscrowd": [0, 1]}, None]
    table = with_boxes(pd.DataFrame({"path": ["a.png", "b.png"], "objects": cells}))
    assert table["labels"].tolist() == [["a"], []] and table["crowd_labels"].tolist() == [["b"], []]
    assert table["crowd_boxes"].tolist() == [[[3, 3, 4, 4]], []] and table.attrs["format"] == "objects"


@pytest.mark.parametrize(
    "cell",
    [
        {"bbox": [[1, 1, 2, 2]], "label": ["a", "b"]},
        {"bbox": [[1, 1, 2, 2]], "label": [None]},
        {"bbox": [[1, 1, 2, 2]], "label": None},
        [{"bbox": [1, 1, 2, 2]}],
        "a",
        3,
    ],
)
def test_objects_that_cannot_be_read_are_named(cell):
    good = {"bbox": [[1, 1, 2, 2]], "label": ["a"]}
    with pytest.raises(DataError, match=r"Column 'objects': rows 2 hold objects without a name"):
        with_boxes(pd.DataFrame({"path": ["a.png", "b.png"], "objects": [good, cell]}))


@pytest.mark.parametrize(
    "columns",
    [
        {"answers": [{"text": ["a"], "answer_start": [1]}]},
        {"objects": [{"bbox": [[1, 1, 2, 2]], "area": [4]}]},
        {"objects": [{"bbox": [[1, 1, 2, 2]], "label": ["a"]}], "boxes": [[[1, 1, 2, 2]]]},
        {"objects": [None]},
    ],
)
def test_other_tables_stay_as_they_are(columns):
    table = pd.DataFrame(columns)
    assert with_boxes(table) is table and not holds_boxes(table)


def test_boxes_are_cut_to_their_pictures(tmp_path):
    paths = []
    for i, size in enumerate([(8, 6), (20, 10), (8, 6)]):
        (tmp_path / f"{i}.png").write_bytes(png(*size))
        paths.append(str(tmp_path / f"{i}.png"))
    boxes = [[[1, 1, 2, 2], [4, 1, 10, 2]], [], [[1, 1, 2, 0], [0, 0, 8, 6]]]
    found = clean_rows(paths, boxes, [["a", "b"], [], ["c", 4]], "train")
    assert found[0] == [[[1, 1, 2, 2], [4, 1, 4, 2]], [], [[0, 0, 8, 6]]]
    assert found[1] == [["a", "b"], [], ["4"]]
    assert len(found[2]) == 2 and "annotation row 1, box 2" in found[2][0] and "row 3, box 1" in found[2][1]
    with pytest.raises(DataError, match=r"train: 1 box has no part in the picture: annotation row 2, box 1"):
        clean_rows(paths, [[], [[30, 1, 2, 2]], []], [[], ["a"], []], "train")
