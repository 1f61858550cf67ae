"""Real pictures, boxes, masks and sounds, with the published counts, where they are at hand."""

from pathlib import Path

import numpy as np
import pytest

from foretune.data import read_table
from foretune.data.coco import check_coco_sizes, read_coco
from foretune.data.directory import read_directory
from foretune.data.folders import read_folder
from foretune.data.images import find_broken, image_sizes, open_image
from foretune.data.mask_classes import MaskClasses
from foretune.data.masks import IGNORED, check_masks, open_mask
from foretune.data.sounds import probe_sound, read_sound
from foretune.data.transcripts import transcripts

SHARED = Path(__file__).parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are not on this machine")


@pytest.mark.parametrize(
    ("name", "split", "counts"),
    [
        ("image/hymenoptera", "train", {"ants": 123, "bees": 121}),
        ("image/hymenoptera", "dev", {"ants": 70, "bees": 83}),
        ("image/cifar10", "test", 100),
        ("audio/fsdd", "train", 30),
        ("audio/esc10", "fold3", 8),
        ("audio/speech_commands_v1_sample", "train", 10),
    ],
)
def test_class_folders(name, split, counts):
    found = read_folder(SHARED / name, split)["label"].value_counts().to_dict()
    assert found == counts if isinstance(counts, dict) else set(found.values()) == {counts}


def test_flowers():
    sizes = [len(read_directory(SHARED / "image" / "flowers5", split)) for split in ("train", "test")]
    assert sizes == [3_449, 862]


def test_no_picture_is_broken_and_the_sides_are_as_published():
    paths = read_folder(SHARED / "image" / "hymenoptera")["path"].tolist()
    assert find_broken(paths) == {}
    sizes = image_sizes(paths)
    assert sizes.max(axis=1).max() == 320
    assert all(open_image(paths[row]).shape == (*sizes[row][::-1], 3) for row in (0, 50, 200))


@pytest.mark.parametrize(("split", "pictures", "boxes"), [("train", 291, 3_966), ("test", 73, 920)])
def test_blood_cells(split, pictures, boxes):
    table = read_coco(SHARED / "detection" / "bccd", split)
    assert (len(table), sum(map(len, table["boxes"]))) == (pictures, boxes)
    assert set(table.attrs["labels"]) == {"RBC", "WBC", "Platelets"}
    check_coco_sizes(table)


@pytest.mark.parametrize(("split", "rows"), [("train", 100), ("dev", 40), ("test", 40)])
def test_street_scenes(split, rows):
    table = read_directory(SHARED / "segmentation" / "camvid", split)
    assert len(table) == rows and len(table.attrs["labels"]) == 11 and table.attrs["ignore"] == 11
    check_masks(table, decode=split == "dev")
    mask = open_mask(table["mask"][0], MaskClasses.of(table))
    assert mask.shape == (180, 240) and {IGNORED, 0} <= set(np.unique(mask)) <= set(range(-1, 11))


def test_spoken_digits_at_another_rate():
    path = read_folder(SHARED / "audio" / "fsdd", "test")["path"][0]
    seconds, rate, channels = probe_sound(path)
    assert (rate, channels) == (8_000, 1)
    assert len(read_sound(path, 16_000)) == pytest.approx(seconds * 16_000, abs=1)


def test_ogg_clips_of_five_seconds():
    paths = read_folder(SHARED / "audio" / "esc10", "fold1")["path"].tolist()
    assert find_broken(paths, "audio") == {}
    assert all(len(read_sound(path, 16_000)) == pytest.approx(80_000, abs=400) for path in paths[:5])


@pytest.mark.parametrize(("split", "rows"), [("train", 50), ("test", 10)])
def test_transcripts(split, rows):
    folder = SHARED / "asr" / "yesno"
    table = transcripts(read_table(folder / f"{split}.csv"), folder=folder)
    assert len(table) == rows and {len(text.split()) for text in table["text"]} == {8}
    assert read_sound(table["path"][0], 8_000, 0, 1).shape == (8_000,)
