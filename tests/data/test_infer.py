"""Inferring the task of a table of texts and its columns."""

import pandas as pd
import pytest

from foretune.data.infer import TEXT_TASKS, infer_task
from foretune.errors import ConfigError, DataError

N = 30
TEXTS = [f"this is sentence number {i} of the table" for i in range(N)]
OTHERS = [f"and here another one, the {i}th of them" for i in range(N)]
LABELS = ["good", "bad", "so-so"] * 10
SCORES = [i / 7 for i in range(N)]
TOKENS = [["Ann", "met", str(i)] for i in range(N)]
TAGS = [["B-PER", "O", "O"], ["O", "O", "B-NUM"]] * 15
SPANS = [[{"start": 0, "end": 4, "label": "X"}], []] * 15
GENRES = ["a;b", "b;c", "c;a", "a", "b", "c"] * 5
BIO = pd.DataFrame({"tokens": TOKENS, "tags": TAGS, "intent": LABELS})


def infer(table, **options):
    found = infer_task(pd.DataFrame(table), **options)
    columns = found.columns
    return found.task, columns.text, columns.second, columns.targets or columns.target


def message(table, **options):
    with pytest.raises(DataError) as caught:
        infer_task(pd.DataFrame(table), **options)
    return str(caught.value)


CASES = [
    ({"text": TEXTS, "label": LABELS}, ("text-classification", "text", None, "label")),
    ({"text": TEXTS, "stars": [1, 2, 3, 4, 5] * 6}, ("text-classification", "text", None, "stars")),
    ({"title": OTHERS, "body": TEXTS, "label": LABELS}, ("text-classification", "body", None, "label")),
    ({"text": TEXTS, "summary": OTHERS, "label": LABELS}, ("text-classification", "text", None, "label")),
    ({"text": TEXTS, "label": LABELS, "entities": SPANS}, ("text-classification", "text", None, "label")),
    ({"text": TEXTS, "tokens": TOKENS, "label": LABELS}, ("text-classification", "text", None, "label")),
    (
        {"text": TEXTS, "label": LABELS, "source": ["web", "app"] * 15},
        ("text-classification", "text", None, "label"),
    ),
    (
        {"sentence1": TEXTS, "sentence2": OTHERS, "label": LABELS},
        ("text-pair", "sentence1", "sentence2", "label"),
    ),
    (
        {"question": TEXTS, "answer": OTHERS, "label": [0, 1] * 15},
        ("text-pair", "question", "answer", "label"),
    ),
    ({"c1": TEXTS, "c2": OTHERS, "c3": LABELS}, ("text-pair", "c1", "c2", "c3")),
    ({"s1": TEXTS, "s2": OTHERS, "score": SCORES}, ("pair-regression", "s1", "s2", "score")),
    ({"query": TEXTS, "document": OTHERS}, ("similarity", "query", "document", None)),
    ({"text": TEXTS, "label": SCORES}, ("text-regression", "text", None, "label")),
    ({"text": TEXTS, "points": [str(s) for s in SCORES]}, ("text-regression", "text", None, "points")),
    ({"text": TEXTS, "label": GENRES}, ("multi-label", "text", None, "label")),
    (
        {"plot": TEXTS, "genres": [g.replace(";", ", ") for g in GENRES]},
        ("multi-label", "plot", None, "genres"),
    ),
    ({"text": TEXTS, "tags": [["a"], ["a", "b"], []] * 10}, ("multi-label", "text", None, "tags")),
    ({"text": TEXTS, "labels": [[3], [3, 27], []] * 10}, ("multi-label", "text", None, "labels")),
    (
        {"text": TEXTS, "label": LABELS, "ids": [[3], [3, 7], [1]] * 10},
        ("text-classification", "text", None, "label"),
    ),
    ({"tokens": TOKENS, "labels": [[1, 0, 2]] * N}, ("token-labelling", "tokens", None, "labels")),
    (
        {"id": range(N), "text": TEXTS, "a": [0, 1] * 15, "b": ["1", "0"] * 15},
        ("multi-label", "text", None, ("a", "b")),
    ),
    ({"tokens": TOKENS, "tags": TAGS}, ("token-labelling", "tokens", None, "tags")),
    (BIO, ("token-labelling", "tokens", None, "tags")),
    ({"text": TEXTS, "label": SPANS}, ("token-labelling", "text", None, "label")),
    (
        {"question": OTHERS, "context": TEXTS, "answers": [{"text": ["this"], "answer_start": [0]}] * N},
        ("question-answering", "question", "context", "answers"),
    ),
    (
        {"context": TEXTS, "question": OTHERS, "answer": ["sentence", "number", "table"] * 10},
        ("question-answering", "question", "context", "answer"),
    ),
    ({"source": TEXTS, "target": OTHERS}, ("translation", "source", None, "target")),
    ({"document": [t * 9 for t in TEXTS], "summary": OTHERS}, ("summarisation", "document", None, "summary")),
    (
        {"instruction": TEXTS, "input": OTHERS, "output": OTHERS},
        ("text-generation", "instruction", "input", "output"),
    ),
]


