"""Text generation from a file to an artefact that plain transformers runs."""

import io
import json
import subprocess
import sys

import pandas as pd
import pytest

import foretune
from foretune.errors import ConfigError, DataError, Interrupted

METRICS = {"perplexity", "nats_per_token", "bits_per_byte"}


@pytest.fixture(scope="module")
def lines(sentences):
    return [f"{line}" for line in sentences(700)[0]]


@pytest.fixture
def running(lines, tmp_path):
    """A plain text with empty lines, of several parts."""
    file = tmp_path / "text.txt"
    file.write_text("\n".join(f"{line}\n" if i % 7 == 0 else line for i, line in enumerate(lines)) + "\n")
    return file


@pytest.fixture
def fit(quick, folder_of, monkeypatch):
    """Return a function that fits with the options above; keyword arguments override them."""

    def run(data, output, **changes):
        options = {"backbone": folder_of("llama"), "options": {"max_new_tokens": 4}} | quick
        return foretune.fit(data, output=output, **(options | {"epochs": 1.0} | changes))

    return run


def _events(folder, kind):
    found = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [line for line in found if line["event"] == kind]


def test_running_text_from_file_to_artefact(fit, running, tmp_path):
    model = fit(str(running), tmp_path / "run")
    record = model.record
    assert model.task.name == "text-generation" and model.task.running
    assert set(record["metrics"]["test"]) == METRICS == set(record["metrics"]["dev"])
    assert set(record["baselines"]) == {"unigram", "kneser_ney", "untuned"}
    own, before = (each["perplexity"] for each in (record["metrics"]["test"], record["baselines"]["untuned"]))
    assert own["value"] < before["value"]
    assert any("in order, from the end of the text" in text for text in record["data"]["sentences"])
    samples = _events(tmp_path / "run", "sample")
    assert len(samples) == len(_events(tmp_path / "run", "evaluation")) > 0  # one part of the text is dev
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Samples during training" in page and "Most surprising texts first" in page
    assert "Trigrams of tokens" in page
    texts = model.predict(["one two three"])
    assert len(texts) == 1


