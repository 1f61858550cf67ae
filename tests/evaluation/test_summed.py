from __future__ import annotations

import json
from typing import Any, ClassVar

import numpy as np
import pytest

from foretune.errors import DataError
from foretune.evaluation import summed
from foretune.evaluation.counts import Floats
from foretune.evaluation.intervals import clopper_pearson, mean_interval
from foretune.evaluation.summed import SummedScores, grouped, resample_weights, resampled_sums, score_interval


class Mean(SummedScores):
    tops: ClassVar = {"mean": 1.0}

    def metrics(self, sums: Floats) -> dict[str, Floats]:
        return {"mean": sums[..., 1] / sums[..., 0]}

    def update(self, values: Any) -> None:
        self._add(values)


def test_weights_are_draws_with_replacement() -> None:
    weights = np.concatenate(list(resample_weights(50, seed=1)))
    assert weights.shape == (1000, 50) and (weights.sum(axis=1) == 50).all()
    # Of a draw of n out of n, a share of 1/e is not drawn at all, and the variance is 1 - 1/n.
    assert np.mean(weights == 0) == pytest.approx(np.exp(-1), abs=0.02)
    assert weights.var() == pytest.approx(1 - 1 / 50, abs=0.02)


def test_sums_are_those_of_the_drawn_rows() -> None:
    rows = np.random.default_rng(0).random((40, 3))
    sums = resampled_sums(rows, seed=5, resamples=30)
    weights = np.concatenate(list(resample_weights(40, 5, 30)))
    by_hand = [np.repeat(rows, w.astype(int), axis=0).sum(axis=0) for w in weights]
    np.testing.assert_allclose(sums, by_hand)


def test_chunks_and_blocks_of_columns_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).integers(0, 255, (100, 7)).astype(np.uint8)
    whole = resampled_sums(rows, seed=2)
    monkeypatch.setattr(summed, "CHUNK", 300)
    np.testing.assert_array_equal(resampled_sums(rows, seed=2), whole)
    assert sum(1 for _ in resample_weights(100, 2, chunk=300)) == 334


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_groups_keep_sums_and_never_overflow(dtype: type) -> None:
    rows = np.full((1003, 2), 200, dtype=dtype)
    sums = grouped(rows, groups=10)
    assert sums.shape == (10, 2) and sums.sum() == 1003 * 400 and sums.max() == 101 * 200
    assert grouped(rows, groups=2000) is rows


def test_groups_give_the_spread_of_the_examples() -> None:
    rows = np.random.default_rng(0).exponential(size=(4000, 1))
    apart = resampled_sums(rows, seed=1).std()
    together = resampled_sums(grouped(rows, groups=1000), seed=2).std()
    assert together == pytest.approx(apart, rel=0.1)


def test_a_mean_has_the_interval_of_a_mean() -> None:
    values = np.random.default_rng(0).random(400)
    scores = Mean()
    scores.update(values[:150])
    scores.update(values[150:])
    found, known = scores.result()["mean"], mean_interval(values)
    assert found["value"] == pytest.approx(known["value"]) == scores.point()["mean"]
    assert (found["low"], found["high"]) == pytest.approx((known["low"], known["high"]), abs=0.005)
    assert scores.result(seed=1) == scores.result(seed=1) != scores.result(seed=2)
    assert json.loads(json.dumps(scores.result())) == scores.result()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_without_spread_the_interval_is_exact(value: float) -> None:
    scores = Mean()
    scores.update(np.full(20, value))
    found = scores.result()["mean"]
    assert (found["low"], found["high"]) == pytest.approx(clopper_pearson(int(20 * value), 20))


def test_one_example_tells_next_to_nothing() -> None:
    scores = Mean()
    scores.update([0.4])
    found = scores.result()["mean"]
    assert found["low"] <= 0.025 and found["high"] >= 0.95


def test_scores_without_a_top_keep_an_empty_interval() -> None:
    found = score_interval(3.0, np.full(10, 3.0), 10, None)
    assert found == {"value": 3.0, "low": 3.0, "high": 3.0}


def test_scores_up_to_100_scale_the_exact_interval() -> None:
    found = score_interval(100.0, np.full(10, 100.0), 10, 100.0)
    assert found["low"] == pytest.approx(100 * clopper_pearson(10, 10)[0]) and found["high"] == 100


def test_the_interval_covers_the_truth_about_95_times_in_100() -> None:
    rng, hits = np.random.default_rng(3), 0
    for seed in range(200):
        scores = Mean()
        scores.update(rng.random(80) ** 2)
        interval = scores.result(seed)["mean"]
        hits += interval["low"] <= 1 / 3 <= interval["high"]
    assert 0.9 <= hits / 200 <= 0.985


def test_nothing_to_score_is_an_error() -> None:
    for call in (Mean().result, Mean().point, Mean().rows):
        with pytest.raises(DataError, match="no examples"):
            call()
    with pytest.raises(DataError, match="no examples"):
        resampled_sums(np.zeros((0, 2)))
