"""The small helpers: folding, missing values, and lists in messages."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretune.data.text import counted, excerpt, fold, has_cjk, is_blank, is_missing, listed, row_list


@pytest.mark.parametrize("text", ["Straße  X", "STRASSE x", "\tstrasse\u3000X\n", "strasse\u00a0x"])
def test_folding_joins_case_and_white_space(text):
    assert fold(text) == "strasse x"


@pytest.mark.parametrize(("left", "right"), [("a b", "ab"), ("a.", "a"), ("ａ", "a"), ("é", "e")])
def test_folding_keeps_what_is_different(left, right):
    assert fold(left) != fold(right)


@given(st.text())
def test_folding_ignores_white_space_around(text):
    assert fold(f" {text}\n") == fold(text)


@pytest.mark.parametrize("text", ["房", "カ", "ひ", "한", "a 𠀀", "豈"])
def test_cjk(text):
    assert has_cjk(text)


@pytest.mark.parametrize("text", ["", "a", "é", "Привет", "，", "😀"])
def test_not_cjk(text):
    assert not has_cjk(text)


@pytest.mark.parametrize("value", [None, float("nan"), np.float32("nan"), np.float64("nan"), pd.NA, pd.NaT])
def test_missing(value):
    assert is_missing(value) and is_blank(value)


@pytest.mark.parametrize("value", ["nan", "NA", 0, 0.0, False, [], [None], np.array([1, 2]), Decimal(1), {}])
def test_present(value):
    assert not is_missing(value) and not is_blank(value)


@pytest.mark.parametrize("value", ["", " ", "\n\t", "\u3000\u00a0"])
def test_blank_but_not_missing(value):
    assert is_blank(value) and not is_missing(value)


def test_lists_in_messages():
    assert listed([]) == "" and listed(["a"]) == "a"
    assert listed(list("abcde")) == "a, b, c, d, e"
    assert listed(list(range(1005))) == "0, 1, 2, 3, 4 and 1,000 more"
    assert listed(list("abc"), 2) == "a, b and 1 more"


def test_rows_are_counted_from_one():
    assert row_list([0]) == "row 1"
    assert row_list(np.array([1, 4])) == "rows 2, 5"
    assert row_list(range(7)) == "rows 1, 2, 3, 4, 5 and 2 more"


def test_numbers_in_messages():
    assert counted(1, "row") == "1 row" and counted(0, "row") == "0 rows"
    assert counted(12_345, "class", "classes") == "12,345 classes"


def test_excerpts_are_short():
    assert excerpt("a\nb") == r"'a\nb'"
    assert excerpt("x" * 100, 10) == "'" + "x" * 10 + "…'"