@pytest.mark.slow
def test_a_process_without_foretune_gives_the_same_next_token(fit, lines, tmp_path):
    import torch

    folder = tmp_path / "run"
    model = fit(pd.DataFrame({"text": lines[:60]}), folder, task="text-generation")

    ids = torch.tensor([[2, 5, 6, 7]])
    with torch.no_grad():
        expected = model.backbone.model(ids).logits[0, -1].tolist()
    script = f"""
import json, sys
sys.modules["foretune"] = None
import torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained({str(folder)!r})
with torch.no_grad():
    print(json.dumps(model(torch.tensor([[2, 5, 6, 7]])).logits[0, -1].tolist()))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == pytest.approx(expected, abs=1e-5)


def test_what_is_held_out_is_the_end_of_the_text(running, quick, folder_of):
    from foretune.prepare import prepare
    from foretune.recipe import Recipe

    prepared = prepare(str(running), None, None, Recipe(backbone=folder_of("llama")))
    parts = (prepared.train, prepared.dev, prepared.test)
    assert "".join("".join(part.inputs) for part in parts) == running.read_text()
    assert len(prepared.dev) >= 1 and len(prepared.test) >= 1
    assert prepared.train.rows.tolist() == list(range(1, len(prepared.train) + 1))


def test_a_text_too_short_to_be_split_is_refused(fit, tmp_path):
    (tmp_path / "short.txt").write_text("one two three\nfour five\n")
    with pytest.raises(DataError, match="too short to hold out dev and test"):
        fit(str(tmp_path / "short.txt"), tmp_path / "run")


def test_prompts_and_responses(fit, sentences, tmp_path):
    prompts, responses = sentences(60, seed=2)
    data = pd.DataFrame({"prompt": prompts, "response": responses})
    model = fit(data, tmp_path / "run", options={"max_new_tokens": 4, "temperature": 0.0, "top_p": 1.0})
    assert model.task.columns.target == "response" and not model.task.running
    assert set(model.record["metrics"]["test"]) == METRICS
    result = model.evaluate(data.head(10))
    tokens = sum(len(text.split()) + 1 for text in responses[:10])
    assert (result["n"], result["tokens"]) == (10, tokens)
    again = foretune.load(tmp_path / "run", device="cpu")
    assert again.predict(prompts[:3]) == model.predict(prompts[:3])


def _each(strategy, options, levels, *kinds):
    return [pytest.param(kind, strategy, options, levels, marks=marks) for kind, marks in kinds]


QUICK, SLOW = (), pytest.mark.slow
STRATEGIES = [
    *_each("full", {}, set(range(4)), ("llama", SLOW), ("tied", QUICK)),
    *_each("top-layers", {"layers": 1}, {2, 3}, ("llama", SLOW), ("tied", SLOW)),
    *_each("lora", {"rank": 2}, {1, 2}, ("llama", QUICK), ("tied", SLOW)),
    *_each("gradual-unfreezing", {"stages": 2}, set(range(4)), ("llama", SLOW), ("tied", SLOW)),
]


@pytest.mark.parametrize(("kind", "strategy", "options", "levels"), STRATEGIES)
def test_strategies_change_what_they_should(
    fit, folder_of, lines, tmp_path, kind, strategy, options, levels, monkeypatch
):
    import torch
    from safetensors.torch import load_file

    from foretune import outcome

    monkeypatch.setattr(outcome, "untuned", lambda *args: {})
    data = pd.DataFrame({"text": lines[:60]}).drop_duplicates()
    model = fit(
        data, tmp_path / "run", backbone=folder_of(kind), strategy=strategy, task="text-generation",
        test_fraction=0.0, options={"max_new_tokens": 2, **options},
    )  # fmt: skip
    before = load_file(f"{folder_of(kind)}/model.safetensors")
    after = load_file(tmp_path / "run" / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    depth = model.backbone.layers.depth
    assert set(before) == set(after)
    assert {depth[name] for name in changed} == levels - ({3} if kind == "tied" else set())


@pytest.mark.slow
def test_the_cache_of_frozen_layers_changes_nothing(fit, lines, tmp_path):
    """Top layers trained behind cached states end where training behind running ones ends."""
    from safetensors.torch import load_file

    data, ends = pd.DataFrame({"text": lines[:80]}).drop_duplicates(), []
    for cache in ("fp32", "off"):
        fit(
            data, tmp_path / cache, strategy="top-layers", task="text-generation", cache=cache, epochs=2.0,
            test_fraction=0.0, options={"layers": 1, "max_new_tokens": 2},
        )  # fmt: skip
        ends.append(load_file(tmp_path / cache / "model.safetensors"))
    starts = [_events(tmp_path / cache, "phase")[0]["start"] for cache in ("fp32", "off")]
    assert starts == [1, 0]
    assert all(bool((ends[0][name] - ends[1][name]).abs().max() < 1e-4) for name in ends[0])


def test_a_stopped_run_ends_as_one_that_was_not(fit, running, tmp_path, stop_at):
    options = {"dropout": 0.1, "checkpoint_seconds": 0.0, "test_fraction": 0.0}
    options |= {"batch_tokens": 1024, "micro_tokens": 512}
    fit(str(running), tmp_path / "whole", **options)
    with pytest.raises((Interrupted, KeyboardInterrupt)):
        fit(str(running), tmp_path / "stopped", listeners=[stop_at(3)], **options)
    fit(str(running), tmp_path / "stopped", resume=True, **options)
    whole, stopped = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "stopped"))
    assert whole == stopped


def test_rows_of_a_table_are_the_lines_of_a_running_text(fit, running, tmp_path):
    """A model of running text reads them one below the other, not glued together."""
    model = fit(str(running), tmp_path / "run", epochs=1.0)
    lines = ["the cat sees one dog", "a bird likes the house"] * 4
    (tmp_path / "lines.txt").write_text("\n".join(lines))
    found = [model.evaluate(data) for data in (str(tmp_path / "lines.txt"), pd.DataFrame({"text": lines}))]
    assert found[0]["perplexity"]["value"] == pytest.approx(found[1]["perplexity"]["value"], rel=1e-6)


def test_no_head_trains_alone(fit, running, tmp_path):
    with pytest.raises(ConfigError, match="top-layers"):
        fit(str(running), tmp_path / "run", strategy="linear-probe")


def test_predictions_of_a_file_are_written_line_by_line(fit, lines, tmp_path):
    from foretune import cli_predict

    model = fit(pd.DataFrame({"text": lines[:60]}), tmp_path / "run", task="text-generation")
    (tmp_path / "new.txt").write_text("one two\nthe cat\n")
    out = io.StringIO()
    cli_predict.run(model, str(tmp_path / "new.txt"), None, out, {"text": None, "second": None}, quiet=True)
    found = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["row"] for line in found] == [1, 2] and all(isinstance(line["text"], str) for line in found)


def test_an_input_stands_between_instruction_and_response():
    from foretune.data.columns import Columns
    from foretune.tasks.text_generation import TextGeneration, TextGenerationOptions

    table = pd.DataFrame(
        {"instruction": ["add", "say"], "input": ["one two", None], "output": ["three", "a"]}
    )
    task = TextGeneration(Columns("instruction", "output", "", second="input"), TextGenerationOptions())
    assert task.examples(table, where="train").inputs == ["add\none two", "say"]
    again = TextGeneration.from_state(json.loads(json.dumps(task.state())))
    assert (again.columns.second, again.options, again.running) == ("input", task.options, False)


def test_nothing_stays_behind_on_the_cpu(fit, running, elsewhere, tmp_path):
    model = fit(str(running), tmp_path / "run", device="auto")
    assert next(model.backbone.model.parameters()).device == elsewhere
    assert model.record["metrics"]["test"]["perplexity"]["value"] > 1 and model.predict(["the good"])
