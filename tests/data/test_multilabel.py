"""Several labels per text."""

import pandas as pd
import pytest

from foretune.data.columns import Columns
from foretune.data.multilabel import label_lists, label_separator, without_labels
from foretune.errors import DataError

GENRES = ["drama", "drama;war", "war;love", "love;drama", "love", "war"]


def lists(cells, separator=None):
    return label_lists(pd.DataFrame({"labels": cells}), Columns("text", "labels", ""), separator=separator)


def message(cells):
    with pytest.raises(DataError) as caught:
        lists(cells)
    return str(caught.value)


def test_lists_numbers_and_missing_cells():
    assert lists([["b", "a", "b"], [], None, [1, 2.0]]) == [["b", "a"], [], [], ["1", "2"]]


def test_strings_with_and_without_separator():
    assert lists(["a; b;;a", None, "c"], ";") == [["a", "b"], [], ["c"]]
    assert lists(["a; b", "", "c"]) == [["a; b"], [], ["c"]]


def test_bio_tags_become_types():
    tags = [["O", "B-city", "I-city", "B-day"], ["O", "O"], ["B-day", "O"]]
    assert lists(tags) == [["city", "day"], [], ["day"]]


def test_lists_without_an_outside_tag_stay_as_they_are():
    assert lists([["B-movies", "A-list"], ["B-movies"]]) == [["B-movies", "A-list"], ["B-movies"]]


def test_vectors_of_0_and_1_are_refused():
    assert "vectors of 0 and 1, such as '[0, 1, 0]'" in message([[0, 1, 0], [1, 0, 0]])
    assert "vectors" in message([[False, True], [True, True]])
    assert lists([[0, 1], [1], [0]]) == [["0", "1"], ["1"], ["0"]]


@pytest.mark.parametrize("cell", [[["a"]], [None], [{"a": 1}], {"a": 1}, ["a", " "]])
def test_other_cells_name_rows(cell):
    assert "1 cell of column 'labels' not labels (row 2)" in message([["a"], cell])


def flags(columns, **options):
    table = pd.DataFrame(columns)
    return label_lists(table, Columns("text", None, "", targets=tuple(columns)), **options)


def test_columns_of_flags():
    found = flags({"a": ["1", "0", "true"], "b": [1, 0, 1.0], "c": [True, False, False]})
    assert found == [["a", "b", "c"], [], ["a", "b"]]


@pytest.mark.parametrize("value", ["2", None, "yes", 0.5])
def test_other_flags_name_rows(value):
    with pytest.raises(DataError, match=r"dev: 1 value of column 'b' neither 0 nor 1 \(row 2\)"):
        flags({"a": [1, 0], "b": [1, value]}, where="dev")


def test_rows_without_labels_are_counted():
    assert without_labels([["a"], [], []], "dev") == ["dev: 2 rows of 3 without any label (rows 2, 3)"]
    assert without_labels([["a"]]) == []


@pytest.mark.parametrize("mark", [";", "|", ",", "、", ", "])
def test_separator_is_found(mark):
    assert label_separator([cell.replace(";", mark) for cell in GENRES] * 3) == mark.strip()


@pytest.mark.parametrize(
    "cells",
    [
        ["drama", "war", "love"],
        ["Toys, Games", "Food, Drink", "Books"],
        ["Oslo, Norway", "Bergen, Norway", "Paris, France", "Rome"],
        ["Sci/Tech", "World"],
        ["Oh, this is one long sentence that happens to hold a comma, and here it goes on and on and on"] * 3,
        [1, 2, None],
        [],
    ],
)
def test_plain_labels_have_no_separator(cells):
    assert label_separator(cells) is None
