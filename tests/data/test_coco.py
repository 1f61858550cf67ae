"""COCO json with its pictures becomes a table; every inconsistency is named by ids."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from foretune.data.coco import check_coco_sizes, coco_file, looks_like_coco, read_coco, refuse_missing
from foretune.data.infer import infer_task
from foretune.data.read import read_table
from foretune.errors import DataError

Image = pytest.importorskip("PIL.Image")

CATEGORIES = [{"id": 7, "name": "wheel"}, {"id": 3, "name": "car"}]


def box(number, picture, *bbox, category=3, **more):
    return {"id": number, "image_id": picture, "category_id": category, "bbox": list(bbox), **more}


def write(folder, boxes, name="annotations.json", pictures=2, where="images", **changes):
    """Write some pictures of 40 x 30 pixels and the json that tells of them, with `changes` to its lists."""
    (folder / where).mkdir(parents=True, exist_ok=True)
    records = []
    for number in range(1, pictures + 1):
        Image.new("RGB", (40, 30)).save(folder / where / f"{number}.png")
        records.append({"id": number, "file_name": f"{number}.png", "width": 40, "height": 30})
    content = {"images": records, "annotations": boxes, "categories": CATEGORIES, **changes}
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))
    return folder / name


def refused(path, **options):
    with pytest.raises(DataError) as caught:
        read_coco(path, **options)
    return str(caught.value)


def test_one_row_per_picture(tmp_path):
    file = write(tmp_path, [box(1, 2, 1, 2, 3, 4), box(2, 2, 5, 6, 7.5, 8, category=7)])
    table = read_coco(file)
    assert table["id"].tolist() == [1, 2] and table["path"].tolist()[1] == str(tmp_path / "images" / "2.png")
    assert table["boxes"].tolist() == [[], [(1, 2, 3, 4), (5, 6, 7.5, 8)]]
    assert table["labels"].tolist() == [[], ["car", "wheel"]]
    assert table[["width", "height"]].to_numpy().tolist() == [[40, 30]] * 2
    assert table.attrs == {"format": "coco", "media": "image", "labels": ["wheel", "car"], "warnings": []}


def test_crowds_are_kept_apart(tmp_path):
    table = read_coco(write(tmp_path, [box(1, 1, 1, 2, 3, 4, iscrowd=1), box(2, 1, 2, 2, 3, 4, iscrowd=0)]))
    assert table["boxes"][0] == [(2, 2, 3, 4)] and table["labels"][0] == ["car"]
    assert table["crowd_boxes"][0] == [(1, 2, 3, 4)] and table["crowd_labels"][0] == ["car"]


def test_boxes_are_clipped_or_left_out_with_warnings(tmp_path):
    inside = [box(n, 1, 1, 1, 5, 5) for n in range(1, 10)]
    table = read_coco(write(tmp_path, [*inside, box(10, 2, 30, 20, 50, 5), box(11, 2, 3, 3, 0, 4)]))
    assert table["boxes"][1] == [(30, 20, 10, 5)]
    assert [w.split(": ")[1] for w in table.attrs["warnings"]] == [
        "1 box cut off at the edge of the picture (annotation 10).",
        "1 box without area left out (annotation 11).",
    ]


@pytest.mark.parametrize("where", ["images", ".", "train"])
def test_pictures_lie_beside_the_json_or_in_a_folder(tmp_path, where):
    assert len(read_coco(write(tmp_path, [], where=where))) == 2


def test_the_layout_of_coco_itself(tmp_path):
    for split in ("train", "val"):
        write(
            tmp_path, [box(1, 1, 1, 1, 2, 2)], f"annotations/instances_{split}2017.json", where=f"{split}2017"
        )
        (tmp_path / "annotations" / f"captions_{split}2017.json").write_text(
            '{"images": [], "annotations": []}'
        )
    assert coco_file(tmp_path).name == "instances_train2017.json"
    assert read_coco(tmp_path, "dev")["path"].str.contains("val2017").all()
    with pytest.raises(DataError, match=r"no COCO json of split 'test', only instances_train2017.json"):
        coco_file(tmp_path, "test")


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("annotations.json", "images"),
        ("annotations.json", "train"),
        ("val.json", "valid"),
        ("labels/val.json", "images/val"),
        ("annotations/instances_val2017.json", "val2017"),
    ],
)
def test_a_json_by_itself_is_read_like_its_folder(tmp_path, name, where):
    file = write(tmp_path, [box(1, 2, 1, 2, 3, 4)], name, where=where)
    table = read_table(str(file))
    assert table["path"].tolist() == [str(tmp_path / where / f"{n}.png") for n in (1, 2)]
    assert table["boxes"].tolist() == [[], [(1, 2, 3, 4)]] and table.attrs["format"] == "coco"
    found = infer_task(table)
    assert (found.task, found.columns.text, found.columns.target) == ("detection", "path", "boxes")


def test_a_json_by_itself_wherever_its_lists_stand(tmp_path):
    """After a long description, and compressed."""
    file = write(tmp_path, [], info={"description": "x" * 10_000})
    content = json.loads(file.read_text())
    packed = tmp_path / "packed.json.gz"
    packed.write_bytes(gzip.compress(json.dumps({"info": content.pop("info"), **content}).encode()))
    assert len(read_table(packed)) == 2


def test_a_json_of_another_form(tmp_path):
    file = tmp_path / "other.json"
    file.write_text('{"images": [], "annotations": []}')
    with pytest.raises(DataError, match=r"keys images, annotations, expected an array .* SQuAD's.* COCO's"):
        read_table(file)


def test_a_folder_of_its_own_for_each_split(tmp_path):
    for split in ("train", "valid"):
        write(tmp_path / split, [], "_annotations.coco.json", where=".", pictures=3)
    assert read_coco(tmp_path, "dev")["path"].str.contains("/valid/").all()


def test_a_single_json_is_train(tmp_path):
    write(tmp_path, [])
    assert coco_file(tmp_path).name == "annotations.json"
    assert "no COCO json of split 'test'" in refused(tmp_path, split="test")


def test_folders_without_coco(tmp_path):
    (tmp_path / "squad.json").write_text('{"data": [], "version": "1.1"}')
    (tmp_path / "rows.json").write_text('[{"images": 1}]')
    assert coco_file(tmp_path) is None
    assert "holds no COCO json" in refused(tmp_path)


def test_recognised_by_its_keys():
    assert looks_like_coco({"images": [], "categories": [], "annotations": []})
    assert not looks_like_coco({"images": []}) and not looks_like_coco([])


def test_sizes_that_the_json_lacks_are_looked_up(tmp_path):
    file = write(tmp_path, [box(1, 1, 39, 29, 1, 1)])
    content = json.loads(file.read_text())
    for record in content["images"]:
        del record["width"]
    file.write_text(json.dumps(content))
    assert read_coco(file)[["width", "height"]].to_numpy().tolist() == [[40, 30]] * 2


def test_without_annotations_there_are_no_boxes(tmp_path):
    file = write(tmp_path, [])
    content = json.loads(file.read_text())
    del content["annotations"]
    file.write_text(json.dumps(content))
    assert read_coco(file)["boxes"].tolist() == [[], []]


IMAGE_1 = {"id": 1, "file_name": "1.png"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"annotations": [box(5, 99, 1, 1, 2, 2)]}, "1 annotation with unknown image_id 99: annotation 5"),
        (
            {"annotations": [box(i, 1, 1, 1, 2, 2, category=8) for i in range(1, 8)]},
            "7 annotations with unknown category_id 8: annotation 1, 2, 3, 4, 5 and 2 more",
        ),
        ({"annotations": [box(5, 1, 50, 1, 2, 2)]}, "no part in the picture: annotation 5"),
        ({"annotations": [{"id": 1, "image_id": 1, "category_id": 3}]}, "annotation number 1 lacks one of"),
        ({"annotations": [box(1, [1], 1, 1, 2, 2)]}, "annotation number 1 lacks one of"),
        ({"images": [IMAGE_1, IMAGE_1]}, "image id 1 more than once"),
        ({"images": [{"id": 2, "file_name": "x.png"}]}, "1 picture of 1 not found: x.png (id 2)"),
        ({"images": [{"id": 2}]}, "image number 1 lacks one of id, file_name"),
        ({"images": []}, "lists no images"),
        ({"categories": []}, "lists no categories"),
        ({"categories": [*CATEGORIES, {"id": 4, "name": "car"}]}, "category name car more than once"),
        ({"categories": [*CATEGORIES, {"id": 3, "name": "bus"}]}, "category id 3 more than once"),
        ({"categories": None}, "expected the COCO lists images, annotations and categories"),
    ],
)
def test_inconsistencies_are_named(tmp_path, changes, expected):
    file = write(tmp_path, [], **changes)
    assert expected in refused(file) and str(file) in refused(file)


def test_missing_pictures_are_named_wherever_they_stand(tmp_path):
    gone = {"id": 2, "file_name": "x.png"}
    file = write(tmp_path, [box(1, 2, 50, 1, 2, 2), box(2, 1, 1, 1, 2, 2)], images=[gone, IMAGE_1])
    table = read_coco(file)
    assert table["id"].tolist() == [2, 1] and Path(table["path"][1]).is_file()
    with pytest.raises(DataError, match=r"1 picture of 2 not found: x\.png \(id 2\)\. .* with --skip-broken"):
        refuse_missing(table)
    refuse_missing(read_coco(write(tmp_path, [])))


@pytest.mark.parametrize("content", ["", "{", "[1, 2]"])
def test_what_is_no_coco_json(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    assert str(tmp_path / "a.json") in refused(tmp_path / "a.json")


def test_sizes_are_compared_with_the_files(tmp_path):
    table = read_coco(write(tmp_path, []))
    check_coco_sizes(table)
    Image.new("RGB", (41, 30)).save(table["path"][1])
    with pytest.raises(DataError, match=r"1 picture .* id 2: 40 x 30 in the data, 41 x 30 in the file"):
        check_coco_sizes(table)


def test_boxes_drawn_on_pictures_lying_on_their_side(tmp_path):
    table = read_coco(write(tmp_path, []))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(table["path"][0], exif=exif)
    with pytest.raises(DataError, match="EXIF rotation"):
        check_coco_sizes(table)