@pytest.mark.parametrize(("table", "expected"), CASES)
def test_guessed(table, expected):
    assert infer(table) == expected


@pytest.mark.parametrize(("table", "expected"), CASES)
def test_told_the_same_task_the_columns_are_the_same(table, expected):
    assert infer(table, task=expected[0]) == expected


@pytest.mark.parametrize(("table", "expected"), CASES)
def test_the_reason_names_the_columns_and_what_changes_them(table, expected):
    found = infer_task(pd.DataFrame(table))
    assert found.reason == found.columns.reason and found.reason.endswith(".")
    assert repr(expected[1]) in found.reason
    if found.task != "text-classification":
        assert found.task in found.reason and "--task chooses another" in found.reason


@pytest.mark.parametrize(
    ("table", "options", "expected"),
    [
        (BIO, {"target": "intent"}, ("text-classification", "tokens", None, "intent")),
        (BIO, {"task": "text-classification"}, ("text-classification", "tokens", None, "intent")),
        (BIO, {"task": "multi-label"}, ("multi-label", "tokens", None, "tags")),
        (BIO, {"task": "multi-label", "target": "tags"}, ("multi-label", "tokens", None, "tags")),
        (
            {"text": TEXTS, "stars": [1, 2, 3] * 10},
            {"task": "text-regression"},
            ("text-regression", "text", None, "stars"),
        ),
        (
            {"text": TEXTS, "label": GENRES},
            {"task": "text-classification"},
            ("text-classification", "text", None, "label"),
        ),
        (
            {"title": TEXTS, "body": OTHERS, "label": LABELS},
            {"text": "title", "second": "body"},
            ("text-pair", "title", "body", "label"),
        ),
        (
            {"text_a": TEXTS, "text_b": OTHERS, "label": LABELS},
            {"text": "text_b"},
            ("text-classification", "text_b", None, "label"),
        ),
        (
            {"s1": TEXTS, "s2": OTHERS, "label": [0, 1] * 15},
            {"task": "similarity"},
            ("similarity", "s1", "s2", "label"),
        ),
        ({"s1": TEXTS, "s2": OTHERS}, {"task": "similarity"}, ("similarity", "s1", "s2", None)),
        (
            {"s1": TEXTS, "s2": OTHERS},
            {"task": "text-pair", "need_target": False},
            ("text-pair", "s1", "s2", None),
        ),
        (
            {"text": TEXTS, "a": [0, 1] * 15, "b": [1, 0] * 15, "c": [1, 0] * 15},
            {"target": "a, c"},
            ("multi-label", "text", None, ("a", "c")),
        ),
        ({"text": TEXTS, "a,b": LABELS}, {"target": "a,b"}, ("text-classification", "text", None, "a,b")),
        (
            {"question": TEXTS, "answer": OTHERS},
            {"task": "text-generation"},
            ("text-generation", "question", None, "answer"),
        ),
        (
            {"text": TEXTS, "kind": LABELS},
            {"task": "text-generation"},
            ("text-generation", "text", None, None),
        ),
        (
            {"x": TEXTS, "y": OTHERS},
            {"task": "translation", "text": "x", "target": "y"},
            ("translation", "x", None, "y"),
        ),
        ({"text": TEXTS}, {"need_target": False}, ("text-classification", "text", None, None)),
        (
            {"tokens": TOKENS},
            {"task": "token-labelling", "need_target": False},
            ("token-labelling", "tokens", None, None),
        ),
        (
            {"question": TEXTS, "context": OTHERS},
            {"task": "question-answering", "need_target": False},
            ("question-answering", "question", "context", None),
        ),
        (
            {"source": TEXTS},
            {"task": "translation", "need_target": False},
            ("translation", "source", None, None),
        ),
    ],
)
def test_told(table, options, expected):
    assert infer(table, **options) == expected


