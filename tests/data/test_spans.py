"""Spans of characters: their layouts, inclusive and exclusive ends, and spans that cannot be right."""

from itertools import pairwise

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretune.data.spans import is_spans, normal_spans, overlap_rows, spans_column, without_overlaps
from foretune.errors import DataError

TEXT = "Ann met Bo."
SPANS = [(0, 3, "PER"), (8, 10, "PER")]


def message(texts, values):
    with pytest.raises(DataError) as caught:
        normal_spans(texts, values)
    return str(caught.value)


@pytest.mark.parametrize(
    "cell",
    [
        [{"start": 0, "end": 3, "label": "PER"}, {"start": 8, "end": 10, "label": "PER"}],
        [{"start": 8, "end": 10, "type": "PER"}, {"start": 0, "end": 3, "type": "PER"}],
        [[0, 3, "PER"], (8, 10, "PER")],
        [{"start_offset": 0, "end_offset": 3, "labels": ["PER"]}, {"begin": 8.0, "end": 10.0, "tag": "PER"}],
        [{"start": 0, "end": 3, "label": "PER", "text": "Ann"}, {"start": 8, "end": 10, "label": "PER"}],
        [{"start": 0, "end": 2, "label": "PER", "text": "Ann"}, {"start": 8, "end": 9, "label": "PER"}],
        {"PER": {"Ann": [[0, 2]], "Bo": [[8, 9]]}},
        {"PER": {"Ann": [[0, 3]], "Bo": [[8, 10]], "Cy": None}, "LOC": None},
    ],
)
def test_layouts(cell):
    assert is_spans([cell]) and normal_spans([TEXT], [cell]) == [SPANS]


def test_missing_and_empty_cells_have_no_spans():
    assert normal_spans([TEXT] * 3, [None, [], [[0, 3, "A"]]]) == [[], [], [(0, 3, "A")]]


@pytest.mark.parametrize(
    "values",
    [
        [["a", "b"]],
        [["a", "b", "c"]],
        ["text"],
        [[]],
        [None],
        [[[0, 1, 2]]],
        [[0, 3, "PER"]],
        [{"start": 0, "end": 3, "label": "PER"}],
        [[{"text": "Ann", "start": 0, "end": 3}]],
        [[["0", "3", "PER"]]],
    ],
)
def test_other_cells_are_no_spans(values):
    assert not is_spans(values)


def test_column():
    table = pd.DataFrame({"text": [TEXT], "tokens": [["Ann", "met"]], "marks": [[[0, 3, "PER"]]]})
    assert spans_column(table) == "marks" and spans_column(table[["text", "tokens"]]) is None


@pytest.mark.parametrize(
    ("span", "fault"),
    [
        ([8, 12, "PER"], "lies outside the text of 11 characters"),
        ([-1, 2, "PER"], "lies outside"),
        ([4, 3, "PER"], "is empty"),
        ({"start": 0, "end": 4, "label": "PER", "text": "Bo"}, "holds 'Ann ', not 'Bo'"),
    ],
)
def test_faults_name_rows(span, fault):
    found = message([TEXT, TEXT], [[[0, 3, "PER"]], [span]])
    assert "1 span that cannot be right (row 2)" in found and fault in found


def test_inclusive_ends_without_surfaces_are_suspected():
    assert "add 1 to each" in message([TEXT], [[[0, 0, "PER"]]])


def test_unreadable_rows_are_named():
    found = message([TEXT, TEXT], [[[0, 3, "PER"]], "Ann"])
    assert "1 row whose spans cannot be read (row 2)" in found


def test_overlaps():
    spans = [[(0, 3, "A"), (2, 8, "B"), (8, 9, "C")], [(0, 3, "A")], [(0, 3, "A"), (0, 3, "B")]]
    assert overlap_rows(spans) == [0, 2]
    assert [without_overlaps(row) for row in spans] == [
        [(2, 8, "B"), (8, 9, "C")],
        [(0, 3, "A")],
        [(0, 3, "A")],
    ]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 5)).map(lambda s: (s[0], s[0] + s[1], "X"))))
def test_what_is_kept_shares_no_character(spans):
    kept = without_overlaps(spans)
    assert all(before[1] <= after[0] for before, after in pairwise(kept))
    assert all(any(a < d and c < b for c, d, _ in kept) for a, b, _ in spans)
