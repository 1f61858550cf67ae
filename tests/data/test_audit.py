"""What the audit refuses, warns of and counts."""

import numpy as np
import pandas as pd
import pytest

from foretune.data import Columns, audit, overlap
from foretune.data.audit import as_texts
from foretune.errors import DataError

COLUMNS = Columns("text", "label", "")


def table(texts, labels=None):
    return pd.DataFrame({"text": texts, "label": labels or ["a", "b"] * (len(texts) // 2)})


def message(texts, labels=None):
    with pytest.raises(DataError) as caught:
        audit(table(texts, labels), COLUMNS)
    return str(caught.value)


def test_clean_table():
    found = audit(table([f"text {i:02}" for i in range(20)]), COLUMNS)
    assert found.warnings == [] and found.rows == 20 and found.classes == {"a": 10, "b": 10}
    assert (found.length_median, found.length_p95, found.length_max) == (7.0, 7.0, 7)
    assert found.duplicates == found.conflicts == 0 and found.cjk_share == 0


def test_numbers():
    found = audit(table(["abc", "好的", "x" * 100, "d"]), COLUMNS, where="dev")
    assert found.where == "dev" and found.cjk_share == 0.25 and found.length_max == 100
    assert found.length_median == 2.5 and 80 < found.length_p95 < 100


@pytest.mark.parametrize("hole", [None, float("nan"), "", " \n\t", "\u3000"])
def test_missing_and_blank_texts(hole):
    found = message(["a"] + [hole] * 6 + ["b"])
    assert "6 texts of 8 in column 'text' missing" in found
    assert "rows 2, 3, 4, 5, 6 and 1 more" in found and "Drop these rows" in found


def test_texts_that_are_numbers():
    found = message(["a", 3.5, "b", 7])
    assert "2 values of 4" in found and "3.5 (float)" in found and "rows 2, 4" in found and "--text" in found


def test_texts_that_cannot_be_encoded():
    frame = pd.DataFrame({"text": pd.Series(["a", "b\ud800"], dtype=object), "label": ["x", "y"]})
    with pytest.raises(DataError, match=r"surrogate.*\(row 2\)"):
        audit(frame, COLUMNS)


def test_missing_labels():
    assert "1 label of 2 missing (row 2)" in message(["a", "b"], ["x", None])


def test_no_rows():
    with pytest.raises(DataError, match="no rows"):
        audit(table([]), COLUMNS)


def test_duplicates_are_found_through_case_and_white_space():
    found = audit(table(["Good  film", "bad", "good film ", "GOOD\nFILM"], ["a", "b", "a", "a"]), COLUMNS)
    assert found.duplicates == 2 and found.conflicts == 0
    assert any("2 texts of 4 (50.0%) already in an earlier row (rows 3, 4)" in w for w in found.warnings)


def test_conflicting_labels():
    found = audit(table(["x", "y", "X", "y", "z", "z"], ["a", "a", "b", "a", "a", "b"]), COLUMNS)
    assert found.conflicts == 2
    assert any(
        "2 texts with different labels in different rows (rows 1, 3, 5, 6)" in w for w in found.warnings
    )


def test_rare_classes():
    texts = [f"t{i}" for i in range(15)]
    found = audit(table(texts, ["a"] * 5 + ["b"] * 4 + ["c"] + ["d"] * 5), COLUMNS)
    assert found.warnings == [
        "train: 2 classes with fewer than 5 examples: 'b' (4), 'c' (1); "
        "fix: add examples, or merge them into other classes"
    ]


def test_label_variants_and_one_class():
    texts = [f"t{i}" for i in range(12)]
    found = audit(table(texts, ["Yes"] * 6 + ["yes"] * 6), COLUMNS)
    assert "train: 'Yes' (6 rows), 'yes' (6) may be one label" in found.warnings[0]
    assert "all rows have the label 'a'" in audit(table(texts, ["a"] * 12), COLUMNS).warnings[0]


def test_class_order_is_that_of_the_encoding():
    found = audit(table(["a", "b", "c"], [10, 9, 10]), COLUMNS)
    assert list(found.classes.items()) == [("9", 1), ("10", 2)]


def test_without_target():
    found = audit(pd.DataFrame({"text": ["a", "a"]}), Columns("text", None, ""))
    assert found.classes == {} and found.duplicates == 1 and len(found.warnings) == 1


def test_overlap():
    train = pd.DataFrame({"text": ["One", "two", "three", None]})
    dev = pd.DataFrame({"text": ["one ", "four", None, "THREE"]})
    (warning,) = overlap(train, dev, "text", "dev")
    assert "dev: 2 texts of 4 (50.0%) also in train (rows 1, 4)" in warning and "fix:" in warning
    assert overlap(train, dev.iloc[1:2], "text", "dev") == []


def test_the_sizes_are_plain_numbers():
    found = audit(table(["a", "b"]), COLUMNS)
    assert not any(isinstance(value, np.generic) for value in vars(found).values())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "only white space"),
        (" ", "only white space"),
        ("\ud800", "surrogate"),
        (None, "Found None"),
        (5, "Found 5"),
    ],
)
def test_one_text_is_checked_as_several_are(given, said):
    with pytest.raises(DataError, match=said):
        as_texts(given)
    assert as_texts("a b") == ["a b"]
