"""Several references per row: found beside the target, or as told."""

import pandas as pd
import pytest

from foretune.data.infer import infer_task
from foretune.data.references import references, references_column
from foretune.errors import DataError
from foretune.tasks.sequence_tables import learnt, read_targets

TARGETS = ["a short one", "another one", "the third"]
LISTS = [["a short one", "short"], ["other", "another one"], ["the third"]]


def table(**more):
    return pd.DataFrame(
        {"text": [f"a long text with many words, number {n}" for n in range(3)], "summary": TARGETS, **more}
    )


def refused(data, column="others"):
    with pytest.raises(DataError) as caught:
        references(data, "summary", column, "test")
    return str(caught.value)


def test_lists_that_hold_the_target_are_found():
    data = table(tokens=[["a", "long", "text"]] * 3, summaries=LISTS)
    assert references_column(data, "summary") == "summaries"
    assert references(data, "summary") == [
        ["a short one", "short"],
        ["another one", "other"],
        ["the third"],
    ]
    assert "Column 'summaries' holds lists of references" in infer_task(data).reason
    assert infer_task(data).task == "summarisation"


@pytest.mark.parametrize(
    "cells",
    [
        [["short"], ["other"], ["third"]],
        [["a short one", "short"], ["other"], ["third"]],
        [[1], [2], [3]],
        [[], None, []],
        ["a short one", "another one", "the third"],
    ],
)
def test_other_columns_are_no_references(cells):
    data = table(others=cells)
    assert references_column(data, "summary") is None and references(data, "summary") is None
    assert "references" not in infer_task(data).reason


def test_rows_without_a_list_have_their_target():
    assert references(table(others=[LISTS[0], None, []]), "summary") == [
        LISTS[0],
        ["another one"],
        ["the third"],
    ]
    assert references(table(others=[[text] for text in TARGETS]), "summary") is None


def test_a_column_is_named_or_refused():
    data = table(others=[["short", ""], ["other"], ["other", "other"]])
    assert references(data, "summary", "others") == [
        ["a short one", "short"],
        ["another one", "other"],
        ["the third", "other"],
    ]
    assert references(table(others=LISTS), "summary", "none") is None


def test_faults():
    found = refused(table(others=LISTS), "other")
    assert "test: there is no column 'other'" in found and "Did you mean 'others'" in found
    found = refused(table(others=["short", ["other"], [3]]))
    assert "2 cells of column 'others' no list of references (rows 1, 3), for instance \"'short'\"" in found


def test_targets_are_texts_or_lists():
    plain = read_targets(table(), "summary", "", "train")
    assert plain.tolist() == TARGETS == learnt(plain) and plain.dtype == object
    several = read_targets(table(others=[["x", "y"]] * 3), "summary", "others", "train")
    assert several.shape == (3,) and several[1] == ["another one", "x", "y"] and learnt(several) == TARGETS
    assert learnt(several[[2, 0]]) == ["the third", "a short one"]
