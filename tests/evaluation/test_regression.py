from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from foretune.errors import DataError
from foretune.evaluation import regression
from foretune.evaluation.regression import REGRESSION_METRICS, RegressionScores, spearman
from foretune.evaluation.summed import resample_weights


def scored(predictions: np.ndarray, targets: np.ndarray, batch: int = 64) -> RegressionScores:
    scores = RegressionScores()
    for start in range(0, len(targets), batch):
        scores.update(predictions[start : start + batch], targets[start : start + batch])
    return scores


def sample(n: int = 300, seed: int = 0, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = rng.normal(size=n)
    return (targets + noise * rng.normal(size=n)).astype(np.float32), targets


def libraries(predictions: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    return {
        "rmse": root_mean_squared_error(targets, predictions),
        "mae": mean_absolute_error(targets, predictions),
        "pearson": pearsonr(predictions, targets).statistic,
        "spearman": spearmanr(predictions, targets).statistic,
        "r2": r2_score(targets, predictions),
    }


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("decimals", "offset"), [(8, 0.0), (0, 0.0), (8, 1e6)])
def test_scores_agree_with_scipy_and_sklearn(seed: int, decimals: int, offset: float) -> None:
    predictions, targets = sample(seed=seed)
    # 0 decimals make many ties; the offset punishes sums of squares that are not centred.
    predictions, targets = (
        predictions.round(decimals).astype(float) + offset,
        targets.round(decimals) + offset,
    )
    assert scored(predictions, targets).point() == pytest.approx(libraries(predictions, targets), abs=1e-7)


def test_result_is_json_with_the_points_and_intervals_that_hold_them() -> None:
    scores = scored(*sample())
    result = json.loads(json.dumps(scores.result()))
    assert [*result] == [*REGRESSION_METRICS, "bias", "n"] and [*scores.point()] == [*REGRESSION_METRICS]
    for name, value in scores.point().items():
        assert result[name]["value"] == pytest.approx(value)
        assert result[name]["low"] < value < result[name]["high"]
    predictions, targets = sample()
    assert result["bias"] == pytest.approx(float(np.mean(predictions - targets))) and result["n"] == 300


def test_a_resample_is_ranked_anew() -> None:
    predictions, targets = sample(60)
    predictions = predictions.round()
    weights = np.concatenate(list(resample_weights(60, 1, 25)))
    by_hand = [
        spearmanr(np.repeat(predictions, w.astype(int)), np.repeat(targets, w.astype(int))).statistic
        for w in weights
    ]
    np.testing.assert_allclose(spearman(weights, predictions, targets), by_hand)


def test_the_intervals_cover_the_truth_about_95_times_in_100() -> None:
    # Targets and noise of variance 1: true RMSE 1, Pearson sqrt(1/2), Spearman 6/pi asin(r/2).
    truth = {"rmse": 1.0, "pearson": 0.5**0.5, "spearman": 6 / np.pi * np.arcsin(0.5**0.5 / 2), "r2": 0.0}
    hits = dict.fromkeys(truth, 0)
    for seed in range(150):
        result = scored(*sample(200, seed)).result(seed)
        for name, value in truth.items():
            hits[name] += result[name]["low"] <= value <= result[name]["high"]
    assert all(0.88 <= hit / 150 <= 0.99 for hit in hits.values()), hits


def test_many_pairs_have_the_same_interval_without_resampling(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = scored(*sample(2000))
    drawn = scores.result()["spearman"]
    monkeypatch.setattr(regression, "NORMAL_ABOVE", 1000)
    normal = scores.result()["spearman"]
    assert (normal["low"], normal["high"]) == pytest.approx((drawn["low"], drawn["high"]), abs=0.005)
    perfect = scored(np.arange(2000.0), np.arange(2000.0)).result()["spearman"]
    assert perfect["low"] > 0.999 and perfect["value"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("predictions", "targets"),
    [([0.5] * 30, np.arange(30) / 7), (np.arange(30) / 7, [0.5] * 30), ([0.5] * 3, [0.5] * 3)],
)
def test_no_correlation_with_a_constant_and_no_warning(predictions: list, targets: list) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = scored(np.array(predictions), np.array(targets)).result()
    for name in ("pearson", "spearman"):
        assert result[name] == {"value": 0, "low": 0, "high": 0}
    assert result["r2"]["value"] == pytest.approx(r2_score(targets, predictions))


def test_one_example_has_an_error_and_no_correlation() -> None:
    point = scored(np.array([3.0]), np.array([1.0])).point()
    assert point == {"rmse": 2, "mae": 2, "pearson": 0, "spearman": 0, "r2": 0}


def test_pairs_come_back_in_order() -> None:
    predictions, targets = sample(100)
    for given, found in zip((predictions, targets), scored(predictions, targets, 7).pairs(), strict=True):
        np.testing.assert_array_equal(given.astype(float), found)


@pytest.mark.parametrize(
    ("predictions", "targets", "says"),
    [
        ([[1.0]], [1.0], "last dimension"),
        ([1.0], [1.0, 2.0], "batch"),
        ([float("nan")], [1.0], "predictions are not finite"),
        ([1.0], [float("inf")], "targets are not finite"),
    ],
)
def test_bad_batches_are_errors_and_change_nothing(predictions: list, targets: list, says: str) -> None:
    scores = RegressionScores()
    with pytest.raises(DataError, match=says):
        scores.update(np.array(predictions), np.array(targets))
    assert scores.n == 0


def test_nothing_to_score_is_an_error() -> None:
    for call in (RegressionScores().result, RegressionScores().point):
        with pytest.raises(DataError, match="no examples"):
            call()
