"""Question answering from a SQuAD file to a model: learnt, scored, saved, resumed, asked; no answers; Chinese."""

import json
import random

import numpy as np
import pytest
from typer.testing import CliRunner

import foretune
from foretune.cli import app
from foretune.data.columns import Columns
from foretune.errors import ConfigError, DataError, Interrupted
from foretune.recipe import Recipe
from foretune.tasks.answer_baselines import baselines, slide
from foretune.tasks.answer_report import answers_section, excerpt
from foretune.tasks.question_answering import AnsweringOptions, QuestionAnswering

MOODS = ["good", "great", "awful", "bad"]
FILLERS = ["the", "a", "is", "was", "very", "not", "and", "but", "it", "we", "they", "here", "there"]


def questions(number, seed=0, unanswered=0.0, longest=14):
    """Rows whose answer is the one mood in the text, of one or two words."""
    draw, rows = random.Random(seed), []
    for place in range(number):
        words = draw.choices(FILLERS, k=draw.randint(3, longest))
        mood = " ".join(draw.choices(MOODS, k=draw.randint(1, 2)))
        answers = []
        if draw.random() >= unanswered:
            words.insert(draw.randrange(len(words)), mood)
            text = " ".join(words)
            answers = [{"text": mood, "answer_start": f" {text} ".index(f" {mood} ")}]
        rows.append({"id": f"q{place}", "question": "room ?", "context": " ".join(words), "answers": answers})
    return rows


def squad(path, rows):
    paragraphs = [
        {"context": row["context"], "qas": [{key: row[key] for key in ("id", "question", "answers")}]}
        for row in rows
    ]
    path.write_text(json.dumps({"data": [{"title": "t", "paragraphs": paragraphs}]}))
    return path


@pytest.fixture(scope="module")
def options(tiny):
    """The options of a short run; the machine's peak and the count of operations are not measured."""
    from foretune.training import loop, machine
    from foretune.training.flops import FlopModel

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "gemm_peak", lambda *args, **options: 1e9)
        patch.setattr(loop, "fit_flops", lambda *args: FlopModel(1.0, 0.0, 0.0))
        yield {
            "backbone": tiny, "device": "cpu", "precision": "fp32", "offline": True, "epochs": 6.0, "lr": 5e-3,
            "batch_tokens": 256, "seed": 3, "dev_fraction": 0.15, "test_fraction": 0.15,
        }  # fmt: skip


@pytest.fixture(scope="module")
def model(options, tmp_path_factory):
    folder = tmp_path_factory.mktemp("answering")
    return foretune.fit(squad(folder / "train.json", questions(250)), output=folder / "run", **options)


def test_the_task_is_inferred_learnt_and_measured(model):
    record = json.loads((model.path / "foretune.json").read_text())
    assert record["task"]["name"] == "question-answering" and not record["task"]["impossible"]
    scores = record["metrics"]["test"]
    assert set(scores) == {"exact_match", "f1"} and scores["f1"]["low"] > 0.7
    assert (
        set(record["baselines"]) == {"sliding_window"}
        and scores["f1"]["low"] > (record["baselines"]["sliding_window"]["f1"]["value"])
    )
    assert "model.predict([(" in (model.path / "README.md").read_text()


def test_answers_stand_at_their_characters(model):
    rows = questions(20, seed=5)
    found = list(model.predictions([(row["question"], row["context"]) for row in rows]))
    right = 0
    for row, one in zip(rows, found, strict=True):
        assert row["context"][one["start"] : one["end"]] == one["answer"] and 0 < one["score"] <= 1
        right += one["answer"] == row["answers"][0]["text"]
    assert right >= 14
    one = {"question": rows[0]["question"], "context": rows[0]["context"]}
    assert model.predict(one) == model.predict((one["question"], one["context"])) == [found[0]["answer"]]
    assert model.predict([one]) == [found[0]["answer"]]
    assert model.predict(each for each in [one]) == [found[0]["answer"]]


def test_plain_transformers_finds_the_same(model):
    import torch
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    question, text = "room ?", "they was here and the great but not there"
    own = AutoTokenizer.from_pretrained(model.path)
    batch = own(question, text, return_tensors="pt")
    with torch.no_grad():
        output = AutoModelForQuestionAnswering.from_pretrained(model.path).eval()(**batch)
    first, last = int(output.start_logits.argmax()), int(output.end_logits.argmax())
    found = own.decode(batch["input_ids"][0][first : last + 1])
    assert [found] == model.predict((question, text)) == ["great"]
    outputs, _ = model.outputs(model.task.from_inputs((question, text)))
    np.testing.assert_allclose(outputs[0][:, 0], output.start_logits[0], atol=1e-5)


