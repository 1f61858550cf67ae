"""Budgets where nothing is left open, fits that a budget cut short, and the time of fits that were resumed."""

import time
from types import SimpleNamespace

import numpy as np
import pytest

import foretune
from foretune import api, outcome, planning_cost
from foretune.errors import ConfigError
from foretune.forecast import cost, ledger
from foretune.forecast.cost import Cost
from foretune.recipe import Recipe
from foretune.training import loop
from foretune.training.step import Stepper

EACH, FIXED = 1.0, 4.0  # seconds of training for a row, and of all else


@pytest.fixture
def priced(monkeypatch):
    """Costs that grow with the rows, without measuring; evaluation and saving take half a second each."""

    def forecast(job, prepared, sizes, settle, **rest):
        return {n: priced_at(n) for n in sizes}

    monkeypatch.setattr(cost, "forecast_costs", forecast)


def priced_at(n):
    parts = {"loading": 1.0, "caching": FIXED - 2, "training": EACH * n, "evaluation": 0.5, "saving": 0.5}
    return Cost(FIXED + EACH * n, 10**8, 10**6, parts, begun=1.0)


@pytest.fixture
def own_ledger(tmp_path, monkeypatch):
    monkeypatch.setenv("FORETUNE_LEDGER", str(tmp_path / "ledger.jsonl"))


@pytest.fixture
def named(tiny, fast):
    """Options of a fit that leave nothing open."""
    return {
        "backbone": tiny, "strategy": "full", "device": "cpu", "precision": "fp32", "offline": True, "patience": 0,
        "batch_tokens": 400, "test_fraction": 0.1,
    }  # fmt: skip


def test_a_named_candidate_takes_the_rows_it_has_time_for(rows, named, priced, tmp_path):
    model = foretune.fit(rows(300), budget=120, output=tmp_path / "run", **named)
    assert 60 < model.recipe.rows <= 116 and (tmp_path / "run/plan.json").is_file()
    text = f"Trained on {model.recipe.rows} of 240 rows, as the budget allows"
    assert any(text in each for each in model.record["warnings"])
    assert model.record["forecast"]["seconds"]["forecast"] == FIXED + EACH * model.recipe.rows


def test_what_does_not_fit_without_any_training_is_refused_before_anything_is_written(
    rows, named, priced, tmp_path
):
    with pytest.raises(
        ConfigError, match=r"No candidate keeps the limits.*smallest --budget that would do is about"
    ):
        foretune.fit(rows(300), budget=2.5, output=tmp_path / "run", **named)
    plan = foretune.plan(
        rows(300),
        backbones=[named["backbone"]],
        strategies="full",
        device="cpu",
        precision="fp32",
        offline=True,
    )
    with pytest.raises(ConfigError, match=r"Without any training .* with full needs 3 s, more than the"):
        foretune.fit(rows(300), plan=plan, budget=2.5, output=tmp_path / "run", **named)
    assert not (tmp_path / "run").exists()


def test_epochs_that_are_named_are_cut_short_instead(rows, named, priced, tmp_path):
    model = foretune.fit(rows(300), budget=60, epochs=2.0, output=tmp_path / "run", **named)
    assert model.recipe.rows is None and model.record["data"]["sizes"]["train"] == 240
    found = foretune.forecast.plan.Plan.read(tmp_path / "run/plan.json")
    assert any("the budget will end its training" in why for why in found.best.why)


def test_too_little_to_plan_is_fitted_all_the_same(rows, named, tmp_path):
    model = foretune.fit(rows(18), budget=600, output=tmp_path / "run", **named)
    assert not (tmp_path / "run/plan.json").exists() and model.predict(["good film"])


def test_where_training_may_be_cut_the_rest_counts(prepared, rows):
    whole = prepared(rows(100))
    found = {n: priced_at(n) for n in (20, 50, 80)}

    def most(left, cut, **recipe):
        given = (Recipe(**recipe), whole, whole, "accuracy", None, 60.0, 0.0, True, cut)
        return planning_cost.Timer(*given).most_rows(found, left)

    assert most(70, cut=False) == most(70, cut=True) == 50  # 53 seconds of 0.85 * 70
    assert most(20, cut=False) is None and most(20, cut=True) == 80  # half of 20 seconds for the other 3
    assert most(70, cut=True, epochs=3.0) == 80 and most(5, cut=True) is None


# --- after the fit --------------------------------------------------------------------------------------------


