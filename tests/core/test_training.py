"""Runs as a whole: early stopping, best weights, class weights, seeds, events, phases."""

import json
import sys

import numpy as np
import pytest
import torch

from foretune import artifact, assemble
from foretune.data.columns import Columns
from foretune.errors import ConfigError
from foretune.evaluation.metrics import ClassificationScores
from foretune.recipe import Recipe
from foretune.tasks.text_classification import TextClassification, class_weights
from foretune.training.checkpoint import Checkpoints
from foretune.training.events import check_trackers
from foretune.training.inference import predict

QUICK = {"checkpoint_seconds": 1e6, "dropout": 0.0, "micro_tokens": ...}


def test_the_metric_is_checked_before_anything_is_written(fit, tmp_path):
    with pytest.raises(ConfigError, match=r"Unknown metric 'acc'.*Known: accuracy, macro_f1"):
        fit(tmp_path / "run", metric="acc")
    assert not (tmp_path / "run").exists()


def script_scores(monkeypatch, name, values):
    """Let the evaluations on dev give `values` of one metric."""
    told = iter(values)
    original = ClassificationScores.point
    monkeypatch.setattr(ClassificationScores, "point", lambda self: original(self) | {name: next(told)})


@pytest.mark.parametrize(
    ("metric", "values", "best", "stopped"),
    [
        ("accuracy", [0.5, 0.9, 0.9, 0.8, 1.0], 3, 4),  # equal is no gain, but the later one is taken
        ("log_loss", [0.9, 0.5, 0.6, 0.6, 0.1], 2, 4),  # less is better
        ("macro_f1", [0.1, 0.2, 0.3, 0.4, 0.5], 5, 5),
        ("accuracy", [0.9, 0.1, 0.95, 0.1, 0.2], 3, 5),
    ],
)
def test_early_stopping_keeps_the_best_weights(
    fit, events, tmp_path, monkeypatch, metric, values, best, stopped
):
    saved = {}
    original = Checkpoints.save_best

    def save_best(self, weights, step):
        saved[step] = {name: tensor.clone() for name, tensor in weights.items()}
        original(self, weights, step)

    monkeypatch.setattr(Checkpoints, "save_best", save_best)
    script_scores(monkeypatch, metric, values)
    model = fit(tmp_path / "run", metric=metric, patience=2, epochs=5.0, options={"pooling": "cls"}, **QUICK)
    epoch = events(tmp_path / "run", "start")[0]["per_epoch"]
    evaluated = [line["step"] for line in events(tmp_path / "run", "evaluation")]
    assert evaluated == [epoch * n for n in range(1, stopped + 1)]
    assert model.record["train"]["best_step"] == epoch * best
    assert model.record["train"]["steps"] == epoch * stopped
    assert model.record["train"]["stopped_early"] == (stopped < 5 or values[-2:] == [0.1, 0.2])
    expected, found = saved[epoch * best], model.backbone.model.state_dict()
    for name, tensor in expected.items():
        if name in found:
            assert torch.equal(found[name], tensor), name
    assert len(set(expected) & set(found)) > 20


def test_no_patience_means_no_early_end(fit, tmp_path, monkeypatch):
    script_scores(monkeypatch, "accuracy", [0.9] + [0.1] * 4)
    model = fit(tmp_path / "run", patience=0, epochs=5.0, **QUICK)
    assert model.record["train"]["epochs"] == 5.0 and not model.record["train"]["stopped_early"]


def test_without_dev_the_last_weights_are_used(fit, events, rows, tmp_path):
    model = fit(tmp_path / "run", dev_fraction=0.0, test=rows(20, seed=8), epochs=2.0, **QUICK)
    assert events(tmp_path / "run", "evaluation") == [] and model.record["train"]["best_step"] == 0
    assert set(model.record["metrics"]) == {"test"}


@pytest.mark.parametrize(("strategy", "lr"), [("full", 3e-3), ("linear-probe", 0.02)])
def test_it_learns(fit, rows, tmp_path, strategy, lr):
    moods = {"neg": "bad awful hate rude dirty", "pos": "good great love kind clean"}
    data = []
    for number, row in enumerate(rows(120)):
        words = moods[row["label"]].split()
        data.append(row | {"text": f"the {words[number % 5]} film was {words[number % 3]} {number}"})
    model = fit(tmp_path / "run", data, strategy=strategy, **(QUICK | {"lr": lr, "epochs": 8.0}))
    assert model.record["metrics"]["dev"]["accuracy"]["value"] > 0.9


