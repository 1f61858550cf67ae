from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from foretune.forecast.linear import Moments, logistic_outputs, penalties, principal_axes, ridge_outputs
from foretune.forecast.samples import indicators, stratified_folds


def sample(
    n: int = 120, width: int = 9, classes: int = 3, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features (n, width) of very different scales, classes (n,) and a quantity (n,)."""
    rng = np.random.default_rng(seed)
    targets = rng.permutation(np.arange(n) % classes)
    x = rng.standard_normal((n, width)) + rng.standard_normal((classes, width))[targets]
    mixed = x @ rng.standard_normal((width, width)) * np.logspace(-3, 3, width) + 5
    return mixed.astype(np.float32), targets, x @ rng.standard_normal(width) + rng.standard_normal(n)


def standardised(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    return (x - x.mean(axis=0)) / x.std(axis=0)


def halves(n: int, folds: int = 4) -> tuple[list[np.ndarray], list[np.ndarray]]:
    fold = stratified_folds(np.zeros(n, dtype=np.int64), folds, np.random.default_rng(3))
    return [np.flatnonzero(fold != k) for k in range(folds)], [
        np.flatnonzero(fold == k) for k in range(folds)
    ]


# ---- axes


@pytest.mark.parametrize(("n", "width"), [(50, 8), (30, 45), (20, 20)])
def test_axes_keep_all_distances_between_standardised_features(n: int, width: int) -> None:
    x = sample(n, width)[0]
    rotated = principal_axes(x).astype(np.float64)
    np.testing.assert_allclose(rotated @ rotated.T, standardised(x) @ standardised(x).T, atol=1e-3)
    assert rotated.shape[1] == min(width, n - 1)
    covariance = rotated.T @ rotated / n
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-3 * covariance.max())


def test_constant_and_repeated_features_are_no_axes() -> None:
    x = sample(60, 5)[0]
    again = np.hstack([x, np.full((60, 2), 1e6, dtype=np.float32), x[:, :1]])
    assert principal_axes(again).shape == (60, 5)
    assert principal_axes(np.ones((60, 4), dtype=np.float32)).shape == (60, 0)
    # 1 + 1e-7 is the next float32 after 1: such a wobble is rounding, not a feature.
    wobble = np.ones((60, 1), dtype=np.float32)
    wobble[::2] = np.nextafter(np.float32(1), np.float32(2))
    assert principal_axes(np.hstack([x, wobble])).shape == (60, 5)


def test_huge_features_stay_finite() -> None:
    x = sample(40, 6)[0] * np.float32(1e30)
    assert np.isfinite(principal_axes(x)).all()


def test_a_penalty_means_the_same_whatever_the_width() -> None:
    x = np.random.default_rng(0).standard_normal((500, 40))
    assert penalties(principal_axes(x), [0.1, 1]) == pytest.approx([40, 4], rel=1e-3)
    assert penalties(principal_axes(np.hstack([x, x])), [0.1, 1]) == pytest.approx([80, 8], rel=1e-3)
    assert penalties(np.zeros((5, 0), dtype=np.float32), [2.0]) == [2.0]


# ---- logistic regression


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("width", [9, 200])
def test_logistic_regressions_are_those_of_scikit_learn(classes: int, width: int) -> None:
    x, targets, _ = sample(120, width, classes)
    trains, tests = halves(120)
    strengths = [30.0, 3.0, 0.5]
    found = logistic_outputs(principal_axes(x), indicators(targets), trains, tests, strengths)
    for i, strength in enumerate(strengths):
        for train, test, out in zip(trains, tests, found, strict=True):
            assert out.shape == (3, len(test), classes)
            model = LogisticRegression(C=1 / strength, max_iter=5000, tol=1e-8)
            model.fit(standardised(x)[train], targets[train])
            chances = model.predict_proba(standardised(x)[test])
            # scikit-learn fits one column for two classes: half the penalty of two opposite ones.
            if classes == 2:
                model.set_params(C=2 / strength).fit(standardised(x)[train], targets[train])
                chances = model.predict_proba(standardised(x)[test])
            np.testing.assert_allclose(np.exp(out[i]), chances, atol=0.02)


def test_training_sets_of_unequal_sizes_do_not_touch_each_other() -> None:
    x, targets, _ = sample(90)
    axes, y = principal_axes(x), indicators(targets)
    trains = [np.arange(30), np.arange(20, 75), np.arange(40, 90)]
    tests = [np.arange(30, 40), np.arange(10, 20), np.arange(5)]
    together = logistic_outputs(axes, y, trains, tests, [5.0, 1.0])
    for train, test, out in zip(trains, tests, together, strict=True):
        alone = logistic_outputs(axes, y, [train], [test], [5.0, 1.0])[0]
        np.testing.assert_allclose(np.exp(alone), np.exp(out), atol=5e-3)


def test_without_features_the_chances_are_the_shares_of_the_classes() -> None:
    targets = np.array([0] * 30 + [1] * 10)
    found = logistic_outputs(
        np.zeros((40, 0), dtype=np.float32), indicators(targets), [np.arange(40)], [np.arange(40)], [1.0]
    )
    np.testing.assert_allclose(np.exp(found[0][0]), np.tile([0.75, 0.25], (40, 1)), atol=2e-3)


def test_a_class_that_the_training_rows_lack_is_improbable_and_finite() -> None:
    x, targets, _ = sample(60)
    train = np.flatnonzero(targets != 2)
    (found,) = logistic_outputs(principal_axes(x), indicators(targets), [train], [np.arange(60)], [5.0, 0.5])
    assert np.isfinite(found).all() and np.exp(found[:, train, 2]).mean() < 0.05


def test_separable_classes_do_not_diverge() -> None:
    x = np.linspace(-1, 1, 50)[:, None]
    targets = (x[:, 0] > 0).astype(int)
    rows = [np.arange(50)]
    (found,) = logistic_outputs(principal_axes(x), indicators(targets), rows, rows, [1.0, 1e-6])
    assert np.isfinite(found).all() and (found[1].argmax(axis=1) == targets).all()


# ---- ridge


@pytest.mark.parametrize("width", [9, 150])
def test_ridge_regressions_are_those_of_scikit_learn(width: int) -> None:
    x, _, quantity = sample(100, width)
    trains, tests = halves(100)
    found = ridge_outputs(principal_axes(x), indicators(quantity), trains, tests, [50.0, 2.0])
    for i, strength in enumerate((50.0, 2.0)):
        for train, test, out in zip(trains, tests, found, strict=True):
            model = Ridge(alpha=strength).fit(standardised(x)[train], quantity[train])
            np.testing.assert_allclose(
                out[i, :, 0], model.predict(standardised(x)[test]), atol=5e-3 * quantity.std()
            )


def test_sums_of_parts_are_those_of_the_whole() -> None:
    x, targets, _ = sample(60)
    axes, y = principal_axes(x), indicators(targets)
    parts = (Moments.of(axes[rows], y[rows]) for rows in (slice(0, 10), slice(10, 35), slice(35, 60)))
    whole = Moments.of(axes, y)
    np.testing.assert_allclose(
        reduce(add, parts).predict(axes, 2.0), whole.predict(axes, 2.0), rtol=1e-9, atol=1e-12
    )


def test_ridge_predictions_follow_the_unit_of_the_quantity() -> None:
    x, _, quantity = sample(80)
    trains, tests = halves(80)
    axes = principal_axes(x)
    small, large = (
        np.concatenate(ridge_outputs(axes, indicators(scaled), trains, tests, [3.0]), axis=1)
        for scaled in (quantity, 1e6 * quantity + 5)
    )
    np.testing.assert_allclose(large, 1e6 * small + 5, rtol=1e-6)


def test_ridge_without_features_or_spread_predicts_the_mean() -> None:
    quantity = np.arange(20.0)
    rows = [np.arange(20)]
    empty = np.zeros((20, 0), dtype=np.float32)
    assert (ridge_outputs(empty, indicators(quantity), rows, rows, [1.0])[0] == quantity.mean()).all()
    same = np.full(20, 3.5)
    x = principal_axes(sample(20, 4)[0])
    np.testing.assert_allclose(ridge_outputs(x, indicators(same), rows, rows, [1.0])[0], 3.5, atol=1e-6)
