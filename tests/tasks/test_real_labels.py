"""Tagged sentences and questions of real sets where they are at hand: counts, and published baselines."""

from pathlib import Path

import pytest

from foretune.data.columns import Columns
from foretune.data.read import read_table
from foretune.data.tagged import read_tagged, tagged_warnings
from foretune.recipe import Recipe
from foretune.tasks.answer_baselines import baselines as answer_baselines
from foretune.tasks.question_answering import QuestionAnswering
from foretune.tasks.token_labelling import TokenLabelling

SHARED = Path(__file__).parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are not on this machine")
WORDS, SPANS = Columns("tokens", "tags", ""), Columns("text", "entities", "")


def parts(folder, suffix, columns, names=("train", "test")):
    tables = [read_table(SHARED / folder / f"{name}.{suffix}") for name in names]
    task = TokenLabelling.from_table(tables[0], columns, Recipe())
    return task, [task.examples(table, where=name) for table, name in zip(tables, names, strict=True)]


@pytest.mark.slow
def test_the_published_baseline_of_conll_2003():
    """Tjong Kim Sang and De Meulder (2003, table 5): 71.91, 50.90, 59.61 on the English test set."""
    task, (train, test) = parts("ner/conll2003", "conll", WORDS)
    assert task.labels == ("LOC", "MISC", "ORG", "PER")
    found = task.baselines(train, test, 0)["seen_entities"]
    shares = [100 * found[name]["value"] for name in ("precision", "recall", "f1")]
    assert shares == pytest.approx([71.91, 50.90, 59.61], abs=0.1)


@pytest.mark.slow
def test_tags_of_ewt():
    task, (train, test) = parts("pos/ewt", "conll", WORDS)
    assert len(task.labels) == 17 and task.default_metric == "accuracy"
    found = task.baselines(train, test, 0)
    assert (
        0.8 < found["word_tag"]["accuracy"]["value"] < 0.92 and found["majority"]["accuracy"]["value"] < 0.2
    )


def test_spans_of_cluener():
    task, (_, dev) = parts("ner/cluener", "jsonl", SPANS, ("train", "dev"))
    assert len(task.labels) == 10 and sum(map(len, dev.targets)) > 3000
    table = read_table(SHARED / "ner/cluener/train.jsonl")
    warnings = tagged_warnings(read_tagged(table, SPANS, where="train"), "train")
    assert sum("with spans that share characters" in text for text in warnings) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("name", "rows"), [("qa/xquad_en.json", 1190), ("qa/xquad_zh.json", 1190)])
def test_questions_and_their_baseline(name, rows):
    columns = Columns("question", "answers", "", second="context")
    table = read_table(SHARED / name)
    task = QuestionAnswering.from_table(table, columns, Recipe())
    examples = task.examples(table, where="data")
    assert len(examples) == rows and not task.impossible and len(set(task.groups(examples))) == 240
    found = answer_baselines(examples, examples.take(examples.rows[::5] - 1), 0)
    assert 0.05 < found["sliding_window"]["f1"]["value"] < 0.4
