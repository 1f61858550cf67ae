"""One optimizer step: accumulation, non-finite numbers, memory that runs out."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foretune import api
from foretune.errors import ResourceError, TrainingError
from foretune.tasks.text_classification import TextClassification
from foretune.training.events import Events
from foretune.training.feed import TokenFeed
from foretune.training.flops import FlopModel
from foretune.training.inference import out_of_memory
from foretune.training.loop import Loop
from foretune.training.state import Progress
from foretune.training.step import Stepper


class Captured(Exception):
    """Carries a prepared job out of `fit`."""


@pytest.fixture(scope="module")
def make_job(backbone_folder, rows, tmp_path_factory):
    """Return a function: options -> the job that `fit` would run."""
    from foretune.training import machine

    def make(data=None, **changes):
        patch = pytest.MonkeyPatch()
        patch.setattr(machine, "gemm_peak", lambda *args, **options: 1e9)
        found = []

        def run(loop):
            found.append(loop.job)
            raise Captured

        patch.setattr(Loop, "run", run)
        options = {
            "backbone": backbone_folder("bert"), "device": "cpu", "precision": "fp32", "offline": True,
            "dev_fraction": 0.0, "test_fraction": 0.0, "batch_tokens": 400, "lr": 1e-3, "epochs": 2.0,
        } | changes  # fmt: skip
        try:
            api.fit(data or rows(), output=tmp_path_factory.mktemp("job") / "run", **options)
        except Captured:
            pass
        finally:
            patch.undo()
        return found[0]

    return make


@pytest.fixture(scope="module")
def plain_job(make_job):
    return make_job()


@pytest.fixture(scope="module")
def weighted_job(make_job):
    return make_job(class_weights={"neg": 0.3, "pos": 2.5})


def make_stepper(job, optimizer, pause):
    feed = TokenFeed(job.backbone, job.train_store, job.runtime)
    return Stepper(job, optimizer, pause, feed, FlopModel(0.0, 0.0, 0.0))


def gradients(job, rows, micro_tokens):
    """Return the loss and gradients of one step, and the number of micro-batches."""
    model, pauses = job.backbone.model, []
    model.zero_grad(set_to_none=True)
    parameters = [p for p in model.parameters() if p.requires_grad]
    stepper = make_stepper(job, torch.optim.SGD(parameters, lr=0.0), lambda: pauses.append(1))
    model.train()
    loss = stepper._accumulate(rows, Progress(micro_tokens=micro_tokens))
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return loss, found, len(pauses) + 1


@pytest.mark.parametrize("weighted", [False, True])
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(chosen=st.lists(st.integers(0, 39), min_size=8, max_size=8, unique=True), budget=st.integers(20, 60))
def test_accumulated_gradients_equal_those_of_one_batch(plain_job, weighted_job, weighted, chosen, budget):
    job, rows = (weighted_job if weighted else plain_job), np.array(chosen)
    loss, whole, one = gradients(job, rows, 10_000)
    again, parts, several = gradients(job, rows, budget)
    assert one == 1 and several > 1
    assert again == pytest.approx(loss, rel=1e-5)
    assert whole.keys() == parts.keys() and len(whole) > 10
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-4, atol=2e-7)


def test_the_loss_is_the_weighted_mean(weighted_job):
    """As torch's own mean over the batch: sum of w·loss over sum of w."""
    job, rows = weighted_job, np.arange(12)
    job.backbone.model.eval()
    logits = job.backbone.forward(job.backbone.collate(job.train_store, rows))
    weight = torch.tensor([0.3, 2.5])
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(job.train.targets[rows]), weight=weight)
    assert gradients(job, rows, 50)[0] == pytest.approx(float(expected.detach()), rel=1e-5)


