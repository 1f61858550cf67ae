"""The order of candidates, limits, times and sizes, and the plan's file."""

import json
from dataclasses import replace

import numpy as np
import pytest

from foretune.errors import ConfigError
from foretune.forecast.plan import Choice, Plan, duration, limits, order, parse_bytes, parse_duration
from foretune.forecast.records import PREDICTORS
from foretune.forecast.transferability import predictors

RECORD = {
    "data": "f" * 64, "task": "text-classification", "n": 100, "classes": 2, "tokens": 9.5, "backbone": "a",
    "backbone_fingerprint": "e" * 64, "strategy": "full", "metric": "accuracy", "n_test": 20,
    "predictors": {"probe": 0.7},
}  # fmt: skip


def choice(name="a", value=0.8, seconds=100.0, disk=10, over=None, strategy="full"):
    return Choice(
        backbone=name, strategy=strategy, metric="accuracy", value=value, low=value - 0.05, high=min(value + 0.05, 1.0),
        seconds=seconds, peak_memory_bytes=10**9, disk_bytes=disk, why=("because",), over=over,
        known=RECORD | {"backbone": name, "strategy": strategy}, parts={"saving": 2.0},
    )  # fmt: skip


def names(choices):
    return [c.backbone for c in choices]


def test_the_best_score_leads_unless_a_quicker_one_is_as_good():
    found = order(
        [choice("slow", 0.900, 500), choice("quick", 0.897, 50), choice("poor", 0.7, 5)], "accuracy"
    )
    assert names(found) == ["quick", "slow", "poor"]
    found = order([choice("slow", 0.92, 500), choice("quick", 0.89, 50)], "accuracy")
    assert names(found) == ["slow", "quick"]


def test_speed_and_size_may_give_away_two_points():
    some = [
        choice("best", 0.90, 500, 100),
        choice("near", 0.885, 50, 200),
        choice("small", 0.882, 90, 5),
        choice("far", 0.8, 1, 1),
    ]
    assert names(order(some, "speed")) == ["near", "small", "best", "far"]
    assert names(order(some, "size")) == ["small", "best", "near", "far"]


def test_what_exceeds_a_limit_comes_last():
    found = order([choice("over", 0.95, over="needs more"), choice("fits", 0.6)], "accuracy")
    assert names(found) == ["fits", "over"]


def test_limits_are_named():
    assert limits(50, 10, 60, 100) is None and limits(50, 10, None, None) is None
    assert "1 min 40 s" in limits(100, 10, 60, None) and "60 s" in limits(100, 10, 60, None)
    assert "2.0 GB" in limits(50, 2 * 10**9, 60, 10**9)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90), ("90s", 90), ("10m", 600), ("10min", 600), ("1h30m", 5400), ("1.5h", 5400), ("2m30s", 150),
        (45, 45), (0.5, 0.5),
    ],
)  # fmt: skip
def test_times_are_read(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "ten", "10x", "0", "-5", "1h1h", "1h30", "m", 0, -1, float("nan"), float("inf"), True]
)
def test_impossible_times_are_refused(text):
    with pytest.raises(ConfigError, match="A time is"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"), [("8GB", 8e9), ("500mb", 5e8), ("2GiB", 2**31), ("1024", 1024), (7, 7), ("1.5k", 1500)]
)
def test_sizes_are_read(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "big", "8XB", "0GB", "-1"])
def test_impossible_sizes_are_refused(text):
    with pytest.raises(ConfigError, match="A size is"):
        parse_bytes(text)


def test_durations_for_people():
    assert [duration(s) for s in (5, 89, 200, 7500, float("inf"))] == [
        "5 s",
        "89 s",
        "3 min 20 s",
        "2 h 05 min",
        "for ever",
    ]


@pytest.fixture
def plan():
    return Plan(
        candidates=(choice("a"), choice("b", 0.7)), labels={"n": 100}, advice=("do",), command="foretune fit DATA",
        machine={"cores": 2}, seconds_spent=3.0, goal="accuracy", task="text-classification", data="f" * 64,
        sizes={"train": 100}, held_out="test",
    )  # fmt: skip


