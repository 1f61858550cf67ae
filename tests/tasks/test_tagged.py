"""Tagged sentences out of tables: both layouts, what is refused and what is told."""

import pandas as pd
import pytest

from foretune.data.columns import Columns
from foretune.data.tagged import read_tagged, tagged_warnings
from foretune.errors import DataError

COLUMNS = Columns("text", "tags", "")


def table(texts, tags):
    return pd.DataFrame({"text": pd.Series(texts, dtype=object), "tags": pd.Series(tags, dtype=object)})


def test_lists_of_words_with_tags():
    found = read_tagged(table([["a", "b"], ["c"]], [("O", "B-X"), [3]]), COLUMNS, where="train")
    assert found.inputs == [["a", "b"], ["c"]] and found.tags == [["O", "B-X"], ["3"]]
    assert found.spans is None and found.in_words


def test_texts_with_spans_lose_blanks_at_their_ends():
    spans = [[{"start": 0, "end": 4, "label": "X"}, [3, 8, "Y"], [0, 3, "X"]], None]
    found = read_tagged(table(["Ann and Bob", "nothing"], spans), COLUMNS, where="train")
    assert found.spans == [[(0, 3, "X"), (4, 7, "Y")], []] and not found.in_words


def test_without_a_target_only_inputs_are_read():
    found = read_tagged(pd.DataFrame({"text": ["a b"]}), Columns("text", None, ""), where="data")
    assert (found.inputs, found.tags, found.spans) == (["a b"], None, None)


@pytest.mark.parametrize(
    ("texts", "tags", "message"),
    [
        ([["a", "b"]], [["O"]], "without one tag for every token"),
        ([["a"], []], [["O"], []], "without a token .row 2."),
        ([["a"], [" "]], [["O"], ["O"]], "with a blank token .row 2."),
        (["a", None], [[], []], "row 2"),
        (["a"], [[[0, 5, "X"]]], "lies outside the text"),
        (["a"], ["PER"], "holds strings, expected entities"),
    ],
)
def test_what_cannot_be_read_is_named(texts, tags, message):
    with pytest.raises(DataError, match=message):
        read_tagged(table(texts, tags), COLUMNS, where="train")


def test_warnings():
    clean = read_tagged(table([["a"], ["b"]], [["O"], ["B-X"]]), COLUMNS, where="dev")
    assert tagged_warnings(clean, "dev") == []
    copies = read_tagged(table([["A", "b"], ["a", "b"]], [["0", "1"], ["0", "2"]]), COLUMNS, where="dev")
    first, second = tagged_warnings(copies, "dev")
    assert "1 text of 2" in first and "already in an earlier row (row 2)" in first
    assert "the tags are numbers (0, 1, 2)" in second
    nested = read_tagged(table(["Bank of Rome"], [[[0, 12, "ORG"], [8, 12, "LOC"]]]), COLUMNS, where="dev")
    assert "1 row with spans that share characters (row 1)" in tagged_warnings(nested, "dev")[0]
