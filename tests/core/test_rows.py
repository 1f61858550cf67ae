"""Fits and plans on a part of the training rows: what is drawn, what it costs, and what is said of it."""

import time

import numpy as np
import pytest

import foretune
from foretune import planning_cost, planning_scores
from foretune.errors import ConfigError
from foretune.forecast import cost
from foretune.forecast.cost import Cost
from foretune.planning_look import Look
from foretune.prepare import prepare, sample_words, sampled
from foretune.recipe import Recipe


def test_rows_are_drawn_stratified_with_the_seed(prepared, rows):
    data = rows(300) + [{"text": f"a rare thing {n} here", "label": "rare"} for n in range(30)]
    whole = prepared(data)
    part = prepared(data, rows=100)
    assert len(part.train) == 100 and part.sizes()["train"] == 100 and len(part.whole) == len(whole.train)
    shares = np.bincount(part.train.targets) / 100, np.bincount(whole.train.targets) / len(whole.train)
    assert np.abs(shares[0] - shares[1]).max() < 0.02
    assert list(part.train.inputs) == list(prepared(data, rows=100).train.inputs)
    assert set(part.train.inputs) <= set(whole.train.inputs)
    assert list(sampled(whole, 100, seed=5).train.inputs) != list(part.train.inputs)
    assert any("Trained on 100 of 264 rows" in note for note in part.notes)


def test_held_out_rows_and_the_fingerprint_stay_those_of_all_rows(prepared, rows):
    whole, part = prepared(rows(200)), prepared(rows(200), rows=50)
    assert part.dev.inputs == whole.dev.inputs and part.test.inputs == whole.test.inputs
    assert part.fingerprints == whole.fingerprints and whole.whole is None


@pytest.mark.parametrize("number", [160, 5000])
def test_as_many_rows_as_there_are_are_all_of_them(prepared, rows, number):
    whole, part = prepared(rows(200)), prepared(rows(200), rows=number)
    assert part.train.inputs == whole.train.inputs and part.whole is None and part.notes == whole.notes


def test_copies_of_a_text_stay_together(prepared, rows):
    data = [row for row in rows(60) for _ in range(3)]
    part = prepared(data, rows=50)
    inside, outside = set(part.train.inputs), set(part.whole.inputs) - set(part.train.inputs)
    left = [text for text in part.whole.inputs if text in inside]
    assert outside and len(left) == len(part.train.inputs) and abs(len(left) - 50) <= 6


def test_a_sample_of_a_sample_knows_the_whole(prepared, rows):
    part = sampled(prepared(rows(200), rows=100), 40, seed=0)
    assert len(part.train) == 40 and len(part.whole) == 160
    assert sample_words(part) == "Trained on 40 of 160 rows"


@pytest.mark.parametrize(("number", "message"), [(0, "rows is 0"), (-5, "rows is -5"), (2.5, "wrong type")])
def test_impossible_numbers_of_rows_are_refused(number, message):
    with pytest.raises(ConfigError, match=message):
        Recipe(rows=number)


def test_a_fit_on_a_part_is_another_run(fit, rows, tmp_path):
    given = {"epochs": 1.0, "strategy": "linear-probe"}
    model = fit(tmp_path / "run", rows(100), rows=30, **given)
    assert model.record["data"]["sizes"]["train"] == 30 and model.recipe.rows == 30
    assert "rows = 30" in (tmp_path / "run/recipe.toml").read_text()
    assert any("Trained on 30 of 80 rows" in text for text in model.record["data"]["sentences"])
    assert (
        model.record["data"]["fingerprints"]
        == fit(tmp_path / "all", rows(100), **given).record["data"]["fingerprints"]
    )
    again = fit(tmp_path / "run", rows(100), rows=30, resume=True, **given)
    assert again.record["asked"] == model.record["asked"]
    with pytest.raises(ConfigError, match="other data or options"):
        fit(tmp_path / "run", rows(100), rows=31, resume=True, **given)


