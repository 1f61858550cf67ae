"""What a candidate costs with other numbers of rows than those it was measured on."""

from dataclasses import replace

import numpy as np
import pytest

from foretune.assemble import settle
from foretune.errors import TrainingError
from foretune.forecast import cost, study
from foretune.forecast import measure as measuring
from foretune.forecast import surroundings as around
from foretune.forecast.cost import TOO_MUCH, forecast_cost, forecast_costs
from foretune.forecast.sized import Lengths, round_sizes, workload
from foretune.prepare import sampled
from foretune.strategies.base import Settings

TRUE = np.array([2e-3, 1e-3, 1e-6, 1e-9])  # seconds per step, pass, token, token x longest

pytestmark = pytest.mark.usefixtures("started")


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """Times that follow from the work, so that forecasts can be compared."""

    def timed(run, batch):
        work = run(batch)
        return float(work @ TRUE), work

    monkeypatch.setattr(measuring, "_timed", timed)
    monkeypatch.setattr(around, "baselines", lambda job, prepared, limit: around.Baselines(0.5, 3 << 20))


def settings(work):
    return Settings(lr=1e-3, epochs=2.0, batch_tokens=120)


@pytest.mark.parametrize(
    ("least", "most", "found"),
    [
        (20, 90, [20, 25, 30, 40, 50, 60, 80, 90]),
        (20, 20, [20]),
        (30, 20, [20]),
        (24, 30, [24, 25, 30]),
    ],
)
def test_sizes_are_easy_to_say(least, most, found):
    assert round_sizes(least, most) == found


def test_sizes_lie_close_together():
    sizes = np.array(round_sizes(20, 67_349))
    assert (
        sizes[0] == 20 and sizes[-1] == 67_349 and (sizes[1:] / sizes[:-1]).max() <= 1.34 and len(sizes) < 50
    )


@pytest.mark.parametrize("number", [7, 60, 900])
def test_lengths_are_distributed_as_those_measured(assembled, number):
    store = assembled()[0].train_store
    found = Lengths.like(store, number)
    assert len(found) == number and found.varies == store.varies
    assert (found.lengths.min(), found.lengths.max()) == (store.lengths.min(), store.lengths.max())
    assert found.lengths.mean() == pytest.approx(store.lengths.mean(), rel=0.2)


def test_a_workload_grows_with_the_examples(assembled):
    job, _ = assembled()
    own, more = workload(job, len(job.train)), workload(job, 10 * len(job.train))
    assert own.examples == len(job.train_store) and own.tokens == job.train_store.lengths.sum()
    assert (more.examples, more.tokens, more.classes) == (10 * own.examples, 10 * own.tokens, 2)


@pytest.mark.parametrize("strategy", ["full", "linear-probe", "top-layers"])
def test_a_sample_tells_what_all_rows_cost(assembled, rows, strategy):
    data = rows(700)
    job, prepared = assembled(data, strategy=strategy)
    whole = forecast_cost(job, prepared, limit_seconds=60.0)
    part = sampled(prepared, 80, seed=0)
    small = replace(
        job, train=part.train, train_set=job.task.encode(job.backbone, part.train, max_length=64, truncation="head")
    )  # fmt: skip
    n = len(prepared.train)
    found = forecast_costs(small, prepared, [40, 80, n], settings, limit_seconds=60.0)
    for name in ("training", "validation", "evaluation", "caching"):
        assert found[n].parts[name] == pytest.approx(whole.parts[name], rel=0.15, abs=0.05), name
    assert found[40].parts["training"] < found[80].parts["training"] < found[n].parts["training"]
    assert found[40].parts["evaluation"] == found[n].parts["evaluation"]  # held out is what it was
    assert found[40].seconds < found[80].seconds < found[n].seconds
    assert found[n].memory_parts["data"] == found[40].memory_parts["data"]  # all rows are read


def test_settings_follow_the_number_of_rows(assembled, rows):
    job, prepared = assembled(rows(100), patience=0)

    def more_for_few(work):
        return replace(settings(work), epochs=8.0 if work.examples < 50 else 2.0)

    found = forecast_costs(job, prepared, [40, 60], more_for_few, limit_seconds=10.0)
    assert found[40].parts["training"] > 2 * found[60].parts["training"]


def test_defaults_are_those_of_a_fit(assembled, rows):
    job, _ = assembled(rows(100), epochs=None, lr=None, batch_tokens=None)
    recipe = job.recipe.with_changes(epochs=None, lr=None, batch_tokens=None)
    assert settle(recipe, job.strategy.defaults(workload(job, len(job.train)))) == job.settings


def test_a_hurried_forecast_does_not_run_the_smallest_fit(assembled, monkeypatch):
    monkeypatch.setattr(study, "start_up", lambda profile: pytest.fail("measured"))
    monkeypatch.setattr(study, "known_start_up", lambda profile: None)
    job, prepared = assembled()
    n = len(prepared.train)
    found = forecast_costs(
        job, prepared, [n], settings, limit_seconds=0.1, hurried=True, prepare_seconds=3.0
    )[n]
    assert found.begun == 3.0 and found.parts["report"] == 0.0


def test_what_begins_every_fit_is_told(assembled, started):
    job, prepared = assembled()
    found = forecast_cost(job, prepared, limit_seconds=0.1, prepare_seconds=3.0)
    assert found.begun == 3.0 + started.seconds - started.closing < found.parts["loading"]


def test_what_cannot_run_costs_for_ever_with_any_rows(assembled, monkeypatch):
    def fail(*args):
        raise TrainingError("The loss is not finite.")

    monkeypatch.setattr(cost, "study", fail)
    found = forecast_costs(*assembled(), [20, 40], settings, limit_seconds=0.1)
    assert all(
        c.seconds == float("inf") and c.disk_bytes == TOO_MUCH and "finite" in c.reason
        for c in found.values()
    )


def test_baselines_follow_the_rows_they_train_on_and_are_scored_on():
    measured = around.Baselines(measured=((100, 1.0, 10.0), (300, 3.0, 30.0)))
    assert measured.at(500, 100).seconds == pytest.approx(6.0)
    assert measured.at(100, 100).seconds == pytest.approx(2.0) and measured.at(0, 100).memory_bytes == 10
    assert around.Baselines(2.0, 5).at(10, 10) == around.Baselines(2.0, 5)
