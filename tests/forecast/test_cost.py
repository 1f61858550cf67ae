"""The cost forecast as a whole: honest sums, a job left as it was, and candidates that cannot run."""

import json
import math
import random
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from foretune.errors import ResourceError
from foretune.forecast import cost, footprint, rehearsal, study
from foretune.forecast import measure as measuring
from foretune.forecast import surroundings as around
from foretune.forecast.borrowed import borrowed
from foretune.forecast.cost import TOO_MUCH, forecast_cost
from foretune.forecast.schedule import expected_evaluations
from foretune.forecast.timing import passes, step_work, work_of
from foretune.training import memory
from foretune.training.files import write_folder
from foretune.training.inference import pass_budget
from foretune.training.loop import Loop
from foretune.training.signals import StopRequest
from foretune.training.step import Stepper

PARTS = [
    "loading",
    "tokenising",
    "caching",
    "training",
    "validation",
    "evaluation",
    "baselines",
    "saving",
    "report",
]
STRATEGIES = ["full", "linear-probe", "top-layers", "lp-ft", "gradual-unfreezing", "lora"]

pytestmark = pytest.mark.usefixtures("started")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No baselines: they are under test elsewhere."""
    monkeypatch.setattr(around, "baselines", lambda job, prepared, limit: around.Baselines(0.5, 3 << 20))


def bits(tensor):
    return tensor.detach().clone().contiguous().view(torch.uint8) if tensor.ndim else tensor.detach().clone()


def snapshot(job):
    """Everything that a forecast must leave alone, bit by bit."""
    model = job.backbone.model
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        "tensors": {name: bits(t) for name, t in tensors.items()},
        "identities": {name: id(t) for name, t in tensors.items()},
        "gradients": {n: None if p.grad is None else bits(p.grad) for n, p in model.named_parameters()},
        "trains": {n: p.requires_grad for n, p in model.named_parameters()},
        "modes": {n: module.training for n, module in model.named_modules()},
        "modules": {n: id(module) for n, module in model.named_modules()},
        "torch": torch.get_rng_state(),
        "numpy": json.dumps([np.asarray(part).tolist() for part in np.random.get_state()]),
        "python": random.getstate(),
        "files": sorted(str(path) for path in job.folder.rglob("*")),
    }


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return a == b


def differing(a, b):
    return [
        f"{kind}.{name}" if isinstance(a[kind], dict) else kind
        for kind in a
        for name in (a[kind] if isinstance(a[kind], dict) else [""])
        if not same(a[kind][name] if name else a[kind], b[kind][name] if name else b[kind])
    ]


def disturb(job):
    """Modes, gradients and random states that are not those of a fresh model."""
    model = job.backbone.model
    for number, module in enumerate(model.modules()):
        module.training = number % 3 == 0
    for number, parameter in enumerate(model.parameters()):
        if number % 2:
            parameter.grad = torch.full_like(parameter, 0.25)
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = -0.0
    torch.rand(3), np.random.random(), random.random()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_job_is_left_as_it_was(assembled, strategy):
    job, prepared = assembled(strategy=strategy, epochs=4.0)
    disturb(job)
    before, events = snapshot(job), job.events_file.read_text()
    found = forecast_cost(job, prepared, limit_seconds=0.5)
    assert differing(before, snapshot(job)) == [] and job.events_file.read_text() == events
    assert list(found.parts) == PARTS and found.reason is None
    assert all(0 <= seconds < math.inf for seconds in found.parts.values())
    assert found.seconds == pytest.approx(sum(found.parts.values())) and found.spent > 0
    cached = strategy in ("linear-probe", "top-layers", "lp-ft", "gradual-unfreezing")
    assert (found.parts["caching"] > 0) == cached and found.parts["training"] > 0
    assert found.peak_memory_bytes == sum(found.memory_parts.values())
    assert 500 << 20 < found.peak_memory_bytes < 2 << 30 and 100_000 < found.disk_bytes < 50 << 20
    json.dumps(asdict(found))


def test_the_fit_after_a_forecast_is_the_fit_without_one(assembled):
    weights = []
    for forecast in (False, True):
        job, prepared = assembled(strategy="gradual-unfreezing", seed=4)
        if forecast:
            forecast_cost(job, prepared, limit_seconds=0.2)
        Loop(job, StopRequest()).run()
        weights.append({name: bits(p) for name, p in job.backbone.model.named_parameters()})
    assert same(*weights)


TRUE = np.array([0.011, 0.003, 2e-4, 6e-6])


def test_training_is_the_sum_over_the_batches_of_the_fit(assembled, rows, monkeypatch):
    """With a machine that takes exactly what TRUE says, the forecast is what the real loop's steps take."""

    def exact(run, batch):
        work = run(batch)
        return float(work @ TRUE), work

    monkeypatch.setattr(measuring, "_timed", exact)
    monkeypatch.setattr(measuring, "PART", 2)
    job, prepared = assembled(rows(300), epochs=3.0, patience=0, batch_tokens=400, micro_tokens=150)
    found = forecast_cost(job, prepared, limit_seconds=1000.0)
    ran = []
    real = Stepper.run

    def spy(self, rows, state):
        ran.append(step_work(rows, job.train_store.lengths, state.micro_tokens))
        return real(self, rows, state)

    monkeypatch.setattr(Stepper, "run", spy)
    Loop(job, StopRequest()).run()
    assert found.parts["training"] == pytest.approx(np.sum(ran, axis=0) @ TRUE, rel=0.03)