def test_tokens_that_are_read_as_texts_are_said():
    for options in ({"target": "intent"}, {"task": "multi-label"}):
        assert "'tokens' (its tokens are read as one text)" in infer_task(BIO, **options).reason
    assert "'tokens' (as given)" in infer_task(BIO, text="tokens", target="intent").reason


def test_plain_text_and_conll_files_by_their_format():
    table = pd.DataFrame({"text": TEXTS})
    table.attrs["format"] = "txt"
    assert infer_task(table).task == "text-generation"
    assert infer_task(table, need_target=False).task == "text-classification"
    table = pd.DataFrame({"tokens": TOKENS, "column_2": TAGS, "tags": TAGS})
    table.attrs.update(format="conll", names={"1": "tokens", "2": "column_2", "upos": "tags"})
    assert infer_task(table, target="2").columns.target == "column_2"
    assert infer_task(table, target="upos").columns.target == "tags"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"task": "text-pair"}, "expected two columns of texts"),
        ({"task": "text-regression"}, "expected one column of numbers"),
        ({"task": "token-labelling"}, "expected a column of token lists"),
        ({"task": "question-answering"}, "expected columns question, context and answers"),
        ({"task": "summarisation"}, "expected a column of texts and one of their summaries"),
        ({"task": "text-generation", "target": "label"}, "expected a column of prompts"),
        ({"text": "txt"}, "no column 'txt'. Did you mean 'text'?"),
        ({"target": "label,lable"}, "no column 'lable'. Did you mean 'label'?"),
        ({"text": "text", "target": "text"}, "Text and target are both column 'text'"),
        ({"task": "text-classification", "target": "label,id"}, "which is for --task multi-label"),
    ],
)
def test_what_does_not_fit_says_what_was_expected(options, expected):
    assert expected in message({"id": [f"r{i}" for i in range(N)], "text": TEXTS, "label": LABELS}, **options)


def test_fractions_are_no_classes_and_the_message_says_what_to_do():
    assert "--task text-regression" in message({"text": TEXTS, "label": SCORES}, task="text-classification")


def test_ambiguous_and_missing_targets_are_asked_for_as_before():
    assert "cannot be told" in message({"text": TEXTS})
    assert "could be 'a', 'b'" in message({"text": TEXTS, "a": LABELS, "b": ["x", "y"] * 15})


def test_options_that_do_not_go_together():
    table = pd.DataFrame({"text": TEXTS, "label": LABELS, "note": OTHERS})
    with pytest.raises(ConfigError, match=r"'text-pairs'.*Did you mean 'text-pair'"):
        infer_task(table, task="text-pairs")
    with pytest.raises(ConfigError, match="--second is for text-pair"):
        infer_task(table, task="text-classification", second="note")


def test_every_task_is_guessed_somewhere():
    assert {expected[0] for _, expected in CASES} == set(TEXT_TASKS)
