"""Two texts that belong together."""

import pandas as pd
import pytest

from foretune.data.pairs import is_found_pair, pair_of
from foretune.data.sheet import Sheet

ONE = [f"the first sentence number {i}" for i in range(30)]
TWO = [f"another sentence of number {i}" for i in range(30)]
LABELS = ["yes", "no", "maybe"] * 10


def pair(table, **given):
    found = pair_of(Sheet(pd.DataFrame(table)), **given)
    return None if found is None else (found.first, found.second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("sentence1", "sentence2"),
        ("text_a", "text_b"),
        ("Premise", "Hypothesis"),
        ("question1", "question2"),
        ("question", "answer"),
        ("s1", "s2"),
        ("textA", "textB"),
        ("a", "b"),
        ("sentence", "sentence2"),
        ("query", "document"),
        ("句子1", "句子2"),
        ("问题", "答案"),
    ],
)
def test_by_names(first, second):
    assert pair({"id": range(30), second: TWO, first: ONE, "label": LABELS}) == (first, second)


def test_single_words_are_texts_where_names_say_so():
    table = {"word1": [f"w{i}" for i in range(30)], "word2": [f"v{i}" for i in range(30)], "score": range(30)}
    assert pair(table) == ("word1", "word2")


def test_by_kind_and_said_so():
    found = pair_of(Sheet(pd.DataFrame({"c1": ONE, "c2": TWO, "label": LABELS})))
    assert found[:2] == ("c1", "c2") and found.why == "two texts of like length"


@pytest.mark.parametrize(
    "table",
    [
        {"title": ONE, "body": TWO},
        {"text": ONE, "note": TWO},
        {"c1": ONE, "c2": [text * 5 for text in TWO]},
        {"c1": ONE, "c2": TWO, "c3": TWO},
        {"c1": ONE, "c2": [f"r{i}" for i in range(30)]},
        {"c1": ONE, "c2": range(30)},
        {"text1": ONE, "text2": LABELS},
        {"a": LABELS, "b": LABELS},
        {"text": ONE},
    ],
)
def test_no_pair(table):
    assert pair({**table, "label": LABELS}) is None


def test_given_columns_win():
    table = {"text_a": ONE, "text_b": TWO, "title": ONE, "body": TWO, "label": LABELS}
    assert pair(table, text="title", second="body") == ("title", "body")
    assert pair(table, text="text_a") == ("text_a", "text_b")
    assert pair(table, second="text_b") == ("text_a", "text_b")
    assert pair({"x": ONE, "label": LABELS, "y": TWO}, second="x") == ("y", "x")
    assert pair({"x": ONE, "y": TWO, "z": TWO}, text="x", target="z") == ("x", "y")
    assert pair(table, text="title") is None


def test_search_pairs():
    sheet = Sheet(pd.DataFrame({"query": ONE, "document": TWO}))
    assert is_found_pair(pair_of(sheet))
    assert not is_found_pair(pair_of(Sheet(pd.DataFrame({"premise": ONE, "hypothesis": TWO}))))