def test_evaluations_and_the_cache_are_sums_over_their_batches(assembled, rows, monkeypatch):
    def exact(run, batch):
        work = run(batch)
        return float(work @ TRUE), work

    monkeypatch.setattr(measuring, "_timed", exact)
    monkeypatch.setattr(around, "scoring", lambda *given: (7.0, 1.0))
    job, prepared = assembled(rows(300), strategy="linear-probe", epochs=30.0, patience=0)
    found = forecast_cost(job, prepared, limit_seconds=1000.0)

    def passed(lengths):
        budget = pass_budget(job.backbone, job.runtime)
        return work_of([lengths[b] for b in passes(lengths, budget)], steps=0) @ TRUE

    test = job.backbone.preprocess(prepared.test.inputs, max_length=64, truncation="head")
    final = passed(job.dev_store.lengths) + passed(test.lengths) + 2 * 7.0
    assert found.parts["evaluation"] == pytest.approx(final, rel=0.05)
    assert 10 < found.parts["validation"] < 12  # ten evaluations; the head itself takes next to nothing
    expected = passed(job.train_store.lengths) + passed(job.dev_store.lengths)
    assert found.parts["caching"] == pytest.approx(expected, rel=0.05)


def test_more_epochs_cost_more(assembled, monkeypatch):
    def exact(run, batch):
        work = run(batch)
        return float(work @ TRUE), work

    monkeypatch.setattr(measuring, "_timed", exact)
    few, many = (
        forecast_cost(*assembled(epochs=epochs, patience=0), limit_seconds=60.0).parts["training"]
        for epochs in (2.0, 8.0)
    )
    assert many == pytest.approx(4 * few)


def test_the_steps_that_are_counted_are_told(assembled):
    without, stopping = (
        forecast_cost(*assembled(epochs=6.0, patience=patience), limit_seconds=0.1) for patience in (0, 2)
    )
    assert without.steps == Loop(assembled(epochs=6.0)[0], StopRequest()).total
    assert stopping.steps == pytest.approx(without.steps * expected_evaluations(6, 2)[0] / 6)


def test_what_the_caller_measured_and_every_start_count(assembled, started):
    job, prepared = assembled()
    found = forecast_cost(job, prepared, limit_seconds=0.1, prepare_seconds=1000.0)
    assert 1000.0 + started.seconds - started.closing < found.parts["loading"] < 1060.0
    assert found.parts["report"] == started.closing


