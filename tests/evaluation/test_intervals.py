from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import binomtest, ks_2samp

from foretune.errors import DataError
from foretune.evaluation import intervals
from foretune.evaluation.counts import COUNT_METRICS, metrics_from_counts
from foretune.evaluation.intervals import (
    NORMAL_ABOVE,
    clopper_pearson,
    count_intervals,
    mean_interval,
    resample_counts,
)


def random_confusion(classes: int, n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes, n)
    predicted = np.where(rng.random(n) < 0.7, true, rng.integers(0, classes, n))
    matrix = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(matrix, (true, predicted), 1)
    return matrix


def test_the_interval_covers_the_truth_about_95_times_in_100() -> None:
    # True accuracy 0.8 and, by symmetry of this confusion matrix, true macro F1 0.8.
    rng, runs = np.random.default_rng(7), 400
    hits = {"accuracy": 0, "macro_f1": 0}
    for _ in range(runs):
        drawn = rng.multinomial(200, [0.4, 0.1, 0.1, 0.4]).reshape(2, 2)
        overall, _ = count_intervals(drawn, resamples=400)
        for name in hits:
            hits[name] += overall[name]["low"] <= 0.8 <= overall[name]["high"]
    assert all(0.91 <= hit / runs <= 0.98 for hit in hits.values()), hits


def test_the_interval_of_a_mean_covers_the_truth_about_95_times_in_100() -> None:
    rng, runs = np.random.default_rng(3), 300
    found = [mean_interval(rng.exponential(size=150), seed=i, resamples=400) for i in range(runs)]
    assert 0.90 <= np.mean([i["low"] <= 1 <= i["high"] for i in found]) <= 0.98


def test_resampling_counts_is_resampling_examples() -> None:
    matrix = random_confusion(4, 120)
    drawn = [
        metrics_from_counts(*part)["macro_f1"]
        for part in resample_counts(matrix, 2000, np.random.default_rng(1))
    ]
    flat, rng = np.repeat(np.arange(16), matrix.ravel()), np.random.default_rng(2)
    by_hand = []
    for _ in range(2000):
        resample = np.bincount(rng.choice(flat, len(flat)), minlength=16).reshape(4, 4)
        counts = np.diag(resample), resample.sum(1), resample.sum(0)
        by_hand.append(float(metrics_from_counts(*counts)["macro_f1"]))
    assert ks_2samp(np.concatenate(drawn), by_hand).pvalue > 0.01


def test_chunks_change_nothing_and_bound_memory() -> None:
    matrix = random_confusion(200, 5000)
    whole = list(resample_counts(matrix, 50, np.random.default_rng(0)))
    parts = list(resample_counts(matrix, 50, np.random.default_rng(0), chunk=20_000))
    assert len(whole) == 1 and len(parts) > 3
    for i in range(3):
        np.testing.assert_array_equal(whole[0][i], np.concatenate([part[i] for part in parts]))
    assert (whole[0][1].sum(axis=1) == 5000).all() and (whole[0][2].sum(axis=1) == 5000).all()


def test_200_classes_at_full_resampling() -> None:
    overall, f1 = count_intervals(random_confusion(200, 5000))
    assert len(f1) == 200 and overall["accuracy"]["low"] < overall["accuracy"]["high"]


@pytest.mark.parametrize("seed", range(8))
def test_low_value_high_in_order_and_within_0_and_1(seed: int) -> None:
    # Few examples over many classes: resampled macro means then lie below the observed one.
    overall, f1 = count_intervals(random_confusion(12, 15, seed), seed=seed)
    assert set(overall) == set(COUNT_METRICS)
    for interval in (*overall.values(), *f1):
        assert 0 <= interval["low"] <= interval["value"] <= interval["high"] <= 1 + 1e-12


def test_the_same_seed_gives_the_same_interval() -> None:
    matrix = random_confusion(5, 100)
    assert count_intervals(matrix, seed=3) == count_intervals(matrix, seed=3)
    assert count_intervals(matrix, seed=3) != count_intervals(matrix, seed=4)
    json.dumps(count_intervals(matrix))


@pytest.mark.parametrize("right", [True, False])
def test_without_spread_the_interval_is_exact_and_not_empty(right: bool) -> None:
    matrix = np.diag([20, 30]) if right else np.array([[0, 20], [30, 0]])
    overall, f1 = count_intervals(matrix)
    exact = binomtest(50 if right else 0, 50).proportion_ci(0.95, method="exact")
    for interval in overall.values():
        assert (interval["low"], interval["high"]) == pytest.approx((exact.low, exact.high))
    assert all(0.05 < i["high"] - i["low"] < 0.5 for i in f1)


def test_a_class_without_errors_gets_an_interval_of_its_own() -> None:
    _, f1 = count_intervals(np.array([[4, 0, 0, 0], [0, 90, 6, 0], [0, 7, 80, 0], [0, 0, 0, 0]]))
    low = clopper_pearson(4, 4)[0]
    assert f1[0] == pytest.approx({"value": 1.0, "low": 2 * low / (1 + low), "high": 1.0})
    assert f1[3] == {"value": 0.0, "low": 0.0, "high": 1.0}  # never seen: nothing is known


def test_no_examples_is_an_error() -> None:
    with pytest.raises(DataError, match="no examples"):
        count_intervals(np.zeros((2, 2), dtype=int))


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (3, 10), (10, 10), (999, 1000)])
def test_clopper_pearson_agrees_with_scipy(successes: int, n: int) -> None:
    exact = binomtest(successes, n).proportion_ci(0.95, method="exact")
    assert clopper_pearson(successes, n) == pytest.approx((exact.low, exact.high))


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_a_proportion_out_of_range_is_an_error(successes: int, n: int) -> None:
    with pytest.raises(DataError):
        clopper_pearson(successes, n)


def test_the_mean_is_chunked_without_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random(1000).astype(np.float32)
    whole = mean_interval(values, seed=1)
    monkeypatch.setattr(intervals, "CHUNK", 7000)
    assert mean_interval(values, seed=1) == pytest.approx(whole)


def test_the_normal_approximation_agrees_with_the_bootstrap_where_it_takes_over() -> None:
    values = np.random.default_rng(0).exponential(size=NORMAL_ABOVE + 1).astype(np.float32)
    normal, drawn = mean_interval(values), mean_interval(values[:NORMAL_ABOVE])
    width = normal["high"] - normal["low"]
    assert drawn["high"] - drawn["low"] == pytest.approx(width, rel=0.1)
    assert drawn["low"] == pytest.approx(normal["low"], abs=0.1 * width)


def test_a_million_losses() -> None:
    found = mean_interval(np.linspace(0, 1, 1_000_000, dtype=np.float32))
    assert found["value"] == pytest.approx(0.5, abs=1e-6) and found["low"] < 0.5 < found["high"]


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")]])
def test_a_mean_of_nothing_or_of_nan_is_an_error(values: list[float]) -> None:
    with pytest.raises(DataError, match="finite"):
        mean_interval(np.array(values))