def test_long_texts_are_read_in_windows(model):
    words = " ".join(random.Random(0).choices(FILLERS, k=150))
    text = f"{words} great {words}"
    encoded = model.encode(model.task.from_inputs((("room ?"), text)))
    assert len(encoded.store) > 4 and set(encoded.owner) == {0}
    (found,) = model.predictions(("room ?", text))
    assert (found["answer"], found["start"]) == ("great", len(words) + 1)


def test_questions_without_an_answer(options, tmp_path):
    rows = questions(180, seed=3, unanswered=0.4)
    model = foretune.fit(rows, output=tmp_path / "run", **options)
    record = json.loads((tmp_path / "run" / "foretune.json").read_text())
    details = record["details"]["test"]
    assert details["no_answer"]["exact_match"]["value"] > 0.7 and details["has_answer"]["f1"]["value"] > 0.7
    assert set(record["baselines"]) == {"sliding_window", "no_answer"}
    assert record["task"]["impossible"] and record["task"]["threshold"] == model.task.threshold != 0
    notes = " ".join(record["data"]["sentences"])
    assert "No answer is given where it scores" in notes
    again = foretune.load(tmp_path / "run")
    found = next(again.predictions(("room ?", "the a is was very")))
    assert found == {"answer": "", "score": pytest.approx(found["score"]), "start": None, "end": None}
    assert again.predict(("room ?", "the a great was very")) == ["great"]


@pytest.mark.parametrize("strategy", ["linear-probe", "top-layers"])
def test_cached_or_not_frozen_layers_give_the_same(options, tmp_path, strategy):
    rows = questions(50, seed=2)
    own = {"layers": 1} if strategy == "top-layers" else {}
    given = options | {"strategy": strategy, "epochs": 2.0, "lr": 1e-3, "options": {**own, "stride": 4}}
    found = []
    for cache in ("fp32", "off"):
        model = foretune.fit(rows, output=tmp_path / cache, cache=cache, **given)
        examples = model.task.from_inputs([(row["question"], row["context"]) for row in rows])
        found.append(np.concatenate(model.outputs(examples.take(np.arange(10)))[0]))
    np.testing.assert_allclose(found[0], found[1], atol=1e-3)


def test_a_stopped_run_goes_on_to_the_same_end(options, tmp_path):
    class Stop:
        def on(self, kind, values):
            if kind == "step" and values["step"] == 4:
                raise KeyboardInterrupt

        def close(self):
            pass

    rows = questions(50, seed=2, unanswered=0.3)
    given = options | {
        "epochs": 2.0,
        "dropout": 0.1,
        "checkpoint_seconds": 0.0,
        "batch_tokens": 80,
        "micro_tokens": 50,
    }
    foretune.fit(rows, output=tmp_path / "whole", **given)
    with pytest.raises((KeyboardInterrupt, Interrupted)):
        foretune.fit(rows, output=tmp_path / "run", listeners=[Stop()], **given)
    foretune.fit(rows, output=tmp_path / "run", resume=True, **given)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "run")]
    assert weights[0] == weights[1]


def test_the_command_line(model, tmp_path):
    rows, run = questions(12, seed=9), CliRunner()
    data = squad(tmp_path / "test.json", rows)
    ran = run.invoke(app, ["evaluate", str(model.path), str(data), "--json"])
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)["metrics"]["f1"]["value"] > 0.6
    asked = tmp_path / "asked.jsonl"
    asked.write_text(
        "".join(json.dumps({key: row[key] for key in ("question", "context")}) + "\n" for row in rows)
    )
    for source in (data, asked):
        output = tmp_path / f"{source.stem}-found.jsonl"
        ran = run.invoke(app, ["predict", str(model.path), str(source), "--output", str(output), "--quiet"])
        assert ran.exit_code == 0, ran.output
        lines = [json.loads(line) for line in output.read_text().splitlines()]
        assert len(lines) == 12 and set(lines[0]) == {"row", "answer", "score", "start", "end"}


