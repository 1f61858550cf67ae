from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from foretune.errors import ConfigError, DataError
from foretune.forecast.held_out import SHARES, neighbours
from foretune.forecast.probe import _rows_noise, layer_features, learning_curve, probe_score
from foretune.forecast.samples import spread_order
from foretune.forecast.scores import score


def digits(n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return real images of digits (n, 64) float32 and their ten classes."""
    data, target = load_digits(return_X_y=True)
    rows = np.random.default_rng(seed).permutation(len(data))[:n]
    return data[rows].astype(np.float32), target[rows]


def noise(n: int, layers: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, layers, width)).astype(np.float32)


# ---- what it scores


def test_the_probe_scores_what_scikit_learn_scores() -> None:
    x, y = digits(400)
    found = probe_score(x[:, None], y)
    best = max(
        np.mean(
            cross_val_predict(
                make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000)), x, y, cv=5
            )
            == y
        )
        for c in (0.003, 0.03, 0.3)
    )
    assert found.value == pytest.approx(best, abs=0.02) and found.value > 0.9
    assert found.value == np.mean(found.predictions == y)


def test_every_example_has_a_held_out_prediction_and_its_probabilities() -> None:
    x, y = digits(200)
    found = probe_score(x[:, None], y + 3, metric="macro_f1")
    assert found.predictions.shape == (200,) and set(found.predictions) <= set(range(3, 13))
    assert found.probabilities is not None and found.probabilities.shape == (200, 10)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(found.classes, np.arange(3, 13))
    np.testing.assert_array_equal(found.classes[found.probabilities.argmax(axis=1)], found.predictions)
    assert found.value == score("macro_f1", y + 3, found.predictions)


def test_no_example_sees_its_own_label() -> None:
    # A feature per example lets a model know every label by heart, and tells nothing of the others.
    y = np.arange(40) % 2
    found = probe_score(np.eye(40, dtype=np.float32)[:, None], y)
    assert found.value <= 0.5


@pytest.mark.slow
def test_choosing_among_many_layers_and_penalties_is_not_rewarded() -> None:
    honest, naive = [], []
    for seed in range(12):
        x, y = noise(60, 6, 5, seed), np.random.default_rng(seed).permutation(np.arange(60) % 2)
        honest.append(probe_score(x, y, seed=seed, last_layers=6, folds=3).value)
        naive.append(
            max(
                learning_curve(x[:, i], y, seed=seed, repeats=1, sizes=[40], folds=3).scores[0]
                for i in range(6)
            )
        )
    # 720 coin flips: a standard error of 0.019. The best of six layers' own scores would shine.
    assert np.mean(honest) < 0.545 and np.mean(naive) > 0.57


def test_the_layer_that_knows_is_found() -> None:
    x, y = digits(200)
    features = noise(200, 5, 64)
    features[:, 3] = x
    found = probe_score(features, y)
    assert found.layer == 3 and found.value > 0.85 and found.last < 0.3
    first = probe_score(features[:, :4][:, ::-1], y)
    assert first.layer == 0 and first.last < 0.3
    last = probe_score(features[:, :4], y)
    assert last.layer == 3 and last.last == pytest.approx(last.value, abs=0.01)
    # Only the last ones are tried: one before them is seen through the mean of all at best.
    assert probe_score(features, y, last_layers=1).layer is None


def test_the_mean_of_all_layers_is_found_where_each_layer_knows_a_part() -> None:
    x, y = digits(250)
    parts = noise(250, 6, 64)
    parts *= 8  # no layer alone shows the digit through its noise, which the mean takes away
    parts -= parts.mean(axis=1, keepdims=True)
    found = probe_score(parts + x[:, None], y)
    assert found.layer is None and found.value > 0.85
    np.testing.assert_allclose(layer_features(parts + x[:, None], None), x, atol=1e-4)


def test_the_standard_error_is_about_the_spread_over_samples() -> None:
    found = []
    for seed in range(14):
        x, y = digits(120, seed)
        found.append(probe_score(x[:, None], y % 2, seed=seed, folds=3))
    spread = np.std([each.value for each in found])
    assert 0.5 * spread < np.mean([each.se for each in found]) < 1.6 * spread


def test_a_perfect_probe_is_not_certain() -> None:
    y = np.arange(60) % 3
    found = probe_score(np.eye(3, dtype=np.float32)[y][:, None], y)
    assert found.value == 1 and 0.01 < found.se < 0.05


# ---- classes


def test_rare_classes_are_named_and_do_no_harm() -> None:
    x, y = digits(150)
    y = np.where(y < 2, y, 2)
    y[:3], y[3] = 7, 9  # three and one of their kind
    found = probe_score(x[:, None], y, folds=5)
    assert found.rare == (7, 9) and found.value > 0.8
    assert np.isfinite(found.value) and set(found.classes) == {0, 1, 2, 7, 9}


def test_every_example_its_own_class_but_two() -> None:
    y = np.concatenate([np.arange(20), [0]])
    found = probe_score(noise(21, 2, 5), y)
    assert 0 <= found.value <= 0.2 and found.rare == tuple(range(20))


def test_names_and_scales_do_not_count() -> None:
    x, y = digits(150)
    first = probe_score(x[:, None], y)
    second = probe_score(1e6 * x[:, None] + 10, 2 * y - 5)
    assert second.value == pytest.approx(first.value, abs=0.01)
    assert np.mean(second.predictions == 2 * first.predictions - 5) > 0.98


def test_the_seed_draws_the_folds() -> None:
    x, y = digits(100)
    first, again, other = (probe_score(x[:, None], y, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.probabilities, again.probabilities)
    assert (first.probabilities != other.probabilities).any()


# ---- quantities


def test_a_quantity_is_predicted_by_ridge() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 10))
    y = x @ rng.standard_normal(10) + rng.standard_normal(200)
    found = probe_score(np.stack([noise(200, 1, 10)[:, 0], x], axis=1), 50 * y + 3)
    best = 1 - 1 / np.var(y)
    assert found.metric == "r2" and found.value == pytest.approx(best, abs=0.05) and found.layer == 1
    assert found.probabilities is None and found.rare == () and len(found.classes) == 0
    assert probe_score(x[:, None], y, metric="spearman").value == pytest.approx(best**0.5, abs=0.05)


def test_a_quantity_without_signal_scores_about_0() -> None:
    values = [probe_score(noise(150, 3, 8, s), noise(150, 1, 1, s + 99)[:, 0, 0]).value for s in range(8)]
    assert -0.1 < np.mean(values) < 0.02


# ---- the learning curve


def test_more_rows_score_higher() -> None:
    x, y = digits(500)
    curve = learning_curve(x, y, repeats=1)
    np.testing.assert_array_equal(curve.sizes, [50, 100, 200, 400])
    assert (np.diff(curve.scores) > 0).all() and 0.7 < curve.scores[0] < 0.87 and curve.scores[-1] > 0.93
    assert curve.scores[-1] == pytest.approx(probe_score(x[:, None], y).value, abs=0.015)


def test_the_score_at_a_size_is_that_of_models_trained_on_so_many_other_examples() -> None:
    x, y = digits(1500)
    x = StandardScaler().fit_transform(x)
    curve = learning_curve(x[:250], y[:250], sizes=[50, 100])
    for size, found in zip(curve.sizes, curve.scores, strict=True):
        orders = [250 + spread_order(y[250:], np.random.default_rng(i))[:size] for i in range(8)]
        afresh = max(
            np.mean(
                [
                    LogisticRegression(C=c, max_iter=1000).fit(x[rows], y[rows]).score(x[:250], y[:250])
                    for rows in orders
                ]
            )
            for c in (0.05, 0.5)
        )
        assert found == pytest.approx(afresh, abs=0.03)


def test_errors_cover_the_truth_and_are_shared_between_sizes() -> None:
    x, y = digits(1000)
    y = y % 3
    truth = learning_curve(x, y, sizes=[40, 80], repeats=2).scores
    standardised = []
    for seed in range(8):
        rows = np.random.default_rng(seed).permutation(1000)[:110]
        curve = learning_curve(x[rows], y[rows], sizes=[40, 80], seed=seed)
        assert np.linalg.eigvalsh(curve.covariance).min() > -1e-12
        assert curve.covariance[0, 1] > 0  # one sample of examples scores both
        standardised.append((curve.scores - truth) / curve.errors)
    assert 0.4 < np.sqrt(np.mean(np.square(standardised))) < 1.5


def test_the_draw_of_rows_is_told_from_repeats_that_share_rows() -> None:
    # A score is the mean of its rows' values, so its variance over fresh rows is 1 / size; a repeat draws
    # them from the same 100 examples again and again.
    rng, sizes, repeats = np.random.default_rng(0), np.array([10, 20, 40, 80]), 3
    estimates, means = [], []
    for _ in range(400):
        pool = rng.standard_normal(100)
        scores = np.array([[rng.permutation(pool)[:size].mean() for size in sizes] for _ in range(repeats)])
        estimates.append(_rows_noise(scores, sizes, 100))
        means.append(scores.mean(axis=0))
    np.testing.assert_allclose(np.mean(estimates, axis=0), np.var(means, axis=0), rtol=0.2)


def test_random_labels_have_a_flat_curve_at_chance() -> None:
    y = np.random.default_rng(0).permutation(np.arange(400) % 2)
    curve = learning_curve(noise(400, 1, 8)[:, 0], y)
    assert (np.abs(curve.scores - 0.5) < 3 * curve.errors + 0.02).all()


def test_repeats_narrow_the_errors_and_one_is_enough() -> None:
    x, y = digits(100)
    once, often = (learning_curve(x, y, sizes=[20, 80], repeats=r) for r in (1, 6))
    assert np.isfinite(once.covariance).all() and (once.errors > 0).all()
    assert often.errors[0] < 1.2 * once.errors[0]
    again = learning_curve(x, y, sizes=[20, 80], repeats=1)
    np.testing.assert_array_equal(once.scores, again.scores)
    assert (learning_curve(x, y, sizes=[20, 80], repeats=1, seed=1).scores != once.scores).any()


def test_sizes_that_cannot_be_measured_are_left_out() -> None:
    x, y = digits(100)
    curve = learning_curve(x, y, sizes=[5, 19, 20, 80, 81, 1000, 20])
    np.testing.assert_array_equal(curve.sizes, [20, 80])
    # Ten examples of two classes: one size is left, and it is measured.
    assert len(learning_curve(x[:10], np.arange(10) % 2).sizes) >= 1
    with pytest.raises(ConfigError, match="expected 20 to 80 rows"):
        learning_curve(x, y, sizes=[5, 90])


def test_the_curve_of_a_quantity() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((240, 20))
    curve = learning_curve(x, x @ rng.standard_normal(20) + rng.standard_normal(240))
    assert curve.metric == "r2" and (np.diff(curve.scores) > 0).all() and curve.scores[-1] > 0.9


# ---- errors


@pytest.mark.parametrize("measure", [probe_score, learning_curve])
def test_what_cannot_be_probed_is_an_error(measure) -> None:
    x, y = digits(50)
    x = x[:, None] if measure is probe_score else x
    with pytest.raises(DataError, match="different"):
        measure(x, np.ones(50, dtype=int))
    with pytest.raises(DataError, match="too few"):
        measure(x[:5], y[:5])
    with pytest.raises(DataError, match="found"):
        measure(x[..., None], y)
    with pytest.raises(ConfigError, match="macro_f1"):
        measure(x, y, metric="macro-f1")
    with pytest.raises(ConfigError, match="at least 3 folds"):
        measure(x, y, folds=2)
    with pytest.raises(ConfigError, match="1 layer or repeat"):
        measure(x, y, **{"last_layers" if measure is probe_score else "repeats": 0})


def test_more_folds_than_examples_is_leaving_one_out() -> None:
    x, y = digits(20)
    found = probe_score(x[:, None], y % 2, folds=99)
    assert found.folds == 20 and 0.5 < found.value <= 1


def test_the_curve_tries_the_neighbours_of_the_probes_penalty() -> None:
    assert neighbours(0.3) == (1.0, 0.3, 0.1)
    assert neighbours(3.0) == (3.0, 1.0) and neighbours(0.03) == (0.1, 0.03)
    x, y = digits(150)
    found = probe_score(x[:, None], y)
    assert found.share in SHARES
    near, all_of_them = (learning_curve(x, y, share=s, repeats=2) for s in (found.share, None))
    np.testing.assert_allclose(near.scores, all_of_them.scores, atol=0.02)
