"""Texts to be written: their columns, and running texts."""

import pandas as pd
import pytest

from foretune.data import read_table
from foretune.data.sequences import documents, prompt_columns, seq2seq_columns
from foretune.data.sheet import Sheet
from foretune.errors import DataError

LONG = [f"a document of a good many words that goes on and on, number {i}" for i in range(30)]
SHORT = [f"short text {i}" for i in range(30)]
CHINESE = [f"第{i}句话很短" for i in range(30)]


def found(table, **given):
    result = seq2seq_columns(Sheet(pd.DataFrame(table)), **given)
    return None if result is None else result[:3]


@pytest.mark.parametrize(
    ("source", "target", "texts", "task"),
    [
        ("document", "summary", SHORT, "summarisation"),
        ("Article", "Highlights", SHORT, "summarisation"),
        ("text", "summary", LONG, "summarisation"),
        ("en", "de", LONG, "translation"),
        ("原文", "译文", CHINESE, "translation"),
        ("source", "target", SHORT, "summarisation"),
        ("source", "target", CHINESE, "translation"),
        ("src", "tgt", LONG, "translation"),
    ],
)
def test_by_names(source, target, texts, task):
    assert found({"nr": range(30), source: LONG, target: texts}) == (source, target, task)


def test_languages_in_the_order_told():
    table = {"en": LONG, "de": LONG}
    assert found(table) == ("en", "de", "translation")
    assert found(table, target="en") == ("de", "en", "translation")
    assert found(table, text="de") == ("de", "en", "translation")


@pytest.mark.parametrize(
    "table",
    [
        {"source": ["web", "app"] * 15, "target": SHORT},
        {"source": LONG, "target": ["good one", "bad one"] * 15},
        {"source": LONG, "target": range(30)},
        {"text": LONG, "note": SHORT},
        {"en": LONG},
        {"en": LONG, "id": range(30)},
    ],
)
def test_no_sequences(table):
    assert found(table) is None


def test_as_told():
    table = {"x": LONG, "y": SHORT}
    assert found(table, text="x", target="y") is None
    assert found(table, text="x", target="y", task="summarisation") == ("x", "y", "summarisation")
    assert found({"source": LONG, "target": SHORT}, task="translation")[2] == "translation"


def prompts(table, *given, **options):
    result = prompt_columns(Sheet(pd.DataFrame(table)), *given, **options)
    return None if result is None else (result.source, result.target, result.second)


def test_prompts():
    assert prompts({"prompt": LONG, "completion": SHORT}) == ("prompt", "completion", None)
    table = {"instruction": LONG, "input": ["", "more of it"] * 15, "output": SHORT}
    assert prompts(table) == ("instruction", "output", "input")
    assert prompts({"prompt": LONG, "response": SHORT, "extra": LONG}, None, None, "extra")[2] == "extra"


def test_questions_are_prompts_only_when_told():
    table = {"question": LONG, "answer": SHORT}
    assert prompts(table) is None and prompts(table, told=True) == ("question", "answer", None)
    assert prompts({"x": LONG, "y": SHORT}, "x", "y", told=True) == ("x", "y", None)


def test_a_plain_file_is_one_document(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\n  two\r\nthree\n\n")
    assert documents(read_table(tmp_path / "a.txt"), "text") == ["one\n\n  two\nthree\n"]


def test_rows_are_documents_and_may_not_be_blank():
    assert documents(pd.DataFrame({"text": ["a", "b\nc"]}), "text") == ["a", "b\nc"]
    with pytest.raises(DataError, match=r"dev: 1 text of 2 .*\(row 2\)"):
        documents(pd.DataFrame({"text": ["a", " "]}), "text", "dev")
