"""Cells of several values: numpy arrays, and translations in one column."""

import numpy as np
import pandas as pd
import pytest

from foretune.data.cells import plain_cells, unnested


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
