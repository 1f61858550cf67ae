from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, hamming_loss, precision_recall_fscore_support

from foretune.errors import ConfigError, DataError
from foretune.evaluation.multilabel import (
    MIN_POSITIVES,
    MULTILABEL_METRICS,
    MultiLabelScores,
    tune_thresholds,
)


def sample(n: int = 200, labels: int = 11, seed: int = 0, rate: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are right on average, and truths."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, labels)) < rate).astype(np.int64)
    signal = rng.normal(size=targets.shape) + 1.5 * targets
    logits = 1.5 * signal - 1.5**2 / 2 + np.log(rate / (1 - rate))
    return (1 / (1 + np.exp(-logits))).astype(np.float32), targets


def scored(
    probabilities: np.ndarray, targets: np.ndarray, thresholds: object = 0.5, batch: int = 64
) -> MultiLabelScores:
    scores = MultiLabelScores(targets.shape[1], thresholds)  # type: ignore[arg-type]
    for start in range(0, len(targets), batch):
        scores.update(probabilities[start : start + batch], targets[start : start + batch])
    return scores


@pytest.mark.parametrize(("labels", "seed"), [(1, 0), (3, 1), (8, 2), (11, 3), (40, 4)])
def test_scores_agree_with_sklearn(labels: int, seed: int) -> None:
    probabilities, targets = sample(labels=labels, seed=seed)
    thresholds = np.linspace(0.2, 0.7, labels)
    point = scored(probabilities, targets, thresholds).point()
    called = (probabilities >= thresholds).astype(int)
    if labels == 1:  # scikit-learn reads one column as binary classes; a second, empty one is no label here
        targets, called = (np.hstack([column, np.zeros_like(column)]) for column in (targets, called))
        point["hamming_loss"] /= 2
        point["macro_f1"] /= 2
    expected = {
        f"{average}_f1": f1_score(targets, called, average=average, zero_division=zero)
        for average, zero in (("micro", 0), ("macro", 0), ("samples", 1))
    }
    expected |= {
        "subset_accuracy": accuracy_score(targets, called),
        "hamming_loss": hamming_loss(targets, called),
    }
    assert point == pytest.approx(expected)


def test_labels_agree_with_sklearn_one_by_one() -> None:
    probabilities, targets = sample()
    per_label = scored(probabilities, targets).result()["per_label"]
    columns = precision_recall_fscore_support(targets, probabilities >= 0.5, zero_division=0)
    for i, row in enumerate(per_label):
        assert [row["precision"], row["recall"], row["f1"]["value"], row["support"]] == pytest.approx(
            [column[i] for column in columns]
        )
        assert row["threshold"] == 0.5 and row["f1"]["low"] < row["f1"]["value"] < row["f1"]["high"]


def test_result_is_json_with_intervals_around_the_points() -> None:
    scores = scored(*sample())
    result = json.loads(json.dumps(scores.result(seed=3)))
    assert [*result] == [*MULTILABEL_METRICS, "per_label", "n"] and result["n"] == 200
    for name, value in scores.point().items():
        assert result[name]["value"] == pytest.approx(value)
        assert 0 <= result[name]["low"] < value < result[name]["high"] <= 1


def test_the_interval_covers_the_truth_about_95_times_in_100() -> None:
    big = scored(*sample(40_000, 4, seed=99)).point()
    hits = dict.fromkeys(big, 0)
    for seed in range(100):
        result = scored(*sample(150, 4, seed)).result(seed)
        for name, value in big.items():
            hits[name] += result[name]["low"] <= value <= result[name]["high"]
    assert all(hit >= 87 for hit in hits.values()), hits


def test_nothing_called_where_nothing_is_counts_as_right_for_the_example() -> None:
    scores = MultiLabelScores(2)
    scores.update(np.array([[0.1, 0.2], [0.9, 0.2]]), np.array([[0, 0], [1, 1]]))
    point = scores.point()
    assert point["samples_f1"] == pytest.approx((1 + 2 / 3) / 2) and point["subset_accuracy"] == 0.5
    assert point["macro_f1"] == pytest.approx(0.5) and point["hamming_loss"] == 0.25


def test_a_label_that_never_occurs_is_left_out_of_the_mean_and_says_so() -> None:
    probabilities, targets = sample(labels=2)
    padded = np.hstack([probabilities, np.zeros((200, 1))]), np.hstack([targets, np.zeros((200, 1))])
    assert scored(*padded).point()["macro_f1"] == pytest.approx(
        scored(probabilities, targets).point()["macro_f1"]
    )
    assert scored(*padded).result()["per_label"][2]["f1"] == {"value": 0, "low": 0, "high": 1}


def test_two_bits_are_kept_per_example_and_label() -> None:
    scores = scored(*sample(640, 16))
    assert sum(part.nbytes for part in scores._parts) == 640 * 2 * 16 / 8


@pytest.mark.parametrize(
    ("probabilities", "targets", "says"),
    [
        ([[0.5, 1.5]], [[0, 1]], "sigmoid"),
        ([[0.5, float("nan")]], [[0, 1]], "not finite"),
        ([[0.5, 0.5]], [[0, 2]], "0 or 1"),
        ([[0.5, 0.5]], [[0]], "batch, 2"),
        ([[0.5]], [[0]], "batch, 2"),
        ([0.5, 0.5], [0, 1], "batch, 2"),
    ],
)
def test_bad_batches_are_errors_and_change_nothing(probabilities: list, targets: list, says: str) -> None:
    scores = MultiLabelScores(2)
    with pytest.raises(DataError, match=says):
        scores.update(np.array(probabilities), np.array(targets))
    assert scores.n == 0


@pytest.mark.parametrize(
    ("labels", "thresholds", "says"),
    [(0, 0.5, "at least 1"), (3, [0.5, 0.5], "3 labels"), (1, 1.5, "0 to 1")],
)
def test_bad_options_are_errors(labels: int, thresholds: object, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        MultiLabelScores(labels, thresholds)  # type: ignore[arg-type]


def test_nothing_to_score_is_an_error() -> None:
    for call in (MultiLabelScores(2).result, MultiLabelScores(2).point):
        with pytest.raises(DataError, match="no examples"):
            call()
    with pytest.raises(DataError, match="no examples"):
        tune_thresholds(np.zeros((0, 2)), np.zeros((0, 2)))


def test_tuned_thresholds_are_better_on_rows_they_have_not_seen() -> None:
    thresholds = tune_thresholds(*sample(600, 6, seed=1, rate=0.1))
    held_out = sample(5000, 6, seed=2, rate=0.1)
    tuned, untuned = scored(*held_out, thresholds).point(), scored(*held_out).point()
    assert tuned["macro_f1"] > untuned["macro_f1"] + 0.05
    assert thresholds.shape == (6,) and (thresholds < 0.5).all() and (thresholds > 0.1).all()


def test_a_threshold_that_is_good_enough_stays() -> None:
    probabilities = np.array([0.9, 0.8, 0.7, 0.9, 0.8, 0.3, 0.2, 0.1])[:, None]
    assert tune_thresholds(probabilities, probabilities > 0.5).tolist() == [0.5]


def test_a_cut_lies_between_the_values_it_parts() -> None:
    probabilities = np.array([0.4] * 20 + [0.2] * 20 + [0.1] * 20)[:, None]
    targets = np.array([1] * 20 + [0] * 40)[:, None]
    assert tune_thresholds(probabilities, targets).tolist() == pytest.approx([0.3])


@pytest.mark.parametrize("positives", [0, 1, MIN_POSITIVES - 1])
def test_few_positives_keep_one_half(positives: int) -> None:
    probabilities = np.linspace(0.3, 0.01, 50)[:, None]
    targets = (np.arange(50) < positives).astype(int)[:, None]
    assert tune_thresholds(probabilities, targets).tolist() == [0.5]


def test_equal_probabilities_are_never_parted() -> None:
    targets = (np.arange(40) % 2)[:, None]
    assert tune_thresholds(np.full((40, 1), 0.7), targets).tolist() == [0.5]
    assert tune_thresholds(np.full((40, 1), 0.2), targets).tolist() == pytest.approx([0.1])
    assert tune_thresholds(np.zeros((40, 1)), targets).tolist() == [0.5]  # no cut parts zeros