@pytest.mark.parametrize("limit", [0.0, 0.01])
def test_hardly_any_time_still_gives_a_forecast(assembled, limit):
    found = forecast_cost(*assembled(), limit_seconds=limit)
    assert math.isfinite(found.seconds) and found.parts["training"] > 0


def test_without_held_out_data(assembled):
    job, prepared = assembled(dev_fraction=0.0, test_fraction=0.0)
    found = forecast_cost(job, prepared, limit_seconds=0.1)
    assert found.parts["evaluation"] == found.parts["validation"] == 0 and found.parts["training"] > 0
    job, prepared = assembled(dev_fraction=0.0, test_fraction=0.3)
    assert forecast_cost(job, prepared, limit_seconds=0.1).parts["evaluation"] > 0


def test_memory_that_runs_out_is_an_infinite_cost(assembled, monkeypatch):
    job, prepared = assembled()
    before = snapshot(job)
    for error in (
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        ResourceError("No room for this."),
    ):
        with monkeypatch.context() as patch:

            def fail(self, *given, error=error):
                raise error

            patch.setattr(rehearsal.Rehearsal, "phase", fail)
            found = forecast_cost(job, prepared, limit_seconds=0.1)
        assert found.seconds == math.inf and found.peak_memory_bytes == found.disk_bytes == TOO_MUCH
        assert found.reason and not found.parts and differing(before, snapshot(job)) == []
    assert found.reason == "No room for this."


def test_steps_that_shrink_their_batches_are_forecast_as_such(assembled, monkeypatch):
    """As in a fit, a pass that does not fit is halved; the forecast counts the smaller passes."""
    job, prepared = assembled(batch_tokens=400, micro_tokens=400)
    real = Stepper._backward

    def small(self, rows, normaliser, share):
        lengths = self.job.train_store.lengths[rows]
        if int(lengths.max()) * len(rows) > 120:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, rows, normaliser, share)

    monkeypatch.setattr(Stepper, "_backward", small)
    found = studied(job, prepared, 1000.0)
    assert found.rehearsal.micro_tokens <= 120 and found.training(found.plans[0]) > 0


def test_a_single_example_that_does_not_fit(assembled, monkeypatch):
    def fail(self, rows, normaliser, share):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Stepper, "_backward", fail)
    found = forecast_cost(*assembled(), limit_seconds=0.1)
    assert found.seconds == math.inf and "Out of memory with a single text" in found.reason


def test_batches_that_memory_would_not_hold_are_not_tried(assembled, monkeypatch):
    """On a CPU the system kills a process that takes too much, so the largest batch is judged by a part of it."""
    job, prepared = assembled(batch_tokens=400, micro_tokens=400)
    largest = []
    real = Stepper.run

    def spy(self, rows, state):
        largest.append(len(rows))
        return real(self, rows, state)

    monkeypatch.setattr(Stepper, "run", spy)
    monkeypatch.setattr(memory, "free_memory", lambda: 10_000)
    found = forecast_cost(job, prepared, limit_seconds=100.0)
    assert found.seconds == math.inf and "GB for its backward pass" in found.reason
    plan = Loop(job, StopRequest()).plan
    assert max(largest) < max(len(plan.rows(step)) for step in range(plan.steps_per_epoch))


def test_a_forward_pass_that_does_not_fit_is_halved(assembled, monkeypatch):
    job, prepared = assembled()
    real, sizes = job.backbone.forward, []

    def small(batch):
        sizes.append(batch["input_ids"].numel())
        if not torch.is_grad_enabled() and sizes[-1] > 100:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(batch)

    monkeypatch.setattr(job.backbone, "forward", small)
    assert math.isfinite(forecast_cost(job, prepared, limit_seconds=1000.0).seconds)
    assert max(sizes) > 100 >= sizes[-1]


