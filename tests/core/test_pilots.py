"""Pilots: what they score, that they leave nothing behind, and which candidates of a plan are tried."""

import numpy as np
import pytest
import torch

import foretune
from foretune import planning_pilot
from foretune.errors import ConfigError
from foretune.forecast import cost
from foretune.forecast.cost import Cost
from foretune.forecast.features import covariates, logit
from foretune.forecast.records import Candidate
from foretune.planning_pilot import Pilot, halves, pilot, probe_of
from foretune.recipe import Recipe
from foretune.strategies import import_strategies
from foretune.training.inference import Runtime

STRATEGIES = ("linear-probe", "full", "top-layers")


def test_halves_share_nothing_and_hold_every_class(prepared, rows):
    whole = prepared([row for row in rows(150) for _ in range(2)])
    judged = np.arange(10, len(whole.train))
    one, other = halves(whole, judged, seed=0, most=100)
    texts = np.array(whole.train.take(judged).inputs)
    assert not set(texts[one]) & set(texts[other]) and abs(len(one) - len(other)) <= 4
    assert 90 <= len(one) + len(other) <= 100
    for side in (one, other):
        assert set(whole.train.take(judged).targets[side]) == {0, 1}
    again = halves(whole, judged, seed=0, most=100)
    assert all(np.array_equal(a, b) for a, b in zip((one, other), again, strict=True))


def test_the_probe_beside_it_is_of_the_same_rows():
    rng, targets = np.random.default_rng(0), np.tile([0, 1], 60)
    features = rng.normal(size=(120, 5)).astype(np.float32)
    features[:, 0] += 3 * targets
    sides = np.arange(0, 60), np.arange(60, 100)
    assert probe_of(features, targets, sides, "accuracy") > 0.85
    assert probe_of(rng.normal(size=(120, 5)), targets, sides, "accuracy") < 0.7


def test_a_pilot_scores_rows_that_its_model_has_not_seen(prepared, rows, tiny, fast, monkeypatch):
    import_strategies()
    words = {"pos": "good great kind", "neg": "bad awful rude"}
    easy = [
        row | {"text": f"{words[row['label']]} {row['text'][:12]} {n}"} for n, row in enumerate(rows(140))
    ]
    whole, learnt = prepared(easy), []
    recipe = Recipe(backbone=tiny, strategy="full", offline=True, epochs=6.0, lr=5e-3, batch_tokens=120)
    assembling = planning_pilot.assemble

    def spy(recipe, part, *rest):
        learnt.append(set(part.train.inputs))
        assert part.dev is None and part.test is None and recipe.epochs == 6.0
        return assembling(recipe, part, *rest)

    monkeypatch.setattr(planning_pilot, "assemble", spy)
    judged = np.arange(len(whole.train))
    state = torch.get_rng_state()
    features = np.random.default_rng(0).normal(size=(len(judged), 4))
    found = pilot(recipe, whole, Runtime(torch.device("cpu"), "fp32"), "accuracy", features, judged)
    assert torch.equal(torch.get_rng_state(), state) and not learnt[0] & learnt[1]
    assert found.value > 0.7 > found.probe and found.seconds > 0  # the words tell; random features do not
    assert found.predictors() == {"pilot": found.value, "pilot_probe": found.probe}


def test_what_counts_is_the_gain_over_the_probe_on_the_same_rows():
    given = {"probe": 0.9, "pilot": 0.8, "pilot_probe": 0.7}
    made = Candidate(
        data="a", task="text-classification", n=400, classes=2, tokens=9.0, backbone="b", backbone_fingerprint="",
        strategy="full", metric="accuracy", n_test=100, predictors=given,
    )  # fmt: skip
    assert covariates(made)["pilot"] == pytest.approx(logit(0.8, 400) - logit(0.7, 400))


# --- plans --------------------------------------------------------------------------------------------------


@pytest.fixture
def tried(monkeypatch):
    """Pilots without training; returns the candidates that were tried."""
    found = []

    def quick(recipe, prepared, runtime, metric, features, rows):
        found.append(recipe.strategy)
        assert len(features) == len(rows)
        return Pilot(0.9, 0.8, 1.0)

    def costs(job, prepared, sizes, settle, **rest):
        return {n: Cost(5.0, 10**8, 10**6, {"training": 4.0}) for n in sizes}

    monkeypatch.setattr(planning_pilot, "pilot", quick)
    monkeypatch.setattr(cost, "forecast_costs", costs)
    return found


@pytest.fixture
def plan(tiny, rows, fast, tried):
    def run(**options):
        given = {
            "backbones": [tiny], "strategies": list(STRATEGIES), "device": "cpu", "precision": "fp32", "offline": True,
        }  # fmt: skip
        return foretune.plan(rows(160), **(given | options))

    return run


def test_without_being_asked_nothing_is_tried(plan, tried):
    assert not any("pilot" in c.known["predictors"] for c in plan().candidates) and tried == []


def test_the_leading_candidates_are_tried(plan, tried):
    found = plan(pilots=3)
    assert sorted(tried) == ["full", "top-layers"]  # the probe is its own pilot
    for choice in found.candidates:
        known = choice.known["predictors"]
        assert ("pilot" in known) == (choice.strategy in tried)
        assert any("short fine-tuning" in text for text in choice.why) == (choice.strategy in tried)
        assert choice.low <= choice.value <= choice.high


def test_no_more_are_tried_than_asked_and_than_there_is_time_for(plan, tried, monkeypatch):
    plan(pilots=1)
    assert len(tried) == 1
    from foretune.planning import _Planner

    monkeypatch.setattr(_Planner, "_late", lambda self, *works: len(self.costs) == len(STRATEGIES))
    found = plan(pilots=3, budget=600)
    assert len(tried) == 1 and any(text.startswith("Not tried") for text in found.advice)


def test_an_impossible_number_is_refused(plan):
    with pytest.raises(ConfigError, match="pilots is -1"):
        plan(pilots=-1)