def test_no_more_than_so_many_rows_are_split_off(prepared, rows):
    part = prepared(rows(300), held_out_rows=12)
    assert part.sizes() == {"train": 276, "dev": 12, "test": 12} and part.whole is None
    assert prepared(rows(300), held_out_rows=500).sizes() == prepared(rows(300)).sizes()
    given = prepare(rows(100), rows(30, seed=1), None, Recipe(offline=True, held_out_rows=5))
    assert given.sizes() == {"train": 100, "dev": 30}  # what the user gives is used whole


# --- budgets ------------------------------------------------------------------------------------------------

PER_ROW, FIXED = {"linear-probe": 0.5, "full": 2.0}, 4.0  # seconds
BEGUN = 1.0


@pytest.fixture
def priced(monkeypatch):
    """Costs that grow with the rows, without measuring."""

    def forecast(job, prepared, sizes, settle, **rest):
        each = PER_ROW[job.strategy.name]
        return {n: Cost(FIXED + each * n, 10**8, 10**6, {"training": each * n}, begun=BEGUN) for n in sizes}

    monkeypatch.setattr(cost, "forecast_costs", forecast)


@pytest.fixture
def plan(tiny, rows, fast, priced):
    def run(**options):
        given = {
            "backbones": [tiny], "strategies": list(PER_ROW), "device": "cpu", "precision": "fp32", "offline": True,
        }  # fmt: skip
        return foretune.plan(rows(1000), **(given | options))

    return run


def test_with_time_enough_all_rows_are_taken(plan):
    assert all(c.rows is None for c in plan(budget="1h").candidates)
    by = {
        c.strategy: c for c in plan(budget=700).candidates
    }  # the probe keeps it with all rows, full with fewer
    assert by["linear-probe"].rows is None and 200 < by["full"].rows < 350
    assert all(choice.over is None for choice in by.values())


def test_under_a_small_budget_every_candidate_takes_what_it_has_time_for(plan):
    found = plan(budget=200)
    by = {c.strategy: c for c in found.candidates}
    for name, choice in by.items():
        assert choice.over is None and choice.seconds == FIXED + PER_ROW[name] * choice.rows < 200
        assert choice.seconds > 0.6 * 200  # the most that fits, in round steps
        assert f"Learns from {choice.rows:,} of 800 rows" in choice.why[0]
        assert choice.low <= choice.value <= choice.high and choice.known["n"] == choice.rows
    assert by["full"].rows < by["linear-probe"].rows
    assert found.command.endswith(f"--rows {found.best.rows}") and found.labels["n"] == found.best.rows
    assert found.sizes["train"] == 800


def test_named_rows_are_not_changed(plan):
    assert all(c.rows is None and c.known["n"] == 300 for c in plan(rows=300, budget="1h").candidates)
    with pytest.raises(ConfigError, match="No candidate keeps the limits; the quickest"):
        plan(rows=700, budget=100)


def test_too_small_for_any_rows_is_refused(plan):
    with pytest.raises(ConfigError, match=r"and 14 s with 20 rows\. The smallest --budget .* about \d+ s"):
        plan(budget=5)


def test_a_fit_follows_the_rows_of_its_plan(plan, rows, tmp_path, fast):
    found = plan(budget=60, strategies="linear-probe")
    found.save(tmp_path / "plan.json")
    given = {"device": "cpu", "precision": "fp32", "offline": True, "epochs": 1.0, "output": tmp_path / "run"}
    model = foretune.fit(rows(1000), plan=tmp_path / "plan.json", **given)
    text = f"Trained on {found.best.rows} of 800 rows, as the budget allows"
    assert model.recipe.rows == found.best.rows and any(text in each for each in model.record["warnings"])
    assert model.record["data"]["sizes"]["train"] == found.best.rows
    named = foretune.fit(rows(1000), plan=found, rows=25, **(given | {"output": tmp_path / "named"}))
    assert named.recipe.rows == 25


