"""Inferring the task of a table of pictures or sounds and its columns; folders as tables; relative paths."""

import numpy as np
import pandas as pd
import pytest

from foretune.data.infer import infer_task
from foretune.data.read import read_table
from foretune.errors import ConfigError, DataError

N = 12
SOUNDS = [f"clips/{i}.wav" for i in range(N)]
PICTURES = [f"{i}.jpg" for i in range(N)]
LABELS = ["cat", "dog"] * (N // 2)
SENTENCES = [f"the {i}th thing that was said" for i in range(N)]
WORDS = [f"word{i}" for i in range(N)]


def infer(table, attrs=None, **options):
    frame = pd.DataFrame(table)
    frame.attrs.update(attrs or {})
    found = infer_task(frame, **options)
    return found.task, found.columns.text, found.columns.target


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"path": SOUNDS, "label": LABELS}, ("audio-classification", "path", "label")),
        ({"speaker": LABELS, "file": SOUNDS, "label": LABELS}, ("audio-classification", "file", "label")),
        ({"path": SOUNDS, "kind": LABELS}, ("audio-classification", "path", "kind")),
        ({"path": SOUNDS, "text": SENTENCES}, ("speech-recognition", "path", "text")),
        ({"path": SOUNDS, "text": WORDS}, ("speech-recognition", "path", "text")),
        ({"path": SOUNDS, "text": LABELS}, ("audio-classification", "path", "text")),
        ({"path": SOUNDS, "label": SENTENCES}, ("speech-recognition", "path", "label")),
        ({"path": PICTURES, "label": LABELS}, ("image-classification", "path", "label")),
    ],
)
def test_task_and_columns(table, expected):
    assert infer(table) == expected


def test_task_given():
    table = {"path": SOUNDS, "text": LABELS}
    assert infer(table, task="speech-recognition") == ("speech-recognition", "path", "text")
    both = {"path": SOUNDS, "label": LABELS, "text": SENTENCES}
    assert infer(both, task="speech-recognition")[2] == "text"
    assert infer(both, target="text") == ("speech-recognition", "path", "text")


def test_format_of_the_folder_tells_the_task():
    boxes = {"path": PICTURES, "boxes": [[]] * N, "labels": [[]] * N}
    assert infer(boxes, {"format": "coco"}) == ("detection", "path", "boxes")
    masks = {"path": PICTURES, "mask": [f"{i}.png" for i in range(N)]}
    assert infer(masks, {"format": "masks"}) == ("segmentation", "path", "mask")


def test_prediction_needs_no_target():
    assert infer({"path": SOUNDS}, need_target=False) == ("audio-classification", "path", None)


def test_no_target_found():
    with pytest.raises(DataError, match=r"no column of labels was found.*--target"):
        infer({"path": SOUNDS, "a": LABELS, "b": LABELS})


def test_identifiers_are_no_labels():
    with pytest.raises(DataError, match="identifier"):
        infer({"path": SOUNDS * 3, "label": [f"id{i}" for i in range(3 * N)]}, task="audio-classification")


def test_task_of_another_kind():
    with pytest.raises(ConfigError, match=r"holds sounds.*audio-classification or speech-recognition"):
        infer({"path": SOUNDS, "label": LABELS}, task="image-classification")
    with pytest.raises(DataError, match=r"No column holds the paths of sounds.*--text"):
        infer({"text": SENTENCES, "label": LABELS}, task="audio-classification")


def test_texts_stay_texts():
    assert infer({"text": SENTENCES, "label": LABELS})[0] == "text-classification"


@pytest.fixture
def folder(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    for label in LABELS[:2]:
        (tmp_path / "sounds" / label).mkdir(parents=True)
        for i in range(2):
            soundfile.write(tmp_path / "sounds" / label / f"{i}.wav", np.zeros(80, np.float32), 8000)
    return tmp_path / "sounds"


@pytest.mark.parametrize("split", ["train", "test"])
def test_folder_of_classes_is_a_table(folder, split):
    """Given as the test data itself, a folder that is not divided is taken as a whole."""
    table = read_table(folder, split=split)
    assert table["label"].tolist() == ["cat", "cat", "dog", "dog"]
    assert infer_task(table).task == "audio-classification"


def test_divided_folder_gives_its_split(folder, tmp_path):
    root = tmp_path / "divided"
    root.mkdir()
    folder.rename(root / "train")
    with pytest.raises(DataError, match="not divided into splits"):
        read_table(root, split="test")
    assert len(read_table(root)) == 4


def test_relative_paths_count_from_the_file(folder):
    from foretune.data.media import located, media_of

    manifest = folder / "list.csv"
    manifest.write_text("path,label\ncat/0.wav,cat\ndog/1.wav,dog\n")
    table = read_table(manifest)
    found = located(table, media_of(table))
    assert found["path"].tolist() == [str(folder / "cat/0.wav"), str(folder / "dog/1.wav")]
