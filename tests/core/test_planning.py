"""From data to a plan, from a plan to a fit that is held to it, and the budget that both keep."""

import json
import time
from types import SimpleNamespace

import numpy as np
import pytest

import foretune
from foretune import planning, planning_look
from foretune.errors import BackboneError, ConfigError, DataError
from foretune.forecast import cost, ledger
from foretune.forecast.cost import Cost
from foretune.forecast.plan import Plan
from foretune.forecast.records import PREDICTORS
from foretune.recipe import TUNED

SECONDS = {"linear-probe": 5.0, "full": 50.0, "top-layers": 20.0}


@pytest.fixture
def quick_costs(monkeypatch):
    """Costs by strategy, without measuring: 2 seconds, and the rest by the share of the rows."""

    def forecast(job, prepared, sizes, settle, **rest):
        every = len(prepared.train)
        trained = {n: (SECONDS[job.strategy.name] - 2) * n / every for n in sizes}
        return {
            n: Cost(2 + t, int((2 + t) * 1e8), int((2 + t) * 1e6), {"training": t, "saving": 2.0})
            for n, t in trained.items()
        }

    monkeypatch.setattr(cost, "forecast_costs", forecast)


@pytest.fixture
def own_ledger(tmp_path, monkeypatch):
    monkeypatch.setenv("FORETUNE_LEDGER", str(tmp_path / "ledger.jsonl"))
    return tmp_path / "ledger.jsonl"


@pytest.fixture
def plan(tiny, rows, fast, quick_costs):
    def run(data=None, **options):
        given = {
            "backbones": [str(tiny)],
            "strategies": list(SECONDS),
            "device": "cpu",
            "precision": "fp32",
            "offline": True,
        }
        return foretune.plan(data if data is not None else rows(160), **(given | options))

    return run


def test_candidates_are_forecast_and_ordered(plan):
    found = plan()
    assert {c.strategy for c in found.candidates} == set(SECONDS)
    for c in found.candidates:
        assert 0 <= c.low <= c.value <= c.high <= 1 and c.seconds == SECONDS[c.strategy] and c.why
        assert c.known["predictors"]["probe"] > 0 and c.known["n_test"] == found.sizes["test"]
        assert c.known["predictors"].keys() == PREDICTORS - {"pilot", "pilot_probe"}
    assert found.labels["n"] == found.sizes["train"] == 128
    for times in ("x2", "x5"):
        assert found.labels[times]["low"] <= found.labels[times]["value"] <= found.labels[times]["high"]
    assert found.command.startswith("foretune fit DATA --backbone") and found.best.strategy in found.command
    assert found.machine["cores"] >= 1 and found.seconds_spent > 0


def test_the_same_data_give_the_same_plan(plan):
    one, two = plan(), plan()
    assert [(c.strategy, c.value, c.low, c.high) for c in one.candidates] == [
        (c.strategy, c.value, c.low, c.high) for c in two.candidates
    ]


def test_limits_leave_out_what_exceeds_them(plan):
    assert {c.strategy for c in plan(memory="1GB").candidates if c.over} == {"full", "top-layers"}
    assert {c.strategy for c in plan(budget=40, memory="9GB", rows=100).candidates if c.over} == {"full"}
    found = {c.strategy: c.rows for c in plan(budget=40, memory="9GB").candidates}  # full would need 50 s
    assert found["linear-probe"] is found["top-layers"] is None and 20 <= found["full"] < 128


def test_a_budget_too_small_says_the_smallest_that_would_do(plan):
    with pytest.raises(ConfigError, match=r"linear-probe.*smallest --budget that would do is about \d+ s"):
        plan(budget="2s")
    with pytest.raises(ConfigError, match=r"more than the \d s there are, and 2 s with 20 rows"):
        plan(budget="2s")


def test_what_cannot_run_here_is_not_chosen(plan, monkeypatch):
    measured, reason = cost.forecast_costs, "Memory ran out while a few steps were tried."
    failed = Cost(np.inf, cost.TOO_MUCH, cost.TOO_MUCH, {}, reason)

    def forecast(job, prepared, sizes, settle, **rest):
        if job.strategy.name == "linear-probe":
            return measured(job, prepared, sizes, settle, **rest)
        return dict.fromkeys(sizes, failed)

    monkeypatch.setattr(cost, "forecast_costs", forecast)
    found = plan()
    assert found.best.strategy == "linear-probe"
    assert {c.over for c in found.candidates[1:]} == {f"cannot run here: {reason}"}
    text = json.dumps(found.to_json(), allow_nan=False)
    assert json.loads(text)["candidates"][1]["seconds"] is None
    assert type(found).from_json(json.loads(text)) == found
    with pytest.raises(
        ConfigError, match=r"No candidate is left; .* with full cannot run here: Memory ran out"
    ):
        plan(strategies="full")