def test_extra_loss_is_the_same_however_it_is_split(plain_job, monkeypatch):
    """A penalty on the weights counts once per step, whatever the number of micro-batches."""

    def penalty(model, batch, outputs):
        return sum((p**2).sum() for p in model.parameters() if p.requires_grad)

    monkeypatch.setattr(type(plain_job.strategy), "extra_loss", lambda self, *args: penalty(*args))
    loss, whole, _ = gradients(plain_job, np.arange(8), 10_000)
    again, parts, _ = gradients(plain_job, np.arange(8), 40)
    assert again == pytest.approx(loss, rel=1e-5)
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-4, atol=1e-6)


def weights_of(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_non_finite_numbers_stop_the_run(fit, rows, tmp_path, monkeypatch, what):
    """The message names the step and rows of the user's own file, also where dev was split off."""
    data = rows()
    data[24]["text"] = "awful awful awful love love love"
    seen, updates, original = [], [], TextClassification.loss
    real_step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: updates.append(1) or real_step(self))

    def loss(self, outputs, targets, batch=None):
        value = original(self, outputs, targets)
        if not watched.get("on"):
            return value
        seen.append([p.detach().clone() for p in watched["parameters"]])
        return value * float("nan") if what == "loss" else poison(value)

    def poison(value):
        value.register_hook(lambda gradient: gradient * float("inf"))
        return value * 1.0

    watched, original_backward = {}, Stepper._backward

    def backward(self, chosen, normaliser, share):
        watched["on"] = 25 in self.job.train.rows[chosen]
        watched["parameters"] = list(self.job.backbone.model.parameters())
        return original_backward(self, chosen, normaliser, share)

    monkeypatch.setattr(TextClassification, "loss", loss)
    monkeypatch.setattr(Stepper, "_backward", backward)
    with pytest.raises(TrainingError, match=rf"The {what} is not finite at step \d+") as caught:
        fit(tmp_path / "run", data, checkpoint_seconds=1e6)
    assert f"at step {len(updates) + 1}." in str(caught.value)
    named = [int(n) for n in str(caught.value).split("rows ")[1].split(".")[0].split(", ")]
    assert 25 in named and len(named) < 20
    after = [p.detach() for p in watched["parameters"]]
    assert all(torch.equal(a, b) for a, b in zip(seen[-1], after, strict=True))


def test_clipping_holds_the_gradient_down(plain_job):
    job, norms = plain_job, []

    class Optimizer(torch.optim.SGD):
        def step(self):
            gradients = [
                p.grad.norm() for group in self.param_groups for p in group["params"] if p.grad is not None
            ]
            norms.append(float(torch.stack(gradients).norm()))

    parameters = [p for p in job.backbone.model.parameters() if p.requires_grad]
    recipe = job.recipe.with_changes(clip_norm=1e-3)
    from dataclasses import replace

    stepper = make_stepper(replace(job, recipe=recipe), Optimizer(parameters, lr=0.0), lambda: None)
    stepper.run(np.arange(8), Progress(micro_tokens=100))
    assert norms == [pytest.approx(1e-3, rel=1e-3)]


@pytest.fixture
def little_memory(monkeypatch):
    """Return a function: from then on a forward pass of more tokens than that runs out of memory."""
    from foretune.backbones.text import TextBackbone

    original, limit = TextBackbone.forward, {"training": 10**9, "evaluation": 10**9}

    def forward(self, batch):
        kind = "training" if self.model.training else "evaluation"
        outputs = original(self, batch)  # draws dropout's random numbers, as a real one would have
        if batch["input_ids"].numel() > limit[kind]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return outputs

    monkeypatch.setattr(TextBackbone, "forward", forward)
    return limit.update