def test_questions_on_one_text_stay_on_one_side_but_are_told_apart(options):
    task = QuestionAnswering.from_state(
        {
            "columns": {"text": "q", "second": "c"},
            "stride": 8,
            "longest": 5,
            "impossible": True,
            "threshold": 1.5,
        }
    )
    examples = task.from_inputs([("a ?", "one text"), ("b ?", "one text")])
    assert task.groups(examples) == ["one text"] * 2 and len(set(task.identities(examples))) == 2
    assert task.margin == 1.5 and QuestionAnswering.from_state(task.state()).state() == task.state()
    assert len(task.probes()) == 2


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["a ?"], "input 1 is 'a .', expected"),
        ([("a ?", "text"), ("b ?", " ")], "input 2 is"),
        ([{"question": "a ?"}], "input 1 is"),
        ("ab", "input 1 is 'ab', expected"),
        (5, "Found 5 .int.; expected one input"),
    ],
)
def test_inputs_that_are_no_questions_are_refused(model, inputs, message):
    with pytest.raises(DataError, match=message):
        model.predict(inputs)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"class_weights": "auto"}, ConfigError, "Class weights are for classification"),
        ({"options": {"stride": -1}}, ConfigError, "Option stride is -1"),
        ({"options": {"longest": True}}, ConfigError, "Option longest is True"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        foretune.fit(questions(20), output=tmp_path / "run", **options | changes)


def test_data_without_any_answer_are_refused(options, tmp_path):
    rows = [row | {"answers": []} for row in questions(20)]
    with pytest.raises(DataError, match="not one question has an answer"):
        foretune.fit(rows, task="question-answering", output=tmp_path / "run", **options)


def test_answers_may_be_as_long_as_those_in_training():
    """Chinese answers are often whole sentences."""
    import pandas as pd

    text = "这" * 100
    for length, option, wanted in ((2, 0, 30), (60, 0, 90), (60, 12, 12)):
        rows = [{"q": "谁？", "c": text, "a": [{"text": text[:length], "answer_start": 0}]}] * 5
        task = QuestionAnswering.from_table(
            pd.DataFrame(rows), Columns("q", "a", "", second="c"), Recipe(options={"longest": option})
        )
        assert task.options == AnsweringOptions(stride=128, longest=wanted)


def test_the_sliding_window_by_hand():
    text = "The Louvre is in Paris. The Mona Lisa was painted by Leonardo in 1503. It hangs there since long."
    assert slide("Who painted the Mona Lisa?", text, 2) == "by Leonardo"
    assert slide("the ?", "the the .", 2) == ""
    assert slide("谁写的书？", "这本书是鲁迅写的。", 2) == "鲁迅"


def test_the_baselines_answers_are_as_long_as_those_in_training(model):
    rows = questions(30, seed=2, unanswered=0.3)
    import pandas as pd

    examples = model.task.examples(pd.DataFrame(rows), where="data")
    found = baselines(examples, examples, 0)
    assert set(found) == {"sliding_window", "no_answer"}
    share = np.mean([not row["answers"] for row in rows])
    assert found["no_answer"]["exact_match"]["value"] == pytest.approx(share)


def test_the_worst_answers_in_the_report(model):
    import pandas as pd

    rows = questions(30, seed=11)
    text = f"the good {rows[3]['context']}"
    rows[3] |= {"context": text, "answers": [{"text": "the", "answer_start": 0}]}  # wrong in the data
    _, worst = model.score(model.task.examples(pd.DataFrame(rows), where="data"), mistakes=30)
    found = {item["row"]: item for item in worst}
    assert [item["f1"] for item in worst] == sorted(item["f1"] for item in worst) and len(worst) < 30
    assert found[4]["answers"] == ["the"] and found[4]["answer"] != "the" and found[4]["excerpt"] == text
    item = worst[0] | {"question": "<b>?", "answers": []}
    (html,) = answers_section([item])
    assert "&lt;b&gt;?" in html and "no answer" in html and "<b>?" not in html
    assert answers_section([]) == []


def test_excerpts():
    text = "a" * 300 + "X" + "b" * 500 + "Y" + "c" * 300
    assert excerpt(text, [(300, 301), (801, 802)]) == (
        "… " + "a" * 120 + "X" + "b" * 120 + " … " + "b" * 120 + "Y" + "c" * 120 + " …"
    )
    assert excerpt("short", []) == "short"


def test_nothing_stays_behind_on_the_cpu(options, elsewhere, tmp_path):
    given = options | {"device": "auto", "epochs": 1.0}
    model = foretune.fit(squad(tmp_path / "train.json", questions(60)), output=tmp_path / "run", **given)
    assert next(model.backbone.model.parameters()).device == elsewhere
