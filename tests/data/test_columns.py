"""Guessing the text and the target column, and saying why."""

import pandas as pd
import pytest

from foretune.data import infer_columns
from foretune.errors import DataError

TEXTS = [f"this is sentence number {i} of the table" for i in range(30)]
LABELS = ["good", "bad", "so-so"] * 10


def message(table, **options):
    with pytest.raises(DataError) as caught:
        infer_columns(pd.DataFrame(table), **options)
    return str(caught.value)


def chosen(table, **options):
    columns = infer_columns(pd.DataFrame(table), **options)
    return columns.text, columns.target


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("text", "label"),
        ("Sentence", "CLASS"),
        ("review", "sentiment"),
        ("评论", "情感"),
        ("内容", "标签"),
        ("q", "y"),
    ],
)
def test_by_name(text, target):
    table = {"id": range(30), target: LABELS, text: TEXTS, "source": ["web", "app"] * 15}
    assert chosen(table) == (text, target)


def test_by_properties():
    assert chosen({"n": range(30), "c1": TEXTS, "c2": LABELS}) == ("c1", "c2")
    assert chosen({"c2": [0, 1] * 15, "c1": TEXTS}) == ("c1", "c2")


def test_chinese_texts_are_prose_without_white_space():
    table = {"a": [f"这家酒店的第{i}号房间很干净" for i in range(30)], "b": ["x1", "x2"] * 15}
    assert chosen(table) == ("a", "b")


def test_reason_is_a_sentence_that_keeps_names():
    columns = infer_columns(pd.DataFrame({"Text": TEXTS, "Label": LABELS}))
    assert columns.reason == "Text is column 'Text' (by its name); target is column 'Label' (by its name)."


def test_the_longest_of_several_texts_is_taken_and_said():
    table = pd.DataFrame({"title": TEXTS, "body": [t * 3 for t in TEXTS], "label": LABELS})
    columns = infer_columns(table)
    assert columns.text == "body"
    assert "'title' could be the text too" in columns.reason and "--text" in columns.reason


def test_several_targets_are_said():
    columns = infer_columns(pd.DataFrame({"text": TEXTS, "topic": LABELS, "label": LABELS}))
    assert columns.target == "label" and "'topic' could be the target too" in columns.reason


def test_explicit_columns_win():
    table = {"text": TEXTS, "label": LABELS, "note": TEXTS, "mood": LABELS}
    assert chosen(table, text="note", target="mood") == ("note", "mood")
    assert chosen(table, text="label", target="mood") == ("label", "mood")


@pytest.mark.parametrize("option", ["text", "target"])
def test_unknown_column(option):
    found = message({"text": TEXTS, "label": LABELS}, **{option: "labell"})
    assert "no column 'labell'" in found and "'label'?" in found and "Columns: text, label" in found
    assert f"--{option}" in found


def test_text_and_target_must_differ():
    assert "both column 'text'" in message({"text": TEXTS, "label": LABELS}, text="text", target="text")


@pytest.mark.parametrize("options", [{"target": "label"}, {}])
def test_identifier_as_target(options):
    ids = [f"r{i}" for i in range(800)]
    found = message({"text": [f"a b {i}" for i in range(800)], "label": ids}, **options)
    assert (
        "'label' looks like an identifier: 800 distinct values in 800 rows" in found and "--target" in found
    )


def test_a_lone_unnamed_identifier_is_called_so():
    assert "looks like an identifier" in message({"text": TEXTS, "nr": range(30)})


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize("name", ["label", "points"])
def test_regression_target(as_text, name):
    values = [i / 7 for i in range(30)]
    table = {"text": TEXTS, name: [str(v) for v in values] if as_text else values}
    found = message(table)
    assert f"'{name}' looks like regression" in found and "--task text-regression" in found


def test_whole_floats_and_few_halves_are_classes():
    assert chosen({"text": TEXTS, "label": [0.0, 1.0, float("nan")] * 10}) == ("text", "label")
    assert chosen({"text": TEXTS, "label": [0.5, 1.0, 1.5] * 10}) == ("text", "label")


def test_no_target_where_none_is_needed():
    assert chosen({"text": TEXTS}, need_target=False) == ("text", None)
    assert chosen({"text": TEXTS, "id": range(30)}, need_target=False) == ("text", None)
    assert chosen({"text": TEXTS, "label": range(30)}, need_target=False) == ("text", None)
    assert "no target" in infer_columns(pd.DataFrame({"text": TEXTS}), need_target=False).reason


def test_no_target_where_one_is_needed():
    found = message({"text": TEXTS})
    assert "cannot be told" in found and "--target" in found


def test_ambiguous_target_is_asked_for():
    found = message({"text": TEXTS, "a": LABELS, "b": ["x", "y"] * 15})
    assert "could be 'a', 'b'" in found and "--target" in found


def test_no_text():
    found = message({"a": range(30), "b": [1, 2] * 15})
    assert "No column looks like text" in found and "Columns: a, b" in found and "--text" in found


def test_lists_are_neither_text_nor_target():
    table = {"text": TEXTS, "tokens": [["a"]] * 30, "label": LABELS}
    assert chosen(table) == ("text", "label")


def test_missing_header_is_noticed():
    table = pd.DataFrame({"this film was great fun": TEXTS, "good": LABELS})
    with pytest.raises(DataError, match=r"no header line.*'good'"):
        infer_columns(table)


def test_a_column_named_after_a_class_is_fine_beside_a_known_name():
    assert chosen({"text": TEXTS, "spam": ["spam", "ham"] * 15}) == ("text", "spam")


def test_small_tables():
    assert chosen({"text": ["a b", "c d"], "label": ["x", "y"]}) == ("text", "label")
    assert chosen({"words": ["a b", "c d"], "kind": ["x", "y"]}) == ("words", "kind")


def test_long_repeated_values_are_no_classes():
    notices = ["this notice of many words stands below every other text of the table", "see above " * 10] * 15
    assert chosen({"text": [t * 5 for t in TEXTS], "notice": notices, "mood": LABELS}) == ("text", "mood")