def test_a_budget_splits_off_what_can_be_scored_in_time_and_the_fit_splits_alike(
    plan, rows, tmp_path, monkeypatch
):
    from foretune import api

    monkeypatch.setattr(api, "FEWEST_MEASURED", 20)
    monkeypatch.setattr(api, "MEASURED_PER_SECOND", 0.5)
    assert plan(budget="1h").sizes == plan().sizes == {"train": 800, "dev": 100, "test": 100}
    found = plan(budget=60, strategies="linear-probe")
    assert found.sizes == {"train": 940, "dev": 30, "test": 30} and found.held_out_rows == 30
    assert found.command.endswith(" --held-out-rows 30") and "held-out" not in plan(budget="1h").command
    given = {"device": "cpu", "precision": "fp32", "offline": True, "epochs": 1.0}
    model = foretune.fit(rows(1000), plan=found, output=tmp_path / "run", **given)
    assert model.record["data"]["sizes"]["test"] == 30 and model.recipe.held_out_rows == 30


@pytest.mark.slow
@pytest.mark.parametrize("budget", [60, 120])
def test_real_budgets_are_kept_with_many_rows(rows, tmp_path, budget):
    """The bundled backbone, everything left open; a machine too slow for it says in time what would do."""
    data = [row | {"text": f"{row['text']} {n}"} for n, row in enumerate(rows(30_000))]
    began = time.perf_counter()
    try:
        model = foretune.fit(data, budget=budget, output=tmp_path / "run", device="cpu", offline=True)
    except ConfigError as error:
        assert "smallest --budget that would do" in str(error) and not (tmp_path / "run").exists()
    else:
        sizes = model.record["data"]["sizes"]
        assert sizes["dev"] == sizes["test"] == 10 * budget and sizes["train"] <= 30_000 - 20 * budget
        assert foretune.load(tmp_path / "run").predict(["good film"])
        assert model.record["timings"]["total_seconds"] <= 1.05 * budget
    assert time.perf_counter() - began <= 1.15 * budget  # with loading once more


def test_inside_a_fit_what_lies_behind_does_not_count(prepared, rows):
    whole = prepared(rows(100))
    timers = [
        planning_cost.Timer(Recipe(), whole, whole, "accuracy", None, 60.0, 0.0, inside)
        for inside in (False, True)
    ]
    found = Cost(10.0, 1, 1, begun=3.0)
    assert [timer.needs(found) for timer in timers] == [10.0, 7.0]
    assert timers[0].most_rows({20: found, 50: Cost(100.0, 1, 1)}, 11.0) is None  # some room is kept
    assert timers[1].most_rows({20: found, 50: Cost(100.0, 1, 1)}, 11.0) == 20


def test_few_rows_are_tokenised_to_plan(rows, prepared):
    whole = prepared([row | {"text": f"{row['text']} {n}"} for n, row in enumerate(rows(2000))])
    given = (Recipe(), whole, "accuracy", None)
    assert len(planning_cost.Timer.of(*given, 30.0, 0.0, True).view.train) == 600
    assert planning_cost.Timer.of(*given, None, 0.0, False).view is whole


def test_a_score_grows_along_the_curve_of_the_probe():
    from foretune.forecast.curve import fit_curve

    sizes, reached = np.array([25, 50, 100, 200]), np.array([0.6, 0.66, 0.7, 0.73])
    curve = fit_curve(sizes, reached, np.diag(np.full(4, 1e-4)), seed=0)
    look = Look({}, 10.0, "", curve, np.arange(200), np.zeros((200, 3)))
    score = {"value": 0.8, "low": 0.75, "high": 0.84, "why": ("so",)}
    more = planning_scores.grown(score, look, 2000)
    assert more["value"] > 0.8 and more["high"] - more["low"] > 0.09 and "2,000 rows" in more["why"][-1]
    assert (
        planning_scores.grown(score, look, 200) is score and planning_scores.grown(score, look, 50) is score
    )
