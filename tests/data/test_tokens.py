"""Token lists: which columns hold them, their checks, and their texts; lists in cells of any source."""

import numpy as np
import pandas as pd
import pytest

from foretune.data import read_table
from foretune.data.cells import are_lists_of, as_texts, join_tokens
from foretune.data.sheet import Sheet
from foretune.data.tokens import check_tokens, token_columns
from foretune.errors import DataError

WORDS, TAGS = [["a", "b"], ["c"]], [["X", "Y"], ["X"]]


def columns(table, **options):
    return token_columns(Sheet(pd.DataFrame(table)), **options)


def test_columns_by_name_or_as_the_only_lists():
    assert columns({"tags": TAGS, "tokens": WORDS}) == ("tokens", "tags")
    assert columns({"words": WORDS, "ner_tags": [[0, 1], [0]]}) == ("words", "ner_tags")
    assert columns({"tags": TAGS, "w": WORDS}) == ("w", "tags")
    assert columns({"tokens": WORDS, "tags": TAGS, "chunks": TAGS}, target="chunks") == ("tokens", "chunks")


@pytest.mark.parametrize(
    "table",
    [
        {"text": ["a b"], "tags": [["X", "Y"]]},
        {"tokens": WORDS},
        {"tokens": WORDS, "tags": [["X"], ["X"]]},
        {"tokens": WORDS, "tags": [["X", "Y"], None]},
        {"tokens": WORDS, "label": ["x", "y"]},
    ],
)
def test_no_token_columns(table):
    assert columns(table) is None


@pytest.mark.parametrize(
    ("tokens", "tags", "fault"),
    [
        ([["a"], []], [["X"], []], "without a token (row 2)"),
        ([["a"], None], [["X"], []], "without a token (row 2)"),
        ([["a", " "]], [["X", "X"]], "with a blank token (row 1)"),
        ([["a"], ["b"]], [["X"], ["X", "Y"]], "without one tag for every token (row 2)"),
    ],
)
def test_faults_name_rows(tokens, tags, fault):
    with pytest.raises(DataError) as caught:
        check_tokens(tokens, tags, "dev")
    assert fault in str(caught.value) and str(caught.value).startswith("dev: 1 sentence of")


def test_right_rows_pass():
    check_tokens(WORDS, TAGS, "train")
    check_tokens(WORDS, None, "train")


def test_join():
    assert join_tokens(["a", "b", "中", "文", "c"]) == "a b 中文 c" and join_tokens([]) == ""
    assert as_texts([["a", "b"], "c d", None]) == ["a b", "c d", None]


def test_arrays_in_cells_become_lists():
    cells = np.empty(2, dtype=object)
    cells[:] = [np.array(["a", "b"]), np.array([{"start": np.array([1])}], dtype=object)]
    table = read_table(pd.DataFrame({"text": ["x", "y"], "cells": cells}))
    assert table["cells"].tolist() == [["a", "b"], [{"start": [1]}]]


def test_parquet_keeps_lists(tmp_path):
    pd.DataFrame({"tokens": WORDS, "tags": TAGS}).to_parquet(tmp_path / "a.parquet")
    table = read_table(tmp_path / "a.parquet")
    assert table["tokens"].tolist() == WORDS and are_lists_of(table["tags"].tolist(), str)
