"""Notes of `datasets` on columns: class names in place of numbers, and which columns hold media."""

import json

import pandas as pd
import pytest

from foretune.data.features import media_kinds, parquet_notes, with_class_names

CLASSES = {"_type": "ClassLabel", "names": ["cat", "dog"]}


def noted(content):
    return parquet_notes({b"huggingface": json.dumps(content).encode()})


def test_notes_of_a_parquet_file():
    assert noted({"info": {"features": {"label": CLASSES}}}) == {"label": CLASSES}


@pytest.mark.parametrize("content", [{}, {"info": None}, {"info": {"features": ["a"]}}, [1], "text"])
def test_other_notes_are_none(content):
    assert noted(content) == {}


@pytest.mark.parametrize("metadata", [None, {}, {b"pandas": b"{}"}, {b"huggingface": b"{"}])
def test_files_without_notes(metadata):
    assert parquet_notes(metadata) == {}


def test_columns_of_media():
    notes = {
        "a": {"_type": "Image"},
        "b": {"_type": "Audio"},
        "c": {"_type": "Video"},
        "d": [CLASSES],
        "e": CLASSES,
    }
    assert media_kinds(notes) == {"a": "image", "b": "audio"}


@pytest.mark.parametrize("names", [["cat", "dog"], {"0": "cat", "1": "dog"}])
def test_numbers_become_names(names):
    table = pd.DataFrame({"label": [1, 0, -1], "n": [1, 0, 1]})
    found = with_class_names(table, {"label": {"_type": "ClassLabel", "names": names}, "gone": CLASSES})
    assert found["label"].tolist()[:2] == ["dog", "cat"] and found["label"].isna().tolist() == [
        False,
        False,
        True,
    ]
    assert found["n"].tolist() == [1, 0, 1] and table["label"].tolist() == [1, 0, -1]


@pytest.mark.parametrize(
    "note", [{"_type": "List", "feature": CLASSES}, {"_type": "Sequence", "feature": CLASSES}, [CLASSES]]
)
def test_lists_of_numbers_become_lists_of_names(note):
    found = with_class_names(pd.DataFrame({"tags": [[1, 0], [], None, [-1]]}), {"tags": note})
    assert found["tags"].tolist() == [["dog", "cat"], [], None, [None]]


def test_other_notes_change_nothing():
    notes = {"a": {"_type": "Value", "dtype": "int64"}, "b": {"c": {"_type": "Value"}}, "d": []}
    table = pd.DataFrame({"a": [1], "b": [{"c": 1}], "d": [[1]]})
    assert with_class_names(table, notes).equals(table)


def test_classes_deep_in_records_and_numbers_beside_them():
    notes = {"objects": {"bbox": {"_type": "List", "feature": {"_type": "Value"}}, "category": [CLASSES]}}
    cell = {"bbox": [[1, 2, 3, 4]], "category": [1], "more": 7}
    found = with_class_names(pd.DataFrame({"objects": [cell, None]}), notes)["objects"].tolist()
    assert found == [{"bbox": [[1, 2, 3, 4]], "category": ["dog"], "more": 7}, None]
