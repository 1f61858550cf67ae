"""JSON Lines, JSON and plain lines."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretune.data.records import from_records, parse_json, parse_jsonl, parse_lines
from foretune.errors import DataError


def message(parse, text):
    with pytest.raises(DataError) as caught:
        parse(text, "a.jsonl")
    return str(caught.value)


def test_types_are_kept():
    table = parse_jsonl('{"text": "NA", "label": 1}\n\n{"text": " b ", "label": 0}\r\n', "a")
    assert table["text"].tolist() == ["NA", " b "]
    assert table["label"].tolist() == [1, 0] and table["label"].dtype == "int64"


def test_lines_may_end_in_carriage_returns_alone():
    assert parse_jsonl('{"text": "a"}\r{"text": "b"}\r', "a")["text"].tolist() == ["a", "b"]


def test_null_and_absent_keys_are_missing():
    table = parse_jsonl('{"text": "a", "label": "x"}\n{"text": null}\n', "a")
    assert table.isna().to_numpy().tolist() == [[False, False], [True, True]]


def test_whole_numbers_beside_a_gap_stay_whole():
    table = parse_jsonl(
        '{"id": 9007199254740993, "score": 1}\n{"id": null, "score": 0.5}\n{"score": null}\n', "a"
    )
    assert table["id"].tolist() == [9007199254740993, None, None]
    assert table["score"].tolist()[:2] == [1.0, 0.5] and table["score"].isna().tolist() == [
        False,
        False,
        True,
    ]


def test_line_separators_of_unicode_do_not_end_a_line():
    text = "a\u2028b\u0085c"
    assert parse_jsonl(json.dumps({"text": text}, ensure_ascii=False), "a")["text"].tolist() == [text]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=20), min_size=1, max_size=8), st.booleans())
def test_whatever_is_written_is_read(texts, ascii_only):
    lines = "".join(json.dumps({"text": text}, ensure_ascii=ascii_only) + "\n" for text in texts)
    assert parse_jsonl(lines, "a")["text"].tolist() == texts


def test_truncated_last_line():
    found = message(parse_jsonl, '{"text": "a"}\n{"text": "it broke off he')
    assert "line 2 is truncated" in found and "it broke off he" in found


def test_invalid_line_in_the_middle():
    found = message(parse_jsonl, "{\"text\": \"a\"}\n{'text': 'b'}\n{}\n{]\n")
    assert "line 2 is not valid JSON" in found and "{'text'" in found
    assert "2 faulty lines: 2, 4" in found and "correct or remove" in found


def test_a_long_line_is_shown_only_in_part():
    assert len(message(parse_jsonl, '{"text": ' + "x" * 10_000 + "}\n")) < 400


@pytest.mark.parametrize(
    ("line", "kind"), [("[1]", "array"), ('"a"', "string"), ("3", "number"), ("null", "null")]
)
def test_lines_that_are_no_objects(line, kind):
    found = message(parse_jsonl, '{"text": "a"}\n' + line + "\n")
    assert "line 2 holds a JSON " + kind in found


def test_half_surrogates_are_refused_and_whole_ones_read():
    assert parse_jsonl('{"text": "\\ud83d\\ude00"}', "a")["text"].tolist() == ["😀"]
    assert "line 1 holds half of a surrogate" in message(parse_jsonl, '{"text": "\\ud83d"}')


def test_json_array():
    assert parse_json('[{"text": "a", "label": true}]', "a")["label"].tolist() == [True]


def test_json_lines_under_a_json_name():
    assert len(parse_json('{"text": "a"}\n{"text": "b"}\n', "a")) == 2


def test_one_object_is_no_table():
    assert "one JSON object with the keys data, expected an array" in message(parse_json, '{"data": []}')


def test_broken_array_names_the_line():
    found = message(parse_json, '[\n{"text": "a"},\n{"text": }\n]')
    assert "not valid JSON, line 3" in found


def test_deeply_nested_json_is_an_error_not_a_crash():
    assert "not valid JSON" in message(parse_json, "[" * 200_000)


def test_items_that_are_no_objects():
    found = message(parse_json, '[{"text": "a"}, "b", 3]')
    assert "2 items of 3 (item 2, 3)" in found and "str" in found


@pytest.mark.parametrize(("parse", "text"), [(parse_json, "[]"), (parse_jsonl, "\n")])
def test_no_rows(parse, text):
    assert "no rows" in message(parse, text)


def test_records_of_a_list():
    assert from_records([{"text": "a"}, {"label": "b"}], "list").shape == (2, 2)


def test_lines_keep_their_numbers():
    table = parse_lines("a \r\n\nNA\n\n\n", "a")
    assert table["text"].isna().tolist() == [False, True, False]
    assert table["text"].tolist()[0] == "a " and table["text"].tolist()[2] == "NA"