def test_a_candidate_that_diverges_at_once(assembled):
    job, prepared = assembled()
    with torch.no_grad():
        for parameter in job.backbone.model.parameters():
            parameter.fill_(float("nan"))
    found = forecast_cost(job, prepared, limit_seconds=0.1)
    assert found.seconds == math.inf and "not finite" in found.reason


def test_other_faults_are_not_swallowed_and_the_job_is_given_back(assembled, monkeypatch):
    job, prepared = assembled()
    disturb(job)
    before = snapshot(job)

    def fail(self, plan, feed, limit):
        self.job.backbone.model.eval()
        for parameter in self.job.backbone.model.parameters():
            parameter.data.add_(1)
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(rehearsal.Rehearsal, "phase", fail)
    with pytest.raises(RuntimeError, match="shapes"):
        forecast_cost(job, prepared, limit_seconds=0.1)
    assert differing(before, snapshot(job)) == []


def studied(job, prepared, seconds=0.3):
    with borrowed(job) as loan:
        return study.study(loan, prepared, measuring.Clock(seconds), job.folder)


def test_phases_between_those_timed_are_interpolated(assembled):
    options = {"stages": 5, "unfreezing": 0.8}
    job, prepared = assembled(strategy="gradual-unfreezing", epochs=10.0, options=options)
    timed = []
    real = rehearsal.Rehearsal.phase

    def spy(self, plan, feed, limit):
        timed.append((plan.number, feed.start))
        return real(self, plan, feed, limit)

    rehearsal.Rehearsal.phase = spy
    try:
        found = studied(job, prepared)
    finally:
        rehearsal.Rehearsal.phase = real
    assert [found.start_of(plan) for plan in found.plans] == [5, 3, 2, 1, 0]  # 5: behind the pooling layer
    assert [number for number, _ in timed] == [0, 2, 4]
    assert sorted(found.steps) == list(range(5)) and all(found.training(plan) > 0 for plan in found.plans)
    coefficients = [np.array(found.steps[number].coefficients) for number in range(5)]
    assert np.allclose(coefficients[1], coefficients[2] + (coefficients[0] - coefficients[2]) / 3)
    assert np.allclose(coefficients[3], (coefficients[2] + coefficients[4]) / 2)


def test_the_model_that_is_loaded_again_knows_the_characters_that_are_learnt(assembled, rows):
    around._LOADS.clear()
    job, prepared = assembled([row | {"text": f"{row['text']} 好"} for row in rows(60)], strategy="full")
    assert job.backbone.learnt and not assembled(rows(60), strategy="full")[0].backbone.learnt
    assert math.isfinite(forecast_cost(job, prepared, limit_seconds=0.1).seconds)


def test_a_full_cache_is_not_filled_again(assembled, tmp_path, monkeypatch):
    monkeypatch.setenv("FORETUNE_CACHE", str(tmp_path / "cache"))
    job, prepared = assembled(strategy="top-layers")
    empty = studied(job, prepared)
    assert empty.new and list(empty.cached) == [plan.start for plan in empty.plans]
    tokens = job.train_store.lengths.sum() + job.dev_store.lengths.sum()
    assert list(empty.cached.values()) == [tokens * 32 * 2]
    Loop(job, StopRequest()).run()
    job, prepared = assembled(strategy="top-layers")
    full = studied(job, prepared)
    assert not full.new and full.cached == empty.cached
    assert footprint.peak_disk(empty, 1.0) - footprint.peak_disk(full, 1.0) == sum(empty.cached.values())


def test_without_room_the_frozen_layers_run_in_every_step(assembled, monkeypatch):
    monkeypatch.setattr(study, "size_limit", lambda: 10)
    monkeypatch.setattr(study, "memory_limit", lambda: 10)
    found = studied(*assembled(strategy="top-layers"))
    assert not found.cached and [found.start_of(plan) for plan in found.plans] == [0]
    assert found.training(found.plans[0]) > 0
    job, prepared = assembled(strategy="top-layers", cache="off")
    assert studied(job, prepared).prefix == 0


