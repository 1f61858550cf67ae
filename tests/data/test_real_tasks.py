"""Reading and inferring on real data sets where they are at hand, with the published counts."""

from collections import Counter
from pathlib import Path

import pytest

from foretune.data import read_table
from foretune.data.infer import infer_task
from foretune.data.multilabel import label_lists
from foretune.data.questions import read_questions
from foretune.data.sequences import documents
from foretune.data.spans import normal_spans, overlap_rows
from foretune.data.tokens import check_tokens

SHARED = Path(__file__).parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are not on this machine")


@pytest.mark.parametrize(
    ("name", "task", "text", "second", "target"),
    [
        ("text/trec6/train.csv", "text-classification", "text", None, "label"),
        ("text/ag_news/test.csv", "text-classification", "text", None, "label"),
        ("text/amazon/dvd.csv", "text-classification", "text", None, "label"),
        ("text/chnsenticorp/dev.csv", "text-classification", "text", None, "label"),
        ("text/mrpc/test.csv", "text-pair", "text_a", "text_b", "label"),
        ("text/rte/dev.csv", "text-pair", "text_a", "text_b", "label"),
        ("text/afqmc/dev.csv.gz", "text-pair", "text_a", "text_b", "label"),
        ("text/stsb/dev.csv", "pair-regression", "text_a", "text_b", "score"),
        ("text/snips/dev.jsonl", "token-labelling", "tokens", None, "tags"),
        ("ner/cluener/dev.jsonl", "token-labelling", "text", None, "entities"),
        ("ner/conll2003/dev.conll", "token-labelling", "tokens", None, "tags"),
        ("pos/ewt/dev.conll", "token-labelling", "tokens", None, "tags"),
        ("qa/xquad_zh.json", "question-answering", "question", "context", "answers"),
        ("qa/squad_small/dev.json.gz", "question-answering", "question", "context", "answers"),
        ("seq2seq/scitldr/dev.jsonl", "summarisation", "text", None, "summary"),
        ("seq2seq/multi30k_en_de/dev.csv.gz", "translation", "source", None, "target"),
        ("seq2seq/tatoeba_zh_en/test.csv", "translation", "source", None, "target"),
        ("generation/tinyshakespeare.txt", "text-generation", "text", None, None),
    ],
)
def test_task_and_columns(name, task, text, second, target):
    found = infer_task(read_table(SHARED / name))
    columns = found.columns
    assert (found.task, columns.text, columns.second, columns.target) == (task, text, second, target)


def test_entities_of_conll():
    table = read_table(SHARED / "ner" / "conll2003" / "test.conll")
    check_tokens(table["tokens"].tolist(), table["tags"].tolist(), "test")
    assert len(table) == 3_453 and sum(map(len, table["tokens"])) == 46_435
    found = Counter(tag[2:] for tags in table["tags"] for tag in tags if tag.startswith("B-"))
    assert found == {"LOC": 1_668, "ORG": 1_661, "PER": 1_617, "MISC": 702}


def test_spans_of_cluener():
    table = read_table(SHARED / "ner" / "cluener" / "train.jsonl")
    spans = normal_spans(table["text"].tolist(), table["entities"].tolist())
    assert len(spans) == 10_748 and len({label for row in spans for _, _, label in row}) == 10
    assert len(overlap_rows(spans)) == 1


@pytest.mark.parametrize(
    ("name", "questions", "contexts"),
    [
        ("cmrc2018/train.json", 3_202, 838),
        ("squad_small/dev.json.gz", 1_500, 292),
        ("xquad_en.json", 1_190, 240),
    ],
)
def test_questions(name, questions, contexts):
    table = read_table(SHARED / "qa" / name)
    found = read_questions(table, infer_task(table).columns)
    assert len(found.questions) == questions and len(set(found.contexts)) == contexts
    assert all(found.answers)


def test_slots_and_intents_of_snips():
    table = read_table(SHARED / "text" / "snips" / "train.jsonl")
    slots = label_lists(table, infer_task(table, task="multi-label").columns)
    assert len(slots) == 13_084 and len({slot for row in slots for slot in row}) == 39
    assert infer_task(table, target="intent").task == "text-classification"


def test_a_running_text_comes_back_whole():
    path = SHARED / "generation" / "tinyshakespeare.txt"
    assert documents(read_table(path), "text") == [path.read_text()]