@pytest.fixture
def slow_steps(monkeypatch):
    """Each step takes 30 seconds of the budget."""
    late, run = [0.0], Stepper.run

    def slow(self, *args):
        late[0] += 30.0
        return run(self, *args)

    monkeypatch.setattr(Stepper, "run", slow)
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: time.perf_counter() + late[0]))
    return late


def test_a_fit_cut_short_is_not_held_to_its_forecast_nor_learnt_from(
    rows, named, priced, slow_steps, own_ledger, events, tmp_path
):
    usual = {name: value for name, value in named.items() if name not in ("patience", "batch_tokens")}
    model = foretune.fit(rows(100), budget=150, output=tmp_path / "run", **usual)
    assert model.record["train"]["stopped_early"] and model.record["train"]["steps"] <= 5
    assert "forecast" not in model.record
    told = [line["text"] for line in events(tmp_path / "run", "note")]
    assert any("ended training at step" in text and "not compared" in text for text in told)
    (noted,) = ledger.read()
    assert noted.promise is None and noted.tuned
    foretune.fit(rows(100), output=tmp_path / "whole", **usual)
    assert not ledger.read()[-1].tuned


def test_the_last_steps_of_a_schedule_may_be_missing(rows, named, priced, slow_steps, own_ledger, tmp_path):
    whole = foretune.fit(rows(100), output=tmp_path / "whole", **named).record["train"]["steps"]
    assert whole > 10
    slow_steps[0], budget = 0.0, 30.0 * (whole - 2)
    model = foretune.fit(rows(100), budget=budget, output=tmp_path / "run", **named)
    assert whole - 3 <= model.record["train"]["steps"] < whole and "forecast" in model.record
    assert ledger.read()[-1].promise is not None


def test_a_budget_that_was_not_kept_is_told(rows, named, priced, events, tmp_path, monkeypatch):
    late, work = [0.0], outcome.outcome

    def slow(*given):
        work(*given)
        late[0] = 500.0

    monkeypatch.setattr(outcome, "outcome", slow)
    monkeypatch.setattr(api, "time", SimpleNamespace(perf_counter=lambda: time.perf_counter() + late[0]))
    foretune.fit(rows(100), budget=400, output=tmp_path / "run", **named)
    told = [line["text"] for line in events(tmp_path / "run", "warning")]
    assert any("The budget of 6 min 40 s was not kept: everything took 8 min" in text for text in told)
    late[0] = 0.0
    monkeypatch.setattr(outcome, "outcome", work)
    foretune.fit(rows(100), budget=400, output=tmp_path / "in-time", **named)
    assert not any("not kept" in line["text"] for line in events(tmp_path / "in-time", "warning"))


def test_the_time_before_a_stop_counts(fit, own_ledger, stop_at, tmp_path, monkeypatch):
    """A thousand seconds pass before the second checkpoint, after which the run is stopped."""
    with monkeypatch.context() as patched:
        patched.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: time.perf_counter() + 1000.0))
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "run", listeners=[stop_at("checkpoint", 2)])
    model = fit(tmp_path / "run", resume=True)
    assert 1000 < model.record["timings"]["total_seconds"] < 1100
    assert 1000 < ledger.read()[-1].seconds < 1100
    assert fit(tmp_path / "whole").record["timings"]["total_seconds"] < 100


def test_a_plan_of_a_part_of_the_rows_is_followed_with_that_part(rows, named, priced, own_ledger, tmp_path):
    given = {"device": "cpu", "precision": "fp32", "offline": True}
    plan = foretune.plan(rows(200), backbones=[named["backbone"]], strategies="full", rows=60, **given)
    plan.save(tmp_path / "plan.json")
    model = foretune.fit(rows(200), plan=tmp_path / "plan.json", output=tmp_path / "run", **given)
    assert model.recipe.rows == 60 and model.record["data"]["sizes"]["train"] == 60
    assert model.record["forecast"]["metric"] == "accuracy" and np.isfinite(ledger.read()[-1].promise.value)
    more = foretune.fit(rows(200), plan=plan, rows=80, output=tmp_path / "more", **given)
    assert more.recipe.rows == 80 and "forecast" not in more.record


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbones": 5}, "backbones or strategies are 5; expected a list of names"),
        ({"strategies": [3]}, "expected a list of names"),
        ({"target_score": "0.9"}, "target score is '0.9'; expected a number between 0 and 1"),
        ({"pilots": "two"}, "pilots is 'two'; expected how many"),
    ],
)
def test_what_is_no_name_or_number_is_said(rows, tiny, options, message):
    with pytest.raises(ConfigError, match=message):
        foretune.plan(rows(100), **({"backbones": [tiny], "offline": True} | options))