def test_out_of_memory_halves_the_micro_batch(fit, little_memory, events, tmp_path):
    fixed = {"dropout": 0.0, "checkpoint_seconds": 1e6, "batch_tokens": 400}
    fit(tmp_path / "small", micro_tokens=90, **fixed)
    little_memory(training=100)
    fit(tmp_path / "run", micro_tokens=..., **fixed)
    told = [line["text"] for line in events(tmp_path / "run", "warning")]
    assert len([text for text in told if "Out of memory: the micro-batch is now" in text]) >= 2
    one, two = weights_of(tmp_path / "small"), weights_of(tmp_path / "run")
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=2e-5)
    steps = [events(tmp_path / name, "step") for name in ("small", "run")]
    assert len(steps[0]) == len(steps[1])


def test_examples_are_counted_once_though_memory_ran_out(fit, little_memory, tmp_path):
    little_memory(training=100)
    model = fit(tmp_path / "run", micro_tokens=..., batch_tokens=400, checkpoint_seconds=1e6)
    assert model.record["train"]["epochs"] == pytest.approx(3.0)


def test_dropout_is_drawn_anew_after_out_of_memory(fit, little_memory, events, tmp_path):
    """The step that ran out of memory starts again from the same random state."""
    fixed = {"dropout": 0.3, "checkpoint_seconds": 1e6, "batch_tokens": 400, "epochs": 1.0}
    little_memory(training=200)
    fit(tmp_path / "run", micro_tokens=..., **fixed)
    found = events(tmp_path / "run", "warning")[-1]["text"]
    budget = int(found.split("is now ")[1].split(" ")[0])
    fit(tmp_path / "small", micro_tokens=budget, **fixed)
    losses = [[line["loss"] for line in events(tmp_path / name, "step")] for name in ("run", "small")]
    assert losses[0] == losses[1]


def test_resumed_after_out_of_memory(fit, little_memory, stop_at, tmp_path):
    little_memory(training=100)
    fixed = {"micro_tokens": ..., "batch_tokens": 400}
    fit(tmp_path / "whole", **fixed)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "run", listeners=[stop_at("checkpoint", 9)], **fixed)
    little_memory(training=10**9)  # other programs ended meanwhile
    fit(tmp_path / "run", resume=True, **fixed)
    assert (tmp_path / "run/model.safetensors").read_bytes() == (
        tmp_path / "whole/model.safetensors"
    ).read_bytes()


def test_a_single_text_that_is_too_long(fit, little_memory, tmp_path):
    little_memory(training=5)
    with pytest.raises(ResourceError, match=r"single text of \d+ tokens. Lower --max-tokens"):
        fit(tmp_path / "run")


def test_out_of_memory_in_evaluation(fit, little_memory, rows, tmp_path, monkeypatch):
    model = fit(tmp_path / "run", checkpoint_seconds=1e6)
    texts = [row["text"] for row in rows(60, seed=5)]
    expected = model.predict_proba(texts)
    little_memory(evaluation=70)
    np.testing.assert_allclose(model.predict_proba(texts), expected, atol=1e-5)
    again = fit(tmp_path / "again", checkpoint_seconds=1e6)
    one, two = again.record["metrics"]["dev"], model.record["metrics"]["dev"]
    assert one["accuracy"] == two["accuracy"]
    assert one["log_loss"] == pytest.approx(two["log_loss"], abs=1e-5)
    little_memory(evaluation=3)
    with pytest.raises(ResourceError, match=r"single text of \d+ tokens"):
        model.predict(texts[:1])


def test_other_errors_are_not_taken_for_a_lack_of_memory(plain_job, monkeypatch):
    assert out_of_memory(MemoryError()) and out_of_memory(torch.OutOfMemoryError("x"))
    assert out_of_memory(
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")
    )
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not out_of_memory(ValueError("out of memory"))
    monkeypatch.setattr(type(plain_job.backbone), "forward", lambda *args: 1 / 0)
    parameters = [p for p in plain_job.backbone.model.parameters() if p.requires_grad]
    with pytest.raises(ZeroDivisionError):
        make_stepper(plain_job, torch.optim.SGD(parameters), lambda: None).run(
            np.arange(3), Progress(micro_tokens=9)
        )
    assert isinstance(plain_job.events, Events)
