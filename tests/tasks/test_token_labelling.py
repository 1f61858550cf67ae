"""Token labelling from file to model: learnt, scored, saved, read by plain transformers, resumed, long texts."""

import json
import random
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

import foretune
from foretune.cli import app
from foretune.data.columns import Columns
from foretune.errors import ConfigError, DataError, Interrupted
from foretune.tasks.token_labelling import TokenLabelling

KINDS = {"film": "ART", "plot": "ART", "room": "LOC", "staff": "PER"}
SECOND = {"ART": "warm", "LOC": "cold", "PER": "fresh"}
OTHERS = ["the", "a", "is", "was", "very", "not", "good", "bad", "great", "and", "but", "it", "we"]

PLAIN = """
import json, sys
sys.modules["foretune"] = None  # importing it raises
from transformers import pipeline
found = pipeline("token-classification", sys.argv[1], aggregation_strategy="simple")(sys.argv[2])
print(json.dumps([[one["start"], one["end"], one["entity_group"], float(one["score"])] for one in found]))
"""


def tagged(number, seed=0, longest=10):
    """Sentences with entities of one word of `KINDS`, or of that and the type's second word."""
    draw, made = random.Random(seed), []
    for _ in range(number):
        words, tags = [], []
        for _ in range(draw.randint(1, longest)):
            kind = KINDS[name := draw.choice(list(KINDS))]
            both = draw.random() < 0.5
            if draw.random() < 0.6:
                words, tags = [*words, draw.choice(OTHERS)], [*tags, "O"]
            else:
                words = [*words, name, *([SECOND[kind]] if both else [])]
                tags = [*tags, f"B-{kind}", *([f"I-{kind}"] if both else [])]
        made.append((words, tags))
    return made


def conll(path, rows):
    path.write_text("\n".join("".join(f"{w}\t{t}\n" for w, t in zip(*row, strict=True)) for row in rows))
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
            "backbone": tiny, "device": "cpu", "precision": "fp32", "offline": True, "epochs": 4.0, "lr": 5e-3,
            "batch_tokens": 256, "seed": 3, "dev_fraction": 0.15, "test_fraction": 0.15,
        }  # fmt: skip