def test_memory_alone_too_small_says_the_smallest_that_would_do(plan):
    with pytest.raises(ConfigError, match=r"The smallest --memory that would do is about 0.50GB\.$"):
        plan(memory="1MB")


def test_a_metric_that_is_not_forecast_leaves_the_costs(plan, rows, tmp_path, own_ledger):
    data = rows(160)
    found = plan(data, metric="weighted_f1", goal="speed", epochs=1.0)
    assert found.best.strategy == "linear-probe" and np.isnan(found.best.value)
    assert found.best.why == (
        "The metric weighted_f1 is not forecast yet: no outcomes were measured. Time, memory and disk are.",
    )
    given = {"device": "cpu", "precision": "fp32", "offline": True, "epochs": 1.0, "metric": "weighted_f1"}
    model = foretune.fit(data, plan=found, output=tmp_path / "run", **given)
    assert model.record["forecast"]["score"]["forecast"] is None
    (line,) = ledger.read()
    assert line.promise is None and line.metric == "weighted_f1"


def test_a_target_score_is_answered(plan):
    target = plan(target_score=0.99).labels["target"]
    assert target["score"] == 0.99 and set(target) == {"score", "value", "low", "high"}
    with pytest.raises(ConfigError, match="target score is 90"):
        plan(target_score=90)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"strategies": "linear-prob"}, ConfigError, "Did you mean 'linear-probe'"),
        ({"strategies": ""}, ConfigError, "No strategy is named"),
        ({"backbones": "minilm-l7"}, BackboneError, "minilm-l6"),
        ({"goal": "sped"}, ConfigError, "speed"),
        ({"budget": "soon"}, ConfigError, "A time is 'soon'"),
        ({"memory": "much"}, ConfigError, "A size is 'much'"),
        ({"metric": "acuracy"}, ConfigError, "accuracy"),
        ({"dev_fraction": 0.0, "test_fraction": 0.0}, ConfigError, "nothing is held out"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_measured(plan, monkeypatch, options, error, message):
    monkeypatch.setattr(planning, "load_backbone", lambda *args: pytest.fail("loaded"))
    with pytest.raises(error, match=message):
        plan(**options)


def test_data_too_small_to_forecast(plan, rows):
    with pytest.raises(DataError, match="too few to forecast"):
        plan(rows(12))


def test_small_classes_are_named(plan, rows):
    data = rows(150) + [{"text": f"a rare thing {n} here", "label": "rare"} for n in range(6)]
    assert any("rare (" in text for text in plan(data).advice)


def test_a_sample_keeps_every_class():
    targets = np.array([0] * 5000 + [1] * 3)
    rows = planning_look.sample_rows(targets, seed=0)
    assert len(rows) == planning_look.SAMPLE and 1 in targets[rows] and (np.diff(rows) > 0).all()
    assert len(planning_look.sample_rows(np.zeros(10, int), 0)) == 10


def test_a_fit_follows_a_plan_and_is_held_to_it(plan, rows, tiny, tmp_path, own_ledger):
    data = rows(160)
    made = plan(data, strategies="linear-probe")
    made.save(tmp_path / "plan.json")
    given = {"device": "cpu", "precision": "fp32", "offline": True}
    model = foretune.fit(data, plan=tmp_path / "plan.json", output=tmp_path / "run", **given)
    assert model.record["strategy"] == "linear-probe" and model.recipe.backbone == str(tiny)
    held, test = model.record["forecast"], model.record["metrics"]["test"]["accuracy"]["value"]
    assert held["score"]["outcome"] == test and held["score"]["forecast"] == made.best.value
    assert held["inside"] == (made.best.low <= test <= made.best.high)
    assert (tmp_path / "run/plan.json").exists()
    (line,) = ledger.read()
    assert line.score == test and line.promise.value == made.best.value and line.predictors
    assert line.data == made.data and "/" not in line.backbone and line.n == 128


def test_what_a_recipe_names_stands_before_the_plan_also_where_it_is_the_default(plan, rows, tiny, tmp_path):
    data = rows(160)
    made = plan(data, strategies="linear-probe")
    (tmp_path / "quick.toml").write_text(
        'strategy = "full"\nepochs = 1\nprecision = "fp32"\noffline = true\n'
    )
    model = foretune.fit(
        data, plan=made, recipe=tmp_path / "quick.toml", output=tmp_path / "run", device="cpu"
    )
    assert model.record["strategy"] == "full" and model.recipe.backbone == str(tiny)


@pytest.mark.parametrize("change", [{"metric": "macro_f1"}, {"metric": "log_loss"}, {"rows": 60}])
def test_a_fit_of_another_kind_is_not_held_to_the_plan(plan, rows, tmp_path, own_ledger, events, change):
    data = rows(160)
    made = plan(data, strategies="linear-probe", epochs=2.0)
    given = {"device": "cpu", "precision": "fp32", "offline": True, "epochs": 2.0, **change}
    model = foretune.fit(data, plan=made, output=tmp_path / "run", **given)
    assert "forecast" not in model.record and ledger.read()[0].promise is None
    told = [line["text"] for line in events(tmp_path / "run", "note")]
    assert "The plan forecast accuracy with 128 rows: forecast and outcome are not compared." in told


@pytest.mark.parametrize(
    ("planned", "fitted", "named"),
    [
        ({}, {"epochs": 2.0, "lr": 1e-3}, "epochs, lr"),
        ({"max_tokens": 8, "epochs": 1.0}, {"epochs": 1.0}, "max_tokens"),
    ],
)
def test_a_fit_with_other_settings_is_not_held_to_the_plan(
    plan, rows, tmp_path, own_ledger, events, planned, fitted, named
):
    data = rows(160)
    made = Plan.from_json(plan(data, strategies="linear-probe", **planned).to_json())
    given = {"device": "cpu", "precision": "fp32", "offline": True, **fitted}
    model = foretune.fit(data, plan=made, output=tmp_path / "run", **given)
    assert "forecast" not in model.record and ledger.read()[0].promise is None
    told = [line["text"] for line in events(tmp_path / "run", "note")]
    assert f"The plan was made with other settings ({named}): forecast and outcome are not compared." in told


def test_what_does_not_count_in_a_forecast_is_said(plan):
    said = "Scores are forecast for the default settings; epochs, lr: in time and memory only."
    assert said in plan(epochs=2.0, lr=1e-3, max_tokens=8).advice
    assert not any("default settings" in text for text in plan(max_tokens=8).advice)
    unanswered = "No score is forecast here, so none can say what labels a target needs."
    assert unanswered in plan(metric="weighted_f1", target_score=0.9).advice
    assert unanswered not in plan(metric="weighted_f1").advice


def test_dicts_are_neither_plan_nor_recipe(rows, tmp_path):
    with pytest.raises(ConfigError, match=r"recipe is a dict; expected .* keyword arguments"):
        foretune.fit(rows(161), recipe={"epochs": 1}, output=tmp_path / "run")
    with pytest.raises(ConfigError, match=r"plan is a dict; expected what foretune\.plan returned"):
        foretune.fit(rows(161), plan={"candidates": []}, output=tmp_path / "run")


def test_a_plan_for_other_data_is_refused(plan, rows, tmp_path):
    made = plan()
    with pytest.raises(ConfigError, match="made for other training data"):
        foretune.fit(rows(161), plan=made, output=tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_what_the_user_names_stands_before_the_plan(plan, rows, tmp_path):
    data = rows(160)
    made = plan(data, strategies="full")
    model = foretune.fit(
        data,
        plan=made,
        strategy="linear-probe",
        output=tmp_path / "run",
        device="cpu",
        offline=True,
        epochs=1.0,
    )
    assert model.record["strategy"] == "linear-probe" and "forecast" not in model.record


@pytest.mark.parametrize("own", [{}, {"epochs": 1.0}, {"max_tokens": 16}])
def test_every_fit_is_noted_and_recalibrates_unless_its_settings_are_its_own(
    fit, plan, rows, tmp_path, own_ledger, options, own
):
    data = rows(160)
    before = plan(data, strategies="linear-probe")
    usual = {name: ... for name in TUNED if name in options}
    fit(
        tmp_path / "run",
        data,
        strategy="linear-probe",
        dev_fraction=0.1,
        test_fraction=0.1,
        seed=0,
        **usual | own,
    )
    (line,) = ledger.read()
    assert line.promise is None and line.predictors == {} and line.tuned == ("epochs" in own)
    after = plan(data, strategies="linear-probe")
    same = (after.best.low, after.best.high) == (before.best.low, before.best.high)
    assert same == ("epochs" in own)


def test_the_ledger_can_be_switched_off(fit, tmp_path, monkeypatch):
    monkeypatch.setenv("FORETUNE_LEDGER", "off")
    fit(tmp_path / "run")
    assert ledger.read() == []


# --- budgets ---------------------------------------------------------------------


def test_a_budget_stops_training_in_time_with_the_rate_at_0(fit, events, tmp_path, monkeypatch):
    """Each step takes 20 of the 1,000 seconds, those of planning too, so fewer than 50 are done; the run is whole."""
    from foretune.training import loop
    from foretune.training.step import Stepper

    late, run = [0.0], Stepper.run

    def slow(self, *args):
        late[0] += 20.0
        return run(self, *args)

    monkeypatch.setattr(Stepper, "run", slow)
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: time.perf_counter() + late[0]))
    model = fit(tmp_path / "run", epochs=4000.0, strategy="full", budget=1000.0, patience=0)
    assert model.record["train"]["stopped_early"] and model.record["train"]["epochs"] < 4000
    assert any("budget" in line["text"] for line in events(tmp_path / "run", "note"))
    assert foretune.load(tmp_path / "run").predict(["good film"])
    rates = [line["schedule"] for line in events(tmp_path / "run", "step")]
    assert 15 < len(rates) < 50 and max(rates) > 0.9 and rates[-1] < 0.1

    fit(tmp_path / "whole", epochs=3.0, strategy="full", budget=10_000.0)
    fit(tmp_path / "free", epochs=3.0, strategy="full")
    whole, free = (events(tmp_path / name, "step") for name in ("whole", "free"))
    assert [line["schedule"] for line in whole] == [line["schedule"] for line in free]  # where time suffices


