"""Regression: numbers in their own units, in the saved head too; trivial models beside it; bad numbers named."""

import json
import random

import numpy as np
import pytest

import foretune
from foretune.errors import DataError
from foretune.evaluation.linear_baselines import predict_numbers
from foretune.tasks.base import Examples
from foretune.tasks.text_regression import LargestErrors


def prices(number, seed=0):
    """Numbers around 50,000 that a text's words decide."""
    draw, worth = random.Random(seed), {"good": 9000.0, "great": 15000.0, "bad": -9000.0, "awful": -15000.0}
    rows = []
    for _ in range(number):
        words = draw.choices(list(worth), k=2) + draw.choices(["the", "room", "film"], k=draw.randint(1, 6))
        draw.shuffle(words)
        value = 50_000 + sum(worth.get(word, 0.0) for word in words) + draw.gauss(0, 500)
        rows.append({"text": " ".join(words), "price": round(value, 2)})
    return rows


@pytest.fixture(scope="module")
def model(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("price") / "run"
    return foretune.fit(
        prices(240), output=folder, target="price", task="text-regression", backbone=tiny, device="cpu",
        precision="fp32", offline=True, epochs=12.0, lr=3e-3, batch_tokens=256, seed=1,
    )  # fmt: skip


def test_numbers_are_learnt_in_their_own_units(model):
    metrics = model.record["metrics"]["test"]
    assert set(metrics) == {"rmse", "mae", "pearson", "spearman", "r2"}
    assert metrics["pearson"]["value"] > 0.8
    assert metrics["rmse"]["value"] < 0.6 * model.record["baselines"]["mean"]["rmse"]["value"]
    assert 30_000 < np.mean(model.predict(["good film", "bad room"])) < 70_000
    assert model.predict("great great the")[0] > model.predict("awful awful the")[0] + 10_000


def test_plain_transformers_gives_the_numbers_themselves(model):
    """Mean and spread went into the last layer, so no file of ours is needed."""
    from transformers import pipeline

    found = pipeline("text-classification", str(model.path))("good film")[0]["score"]
    assert found == pytest.approx(model.predict("good film")[0], rel=1e-4)
    state = json.loads((model.path / "foretune.json").read_text())["task"]
    assert (state["mean"], state["spread"]) == (0.0, 1.0)


def test_reloaded_it_predicts_the_same_and_the_report_shows_the_largest_errors(model):
    again = foretune.load(model.path, device="cpu")
    assert again.predict(["good film"]) == pytest.approx(model.predict(["good film"]), rel=1e-6)
    report = (model.path / "report.html").read_text()
    assert "Largest errors" in report and "RMSE" in report and "Mean of the training targets" in report


def test_large_numbers_keep_their_digits_in_bf16(model):
    """The head holds mean and spread: in bf16 its outputs around 50,000 would be multiples of 256."""
    half = foretune.load(model.path, device="cpu", precision="bf16")
    texts = [row["text"] for row in prices(30, seed=2)]
    found, exact = np.array(half.predict(texts)), np.array(model.predict(texts))
    assert len({round(value % 64, 1) for value in found}) > 10
    assert np.abs(found - exact).max() < 0.02 * exact.std()


def test_ridge_finds_what_words_decide():
    rows, held = prices(300), prices(100, seed=1)
    targets = np.array([row["price"] for row in held])
    found = predict_numbers(
        [row["text"] for row in rows],
        np.array([row["price"] for row in rows]),
        [row["text"] for row in held],
        0,
    )
    assert np.corrcoef(found["predictions"], targets)[0, 1] > 0.9
    nothing = predict_numbers(["!!", "??"], np.array([1.0, 3.0]), ["..."], 0)
    assert nothing["predictions"].tolist() == [2.0]


def test_the_largest_errors_are_kept():
    examples = Examples([f"text {i}" for i in range(6)], None, np.arange(1, 7))
    kept = LargestErrors(2, examples)
    kept.update(np.array([0, 1, 2]), np.array([1.0, 5.0, 2.0]), np.array([1.0, 1.0, 1.5]))
    kept.update(np.array([3, 4, 5]), np.array([0.0, 9.0, 1.0]), np.array([0.1, 1.0, 1.0]))
    assert [(each["row"], each["true"], each["predicted"]) for each in kept.top()] == [
        (5, 1.0, 9.0),
        (2, 1.0, 5.0),
    ]


def test_pairs_get_numbers(quick, sentences, tmp_path):
    draw, texts = random.Random(0), sentences(120)
    rows = []
    for first, other in zip(texts[:60], texts[60:], strict=True):
        same = draw.random() < 0.5
        value = round(draw.uniform(4, 5) if same else draw.random(), 2)
        rows.append({"sentence1": first, "sentence2": first if same else other, "score": value})
    model = foretune.fit(rows, output=tmp_path / "run", **{**quick, "epochs": 1.0})
    assert model.task.name == "pair-regression" and model.recipe.metric == "pearson"
    assert len(model.predict([("good film", "good film"), ("bad room", "cold food")])) == 2
    assert set(model.evaluate(rows)) >= {"pearson", "spearman", "rmse"}


@pytest.mark.parametrize(("value", "said"), [
    ("3,5", "decimal comma"), ("much", "not a number"), (None, "missing"), (float("nan"), "missing|NaN"),
    ("inf", "infinite"),
])  # fmt: skip
def test_what_is_no_number_is_named_by_its_row(tiny, tmp_path, value, said):
    rows = prices(20)
    rows[6]["price"] = value
    with pytest.raises(DataError, match=said) as found:
        foretune.fit(rows, output=tmp_path / "run", target="price", task="text-regression", backbone=tiny)
    assert "row 7" in str(found.value) and not (tmp_path / "run").exists()


def test_equal_numbers_are_refused(tiny, tmp_path):
    rows = [{"text": f"text {i}", "price": 3.5} for i in range(20)]
    with pytest.raises(DataError, match=r"3\.5"):
        foretune.fit(rows, output=tmp_path / "run", target="price", task="text-regression", backbone=tiny)
