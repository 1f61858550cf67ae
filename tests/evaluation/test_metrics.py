from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score, log_loss

from foretune.errors import ConfigError, DataError
from foretune.evaluation.metrics import CLASSIFICATION_METRICS, ClassificationScores


def predictions(n: int = 300, classes: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes)) + 1.5 * np.eye(classes)[targets]
    odds = np.exp(logits)
    return (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32), targets


def scored(probabilities: np.ndarray, targets: np.ndarray, batch: int = 64) -> ClassificationScores:
    scores = ClassificationScores(probabilities.shape[1])
    for start in range(0, len(targets), batch):
        scores.update(probabilities[start : start + batch], targets[start : start + batch])
    return scores


def test_result_agrees_with_sklearn() -> None:
    probabilities, targets = predictions()
    result = scored(probabilities, targets).result()
    predicted = probabilities.argmax(axis=1)
    assert result["macro_f1"]["value"] == pytest.approx(
        f1_score(targets, predicted, average="macro"), abs=1e-12
    )
    assert result["confusion"] == confusion_matrix(targets, predicted).tolist()
    renormalised = probabilities.astype(np.float64) / probabilities.sum(
        axis=1, dtype=np.float64, keepdims=True
    )
    assert result["log_loss"]["value"] == pytest.approx(log_loss(targets, renormalised), abs=1e-5)
    assert result["n"] == 300 and sum(c["support"] for c in result["per_class"]) == 300


def test_result_is_json_and_every_interval_holds_its_value() -> None:
    result = json.loads(json.dumps(scored(*predictions()).result()))
    each = [result[name] for name in CLASSIFICATION_METRICS] + [c["f1"] for c in result["per_class"]]
    assert all(i["low"] <= i["value"] <= i["high"] and i["low"] < i["high"] for i in each)
    assert set(result["per_class"][0]) == {"precision", "recall", "f1", "support"}


def test_batches_merge_to_the_same_result_as_one_pass() -> None:
    probabilities, targets = predictions()
    whole = scored(probabilities, targets, batch=300)
    first, second = scored(probabilities[:100], targets[:100]), scored(probabilities[100:], targets[100:])
    first.merge(second)
    assert first.result(seed=2) == whole.result(seed=2) and first.n == 300


def test_point_is_result_without_intervals() -> None:
    scores = scored(*predictions())
    point, result = scores.point(), scores.result()
    assert list(CLASSIFICATION_METRICS) == [name for name in CLASSIFICATION_METRICS if name in point]
    assert all(value == pytest.approx(result[name]["value"]) for name, value in point.items())


def test_only_losses_and_counts_are_kept() -> None:
    scores = scored(*predictions(classes=50))
    kept = scores.confusion.size + scores.losses().size
    assert kept == 50 * 50 + 300 and scores.losses().dtype == np.float32
    assert set(vars(scores)) == {"n_classes", "confusion", "_losses"}
    assert all(losses.base is None for losses in scores._losses)  # no view keeps a batch alive


def test_a_certain_mistake_costs_a_finite_loss() -> None:
    scores = ClassificationScores(2)
    scores.update(np.array([[1, 0], [1, 0]], dtype=np.float32), np.array([1, 0]))
    assert scores.losses() == pytest.approx([15.94, 0], abs=0.01)


def test_all_right_has_an_accuracy_interval_that_is_not_empty() -> None:
    scores = ClassificationScores(2)
    scores.update(np.eye(2, dtype=np.float32)[[0, 1, 1]], np.array([0, 1, 1]))
    assert scores.result()["accuracy"] == pytest.approx({"value": 1, "low": 0.2924, "high": 1}, abs=1e-4)


def test_log_loss_is_the_only_metric_where_less_is_better() -> None:
    assert [name for name, greater in CLASSIFICATION_METRICS.items() if not greater] == ["log_loss"]


def test_an_empty_batch_counts_nothing() -> None:
    scores = ClassificationScores(3)
    scores.update(np.zeros((0, 3), dtype=np.float32), np.zeros(0, dtype=np.int64))
    assert scores.n == 0


@pytest.mark.parametrize(
    ("probabilities", "targets", "says"),
    [
        ([[0.5, float("nan")]], [0], "not finite"),
        ([[float("inf"), 0.5]], [0], "not finite"),
        ([[2.0, -1.0]], [0], "softmax"),
        ([[3.0, 4.0]], [0], "softmax"),
        ([[0.5, 0.5]], [2], "0 to 1"),
        ([[0.5, 0.5]], [-1], "0 to 1"),
        ([[0.5, 0.5]], [0.0], "whole-number"),
        ([[0.5, 0.5]], [0, 1], "one per prediction"),
        ([[0.2, 0.3, 0.5]], [0], "batch, 2"),
    ],
)
def test_bad_batches_are_errors_and_change_nothing(probabilities: list, targets: list, says: str) -> None:
    scores = ClassificationScores(2)
    with pytest.raises(DataError, match=says):
        scores.update(np.array(probabilities, dtype=np.float32), np.array(targets))
    assert scores.n == 0 and scores.losses().size == 0


def test_misuse_is_an_error() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        ClassificationScores(0)
    with pytest.raises(ConfigError, match="merge"):
        ClassificationScores(2).merge(ClassificationScores(3))
    for call in (ClassificationScores(2).result, ClassificationScores(2).point):
        with pytest.raises(DataError, match="no examples"):
            call()


def test_importing_the_room_loads_nothing_heavy() -> None:
    modules = "metrics, intervals, comparison, baselines, report, charts, mistakes"
    code = f"import sys; from foretune.evaluation import {modules}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "pandas", "sklearn", "scipy", "matplotlib"} & set(loaded)