@pytest.mark.parametrize("budget", ["0", "soon", -3])
def test_an_impossible_budget_is_refused(fit, tmp_path, budget):
    with pytest.raises(ConfigError, match="A time is"):
        fit(tmp_path / "run", budget=budget)
    assert not (tmp_path / "run").exists()


def test_planning_keeps_its_share_of_the_budget(plan, monkeypatch):
    """Each timing takes 800 of the 2,000 seconds; a third one would end after them."""
    from foretune.planning_cost import Timer

    late, costs, asked = [0.0], Timer.costs, []

    def slow(self, backbone, strategy):
        asked.append(strategy)
        late[0] += 800.0
        return costs(self, backbone, strategy)

    monkeypatch.setattr(Timer, "costs", slow)
    monkeypatch.setattr(planning, "time", SimpleNamespace(perf_counter=lambda: time.perf_counter() + late[0]))
    names = ["linear-probe", "full", "top-layers"]
    found = plan(budget=10_000, strategies=names)
    assert asked == names[:2] == [c.strategy for c in sorted(found.candidates, key=lambda c: c.seconds)]
    assert any("top-layers" in text and "20%" in text for text in found.advice)
    asked.clear()
    late[0] = 0.0
    plan(budget=1000, strategies=names)  # the first is always timed
    assert asked == names[:1]
    asked.clear()
    late[0] = 0.0
    assert len(plan(strategies=names).candidates) == len(asked) == 3


