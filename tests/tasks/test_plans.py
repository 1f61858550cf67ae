"""Plans of tasks whose score is not forecast: what each candidate costs, in the usual order; fit follows them."""

import json
import math
import random

import pytest

import foretune
from foretune.errors import ConfigError
from foretune.forecast.plan import Plan

from .conftest import WORDS


def rows_of(task, sentences):
    draw, texts = random.Random(0), sentences(160)
    pairs = list(zip(texts[:80], texts[80:], strict=True))
    if task == "similarity":
        return [{"query": a, "document": f"{b} {i}"} for i, (a, b) in enumerate(pairs)]
    if task == "text-pair":
        return [{"text_a": a, "text_b": b, "label": draw.choice(["yes", "no"])} for a, b in pairs]
    if task == "text-regression":
        return [{"text": text, "price": round(draw.gauss(5, 1), 3)} for text in texts]
    if task == "multi-label":
        return [{"text": text, "labels": draw.sample(["a", "b", "c"], draw.randint(0, 2))} for text in texts]
    words = [text.split() for text in texts]
    return [
        {"tokens": each, "tags": ["B-X" if word in WORDS[:9] else "O" for word in each]} for each in words
    ]


@pytest.mark.parametrize("task", ["similarity", "multi-label", "token-labelling"])
def test_every_candidate_has_its_costs(task, quick, sentences):
    plan = foretune.plan(
        rows_of(task, sentences), task=task, backbones=[quick["backbone"]], strategies="full,top-layers", device="cpu",
        offline=True,
    )  # fmt: skip
    assert plan.task == task and [choice.strategy for choice in plan.candidates] == ["full", "top-layers"]
    for choice in plan.candidates:
        assert math.isnan(choice.value) and 0 < choice.seconds < 1e4 and choice.peak_memory_bytes > 1e8
    again = Plan.from_json(json.loads(json.dumps(plan.to_json(), allow_nan=False)))
    assert math.isnan(again.best.value) and again.best.seconds == plan.best.seconds


def test_a_fit_follows_such_a_plan_and_says_that_there_was_no_score(quick, sentences, tmp_path):
    rows = rows_of("text-regression", sentences)
    options = {"task": "text-regression", "device": "cpu", "offline": True, "epochs": 1.0}
    plan = foretune.plan(rows, backbones=[quick["backbone"]], strategies="linear-probe", **options)
    model = foretune.fit(rows, plan=plan, output=tmp_path / "run", **options)
    held = model.record["forecast"]
    assert held["score"]["forecast"] is None and held["inside"] is None and held["seconds"]["forecast"] > 0
    assert "was not forecast" in (tmp_path / "run/report.html").read_text()
    assert model.recipe.strategy == "linear-probe"


def test_what_a_task_cannot_use_is_an_error_where_it_was_named(quick, sentences):
    with pytest.raises(ConfigError, match="no head"):
        foretune.plan(
            rows_of("similarity", sentences), task="similarity", backbones=[quick["backbone"]],
            strategies="linear-probe", offline=True,
        )  # fmt: skip


@pytest.mark.parametrize("task", [pytest.param("text-regression", marks=pytest.mark.slow), "text-pair"])
def test_nothing_stays_behind_on_the_cpu(task, quick, sentences, elsewhere, tmp_path):
    """Neither while the costs of a plan are measured nor while a fit follows it."""
    rows, options = rows_of(task, sentences), {"task": task, "offline": True}
    plan = foretune.plan(rows, backbones=[quick["backbone"]], strategies="full", **options)
    model = foretune.fit(rows, plan=plan, output=tmp_path / "run", epochs=1.0, **options)
    assert next(model.backbone.model.parameters()).device == elsewhere