def test_a_plan_comes_back_from_its_file(plan, tmp_path):
    plan.save(tmp_path / "plan.json")
    again = Plan.read(tmp_path / "plan.json")
    assert again == plan and again.best == plan.candidates[0]
    values = json.loads((tmp_path / "plan.json").read_text())
    first = values["candidates"][0]
    assert first["score"] == {"metric": "accuracy", "value": 0.8, "low": 0.75, "high": pytest.approx(0.85)}
    wanted = {"backbone", "strategy", "score", "seconds", "peak_memory_bytes", "disk_bytes", "why"}
    assert wanted <= set(first) and {"candidates", "best", "labels", "machine", "seconds_spent"} <= set(
        values
    )
    assert values["best"] == first


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "no plan of this version"),
        ('{"format": 99}', "no plan of this version"),
        ('{"format": 1, "candidates": []}', "damaged"),
    ],
)
def test_a_damaged_plan_is_refused(tmp_path, content, message):
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(ConfigError, match=message):
        Plan.read(tmp_path / "plan.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        Plan.read(tmp_path / "none.json")


def _no_candidate(values):
    values["candidates"] = []


def _of_numbers(values):
    values["candidates"] = [1]


def _score_list(values):
    values["candidates"][0]["score"] = [0.8]


def _score_text(values):
    values["candidates"][0]["score"]["value"] = "0.8"


def _seconds_text(values):
    values["candidates"][0]["seconds"] = "20 s"


def _no_parts(values):
    values["candidates"][0]["parts"] = None


def _tuned_list(values):
    values["tuned"] = ["epochs"]


@pytest.mark.parametrize(
    "change", [_no_candidate, _of_numbers, _score_list, _score_text, _seconds_text, _no_parts, _tuned_list]
)
def test_a_plan_changed_by_hand_is_refused_before_a_fit(plan, change):
    values = json.loads(json.dumps(plan.to_json()))
    change(values)
    with pytest.raises(ConfigError, match="damaged"):
        Plan.from_json(values)


NAN = float("nan")
_WRONG = [  # (place in the file, what stands there, what is said of it)
    (("candidates", 0, "backbone"), None, "backbone is None; expected a text"),
    (("candidates", 0, "strategy"), 3, "strategy is 3"),
    (("candidates", 0, "score", "metric"), None, "metric is None"),
    (("candidates", 0, "score", "value"), 0.99, "value is 0.99; expected a score from low"),
    (("candidates", 0, "score", "value"), 0.1, "value is 0.1"),
    (("candidates", 0, "score", "value"), None, "value is nan"),
    (("candidates", 1, "score", "low"), None, "low \\(nan\\)"),
    (("candidates", 0, "score", "high"), float("inf"), "high \\(inf\\)"),
    (("candidates", 0, "score", "high"), True, "high is True"),
    (("candidates", 0, "seconds"), -1.0, "seconds is -1.0"),
    (("candidates", 0, "seconds"), NAN, "seconds is nan"),
    (("candidates", 0, "peak_memory_bytes"), 1.5, "peak_memory_bytes is 1.5"),
    (("candidates", 0, "disk_bytes"), None, "disk_bytes is None"),
    (("candidates", 0, "why"), "because", "why is 'because'; expected a list of texts"),
    (("candidates", 0, "over"), 1, "over is 1"),
    (("candidates", 0, "parts"), {"saving": NAN}, "parts is"),
    (("candidates", 0, "parts"), {"saving": -2.0}, "parts is"),
    (("candidates", 0, "rows"), 0, "rows is 0"),
    (("candidates", 0, "rows"), 50.0, "rows is 50.0"),
    (("candidates", 0, "rows"), 101, "rows is 101; expected at most the 100"),
    (("candidates", 0, "known"), None, "known is None; expected an object"),
    (("candidates", 0, "known"), [], "known is \\[\\]"),
    (("candidates", 0, "known"), {"predictors": {"probe": 0.7}}, "known is no candidate of the ledger"),
    (("candidates", 0, "known", "extra"), 1, "known is no candidate of the ledger"),
    (("candidates", 0, "known", "n"), "100", "n is '100' in an outcome"),
    (("candidates", 0, "known", "strategy"), "lora", "known is of lora by accuracy; expected full"),
    (("candidates", 0, "known", "predictors"), [0.7], "predictors is"),
    (("candidates", 0, "known", "predictors", "probe"), "high", "predictors is"),
    (("candidates", 0, "known", "predictors", "probe"), NAN, "predictors is"),
    (("candidates", 0, "known", "predictors", "anna.smith"), 1.0, "has the predictor 'anna.smith'"),
    (("candidates", 0, "score"), None, "found None; expected an object with metric"),
    (("candidates", 0), 7, "found 7; expected an object with score"),
    (("labels",), [], "labels is|expected an object"),
    (("labels",), {}, "n is missing"),
    (("labels", "n"), "100", "n is '100'"),
    (("labels", "x2"), {"value": 0.9, "low": 0.8, "high": 1.0}, "x5 is missing"),
    (("labels", "target"), {"score": 0.9}, "target is"),
    (("advice",), "do", "advice is 'do'"),
    (("command",), None, "command is None"),
    (("machine",), ["cores"], "machine is"),
    (("seconds_spent",), "3 s", "seconds_spent is '3 s'"),
    (("goal",), "fame", "goal is 'fame'; expected one of accuracy"),
    (("task",), 1, "task is 1"),
    (("data",), None, "data is None"),
    (("sizes",), [100], "sizes is"),
    (("sizes",), {"test": 20}, "sizes is .* expected rows by part, those of train among them"),
    (("sizes", "train"), 99.5, "sizes is"),
    (("sizes", "train"), 0, "sizes is"),
    (("held_out",), "holdout", "held_out is 'holdout'; expected one of test, dev"),
    (("held_out_rows",), "many", "held_out_rows is 'many'"),
    (("tuned",), None, "tuned is None"),
]


@pytest.mark.parametrize(("place", "wrong", "message"), _WRONG)
def test_a_wrong_entry_is_named_before_a_fit(plan, tmp_path, place, wrong, message):
    values = json.loads(json.dumps(plan.to_json()))
    part = values
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = wrong
    values["best"] = values["candidates"][0]
    (tmp_path / "plan.json").write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=f"plan.json is damaged .*{message}"):
        Plan.read(tmp_path / "plan.json")


