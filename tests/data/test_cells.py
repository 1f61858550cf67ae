"""Cells of several values: numpy arrays, and translations in one column."""

import json

import numpy as np
import pandas as pd
import pytest

from foretune.data.cells import plain_cells, unnested, with_lists


def test_arrays_become_lists_at_any_depth():
    table = pd.DataFrame({"a": [np.array([1, 2]), None], "b": [{"c": np.array(["x"], dtype=object)}, {}]})
    found = plain_cells(table)
    assert found["a"].tolist() == [[1, 2], None] and found["b"].tolist() == [{"c": ["x"]}, {}]


def nested(cells, name="translation"):
    table = pd.DataFrame({"id": range(len(cells)), name: pd.Series(cells, dtype=object), "kind": "x"})
    table.attrs["format"] = "jsonl"
    return table


def test_translations_become_columns_in_their_order_and_place():
    found = unnested(nested([{"fr": "un", "en": "one"}, {"en": "two"}, None]))
    assert list(found) == ["id", "fr", "en", "kind"]
    assert found["fr"].tolist() == ["un", None, None] and found["en"].tolist() == ["one", "two", None]
    assert found.attrs == {"format": "jsonl", "languages": ["fr", "en"]}


@pytest.mark.parametrize(
    "cells",
    [
        ["un", "deux"],
        [{"fr": "un"}, {"fr": "deux"}],
        [{"fr": ["un"], "en": ["one"]}],
        [{"language": ["fr", "en"], "translation": ["un", "one"]}],
        [{"id": "un", "en": "one"}],
    ],
)
def test_other_columns_of_that_name_stay(cells):
    table = nested(cells)
    assert unnested(table) is table


def test_other_names_stay():
    table = nested([{"fr": "un", "en": "one"}], "answers")
    assert unnested(table) is table


@pytest.mark.parametrize(
    ("cells", "found"),
    [
        (['["a", "b"]', None, "[]"], [["a", "b"], None, []]),
        (["['it is', \"it's\"]", "['好']"], [["it is", "it's"], ["好"]]),
        (["[[1, 2.5]]", '[{"start": 0}]'], [[[1, 2.5]], [{"start": 0}]]),
    ],
)
def test_lists_written_as_text(cells, found):
    table = pd.DataFrame({"text": ["a b"] * len(cells), "labels": cells})
    assert [None if cell is None else cell for cell in with_lists(table)["labels"].tolist()] == found


SQUAD = {"text": ["it's", "好"], "answer_start": [1, 20]}


@pytest.mark.parametrize(
    "written",
    [
        json.dumps(SQUAD),
        str(SQUAD),
        str({name: np.array(items, dtype=object) for name, items in SQUAD.items()}),
        str({"text": np.array(SQUAD["text"], dtype=object), "answer_start": np.array([1, 20])}),
    ],
)
def test_dicts_written_as_text_in_columns_of_dicts(written):
    table = pd.DataFrame({"answers": [written, None], "text": [written, "b"], "labels": [written, written]})
    found = with_lists(table)
    assert found["answers"].tolist() == [SQUAD, None]
    assert found[["text", "labels"]].equals(table[["text", "labels"]])  # may be what is to be learnt from
    mixed = pd.DataFrame({"answers": [written, "plain"]})
    assert with_lists(mixed).equals(mixed)


@pytest.mark.parametrize(
    "cells",
    [['["a"]', "[b]"], ['["a"]', "a"], ["['a' 'b']"], ["[1], [2]"], ["[" * 9999 + "]"], [None], ["{}"]],
)
def test_other_texts_stay_as_they_are(cells):
    table = pd.DataFrame({"labels": pd.Series(cells, dtype=object)})
    assert with_lists(table)["labels"].tolist() == cells
