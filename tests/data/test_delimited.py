"""csv and tsv: exact text, and errors that name lines."""

import csv
import io
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretune.data.delimited import check_separator, parse_delimited
from foretune.data.read import read_table
from foretune.errors import ConfigError, DataError

CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)


def parse(text, separator=None, default=","):
    return parse_delimited(text, "a.csv", separator, default)


def message(text, **options):
    with pytest.raises(DataError) as caught:
        parse(text, **options)
    return str(caught.value)


def test_words_that_mean_missing_elsewhere_stay_words():
    words = ["NA", "null", "None", "nan", "N/A", "NaN", "TRUE", "01", "1.0", " x ", "-"]
    table = parse("text,label\n" + "".join(f"{word},{word}\n" for word in words))
    assert table["text"].tolist() == words == table["label"].tolist()


def test_only_empty_cells_are_missing():
    table = parse('text,label\n,a\nb,""\n')
    assert table["text"].isna().tolist() == [True, False]
    assert table["label"].isna().tolist() == [False, True]


def test_quoted_line_breaks_quotes_and_separators():
    table = parse('text,label\n"a\nb, ""c""",x\r\nd,y')
    assert table["text"].tolist() == ['a\nb, "c"', "d"]


def test_blank_lines_are_left_out():
    assert len(parse("\ntext,label\n\na,b\n\n\n")) == 1


def test_cells_longer_than_the_csv_modules_limit():
    limit = csv.field_size_limit()
    assert len(parse("text,label\n" + "a" * 200_000 + ",b\n")["text"][0]) == 200_000
    assert csv.field_size_limit() == limit


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8), st.sampled_from([",", "\t", ";"]))
def test_whatever_is_written_is_read(rows, separator):
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=separator, quoting=csv.QUOTE_ALL).writerows([("text", "label"), *rows])
    table = parse(stream.getvalue(), separator)
    assert list(zip(table["text"], table["label"], strict=True)) == rows


def test_ragged_rows_are_named_by_line():
    found = message('text,label\n"a\nb",x\nc\nd,x,y\n' + "e\n" * 5)
    assert "7 rows" in found and "the header's 2 cells" in found
    assert "line 4 (1 cell), line 5 (3 cells), line 6 (1 cell)" in found
    assert "and 2 more" in found and "comma" in found


def test_unclosed_quote_names_the_line_where_its_row_begins():
    found = message('text,label\na,x\n\n"b,x\nc,x\nd,y\n')
    assert "begins in line 4" in found and "never closed" in found


def test_unclosed_quote_in_the_header():
    assert "begins in line 1" in message('"text,label\na,x\n')


def test_faulty_quotes_are_refused_rather_than_dropped():
    found = message('text,label\na,x\n"b" said c,x\n')
    assert "line 3" in found and "faulty quotes" in found


def test_tsv_without_quoting_is_read_as_written():
    table = parse('text\tlabel\n"Yes" he said\tx\n"open\ty\n', default="\t")
    assert table["text"].tolist() == ['"Yes" he said', '"open']


def test_tsv_with_quoting_is_unquoted():
    assert parse('text\tlabel\n"a\tb"\tx\n', default="\t")["text"].tolist() == ["a\tb"]


@pytest.mark.parametrize(
    ("text", "default", "fix"),
    [
        ("text\tlabel\na, b\tc\n", ",", "rename it to .tsv or pass --separator tab"),
        ("text;label\na, b;c\n", ",", "pass --separator ';'"),
        ("text|label\na|c\n", ",", "pass --separator '|'"),
        ("text,label\na,c\n", "\t", "rename it to .csv"),
    ],
)
def test_wrong_separator_comes_with_the_fix(text, default, fix):
    assert fix in message(text, default=default)


def test_the_fix_works(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text;label\na, b;c\n")
    assert read_table(path, separator=";")["text"].tolist() == ["a, b"]
    path.write_text("text\tlabel\na, b\tc\n")
    assert read_table(path, separator="tab")["label"].tolist() == ["c"]


def test_an_explicit_separator_is_taken_at_its_word():
    assert list(parse("a;b\nx\n", separator=",").columns) == ["a;b"]


def test_duplicate_columns():
    found = message("text,label,text\na,b,c\n")
    assert "'text' (columns 1, 3)" in found and "Rename" in found


def test_header_only():
    found = message("text,label\n")
    assert "header (text, label) but no rows" in found


def test_nameless_and_padded_columns():
    assert list(parse(",text, label\n0,a,b\n").columns) == ["column_1", "text", "label"]


@pytest.mark.parametrize(("given", "meant"), [("\\t", "\t"), ("tab", "\t"), (";", ";"), (None, None)])
def test_separator_spellings(given, meant):
    assert check_separator(given) == meant


@pytest.mark.parametrize("wrong", ["", ";;", '"', "\n"])
def test_wrong_separators(wrong):
    with pytest.raises(ConfigError, match="expected one character"):
        check_separator(wrong)


def test_speed():
    text = "text,label\n" + "".join(f"a phrase of some {i} words,positive\n" for i in range(67_000))
    start = time.perf_counter()
    assert len(parse(text)) == 67_000
    assert time.perf_counter() - start < 2