@pytest.fixture(scope="module")
def model(options, tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelling")
    return foretune.fit(conll(folder / "train.conll", tagged(300)), output=folder / "run", **options)


def test_the_task_is_inferred_learnt_and_measured(model):
    record = json.loads((model.path / "foretune.json").read_text())
    assert record["task"]["name"] == "token-labelling" and record["task"]["types"] == ["ART", "LOC", "PER"]
    scores = record["metrics"]["test"]
    assert set(scores) == {"f1", "precision", "recall"}
    assert 0.8 < scores["f1"]["low"] <= scores["f1"]["value"] <= scores["f1"]["high"] <= 1
    baselines = record["baselines"]
    assert set(baselines) == {"majority", "word_tag", "seen_entities"}
    assert baselines["majority"]["f1"]["value"] == 0 < baselines["word_tag"]["f1"]["value"]
    assert {row["label"] for row in record["details"]["test"]["per_type"]} == {"ART", "LOC", "PER"}
    page, card = ((model.path / name).read_text() for name in ("report.html", "README.md"))
    assert "By type, %" in page and 'pipeline("token-classification"' in card


def test_predictions_of_texts_and_of_lists_of_words(model):
    words = ["the", "film", "warm", "and", "staff"]
    found = next(iter(model.predictions([words])))
    assert found["text"] == "the film warm and staff"
    assert [(e["first_word"], e["end_word"], e["label"]) for e in found["entities"]] == [
        (1, 3, "ART"),
        (4, 5, "PER"),
    ]
    (entities,) = model.predict("the film warm and staff")
    assert [(e["text"], e["start"], e["end"]) for e in entities] == [("film warm", 4, 13), ("staff", 18, 23)]
    assert all(0.5 < e["probability"] <= 1 for e in entities)
    assert model.predict(["the", "a"]) == [[], []]
    with pytest.raises(ConfigError, match="no probabilities"):
        model.predict_proba("the film")
    with pytest.raises(DataError, match="without a token"):
        model.predict([["a"], []])


def test_plain_transformers_finds_the_same(model):
    text = "the film warm and staff was very good"
    command = [sys.executable, "-c", PLAIN, str(model.path), text]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(ran.stdout.splitlines()[-1])
    (own,) = model.predict(text)
    assert [one[:3] for one in found] == [[e["start"], e["end"], e["label"]] for e in own]
    np.testing.assert_allclose([one[3] for one in found], [e["probability"] for e in own], atol=1e-5)


def test_long_texts_are_read_in_windows_and_nothing_is_lost(model):
    rows = tagged(60, seed=7)
    words, tags = [w for row in rows for w in row[0]], [t for row in rows for t in row[1]]
    assert len(words) > 4 * model.max_length
    scores = model.evaluate([{"tokens": words, "tags": tags}])
    assert scores["f1"]["value"] > 0.8 and scores["entities"] == sum(t.startswith("B") for t in tags)
    encoded = model.encode(model.task.from_inputs([words]))
    assert len(encoded.store) > 4 and set(encoded.owner) == {0} and (encoded.info.rows >= 0).all()


def test_evaluating_in_parts_or_at_once_is_the_same(model):
    table = [{"tokens": words, "tags": tags} for words, tags in tagged(30, seed=8)]
    result = model.evaluate(table)
    hits = sum(
        len({(e["first_word"], e["end_word"], e["label"]) for e in found} & true)
        for found, true in zip(
            model.predict([row["tokens"] for row in table]),
            [{(s, e, t) for s, e, t in _spans(row["tags"])} for row in table],
            strict=True,
        )
    )
    assert result["recall"]["value"] == pytest.approx(hits / result["entities"])


def _spans(tags):
    begins = [i for i, tag in enumerate(tags) if tag.startswith("B-")]
    return [(i, i + 1 + (tags[i + 1 : i + 2] == [f"I-{tags[i][2:]}"]), tags[i][2:]) for i in begins]


def test_texts_with_spans_are_learnt_too(options, tmp_path):
    rows = []
    for words, tags in tagged(120, seed=2):
        text, ends = " ".join(words), np.cumsum([len(w) + 1 for w in words])
        spans = [
            [int(ends[s] - len(words[s]) - 1), int(ends[e - 1] - 1), label] for s, e, label in _spans(tags)
        ]
        rows.append({"text": text, "entities": spans})
    model = foretune.fit(rows, output=tmp_path / "run", **options)
    result = model.evaluate(rows[:40])
    assert result["f1"]["value"] > 0.6
    (entities,) = model.predict("good film was bad")
    assert all("good film was bad"[e["start"] : e["end"]] == e["text"] for e in entities)


@pytest.mark.parametrize("strategy", ["linear-probe", "top-layers"])
def test_cached_or_not_frozen_layers_give_the_same(options, tmp_path, strategy):
    rows = [{"tokens": words, "tags": tags} for words, tags in tagged(60, seed=2)]
    given = options | {
        "strategy": strategy,
        "epochs": 2.0,
        "options": {"layers": 1} if strategy == "top-layers" else {},
    }
    runs = [
        foretune.fit(rows, output=tmp_path / cache, cache=cache, **given).backbone.model.state_dict()
        for cache in ("fp32", "off")
    ]
    assert all(np.allclose(runs[0][name], runs[1][name], atol=1e-5) for name in runs[0])
    assert any("classifier" in name for name in runs[0])


def test_a_stopped_run_goes_on_to_the_same_end(options, tmp_path):
    class Stop:
        def on(self, kind, values):
            if kind == "step" and values["step"] == 4:
                raise KeyboardInterrupt

        def close(self):
            pass

    rows = [{"tokens": words, "tags": tags} for words, tags in tagged(60, seed=2)]
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


def test_parts_of_speech(options, tmp_path):
    rows = [
        {
            "tokens": words,
            "tags": ["NOUN" if w in KINDS else "VERB" if w in ("is", "was") else "X" for w in words],
        }
        for words, _ in tagged(150, seed=4)
    ]
    model = foretune.fit(rows, output=tmp_path / "run", **options)
    assert set(model.record["metrics"]["test"]) == {"accuracy", "macro_f1"} and model.task.headline == "tags"
    assert model.record["metrics"]["test"]["accuracy"]["value"] > 0.9
    assert set(model.record["baselines"]) == {"majority", "word_tag"}
    assert model.predict([["the", "film", "was"]]) == [["X", "NOUN", "VERB"]]
    again = foretune.load(tmp_path / "run")
    found = next(again.predictions("the film"))
    assert found["words"] == ["the", "film"] and found["offsets"] == [[0, 3], [4, 8]]
    assert "Confusion matrix" in (tmp_path / "run" / "report.html").read_text()


def test_the_command_line(model, tmp_path):
    rows = tagged(20, seed=9)
    data, run = conll(tmp_path / "test.conll", rows), CliRunner()
    ran = run.invoke(app, ["evaluate", str(model.path), str(data), "--json"])
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)["metrics"]["f1"]["value"] > 0.8
    for name in ("found.jsonl", "found.csv"):
        ran = run.invoke(
            app, ["predict", str(model.path), str(data), "--output", str(tmp_path / name), "--quiet"]
        )
        assert ran.exit_code == 0, ran.output
    lines = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert len(lines) == 20 and {"row", "entities", "text"} == set(lines[0])
    assert (tmp_path / "found.csv").read_text().splitlines()[0].endswith("prediction,text")