SMALL = (
    "report.html",
    "events.jsonl",
    "foretune.json",
    "README.md",
    "recipe.toml",
    "state.json",
    "checksums.json",
)


class Sizes:
    """Listens to a fit and notes the bytes of models and checkpoints in its folder whenever something happens."""

    def __init__(self, folder):
        self.folder, self.most = folder, 0

    def look(self):
        files = [path for path in self.folder.rglob("*") if path.is_file() and path.name not in SMALL]
        self.most = max(self.most, sum(path.stat().st_size for path in files))

    def on(self, kind, values):
        self.look()

    def close(self):
        self.look()


@pytest.mark.parametrize(
    ("strategy", "every", "patience"),
    [("full", 1e9, 0), ("full", 0.0, 0), ("linear-probe", 1e9, 0), ("lora", 0.0, 0)],
)
def test_the_disk_is_what_a_fit_writes(
    assembled, tiny, rows, tmp_path, monkeypatch, strategy, every, patience
):
    """Without report and record, which are nothing beside the weights of real models."""
    from foretune import api, artifact
    from foretune.training import checkpoint

    changes = {"strategy": strategy, "checkpoint_seconds": every, "patience": patience, "epochs": 3.0}
    job, prepared = assembled(**changes)
    found = studied(job, prepared)
    monkeypatch.setattr(footprint, "OTHER_FILES", 0)
    predicted = footprint.peak_disk(found, 1.0) - sum(found.cached.values())
    sizes = Sizes(tmp_path / "fit")
    real = write_folder

    def watched(target, fill):
        real(target, lambda draft: (fill(draft), sizes.look()))

    compare = artifact._compare

    def compared(model, draft, probes):
        sizes.look()  # the finished model lies beside the checkpoints
        compare(model, draft, probes)

    monkeypatch.setattr(checkpoint, "write_folder", watched)
    monkeypatch.setattr(artifact, "_compare", compared)
    options = {
        "backbone": tiny, "device": "cpu", "precision": "fp32", "offline": True, "lr": 1e-3, "dropout": 0.1,
        "batch_tokens": 120, "micro_tokens": 50, "dev_fraction": 0.2, "test_fraction": 0.2,
    }  # fmt: skip
    api.fit(rows(), output=tmp_path / "fit", listeners=[sizes], **(options | changes))
    assert sizes.most == pytest.approx(predicted, rel=0.15)


def test_memory_adds_up(assembled, started):
    found = studied(*assembled())
    weights = footprint.weights_bytes(found)
    model = found.job.backbone.model
    parts = [*model.parameters(), *model.buffers()]
    assert weights == sum({t.data_ptr(): t.numel() * t.element_size() for t in parts}.values())
    found.growth, found.pass_growth, found.rehearsal.share = 10**7, 0, 1.0
    found.load, found.baselines = replace(found.load, memory_bytes=500), around.Baselines(1.0, 70)
    before = started.memory_bytes + around.data_bytes(found.prepared) + weights + 10**7
    found.cached = {}
    assert sum(footprint.memory_parts(found).values()) == before + 570
    found.cached = {3: 600}
    assert sum(footprint.memory_parts(found).values()) == before + 600 + 570
    found.load = replace(found.load, memory_bytes=None)
    assert sum(footprint.memory_parts(found).values()) == before + 600 + weights + 70


def test_what_was_run_in_part_is_extended(assembled):
    found = studied(*assembled())
    (best, whole), trained = footprint.saved_bytes(found), found.rehearsal.trained_bytes
    assert whole == best + 3 * trained  # the passes of a step are smaller than the step here
    found.growth, found.pass_growth, found.rehearsal.share, found.rehearsal.saved_bytes = 10**7, 0, 0.25, 400
    assert footprint.training_growth(found) == 10**7 + 300
    found.pass_growth = 10**8
    assert footprint.training_growth(found) == 2 * trained + best + 10**8
    found.growth = None
    assert footprint.training_growth(found) == max(3 * trained + 400, 2 * trained + whole)
    found.rehearsal.micro_tokens = found.job.settings.batch_tokens
    assert footprint.saved_bytes(found) == (best, best + 2 * trained)


