"""Translation and summarisation from a table to an artefact that plain transformers runs."""

import io
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import foretune
from foretune.errors import BackboneError, ConfigError, DataError, Interrupted


@pytest.fixture(scope="module")
def table(sentences):
    sources, targets = sentences(60)
    return pd.DataFrame({"source": sources, "target": targets})


@pytest.fixture
def fit(quick, folder_of, table):
    """Return a function that fits with the options above; keyword arguments override them."""

    def run(output, data=None, **changes):
        options = {
            "backbone": folder_of("bart"),
            "task": "translation",
            "options": {"num_beams": 2, "max_new_tokens": 8},
        } | quick
        return foretune.fit(table if data is None else data, output=output, **(options | changes))

    return run


def test_a_plan_names_the_backbone_that_translation_lacks(quick, folder_of, table, tmp_path, monkeypatch):
    from foretune.forecast import cost
    from foretune.forecast.cost import Cost

    monkeypatch.setattr(
        cost,
        "forecast_costs",
        lambda job, prepared, sizes, settle, **rest: dict.fromkeys(sizes, Cost(1, 1, 1, {})),
    )
    options = {"num_beams": 1, "max_new_tokens": 4}
    given = {"task": "translation", "options": options, "offline": True, "seed": quick["seed"]}
    with pytest.raises(ConfigError, match="plan: --backbones"):
        foretune.plan(table, **given)
    plan = foretune.plan(table, backbones=folder_of("bart"), strategies="full", **given)
    assert plan.best.backbone == folder_of("bart")
    model = foretune.fit(table, plan=plan, output=tmp_path / "run", **quick | given | {"epochs": 1.0})
    assert model.recipe.backbone == folder_of("bart")


def test_translation_from_table_to_artefact(fit, table, tmp_path):
    model = fit(tmp_path / "run", epochs=3.0)
    record = model.record
    assert set(record["metrics"]["test"]) == {"bleu", "chrf", "perplexity"}
    assert set(record["metrics"]["dev"]) == {"perplexity"}  # nothing is written for dev beside test
    assert set(record["baselines"]) == {"copy", "nearest", "untuned"}
    own, before = record["metrics"]["test"]["perplexity"], record["baselines"]["untuned"]["perplexity"]
    assert own["low"] <= own["value"] <= own["high"] < before["low"]
    texts = model.predict(["the cat sees one dog", "two birds"])
    assert [type(text) for text in texts] == [str, str]
    result = model.evaluate(table.head(20))
    assert result["n"] == 20 and result["bleu"]["low"] <= result["bleu"]["value"]
    _check_references(model, table.head(20), result)
    _check_report((tmp_path / "run" / "report.html").read_text(), model)
    _check_plain(tmp_path / "run", texts)


def _check_references(model, table, alone):
    """With what the model writes among the references nothing is left to be desired."""
    written = model.predict(table["source"].tolist())
    lists = [[target, text] for target, text in zip(table["target"], written, strict=True)]
    several = model.evaluate(table.assign(others=lists))
    assert alone["chrf"]["value"] < 100 and several["chrf"]["value"] == pytest.approx(100)
    assert several["perplexity"] == alone["perplexity"]


def _check_report(page, model):
    assert "Examples, in the order of the file" in page and "Lowest chrF first" in page
    assert "A copy of the source" in page and "The model before fine-tuning" in page


def _check_plain(folder, expected):
    """A process without Foretune writes the same."""
    script = f"""
import json, sys
sys.modules["foretune"] = None
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained({str(folder)!r})
model = AutoModelForSeq2SeqLM.from_pretrained({str(folder)!r})
texts = ["the cat sees one dog", "two birds"]
batch = tokenizer(texts, return_tensors="pt", padding=True)
written = model.generate(batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=8)
print(json.dumps(tokenizer.batch_decode(written, skip_special_tokens=True)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == expected


def test_perplexity_is_watched_during_training(fit, tmp_path):
    fit(tmp_path / "run", test_fraction=0.0)
    lines = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    found = [line for line in lines if line["event"] == "evaluation"]
    assert found and all(line["metric"] == "perplexity" and "bleu" not in line for line in found)
    setup = next(line for line in lines if line["event"] == "setup")
    assert setup["metric"] == "bleu"


@pytest.mark.slow
def test_summarisation_has_rouge_and_the_first_sentences_beside_it(fit, sentences, tmp_path):
    sources, _ = sentences(40, seed=4)
    data = pd.DataFrame(
        {"text": [f"{s}. the house. a bird. not." for s in sources], "summary": [s[:9] for s in sources]}
    )
    model = fit(
        tmp_path / "run", data=data, task="summarisation", options={"num_beams": 1, "max_new_tokens": 8}
    )
    assert set(model.record["metrics"]["test"]) == {"rouge1", "rouge2", "rougel", "perplexity"}
    assert set(model.record["baselines"]) == {"lead1", "lead3", "nearest", "untuned"}
    assert model.recipe.metric == "rougel"


STRATEGIES = [
    pytest.param("full", {}, marks=pytest.mark.slow),
    pytest.param("top-layers", {"layers": 1}),
    pytest.param("lora", {"rank": 2}, marks=pytest.mark.slow),
    pytest.param("gradual-unfreezing", {"stages": 2}, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("strategy", "options"), STRATEGIES)
def test_strategies_change_what_they_should(fit, folder_of, tmp_path, strategy, options, monkeypatch):
    import torch
    from safetensors.torch import load_file

    from foretune import outcome

    monkeypatch.setattr(outcome, "untuned", lambda *args: {})
    model = fit(
        tmp_path / "run", strategy=strategy, epochs=1.0, test_fraction=0.0,
        options={"num_beams": 1, "max_new_tokens": 2, **options},
    )  # fmt: skip
    before = load_file(f"{folder_of('bart')}/model.safetensors")
    after = load_file(tmp_path / "run" / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    depth = model.backbone.layers.depth
    levels = {depth[name] for name in changed if name in depth}
    assert set(before) == set(after)
    expected = {"top-layers": {4}, "lora": {1, 2, 3, 4}}.get(strategy, {0, 1, 2, 3, 4})
    assert levels == expected


@pytest.mark.slow
def test_a_cached_encoder_changes_nothing(fit, tmp_path, monkeypatch):
    """The decoder's top layer trained on cached states ends where training behind the running encoder ends."""
    from safetensors.torch import load_file

    from foretune import outcome

    monkeypatch.setattr(outcome, "untuned", lambda *args: {})
    ends, starts = [], []
    for cache in ("fp32", "off"):
        fit(
            tmp_path / cache, strategy="top-layers", cache=cache, test_fraction=0.0,
            options={"layers": 1, "num_beams": 1, "max_new_tokens": 2},
        )  # fmt: skip
        ends.append(load_file(tmp_path / cache / "model.safetensors"))
        lines = [json.loads(line) for line in (tmp_path / cache / "events.jsonl").read_text().splitlines()]
        starts += [line["start"] for line in lines if line["event"] == "phase"]
    assert starts == [2, 0]
    assert all(bool((ends[0][name] - ends[1][name]).abs().max() < 1e-4) for name in ends[0])