def test_the_same_seed_gives_the_same_bits(fit, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        fit(tmp_path / name, seed=seed, epochs=1.0, checkpoint_seconds=1e6, dev_fraction=0.2)
    one, two, three = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert one == two != three


def test_listeners_and_checkpoints_do_not_change_the_run(fit, tmp_path):
    class Draws:
        def on(self, kind, values):
            pass

        def close(self):
            self.closed = True

    listener = Draws()
    fit(tmp_path / "a", listeners=[listener], epochs=1.0)
    fit(tmp_path / "b", epochs=1.0, checkpoint_seconds=1e6)
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()
    assert listener.closed


def test_epochs_may_be_a_fraction(fit, events, tmp_path):
    model = fit(tmp_path / "run", epochs=0.5, **QUICK)
    start = events(tmp_path / "run", "start")[0]
    assert start["total"] == max(round(0.5 * start["per_epoch"]), 1) == model.record["train"]["steps"]
    assert len(events(tmp_path / "run", "evaluation")) == 1  # at the end


def test_events_say_what_happened(fit, events, tmp_path):
    fit(tmp_path / "run", epochs=2.0)
    kinds = [line["event"] for line in events(tmp_path / "run")]
    assert kinds[-1] == "end" and {"note", "setup", "start", "step", "evaluation", "checkpoint"} <= set(kinds)
    steps = events(tmp_path / "run", "step")
    assert [line["step"] for line in steps] == list(range(1, len(steps) + 1))
    assert all(line["loss"] > 0 and line["tokens_per_s"] > 0 for line in steps)
    result = events(tmp_path / "run", "end")[0]["result"]
    assert result["output"] == str(tmp_path / "run") and result["metrics"]


def test_a_run_without_output_gets_a_folder_of_its_own(fit, rows, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    paths = [fit(None, data=tmp_path / "my.data.jsonl", epochs=1.0, **QUICK).path for _ in range(2)]
    assert [str(path) for path in paths] == ["runs/my-full", "runs/my-full-2"]


def task(weights=None):
    return TextClassification(("a", "b", "c"), Columns("text", "label", ""), weights)


def test_class_weights_auto_is_balanced():
    counts = np.array([60, 30, 10])
    found = class_weights("auto", ("a", "b", "c"), counts)
    assert found == pytest.approx([100 / 180, 100 / 90, 100 / 30])
    assert np.dot(found, counts) == pytest.approx(100)
    assert class_weights("none", ("a",), counts) is None


def test_class_weights_of_a_table():
    counts = np.array([1, 1])
    assert class_weights({"b": 2.0, "a": 0.5}, ("a", "b"), counts) == (0.5, 2.0)
    assert class_weights({1: 2.0, 0: 0.5}, ("0", "1"), counts) == (0.5, 2.0)
    with pytest.raises(ConfigError, match=r"name 'B', which is no label here\. Did you mean 'b'"):
        class_weights({"a": 1.0, "B": 1.0}, ("a", "b"), counts)
    with pytest.raises(ConfigError, match="missing for: b"):
        class_weights({"a": 1.0}, ("a", "b"), counts)


def test_class_weights_weigh_the_loss():
    logits, targets = torch.randn(5, 3), torch.tensor([0, 1, 2, 2, 0])
    plain = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    weights = torch.tensor([1.0, 3.0, 0.5])
    weighted = task((1.0, 3.0, 0.5))
    assert float(task().loss(logits, targets)) == pytest.approx(float(plain.sum()))
    assert float(weighted.loss(logits, targets)) == pytest.approx(float((plain * weights[targets]).sum()))
    assert task().normaliser(targets.numpy()) == 5 and weighted.normaliser(targets.numpy()) == 6.0


def test_class_weights_reach_the_model(fit, rows, tmp_path):
    data = [row | {"label": "pos" if number % 8 else "neg"} for number, row in enumerate(rows(80))]
    shares = []
    for name, weights in (("a", "none"), ("b", {"neg": 50.0, "pos": 0.02})):
        model = fit(tmp_path / name, data, class_weights=weights, lr=3e-3, **QUICK)
        shares.append(float(model.predict_proba([row["text"] for row in data])[:, 0].mean()))
    assert shares[0] < 0.5 < shares[1]
    assert artifact.load(tmp_path / "b").task.weights == (50.0, 0.02)


def test_evaluation_yields_batch_by_batch(fit, rows, tmp_path):
    """Outputs leave the device as they come; never more than a batch is held."""
    model = fit(tmp_path / "run", epochs=1.0, **QUICK)
    store = model.encode(model.task.from_inputs([row["text"] for row in rows(50, seed=4)])).store
    model.backbone.model.train()
    seen, sizes = [], []
    for rows_of_batch, outputs in predict(model.backbone, model.task, store, model.runtime, budget=60):
        assert isinstance(outputs, np.ndarray) and outputs.dtype == np.float32
        assert outputs.shape == (len(rows_of_batch), 2)
        assert not model.backbone.model.training
        assert store.lengths[rows_of_batch].max() * len(rows_of_batch) <= 60
        seen += rows_of_batch.tolist()
        sizes.append(len(rows_of_batch))
    assert sorted(seen) == list(range(50)) and len(sizes) > 5
    assert model.backbone.model.training


def test_settings_of_the_recipe_win_over_the_strategys():
    from foretune.strategies.base import Settings

    defaults = Settings(lr=1.0, epochs=2.0, batch_tokens=3, layer_decay=0.4)
    assert assemble.settle(Recipe(), defaults) == defaults
    given = Recipe(lr=0.1, epochs=0.2, batch_tokens=30, layer_decay=0.0)
    assert assemble.settle(given, defaults) == Settings(0.1, 0.2, 30, 0.0)


@pytest.mark.parametrize(
    "strategy",
    [
        "full",
        "linear-probe",
        *(pytest.param(s, marks=pytest.mark.slow) for s in ("lora", "top-layers", "lp-ft")),
    ],
)
def test_nothing_stays_behind_on_the_cpu(strategy, fit, elsewhere, tmp_path):
    model = fit(tmp_path / "run", strategy=strategy, device="auto", test_fraction=0.2, epochs=1.0)
    assert next(model.backbone.model.parameters()).device == elsewhere
    again = artifact.load(tmp_path / "run")
    assert next(again.backbone.model.parameters()).device == elsewhere
    assert again.predict(["good film", "bad room"]) == model.predict(["good film", "bad room"])


def test_a_tensor_that_stays_behind_is_seen(elsewhere):
    there, here = torch.ones(2, device=elsewhere), torch.ones(2)
    assert (there * 2).tolist() == [2.0, 2.0] and (there.cpu() + here).device.type == "cpu"
    with pytest.raises(RuntimeError, match="on the CPU"):
        there + here
    with pytest.raises(TypeError, match="cpu"):
        there.numpy()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_run_on_cuda_and_its_resumption(fit, stop_at, tmp_path):
    on_cuda = {"device": "cuda", "precision": "auto"}
    fit(tmp_path / "whole", **on_cuda)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "run", listeners=[stop_at("checkpoint", 6)], **on_cuda)
    model = fit(tmp_path / "run", resume=True, **on_cuda)
    assert (tmp_path / "run/model.safetensors").read_bytes() == (
        tmp_path / "whole/model.safetensors"
    ).read_bytes()
    on_cpu = artifact.load(tmp_path / "run", device="cpu").predict_proba(["good", "bad"])
    np.testing.assert_allclose(model.predict_proba(["good", "bad"]), on_cpu, atol=0.02)


def test_a_run_that_reads_all_from_the_cache_padded_nothing(fit, tmp_path, monkeypatch):
    monkeypatch.setenv("FORETUNE_CACHE", str(tmp_path / "cache"))
    given = {"strategy": "linear-probe", "dropout": 0.0}
    fit(tmp_path / "first", **given)
    train = fit(tmp_path / "second", **given).record["train"]
    assert train["tokens_per_s"] == 0 and train["padding_share"] == 0


def test_a_folder_called_like_a_tracker_is_no_tracker(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    (tmp_path / "mlflow").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(ConfigError, match=r"pip install 'foretune\[mlflow\]'"):
        check_trackers(("mlflow",))
