from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, r2_score

from foretune.errors import ConfigError, DataError
from foretune.forecast.samples import (
    MIN_EXAMPLES,
    check,
    indicators,
    is_regression,
    spread_order,
    strata,
    stratified_folds,
)
from foretune.forecast.scores import check_metric, covariance, score


def labels(n: int = 200, right: float = 0.7, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 4, n)
    return true, np.where(rng.random(n) < right, true, rng.integers(0, 4, n))


def numbers(n: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    true = rng.standard_normal(n).round(1)  # with ties
    return true, (true + 0.5 * rng.standard_normal(n)).round(1)


# ---- scores


def test_class_scores_are_those_of_scikit_learn() -> None:
    true, predicted = labels()
    assert score("accuracy", true, predicted) == pytest.approx(accuracy_score(true, predicted))
    assert score("macro_f1", true, predicted) == pytest.approx(f1_score(true, predicted, average="macro"))
    never_right = (true + 1) % 4
    assert score("macro_f1", true, never_right) == score("accuracy", true, never_right) == 0


def test_quantity_scores_are_those_of_scipy_and_scikit_learn() -> None:
    true, predicted = numbers()
    assert score("r2", true, predicted) == pytest.approx(r2_score(true, predicted))
    assert score("pearson", true, predicted) == pytest.approx(pearsonr(true, predicted)[0])
    assert score("spearman", true, predicted) == pytest.approx(spearmanr(true, predicted)[0])


def test_no_spread_is_no_correlation() -> None:
    true, _ = numbers()
    # 0.1 + 0.2 summed 200 times is not exact: what is left of a constant less its mean must not count.
    for constant in (1.0, 0.1 + 0.2, 1e6 / 7):
        flat = np.full(200, constant)
        assert score("pearson", true, flat) == score("spearman", true, flat) == score("r2", flat, true) == 0
    assert score("r2", true, np.full(200, true.mean())) == pytest.approx(0)


@pytest.mark.parametrize(
    ("metric", "targets"),
    [
        ("r2", np.arange(4)),
        ("accuracy", np.arange(4.0)),
        ("acuracy", np.arange(4)),
        ("log_loss", np.arange(4)),
    ],
)
def test_a_metric_of_the_wrong_kind_is_an_error(metric: str, targets: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="expected one of"):
        check_metric(metric, targets)
    with pytest.raises(ConfigError, match=r"Did you mean 'accuracy'\?"):
        check_metric("acuracy", np.arange(4))


# ---- noise


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "r2", "pearson", "spearman"])
def test_the_standard_error_is_the_spread_over_new_samples(metric: str) -> None:
    make = labels if metric in ("accuracy", "macro_f1") else numbers
    scores = [score(metric, *make(seed=seed)) for seed in range(300)]
    found = [covariance(metric, make(seed=s)[0], make(seed=s)[1][None], seed=s)[0, 0] for s in range(20)]
    assert np.sqrt(np.mean(found)) == pytest.approx(np.std(scores), rel=0.15)


def test_scores_of_the_same_examples_share_their_noise() -> None:
    true, first = labels(400)
    second = np.where(np.random.default_rng(5).random(400) < 0.9, first, labels(400, seed=9)[1])
    third = labels(400, seed=7)[1]
    found = covariance("accuracy", true, np.stack([first, second, third]), seed=0)
    # By the definition: the covariance of the two indicators "right", over n.
    expected = np.cov(np.stack([first, second, third]) == true) / 400
    np.testing.assert_allclose(found, expected, atol=0.2 * expected.max())
    correlation = found / np.sqrt(np.outer(np.diag(found), np.diag(found)))
    assert correlation[0, 1] > 0.6 > abs(correlation[0, 2])
    assert np.linalg.eigvalsh(found).min() > -1e-12


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
@pytest.mark.parametrize("right", [True, False])
def test_a_perfect_score_is_not_certain(metric: str, right: bool) -> None:
    true = np.arange(50) % 2
    found = covariance(metric, true, (true if right else 1 - true)[None], seed=0)[0, 0] ** 0.5
    assert 0.01 < found < 0.05  # 51 of 52 at the rule of succession: 0.019


