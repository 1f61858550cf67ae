from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal, ortho_group

from foretune.errors import DataError
from foretune.forecast import transferability
from foretune.forecast.curve import forecast_at
from foretune.forecast.transferability import (
    h_score,
    knn_accuracy,
    log_me,
    log_me_gain,
    measure,
    predictors,
)


def blobs(
    n: int = 200, width: int = 12, classes: int = 3, apart: float = 2.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return features (n, width) float32 around class centres `apart` deviations from 0, and classes (n,)."""
    rng = np.random.default_rng(seed)
    targets = np.arange(n) % classes
    centres = apart * rng.standard_normal((classes, width)) / math.sqrt(width)
    return (centres[targets] + rng.standard_normal((n, width)) / 2).astype(np.float32), targets


def line(n: int = 150, width: int = 10, noise: float = 0.5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return features (n, width) float32 and a noisy linear function of them (n,)."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n, width)).astype(np.float32)
    return features, features @ rng.standard_normal(width) + noise * rng.standard_normal(n)


MEASURES = {"h_score": h_score, "log_me": log_me, "log_me_gain": log_me_gain, "knn": knn_accuracy}
measures = pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES.keys())


# ---- H-score


@pytest.mark.parametrize(("n", "width", "classes"), [(200, 12, 3), (40, 60, 2), (61, 8, 5)])
def test_h_score_is_its_definition(n: int, width: int, classes: int) -> None:
    from sklearn.covariance import LedoitWolf

    x, y = blobs(n, width, classes)
    shrunken = LedoitWolf().fit(x.astype(np.float64))
    means = np.stack([x[y == label].mean(axis=0, dtype=np.float64) for label in y])
    between = np.cov(means, rowvar=False, bias=True)
    expected = (1 - shrunken.shrinkage_) * np.trace(np.linalg.inv(shrunken.covariance_) @ between)
    assert h_score(x, y) == pytest.approx(expected, rel=1e-6)


def test_h_score_of_a_quantity_is_r2_where_nothing_needs_shrinking() -> None:
    x, y = line(n=20_000, width=3)
    x = x * np.float32([1, 2, 4])  # a round cloud would be shrunken to itself, and 1 - α be near 0
    z = np.column_stack([x, np.ones(len(x))]).astype(np.float64)
    residual = y - z @ np.linalg.lstsq(z, y, rcond=None)[0]
    assert h_score(x, y) == pytest.approx(1 - residual.var() / y.var(), abs=2e-3)


def test_h_score_lies_between_0_and_classes_less_1() -> None:
    apart, y = blobs(600, 5, 4, apart=200.0)
    assert 2.9 < h_score(apart, y) <= 3
    noise = np.random.default_rng(1).standard_normal((2000, 5))
    assert 0 <= h_score(noise, np.arange(2000) % 4) < 0.02


def test_shrinkage_keeps_random_labels_from_scoring_where_features_outnumber_examples() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 300)), rng.integers(0, 2, 60)
    # Unshrunken, any labels are perfectly "explained" and score classes - 1 = 1.
    assert h_score(x, y) < 0.2


# ---- LogME


def evidence(x: np.ndarray, y: np.ndarray, alpha: float, beta: float) -> float:
    """Return log p(y) of y = x w + noise with w ~ N(0, 1/alpha), noise ~ N(0, 1/beta), by its covariance."""
    covariance = np.eye(len(y)) / beta + x @ x.T / alpha
    determinant = np.linalg.slogdet(2 * np.pi * covariance)[1]
    return float(-0.5 * (determinant + y @ np.linalg.solve(covariance, y)))


def greatest_evidence(x: np.ndarray, y: np.ndarray) -> float:
    """Return the evidence per example at its peak over both precisions, by search from several starts."""

    def loss(logs: np.ndarray) -> float:
        return -evidence(x, y, *np.exp(np.clip(logs, -12, 12)))

    found = [minimize(loss, start, method="Nelder-Mead").fun for start in ([0, 0], [5, 0], [-3, 3])]
    return -min(found) / len(y)


@pytest.mark.parametrize(("n", "width"), [(40, 5), (30, 50), (25, 25)])
def test_log_me_is_the_greatest_evidence(n: int, width: int) -> None:
    x, y = line(n, width)
    assert log_me(x, y) == pytest.approx(greatest_evidence(x.astype(float), y), abs=2e-4)


def test_log_me_of_classes_is_the_mean_over_one_against_the_rest() -> None:
    x, y = blobs(45, 6, 3)
    expected = np.mean([greatest_evidence(x.astype(float), (y == label).astype(float)) for label in range(3)])
    assert log_me(x, y) == pytest.approx(expected, abs=2e-4)
    assert log_me(x, y) == pytest.approx(
        np.mean([log_me(x, (y == label).astype(float)) for label in range(3)])
    )


def test_no_pair_of_precisions_on_a_grid_has_more_evidence() -> None:
    x, y = line(30, 4, noise=2.0, seed=3)
    best = max(
        evidence(x.astype(float), y, alpha, beta) / len(y)
        for alpha in np.logspace(-4, 4, 33)
        for beta in np.logspace(-4, 4, 33)
    )
    assert log_me(x, y) >= best > log_me(x, y) - 0.05


def test_log_me_prefers_the_features_that_explain_the_target() -> None:
    x, y = line(120, 6, noise=0.1)
    other = np.random.default_rng(9).standard_normal(x.shape)
    assert log_me(x, y) > log_me(other, y) + 1
    # Width alone brings nothing: noise beside the features costs evidence.
    assert log_me(np.hstack([x, 3 * other]), y) < log_me(x, y)


def test_the_gain_is_the_evidence_above_that_of_the_mean() -> None:
    x, y = line(40, 5)
    residual = y - y.mean()
    alone = multivariate_normal(np.zeros(40), y.var() * np.eye(40)).logpdf(residual) / 40
    best = greatest_evidence(x.astype(float) - x.mean(axis=0, dtype=float), residual)
    assert log_me_gain(x, y) == pytest.approx(best - alone, abs=2e-4)


def test_the_gain_is_near_0_without_signal_and_free_of_unit_and_origin() -> None:
    x, y = line(200, 6)
    noise = np.random.default_rng(5).standard_normal(x.shape)
    assert 0 <= log_me_gain(noise, y) < 0.05 < log_me_gain(x, y)
    assert log_me_gain(x + 3, 1000 * y + 7) == pytest.approx(log_me_gain(x, y), abs=1e-5)
    assert log_me(x, 1000 * y) == pytest.approx(log_me(x, y) - math.log(1000), abs=1e-6)


def test_an_exact_function_of_the_features_has_finite_evidence() -> None:
    x, y = line(50, 4, noise=0.0)
    one_hot = np.eye(3)[np.arange(30) % 3]
    assert 1 < log_me(x, y) < 20 and 1 < log_me(one_hot, np.arange(30) % 3) < 20


# ---- nearest neighbours


def knn_by_hand(x: np.ndarray, y: np.ndarray, k: int) -> float:
    x = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    right = 0
    for i in range(len(y)):
        others = [j for j in range(len(y)) if j != i]
        cosine = {j: x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j]) for j in others}
        nearest = sorted(others, key=lambda j: -cosine[j])[:k]
        votes = {
            label: (sum(y[j] == label for j in nearest), sum(cosine[j] for j in nearest if y[j] == label))
            for label in set(y[nearest])
        }
        right += max(votes, key=lambda label: votes[label]) == y[i]
    return right / len(y)


@pytest.mark.parametrize("k", [1, 2, 5, 10])
def test_neighbours_vote_as_they_do_by_hand(k: int) -> None:
    x, y = blobs(90, 5, 4, apart=1.0)
    assert knn_accuracy(x, y, k=k) == knn_by_hand(x, y, k)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = blobs(100, 8, 3, apart=1.0)
    whole = knn_accuracy(x, y)
    monkeypatch.setattr(transferability, "CHUNK_BYTES", 8 * 100 * 7)
    assert knn_accuracy(x, y) == whole


def test_neighbours_of_a_quantity_agree_with_scikit_learn() -> None:
    from sklearn.model_selection import LeaveOneOut, cross_val_predict
    from sklearn.neighbors import KNeighborsRegressor

    x, y = line(80, 4)
    centred = x - x.mean(axis=0)
    model = KNeighborsRegressor(7, metric="cosine", algorithm="brute")
    predicted = cross_val_predict(model, centred, y, cv=LeaveOneOut())
    expected = 1 - np.square(y - predicted).sum() / np.square(y - y.mean()).sum()
    assert knn_accuracy(x, y, k=7) == pytest.approx(expected, abs=1e-6)


def test_more_neighbours_than_examples_are_all_the_others() -> None:
    x, y = blobs(20, 4, 2)
    y = np.array([0] * 13 + [1] * 7)
    # All others vote: the majority wins for each example.
    assert knn_accuracy(x, y, k=1000) == 13 / 20


# ---- what all have in common


@measures
@pytest.mark.parametrize("make", [blobs, line])
def test_the_order_of_examples_does_not_count(measure, make) -> None:
    x, y = make(120)
    order = np.random.default_rng(2).permutation(len(y))
    assert measure(x[order], y[order]) == pytest.approx(measure(x, y), abs=1e-6)


@measures
@pytest.mark.parametrize("make", [blobs, line])
def test_rotation_and_scale_of_the_features_do_not_count(measure, make) -> None:
    x, y = make(120)
    turn = ortho_group.rvs(x.shape[1], random_state=4)
    assert measure(37.0 * (x @ turn), y) == pytest.approx(measure(x, y), abs=1e-5)


@measures
def test_names_of_classes_do_not_count(measure) -> None:
    x, y = blobs(120)
    assert measure(x, np.array([70, -2, 5])[y]) == pytest.approx(measure(x, y))


@measures
def test_separated_classes_score_above_random_ones(measure) -> None:
    x, y = blobs(300, 10, 3, apart=4.0)
    shuffled = np.random.default_rng(1).permutation(y)
    assert measure(x, y) > measure(x, shuffled) + 0.2


@pytest.mark.parametrize(("measure", "chance"), [(h_score, 0), (log_me_gain, 0), (knn_accuracy, 0.5)])
def test_random_labels_bring_nothing(measure, chance: float) -> None:
    x, _ = blobs(500, 10, 2)
    labels = np.arange(500) % 2
    found = [measure(x, np.random.default_rng(seed).permutation(labels)) for seed in range(5)]
    assert np.mean(found) == pytest.approx(chance, abs=0.04)


ODD = {
    "constant features": lambda x: np.ones_like(x),
    "zero features": lambda x: np.zeros_like(x),
    "constant columns": lambda x: np.hstack([x, np.full_like(x, 7.0)]),
    "one column": lambda x: x[:, :1],
    "wide": lambda x: np.tile(x, (1, 40)) + np.random.default_rng(0).standard_normal((len(x), 480)) / 10,
    "duplicate rows": lambda x: np.repeat(x[: len(x) // 4], 4, axis=0),
    "large": lambda x: x * np.float32(1e36),
    "small": lambda x: x * np.float32(1e-30),
    "far from 0": lambda x: x + np.float32(1e4),
    "one huge column": lambda x: x * np.where(np.arange(x.shape[1]) == 0, np.float32(1e12), np.float32(1)),
}


@measures
@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
@pytest.mark.parametrize("targets", ["two", "singletons", "quantity"])
def test_odd_features_and_classes_give_finite_numbers(measure, odd, targets: str) -> None:
    x = odd(blobs(64)[0])
    y = {
        "two": np.arange(64) % 2,
        "singletons": np.where(np.arange(64) < 5, np.arange(64), 9),
        "quantity": np.sin(np.arange(64)),
    }[targets]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isfinite(measure(x, y))


def test_constant_features_are_the_features_of_no_knowledge() -> None:
    x, y = np.full((40, 3), 2.5, dtype=np.float32), np.array([0] * 30 + [1] * 10)
    assert h_score(x, y) == 0
    assert log_me_gain(x, y) == pytest.approx(0, abs=1e-9)
    assert knn_accuracy(x, y) == 30 / 40


@measures
def test_what_cannot_be_measured_is_an_error(measure) -> None:
    x, y = blobs(60)
    with pytest.raises(DataError, match="different"):
        measure(x, np.zeros(60, dtype=int))
    with pytest.raises(DataError, match="too few"):
        measure(x[:9], y[:9])
    with pytest.raises(DataError, match="NaN"):
        measure(np.where(np.arange(60)[:, None] == 3, np.nan, x), y)
    with pytest.raises(DataError, match=r"\(n, width\)"):
        measure(x[:, None], y)
    with pytest.raises(DataError, match=r"\(n, width\)"):
        measure(x, y[:-1])
    with pytest.raises(DataError, match="Encode"):
        measure(x, np.array(["a", "b", "c"])[y])


# ---- all in one


NAMES = {
    *("n", "layers", "width", "classes", "majority", "entropy", "smallest", "rare"),
    *("probe", "probe_se", "probe_last", "probe_depth", "knn", "h_score", "h_share", "log_me", "log_me_gain"),
    *("curve_a", "curve_c", "curve_slope", "curve_x2", "curve_x2_width", "curve_x5", "curve_x5_width"),
}


def layered(n: int = 160, **options: float) -> tuple[np.ndarray, np.ndarray]:
    """Return features (n, 3, 12) whose middle layer alone tells the classes apart."""
    x, y = blobs(n, **options)
    noise = np.random.default_rng(8).standard_normal((2, *x.shape)).astype(np.float32)
    return np.stack([noise[0], x, noise[1]], axis=1), y


def test_predictors_are_what_the_measures_say_at_the_probes_layer() -> None:
    features, targets = layered(apart=3.0)
    found = predictors(features, targets, seed=1)
    assert set(found) == NAMES and all(type(value) is float for value in found.values())
    assert (found["n"], found["layers"], found["width"], found["classes"]) == (160, 3, 12, 3)
    assert found["probe_depth"] == 0.5 and found["knn"] == knn_accuracy(features[:, 1], targets)
    assert found["h_score"] == h_score(features[:, 1], targets) == pytest.approx(2 * found["h_share"])
    assert found["log_me"] == log_me(features[:, 1], targets)
    assert found["majority"] == 54 / 160 and found["smallest"] == 53 / 160
    assert found["entropy"] == pytest.approx(math.log(3), abs=1e-3)
    assert found["probe"] > 0.9 and found["rare"] == 0
    assert found["probe_last"] < 0.6  # the last layer is noise
    whole = measure(features, targets, seed=1)
    assert whole.numbers == found and whole.probe.layer == 1
    assert whole.curve.points == 4 and forecast_at(whole.curve, 320).value >= found["probe"] - 0.05


def test_predictors_tell_easy_from_hard() -> None:
    easy, hard = (predictors(*layered(100, apart=apart)) for apart in (4.0, 0.5))
    for name in ("probe", "knn", "h_score", "h_share", "log_me", "log_me_gain"):
        assert easy[name] > hard[name], name
    assert hard["probe_se"] > easy["probe_se"] and hard["curve_x5_width"] > easy["curve_x5_width"]


@pytest.mark.parametrize(
    ("odd", "targets"),
    [(odd, "singletons") for odd in ODD]
    + [(odd, "quantity") for odd in ("constant features", "wide", "large")],
)
def test_predictors_are_always_finite(odd: str, targets: str) -> None:
    x = np.stack([ODD[odd](blobs(40)[0]), ODD[odd](blobs(40, seed=1)[0])], axis=1)
    y = {
        "singletons": np.where(np.arange(40) < 5, np.arange(40), 9),
        "quantity": np.sin(np.arange(40)),
    }[targets]
    found = predictors(x, y)
    assert set(found) == NAMES and all(map(math.isfinite, found.values()))
    assert found["rare"] == (5 if targets == "singletons" else 0)


def test_predictors_of_the_fewest_examples_are_finite() -> None:
    features, targets = layered(10)
    assert all(map(math.isfinite, predictors(features, targets).values()))
    with pytest.raises(DataError, match="too few"):
        predictors(features[:9], targets[:9])


@pytest.mark.slow
def test_predictors_are_the_same_for_the_same_seed() -> None:
    features, targets = layered(40, apart=1.0)
    assert predictors(features, targets, seed=5) == predictors(features, targets, seed=5)
    assert predictors(features, targets, seed=5) != predictors(features, targets, seed=6)