def test_a_slow_look_at_the_features_does_not_keep_candidates_from_being_timed(plan, monkeypatch):
    """The look takes 1,200 of the 2,000 seconds, a timing 100: there is time for all three."""
    from foretune.planning_cost import Timer

    late, costs, look = [0.0], Timer.costs, planning.look

    def after(seconds, work):
        def slow(*given):
            late[0] += seconds
            return work(*given)

        return slow

    monkeypatch.setattr(Timer, "costs", after(100.0, costs))
    monkeypatch.setattr(planning, "look", after(1200.0, look))
    monkeypatch.setattr(planning, "time", SimpleNamespace(perf_counter=lambda: time.perf_counter() + late[0]))
    names = ["linear-probe", "full", "top-layers"]
    assert len(plan(budget=10_000, strategies=names).candidates) == 3


def test_a_budget_alone_plans_first(fit, rows, tiny, quick_costs, tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "backbones_of", lambda *args: ([str(tiny)], []))
    monkeypatch.setattr(planning, "strategies_of", lambda names: ["linear-probe", "full"])
    model = fit(tmp_path / "run", rows(160), budget="20s", backbone=..., test_fraction=0.1)
    took = model.record["timings"]
    held = model.record["forecast"]["seconds"]["outcome"]
    assert took["planning_seconds"] > 0 and held == took["total_seconds"] - took["planning_seconds"]
    found = json.loads((tmp_path / "run/plan.json").read_text())
    assert model.record["strategy"] == found["best"]["strategy"]
    by = {choice["strategy"]: choice for choice in found["candidates"]}
    assert by["linear-probe"]["rows"] is None and 20 <= by["full"]["rows"] < 128  # of all it would need 50 s