@pytest.mark.skipif(not memory.reset_peak(), reason="needs Linux's /proc")
def test_a_pass_is_judged_by_a_part_where_time_is_short(assembled, rows, monkeypatch):
    job, prepared = assembled(rows(200))
    real, sizes = job.backbone.forward, []

    def hungry(batch):
        sizes.append(len(batch["input_ids"]))
        if not torch.is_grad_enabled():
            torch.ones(sizes[-1] * (2 << 20)).sum()  # 8 MB an example
        return real(batch)

    monkeypatch.setattr(job.backbone, "forward", hungry)
    found = studied(job, prepared, 0.0)
    dev = len(prepared.dev)
    assert found.rehearsal.forward_share == pytest.approx(0.25, abs=0.02) and max(sizes) < dev
    assert 0.8 < found.pass_growth / (dev * 8 << 20) < 1.4
    whole = studied(job, prepared, 1000.0)
    assert whole.rehearsal.forward_share == 1.0 and whole.pass_growth == 0 and max(sizes) == dev
    assert 0.5 < found.pass_growth / whole.growth < 1.5  # the heap keeps what it was given: no exact figure


def test_a_start_that_could_not_be_measured(assembled, monkeypatch):
    monkeypatch.setattr(study, "start_up", lambda profile: None)
    job, prepared = assembled()
    found = forecast_cost(job, prepared, limit_seconds=0.1)
    assert math.isfinite(found.seconds) and found.peak_memory_bytes > 100 << 20


@pytest.mark.skipif(not memory.reset_peak(), reason="needs Linux's /proc")
def test_what_a_step_needs_is_measured(assembled, rows):
    """A large activation that only lives during the step shows up in the forecast."""
    job, prepared = assembled()
    plain = forecast_cost(job, prepared, limit_seconds=0.2).peak_memory_bytes
    real = job.strategy.extra_loss

    def hungry(model, batch, outputs):
        return (torch.ones(50 << 20) * outputs.sum()).sum() * 0  # 200 MB and again as much for the product

    job.strategy.extra_loss = hungry
    found = forecast_cost(job, prepared, limit_seconds=0.2)
    job.strategy.extra_loss = real
    assert 350 << 20 < found.peak_memory_bytes - plain < 1 << 30


def test_checkpoints_are_counted(assembled):
    found = studied(*assembled(checkpoint_seconds=10.0))
    assert [footprint.checkpoints_written(found, s) for s in (3.0, 10.0, 45.0)] == [0, 1, 4]
    best, whole = footprint.saved_bytes(found)
    sizes = [footprint.peak_disk(found, s) for s in (3.0, 10.0, 20.0, 45.0)]
    model = footprint.artefact_bytes(found)
    assert sizes[0] == best + max(best, model) and sizes[1] == whole + 2 * best + model
    assert sizes[2] == 2 * whole + 2 * best + model and sizes[3] == 2 * whole + 2 * best + max(whole, model)


def test_layers_that_a_strategy_adds_are_saved_too(assembled):
    found = studied(*assembled())
    layer = 4 * (32 * 32 + 32) + 2 * (32 * 64) + 64 + 32 + 4 * 32  # attention, feed-forward, two norms
    assert found.load.layers == 4 and found.job.backbone.layers.count == 5
    assert found.load.layer_bytes == 4 * layer
    assert footprint.artefact_bytes(found) == found.load.saved_bytes + 4 * layer + footprint.OTHER_FILES


def test_every_entry_of_the_cost_is_a_plain_number(assembled):
    found = asdict(forecast_cost(*assembled(), limit_seconds=0.1))
    assert {type(found[name]) for name in ("peak_memory_bytes", "disk_bytes")} == {int}
    assert {type(value) for value in found["parts"].values()} == {float}
    assert cost.forecast_cost is forecast_cost