def test_noise_is_the_same_for_the_same_seed() -> None:
    true, predicted = labels()
    first, again, other = (covariance("macro_f1", true, predicted[None], seed=s) for s in (1, 1, 2))
    assert first == again != other


# ---- samples


def test_the_kind_of_targets_is_told_by_their_type() -> None:
    assert not is_regression(np.arange(3)) and not is_regression(np.array([True, False]))
    assert is_regression(np.arange(3.0)) and is_regression(np.arange(3, dtype=np.float32))
    np.testing.assert_array_equal(indicators(np.array([5, -1, 5])), [[0, 1], [1, 0], [0, 1]])
    np.testing.assert_array_equal(indicators(np.array([0.5, 2.0])), [[0.5], [2.0]])


def test_the_strata_of_a_quantity_are_its_fifths() -> None:
    found = strata(np.random.default_rng(0).standard_normal(500))
    np.testing.assert_array_equal(np.bincount(found), [100] * 5)
    assert set(strata(np.array([1.0] * 50 + [2.0] * 3))) == {0, 1}
    np.testing.assert_array_equal(strata(np.array([9, -4, 9])), [1, 0, 1])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("folds", [2, 5, 10])
def test_folds_are_equal_and_stratified(seed: int, folds: int) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.choice(6, size=rng.integers(20, 200), p=[0.5, 0.2, 0.1, 0.1, 0.05, 0.05])
    fold = stratified_folds(groups, folds, rng)
    counts = [np.bincount(fold[groups == group], minlength=folds) for group in np.unique(groups)]
    for each in (np.bincount(fold, minlength=folds), *counts):
        assert each.max() - each.min() <= 1
    assert set(fold) == set(range(folds))


def test_folds_are_drawn_anew_for_each_seed() -> None:
    groups = np.zeros(100, dtype=np.int64)
    first, again, other = (stratified_folds(groups, 5, np.random.default_rng(s)) for s in (1, 1, 2))
    assert (first == again).all() and (first != other).any()


@pytest.mark.parametrize("seed", range(5))
def test_every_beginning_of_an_order_holds_each_group_by_its_share(seed: int) -> None:
    groups = np.random.default_rng(seed).choice(4, size=300, p=[0.6, 0.2, 0.15, 0.05])
    order = spread_order(groups, np.random.default_rng(seed))
    assert sorted(order) == list(range(300))
    for size in (20, 50, 100, 299):
        counts = np.bincount(groups[order[:size]], minlength=4)
        # Each group is within one of its share of the cut, which itself may be one off for each of the four.
        np.testing.assert_allclose(counts, np.bincount(groups, minlength=4) * size / 300, atol=2)


def test_single_members_of_many_groups_do_not_all_stand_first() -> None:
    groups = np.concatenate([np.zeros(80, dtype=np.int64), np.arange(1, 21)])
    places = [np.argsort(spread_order(groups, np.random.default_rng(s)))[80:].mean() for s in range(50)]
    assert np.mean(places) == pytest.approx(49.5, abs=3)


def test_arrays_that_can_be_measured_pass() -> None:
    check(np.zeros((MIN_EXAMPLES, 2)), np.arange(MIN_EXAMPLES))
    check(np.zeros((MIN_EXAMPLES, 3, 2)), np.arange(MIN_EXAMPLES), layers=True)
    with pytest.raises(DataError, match="layers"):
        check(np.zeros((MIN_EXAMPLES, 2)), np.arange(MIN_EXAMPLES), layers=True)
    with pytest.raises(DataError, match="infinity"):
        check(np.zeros((MIN_EXAMPLES, 2)), np.full(MIN_EXAMPLES, np.inf))
