"""Questions from tables: every layout of answers, and the rows that cannot be right."""

import pandas as pd
import pytest

from foretune.data.columns import Columns
from foretune.data.questions import check_answers, read_questions
from foretune.errors import DataError

CONTEXT = "A kea and a kea."
COLUMNS = Columns("question", "answers", "", second="context")


def read(answers, columns=COLUMNS, **more):
    size = len(answers)
    table = {"question": ["Who?"] * size, "context": [CONTEXT] * size, "answers": answers, **more}
    return read_questions(pd.DataFrame(table), columns)


def message(answers, **more):
    with pytest.raises(DataError) as caught:
        read(answers, **more)
    return str(caught.value)


@pytest.mark.parametrize(
    "cell",
    [
        [(2, "kea")],
        [[2, "kea"]],
        [["2", "kea"]],
        [[2.0, "kea"]],
        [{"text": "kea", "answer_start": 2}],
        {"text": "kea", "start": 2},
        {"text": ["kea"], "answer_start": [2]},
        ["kea"],
        "kea",
    ],
)
def test_layouts(cell):
    assert read([cell]).answers == [[(2, "kea")]]


@pytest.mark.parametrize("cell", [1989, 1989.0, "1989"])
def test_numbers_are_answers(cell):
    table = pd.DataFrame({"question": ["When?"], "context": ["In 1989 it fell."], "answers": [cell]})
    assert read_questions(table, COLUMNS).answers == [[(3, "1989")]]


@pytest.mark.parametrize("cell", [[], None, "", {"text": [], "answer_start": []}])
def test_no_answer_is_counted(cell):
    found = read([cell, "kea"])
    assert found.answers == [[], [(2, "kea")]]
    assert "1 question of 2 without an answer" in found.notes[0]


def test_starts_in_a_column_of_their_own():
    found = read(["kea", "kea", None], answer_start=["2", "12", None])
    assert found.answers == [[(2, "kea")], [(12, "kea")], []]


def test_several_places_are_said():
    assert "1 answer without an offset more than once" in read(["kea", "A"]).notes[0]


def test_ids_or_row_numbers():
    assert read(["A", "A"]).ids == ["1", "2"]
    assert read(["A", "A"], id=[7, "x"]).ids == ["7", "x"]


def test_answers_are_left_out_where_not_needed():
    table = pd.DataFrame({"question": ["Who?"], "context": [CONTEXT]})
    found = read_questions(table, COLUMNS, need_answers=False)
    assert found.answers == [[]] and found.notes == []


def test_answers_that_do_not_occur():
    found = message(["kea", "moa"], id=["a", "b"])
    assert "1 answer of 2" in found and "(id b)" in found and "does not stand in its context" in found


@pytest.mark.parametrize(
    "cell", [True, [["kea", 2]], [{"answer_start": 2}], {"text": ["kea"], "answer_start": []}]
)
def test_unreadable_cells(cell):
    found = message(["kea", cell])
    assert "1 cell of column 'answers' not readable" in found and "(row 2)" in found


def test_blank_questions_are_kept_and_noted():
    table = pd.DataFrame({"question": ["Who?", None], "context": [CONTEXT] * 2, "answers": ["kea", "kea"]})
    found = read_questions(table, COLUMNS)
    assert found.questions == ["Who?", ""] and "1 question of 2 blank (row 2)" in found.notes[0]
    assert "1 question of 2 blank" in read_questions(table, COLUMNS, need_answers=False).notes[0]


def test_blank_context():
    table = pd.DataFrame({"question": ["Who?"], "context": [" "], "answers": ["a"]})
    with pytest.raises(DataError, match="column 'context' missing or only white space"):
        read_questions(table, COLUMNS)


def test_check_accepts_what_is_right():
    check_answers([CONTEXT], [[(2, "kea"), (12, "kea")]], ["a"], "train")