@pytest.mark.parametrize("strategy", ["linear-probe", "lp-ft"])
def test_strategies_with_a_new_head_say_what_to_take_instead(fit, tmp_path, strategy):
    with pytest.raises(ConfigError, match="top-layers"):
        fit(tmp_path / "run", strategy=strategy)


def test_a_stopped_run_ends_as_one_that_was_not(fit, tmp_path, stop_at):
    options = {"dropout": 0.1, "checkpoint_seconds": 0.0, "micro_tokens": 200, "test_fraction": 0.0}
    options["batch_tokens"] = 400
    fit(tmp_path / "whole", **options)
    with pytest.raises((Interrupted, KeyboardInterrupt)):
        fit(tmp_path / "stopped", listeners=[stop_at(3)], **options)
    fit(tmp_path / "stopped", resume=True, **options)
    whole, stopped = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "stopped"))
    assert whole == stopped


def test_an_encoder_is_refused(fit, tmp_path):
    with pytest.raises(BackboneError, match="cannot write texts as translation needs it"):
        fit(tmp_path / "run", backbone="minilm-l6")


@pytest.mark.parametrize(
    ("changes", "found"),
    [({"target": None}, "target"), ({"target": " "}, "target"), ({"source": 3.5}, "source")],
)
def test_blank_and_other_cells_are_named(fit, table, tmp_path, changes, found):
    data = table.astype(object).copy()
    for column, value in changes.items():
        data.loc[4, column] = value
    with pytest.raises(DataError, match=f"{found}.*row 5|row 5.*{found}"):
        fit(tmp_path / "run", data=data)
    assert not (tmp_path / "run").exists()


def test_copies_and_repeats_are_told(table):
    from foretune.data.columns import Columns
    from foretune.tasks.sequence_tables import audit_pairs

    data = pd.concat([table, table.head(10)], ignore_index=True)
    data.loc[20:25, "target"] = data.loc[20:25, "source"]
    columns = Columns("source", "target", "")
    repeated, copied = audit_pairs(data, columns, "train")
    assert "10 rows of 70 repeat" in repeated and "6 rows of 70" in copied
    assert audit_pairs(table, columns, "train") == []


def test_prefixes_stand_before_every_source(folder_of):
    from foretune.backbones.loading import load
    from foretune.data.columns import Columns
    from foretune.tasks.seq2seq import Seq2SeqOptions, Summarisation

    task = Summarisation(Columns("a", "b", ""), Seq2SeqOptions(prefix="one two: "))
    backbone = load(folder_of("t5"), task, offline=True)
    store = task.encode(backbone, task.from_inputs(["cat"]), max_length=16, truncation="head").store
    assert backbone.tokenizer.decode(store[0].tolist(), skip_special_tokens=True).endswith("cat")
    assert len(store[0]) > len(backbone.tokenizer("cat")["input_ids"])


def test_the_task_is_saved_as_plain_values():
    from foretune.data.columns import Columns
    from foretune.tasks.seq2seq import Seq2SeqOptions, Translation

    task = Translation(Columns("a", "b", ""), Seq2SeqOptions(num_beams=2, prefix="x: "), seed=7)
    again = Translation.from_state(json.loads(json.dumps(task.state())))
    assert (again.options, again.seed, again.columns.text) == (task.options, 7, "a")
    assert np.isclose(again.limit(10), 36)


def test_predictions_of_a_file_are_written_line_by_line(fit, table, tmp_path):
    from foretune import cli_predict

    model = fit(tmp_path / "run", epochs=1.0, options={"num_beams": 1, "max_new_tokens": 4})
    table.head(3)[["source"]].to_csv(tmp_path / "new.csv", index=False)
    out = io.StringIO()
    columns = {"text": None, "second": None}
    cli_predict.run(model, str(tmp_path / "new.csv"), None, out, columns, quiet=True)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["row"] for line in lines] == [1, 2, 3] and all(
        isinstance(line["text"], str) for line in lines
    )


def test_nothing_stays_behind_on_the_cpu(fit, elsewhere, tmp_path):
    model = fit(tmp_path / "run", epochs=1.0, device="auto")
    assert next(model.backbone.model.parameters()).device == elsewhere
    assert "bleu" in model.record["metrics"]["test"] and len(model.predict(["good bad"])) == 1
