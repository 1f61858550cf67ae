"""Several labels per text: lists, separated cells and columns of 0 and 1; thresholds; trivial models; errors."""

import random

import numpy as np
import pandas as pd
import pytest

import foretune
from foretune.data.columns import Columns
from foretune.errors import ConfigError, DataError
from foretune.recipe import Recipe
from foretune.tasks.base import Examples
from foretune.tasks.multi_label import MostWrong, MultiLabel, _weights

MEANING = {"good": "praise", "bad": "blame", "food": "kitchen", "room": "house"}


def reviews(number, seed=0):
    draw, rows = random.Random(seed), []
    for _ in range(number):
        words = draw.sample(list(MEANING), draw.randint(0, 3)) + draw.choices(
            ["the", "is", "very"], k=draw.randint(1, 6)
        )
        draw.shuffle(words)
        rows.append({"text": " ".join(words), "labels": sorted(MEANING[w] for w in words if w in MEANING)})
    return rows


@pytest.fixture(scope="module")
def model(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels") / "run"
    return foretune.fit(
        reviews(240), output=folder, backbone=tiny, device="cpu", precision="fp32", offline=True, epochs=10.0,
        lr=3e-3, batch_tokens=256, seed=1,
    )  # fmt: skip


def test_labels_are_learnt_and_thresholds_tuned(model):
    metrics = model.record["metrics"]["test"]
    assert model.task.name == "multi-label" and model.labels == ("blame", "house", "kitchen", "praise")
    assert metrics["micro_f1"]["value"] > 0.75
    assert metrics["micro_f1"]["value"] > model.record["baselines"]["majority"]["micro_f1"]["value"]
    assert len(model.task.thresholds) == 4 and any(
        "tuned on dev" in note for note in model.record["data"]["sentences"]
    )
    assert model.predict("the food is bad very")[0] == ["blame", "kitchen"]


def test_saved_thresholds_decide_after_loading(model):
    again = foretune.load(model.path, device="cpu")
    assert again.task.thresholds == model.task.thresholds
    again.task.thresholds = (0.0, 1.1, 1.1, 1.1)
    assert again.predict("the")[0] == ["blame"]
    assert again.predict_proba(["the"]).shape == (1, 4)


def test_plain_transformers_gives_the_same_probabilities(model):
    from transformers import pipeline

    found = pipeline("text-classification", str(model.path), top_k=None)(["good food"])[0]
    own = dict(zip(model.labels, model.predict_proba(["good food"])[0], strict=True))
    assert {each["label"]: each["score"] for each in found} == pytest.approx(own, abs=1e-4)


@pytest.mark.parametrize("form", ["separated", "columns"])
def test_other_forms_of_the_same_labels(quick, tmp_path, form):
    rows = reviews(80)
    if form == "separated":
        table = [{"text": row["text"], "labels": "; ".join(row["labels"])} for row in rows]
        options = {"task": "multi-label"}
    else:
        names = sorted(set(MEANING.values()))
        table = [{"text": row["text"], **{n: int(n in row["labels"]) for n in names}} for row in rows]
        options = {"target": ",".join(names)}
    model = foretune.fit(table, output=tmp_path / "run", **{**quick, "epochs": 1.0}, **options)
    assert model.task.name == "multi-label" and model.labels == ("blame", "house", "kitchen", "praise")
    assert set(model.evaluate(table)) >= {"micro_f1", "macro_f1", "per_label"}


def test_rare_labels_stand_on_every_side(model):
    flags = np.zeros((40, 2), np.float32)
    flags[:, 0], flags[:8, 1] = 1, 1
    strata = model.task.strata(Examples(["x"] * 40, flags, np.arange(1, 41)))
    assert len(set(strata[:8])) == 1 and set(strata[:8]) != set(strata[8:])


def test_the_most_wrong_rows_are_kept():
    examples = Examples(["a", "b", "c"], None, np.arange(1, 4))
    kept = MostWrong(1, examples, ("x", "y"), np.array([0.5, 0.9]))
    kept.update(
        np.array([0, 1, 2]),
        np.array([[0.6, 0.0], [0.2, 0.95], [0.5, 0.8]]),
        np.array([[1, 0], [1, 0], [1, 1]]),
    )
    assert kept.top() == [{"row": 2, "text": "b", "missed": "x", "wrong": "y"}]


def test_weights_by_frequency_and_by_name():
    flags = np.array([[1, 0], [1, 0], [1, 1], [0, 0]], np.float32)
    assert _weights("auto", ("a", "b"), flags) == (1.0, 3.0) and _weights("none", ("a", "b"), flags) is None
    assert _weights({"b": 2}, ("a", "b"), flags) == (1.0, 2.0)
    with pytest.raises(ConfigError, match="'c'"):
        _weights({"c": 2}, ("a", "b"), flags)


def test_an_unknown_label_is_named(model):
    rows = reviews(10)
    rows[3]["labels"] = ["prase"]
    with pytest.raises(DataError, match=r"row 4.*'prase'.*praise"):
        model.evaluate(rows)


@pytest.mark.parametrize("given", [{"second": "other"}, {"second": "text"}])
def test_a_column_that_is_not_read_is_no_silent_option(model, given):
    with pytest.raises(ConfigError, match="multi-label reads no such column"):
        model.evaluate(reviews(10), **given)


def test_semicolons_separate_labels_also_where_none_stands_in_another_cell():
    """Whoever asks for several labels per text and writes "a; b" does not mean one label."""
    columns = Columns("text", "labels", "")
    table = pd.DataFrame({"text": ["one", "two", "three"], "labels": ["a; b", "c;d", "e"]})
    assert MultiLabel.from_table(table, columns, Recipe()).labels == ("a", "b", "c", "d", "e")
    table = pd.DataFrame({"text": ["one", "two", "three"], "labels": ["Toys, Games", "Books", "Home"]})
    assert MultiLabel.from_table(table, columns, Recipe()).labels == ("Books", "Home", "Toys, Games")


def test_rare_labels_are_named_as_they_are_written():
    table = pd.DataFrame({"text": ["one", "two"], "labels": [["good"], ["good", "bad"]]})
    warnings = MultiLabel.audit(table, Columns("text", "labels", ""), where="train")
    assert (
        "train: labels on fewer than 5 rows: 'bad' (1), 'good' (2); add rows, or leave them out" in warnings
    )


def test_nothing_stays_behind_on_the_cpu(quick, elsewhere, tmp_path):
    model = foretune.fit(reviews(60), output=tmp_path / "run", **quick | {"device": "auto", "epochs": 1.0})
    assert model.task.name == "multi-label"
    assert next(model.backbone.model.parameters()).device == elsewhere
