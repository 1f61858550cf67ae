"""Labels: canonical strings, order, numbers and complaints."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretune.data import encode_labels, label_text, label_variants
from foretune.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (" a ", " a "),
        (True, "true"),
        (np.False_, "false"),
        (3, "3"),
        (3.0, "3"),
        (-0.0, "0"),
        (np.float32(3), "3"),
        (np.float32(0.1), "0.1"),
        (np.int64(7), "7"),
        (2.5, "2.5"),
        (float("inf"), "inf"),
        (np.str_("x"), "x"),
        ("3.0", "3.0"),
        (10**20, "1" + "0" * 20),
    ],
)
def test_label_text(value, text):
    assert label_text(value) == text and type(label_text(value)) is str


def test_names_sort_by_code_point():
    assert encode_labels(["b", "a", "B", "中"]).names == ("B", "a", "b", "中")


def test_integers_sort_by_number():
    encoding = encode_labels(["10", "9", "-1", "9"])
    assert encoding.names == ("-1", "9", "10")
    assert encoding.ids.tolist() == [2, 1, 0, 1] and encoding.ids.dtype == np.int64


def test_types_meet_in_their_text():
    names = encode_labels(["0", "1"]).names
    assert encode_labels([1.0, 0, "1"], names=names).ids.tolist() == [1, 0, 1]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=2).filter(lambda v: len(set(v)) > 1))
def test_names_and_numbers_give_the_labels_back(values):
    encoding = encode_labels(values)
    assert [encoding.names[i] for i in encoding.ids] == values
    assert encode_labels(values[::-1]).names == encoding.names


def test_unseen_labels_are_named_with_rows_and_nearest():
    values = ["spam", "spm", "ham", "spm", "zzz"] + ["spm"] * 5
    with pytest.raises(DataError) as caught:
        encode_labels(values, names=["ham", "spam"], where="dev")
    found = str(caught.value)
    assert found.startswith("dev: 8 rows (rows 2, 4, 5, 6, 7 and 3 more)")
    assert "'spm' (Did you mean 'spam'?), 'zzz'." in found and "Training classes: ham, spam" in found


@pytest.mark.parametrize(
    ("names", "values", "found"),
    [
        (["1", "2"], ["2.0", "1", 1.0, "2.00"], [1, 0, 0, 1]),
        (["1.0", "2.0"], [2, "1", 1.0], [1, 0, 0]),
        (["false", "true"], ["True", "FALSE", True], [1, 0, 1]),
        (["False", "True"], [np.True_, "true", False], [1, 1, 0]),
    ],
)
def test_numbers_and_truth_values_written_otherwise_are_the_same(names, values, found):
    assert encode_labels(values, names=names).ids.tolist() == found


@pytest.mark.parametrize(
    ("names", "value"), [(["1", "1.0"], "1.00"), (["1", "2"], "1.5"), (["yes", "no"], "Yes")]
)
def test_other_labels_are_never_guessed(names, value):
    with pytest.raises(DataError, match="not among the training classes"):
        encode_labels([value], names=names)


def test_one_class():
    with pytest.raises(DataError, match="all 3 rows have the label 'a'"):
        encode_labels(["a"] * 3)
    assert encode_labels(["a"], names=["a", "b"]).ids.tolist() == [0]


@pytest.mark.parametrize("hole", [None, float("nan"), np.float32("nan"), pd.NA, pd.NaT, "", "  "])
def test_missing_labels_are_counted_and_placed(hole):
    with pytest.raises(DataError, match=r"train: 2 labels of 4 missing \(rows 2, 4\)"):
        encode_labels(["a", hole, "b", hole])


def test_no_labels():
    with pytest.raises(DataError, match="no labels"):
        encode_labels([])


def test_lists_of_labels():
    with pytest.raises(DataError, match=r"a list \(row 2\).*--task multi-label"):
        encode_labels(["a", ["b", "c"]])


def test_repeated_class_names():
    with pytest.raises(ConfigError, match="repeated"):
        encode_labels(["a"], names=["a", "a"])


def test_variants_by_case_space_and_width():
    values = ["Spam"] * 40 + ["spam "] * 3 + ["SPAM"] + ["ham"] * 9 + ["ＨＡＭ"] * 2 + ["other", None]
    assert label_variants(values) == [
        "'ham' (9 rows), 'ＨＡＭ' (2) may be one label; fix: make them all 'ham'",
        "'Spam' (40 rows), 'spam ' (3), 'SPAM' (1) may be one label; fix: make them all 'Spam'",
    ]


def test_variants_by_inner_white_space():
    assert "'Sci / Tech' (1)" in label_variants(["Sci/Tech", "Sci/Tech", "Sci / Tech"])[0]


def test_the_proposed_name_has_no_stray_space():
    assert label_variants(["a ", "a ", "a"])[0].endswith("make them all 'a'")


def test_no_variants():
    assert label_variants(["a", "b", 1, 1.0, "1"]) == []