@pytest.mark.parametrize("name", ["labels", "advice", "command", "machine", "sizes", "held_out", "data"])
def test_a_missing_entry_is_named(plan, name):
    values = plan.to_json()
    del values[name]
    with pytest.raises(ConfigError, match=f"damaged .*{name}"):
        Plan.from_json(values)


def test_a_plan_without_scores_that_cannot_run_comes_back(plan, tmp_path):
    bare = {"value": NAN, "low": NAN, "high": NAN, "known": {}, "seconds": float("inf"), "over": "cannot run"}
    kept = replace(
        plan, candidates=(plan.best, replace(plan.best, **bare)), held_out_rows=50, tuned={"lr": 1e-3}
    )
    kept.save(tmp_path / "plan.json")
    again = Plan.read(tmp_path / "plan.json")
    assert again.best == plan.best and (again.held_out_rows, again.tuned) == (50, {"lr": 1e-3})
    assert again.candidates[1].known == {} and again.candidates[1].seconds == float("inf")


def test_numbers_and_nesting_beyond_all_bounds_are_refused(plan, tmp_path):
    values = json.loads(json.dumps(plan.to_json()))
    values["candidates"][0]["score"]["value"] = 10**400
    with pytest.raises(ConfigError, match="damaged"):
        Plan.from_json(values)
    (tmp_path / "plan.json").write_text("[" * 100_000)
    with pytest.raises(ConfigError, match="is no JSON"):
        Plan.read(tmp_path / "plan.json")


def test_the_names_of_predictors_are_those_of_what_is_measured():
    from foretune.forecast import ledger
    from foretune.forecast.features import ANCHOR
    from foretune.planning_pilot import Pilot

    rng = np.random.default_rng(0)
    found = predictors(rng.normal(size=(60, 3, 8)), np.arange(60) % 2, metric="accuracy")
    assert found.keys() | {"unknown", "bag_of_words"} | Pilot(0.8, 0.7, 1.0).predictors().keys() == PREDICTORS
    assert ANCHOR in PREDICTORS and {name for o in ledger.shipped() for name in o.predictors} <= PREDICTORS


def test_another_best_is_named_by_options_not_in_the_file(plan):
    values = json.loads(json.dumps(plan.to_json()))
    values["best"] = values["candidates"][1]
    with pytest.raises(ConfigError, match="name it with --backbone and --strategy"):
        Plan.from_json(values, "plan.json")


def test_changing_one_entry_changes_the_plan(plan):
    assert replace(plan, goal="speed") != plan
