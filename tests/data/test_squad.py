"""SQuAD files: rows, answers at their offsets, and the places of what is missing."""

import copy
import gzip
import json

import pytest

from foretune.data import read_table
from foretune.data.squad import is_squad, parse_squad
from foretune.errors import DataError

CONTEXT = "Kea is a parrot. It lives in the Alps."
FILE = {
    "version": "v2.0",
    "data": [
        {
            "title": "Kea",
            "paragraphs": [
                {
                    "context": CONTEXT,
                    "qas": [
                        {
                            "id": "k1",
                            "question": "What?",
                            "answers": [{"text": "a parrot", "answer_start": 7}],
                        },
                        {
                            "id": "k2",
                            "question": "Who?",
                            "is_impossible": True,
                            "answers": [],
                            "plausible_answers": [{"text": "Kea", "answer_start": 0}],
                        },
                    ],
                }
            ],
        }
    ],
}


def changed(**question):
    value = copy.deepcopy(FILE)
    value["data"][0]["paragraphs"][0]["qas"][0].update(question)
    return value


def message(value):
    with pytest.raises(DataError) as caught:
        parse_squad(value, "a.json")
    return str(caught.value)


def test_rows():
    table = parse_squad(FILE, "a.json")
    assert list(table.columns) == ["context", "question", "answers", "id", "impossible"]
    assert table["answers"].tolist() == [[(7, "a parrot")], []]
    assert table["impossible"].tolist() == [False, True] and table["id"].tolist() == ["k1", "k2"]
    assert table["context"].tolist() == [CONTEXT, CONTEXT] and table.attrs["format"] == "squad"


@pytest.mark.parametrize("name", ["a.json", "a.json.gz", "a"])
@pytest.mark.parametrize("indent", [None, 1])
def test_read_from_a_file(tmp_path, name, indent):
    data = json.dumps(FILE, indent=indent).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    table = read_table(tmp_path / name)
    assert table["question"].tolist() == ["What?", "Who?"] and table.attrs["format"] == "squad"


def test_questions_without_answers_are_not_impossible():
    value = changed()
    del value["data"][0]["paragraphs"][0]["qas"][0]["answers"]
    table = parse_squad(value, "a")
    assert table["answers"].tolist() == [None, []] and table["impossible"].tolist() == [False, True]


def test_misplaced_answers_name_ids_and_the_right_place():
    found = message(changed(answers=[{"text": "a parrot", "answer_start": 9}]))
    assert "1 answer of 1 not at the offset" in found and "(id k1)" in found
    assert "exactly once elsewhere (that of k1 at 7)" in found


@pytest.mark.parametrize(("text", "start"), [("a penguin", 7), ("", 3), ("Kea", -1)])
def test_impossible_answers(text, start):
    assert "(id k1)" in message(changed(answers=[{"text": text, "answer_start": start}]))


def test_what_is_missing_is_placed():
    assert "data[0].paragraphs[0].qas[0]: 'question' is missing" in message(changed(question=None))
    assert "answers[0]: 'answer_start' is '7'" in message(
        changed(answers=[{"text": "a", "answer_start": "7"}])
    )
    value = changed()
    del value["data"][0]["paragraphs"][0]["context"]
    assert "a.json: data[0].paragraphs[0]: 'context' is missing" in message(value)


def test_no_question():
    assert "no question" in message({"data": [{"paragraphs": []}]})


@pytest.mark.parametrize(
    ("value", "expected"),
    [(FILE, True), ({"data": []}, False), ({"data": [{"text": "a"}]}, False), ([], False)],
)
def test_recognised(value, expected):
    assert is_squad(value) is expected