def test_a_type_that_train_lacks_is_told_and_counts_as_missed(model):
    import pandas as pd

    def table(tags):
        return pd.DataFrame({"tokens": [["film", "staff"]], "tags": [tags]})

    warnings = TokenLabelling.overlap(
        table(["B-ART", "O"]), table(["B-ART", "B-NEW"]), model.task.columns, "dev"
    )
    assert "1 entity of types that the training data lack (NEW)" in warnings[1] and "also in" in warnings[0]
    result = model.evaluate(table(["B-ART", "B-NEW"]))
    assert result["recall"]["value"] == 0.5


def test_entities_within_words_are_told():
    import pandas as pd

    rows = [{"text": "Obama's iPhone6", "e": spans} for spans in ([[0, 5, "X"]], [[8, 14, "X"]], [])]
    (warning,) = TokenLabelling.audit(pd.DataFrame(rows[:2]), Columns("text", "e", ""), where="dev")[1:]
    assert "dev: 1 row with entities that begin or end within a word (row 2)" in warning
    assert len(TokenLabelling.audit(pd.DataFrame(rows[::2]), Columns("text", "e", ""), where="dev")) == 1


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"class_weights": "auto"}, ConfigError, "Class weights are for classification"),
        ({"options": {"labels": "spans"}}, ConfigError, "Option labels is 'spans'"),
        ({"metric": "accuracy"}, ConfigError, "Unknown metric 'accuracy' for token-labelling"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, tmp_path, changes, error, message):
    rows = [{"tokens": words, "tags": tags} for words, tags in tagged(20, seed=2)]
    with pytest.raises(error, match=message):
        foretune.fit(rows, output=tmp_path / "run", **options | changes)


def test_nothing_stays_behind_on_the_cpu(options, elsewhere, tmp_path):
    given = options | {"device": "auto", "epochs": 1.0}
    model = foretune.fit(conll(tmp_path / "train.conll", tagged(60)), output=tmp_path / "run", **given)
    assert next(model.backbone.model.parameters()).device == elsewhere
