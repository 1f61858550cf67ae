"""`inspect_data` gives plain values that say what is in a file."""

import io
import json
import subprocess
import sys

import pandas as pd
import pytest

from foretune.data import inspect_data
from foretune.errors import DataError

TEXT = "id,text,label\n" + "".join(
    f"{i},film number {i} was fine,{'pos' if i % 3 else 'neg'}\n" for i in range(30)
)


def test_file(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(TEXT + "30,film number 1 was fine,neg\n")
    found = json.loads(json.dumps(inspect_data(path)))
    assert found["file"] == str(path) and found["rows"] == 31
    assert (found["text"], found["target"], found["task"]) == ("text", "label", "text-classification")
    assert found["classes"] == {"neg": 11, "pos": 20}
    assert found["duplicates"] == found["conflicts"] == 1 and len(found["warnings"]) == 2
    assert str(path) in found["warnings"][0]
    assert found["lengths"]["max"] == len("film number 10 was fine")


def test_columns_are_described():
    found = inspect_data("-", stdin=io.StringIO(TEXT))
    assert found["file"] == "standard input"
    assert [column["role"] for column in found["columns"]] == [None, "text", "target"]
    label = found["columns"][2]
    assert (label["name"], label["distinct"], label["missing"], label["example"]) == ("label", 2, 0, "'neg'")


def test_texts_alone_have_no_task():
    found = inspect_data(pd.DataFrame({"text": ["a b", "c d"]}))
    assert found["task"] is None and found["target"] is None and found["classes"] == {}
    assert found["file"] == "DataFrame"


@pytest.mark.parametrize("task", ["auto", "text-generation"])
def test_a_running_text_may_have_blank_lines_and_say_things_twice(tmp_path, task):
    path = tmp_path / "song.txt"
    path.write_text("la la la\n\nand again\nla la la\n")
    found = inspect_data(path, task=task)
    assert (found["task"], found["rows"], found["lengths"]["max"]) == ("text-generation", 4, 9)
    assert (found["duplicates"], found["warnings"]) == (0, [])


def test_numbers_and_lists_can_be_written_as_json():
    table = pd.DataFrame({"text": ["a b", "c d"] * 10, "label": [0, 1] * 10, "extra": [[1]] * 20})
    assert json.loads(json.dumps(inspect_data(table)))["classes"] == {"0": 10, "1": 10}


def test_given_columns_and_errors():
    table = {"text": ["a b", "c d"] * 3, "note": ["e f", "g h"] * 3, "label": ["x", "y"] * 3}
    assert inspect_data(table, text="note")["text"] == "note"
    with pytest.raises(DataError, match="no column 'lable'"):
        inspect_data(table, target="lable")


def test_importing_the_package_is_cheap():
    code = (
        "import sys, foretune.data;"
        "print([m for m in ('pandas', 'pyarrow', 'datasets', 'sklearn', 'torch') if m in sys.modules])"
    )
    environment = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
