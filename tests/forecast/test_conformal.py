from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from foretune.forecast.conformal import (
    coverage,
    cv_plus,
    group_quantile,
    group_weights,
    leave_one_group_out,
    quantile,
)


@pytest.mark.parametrize("n", [1, 8, 9, 10, 19, 29, 30, 99, 137])
@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95])
def test_the_quantile_is_the_ceil_n_plus_1_level_th_smallest(n, level) -> None:
    scores = np.random.default_rng(n).exponential(size=n)
    rank = math.ceil(round((n + 1) * level, 9))
    expected = np.sort(scores)[rank - 1] if rank <= n else math.inf
    assert quantile(scores, level=level) == expected


def test_nothing_known_is_no_bound() -> None:
    assert quantile([], level=0.5) == math.inf and cv_plus([], [], []) == (-math.inf, math.inf)


def test_a_weight_of_two_is_the_score_twice() -> None:
    scores, rng = np.arange(20.0), np.random.default_rng(1)
    weights = rng.integers(1, 4, 20)
    assert quantile(scores, weights) == quantile(np.repeat(scores, weights))
    assert quantile(scores[::-1], weights[::-1]) == quantile(scores, weights)


def test_a_weight_of_zero_is_no_score() -> None:
    assert quantile([1.0, 2, 3, 100], [1, 1, 1, 0], level=0.75) == quantile([1.0, 2, 3], level=0.75) == 3


def test_a_quantile_of_ranks_covers_exactly() -> None:
    # Among n + 1 exchangeable scores the last is at most the quantile of the others with this probability.
    rng, n, level, runs = np.random.default_rng(0), 24, 0.9, 4000
    drawn = rng.standard_cauchy((runs, n + 1))
    hits = sum(row[-1] <= quantile(row[:-1], level=level) for row in drawn)
    exact = math.ceil((n + 1) * level) / (n + 1)
    assert binomtest(hits, runs, exact).pvalue > 0.01


def test_groups_count_as_one_each() -> None:
    groups = ["a"] * 3 + ["b"] + ["c"] * 2
    np.testing.assert_allclose(group_weights(groups), [1 / 3] * 3 + [1] + [1 / 2] * 2)
    assert group_quantile([1.0] * 9, list("abcdefghi"), level=0.9) == 1
    assert group_quantile([1.0] * 90, list("abcdefgh") * 11 + ["a", "b"], level=0.9) == math.inf


def _grouped(rng, groups: int, size: int) -> np.ndarray:
    """Scores (groups, size) that are nearly the same inside a group."""
    return np.abs(rng.normal(size=(groups, 1)) + 0.1 * rng.normal(size=(groups, size)))


def test_the_quantile_over_groups_covers_a_new_group_at_the_price_of_width() -> None:
    rng, runs, level = np.random.default_rng(2), 1500, 0.8
    names = np.repeat(np.arange(9), 6).astype(str)
    hits = {"plain": 0, "groups": 0}
    for _ in range(runs):
        scores = _grouped(rng, 10, 6)
        known, new = scores[:9].ravel(), scores[9, 0]
        hits["plain"] += new <= quantile(known, level=level)
        hits["groups"] += new <= group_quantile(known, names, level)
    assert binomtest(hits["groups"], runs, level, alternative="less").pvalue > 0.01
    assert hits["groups"] / runs < 0.93  # and is not just infinite
    assert hits["plain"] < hits["groups"]  # 54 scores that are worth 9 count as 54 there


def test_leaving_one_group_out_parts_every_row_once() -> None:
    groups = ["b", "a", "b", "c", "a"]
    parts = list(leave_one_group_out(groups))
    assert [inside.tolist() for _, inside in parts] == [[1, 4], [0, 2], [3]]
    for outside, inside in parts:
        assert sorted([*outside, *inside]) == list(range(5))
        assert not {groups[i] for i in outside} & {groups[i] for i in inside}
    assert list(leave_one_group_out([])) == []


def test_cv_plus_by_hand() -> None:
    # Ranks as in Barber et al. (2021), eq. 2.3 with K folds: the floor(.1 * 10) = 1st smallest lower and the 9th
    # smallest of 9 upper ends.
    centre, residual = np.arange(9.0), np.linspace(0.1, 0.9, 9)[::-1]
    low, high = cv_plus(centre, np.full(9, 2.0), residual, level=0.9)
    assert low == pytest.approx((centre - 2 * residual).min()) and high == pytest.approx(
        (centre + 2 * residual).max()
    )
    low, high = cv_plus(centre, np.full(9, 2.0), residual, level=0.8)
    assert low == pytest.approx(np.sort(centre - 2 * residual)[1])
    assert high == pytest.approx(np.sort(centre + 2 * residual)[7])


def test_cv_plus_with_one_model_is_the_residuals_quantile() -> None:
    residuals = np.random.default_rng(3).exponential(size=40)
    low, high = cv_plus(np.full(40, 5.0), np.full(40, 0.5), residuals)
    assert (low, high) == pytest.approx((5 - 0.5 * quantile(residuals), 5 + 0.5 * quantile(residuals)))


def test_cv_plus_covers_regressions_and_scales_follow_difficulty() -> None:
    rng, runs, n, folds = np.random.default_rng(4), 500, 60, 6
    hits, widths = 0, {False: [], True: []}
    for _ in range(runs):
        x = rng.uniform(0.2, 2, n + 1)
        y = 3 * x + x * rng.standard_t(4, n + 1)  # the spread grows with x
        fold, centres, residuals = np.arange(n) % folds, np.empty(n), np.empty(n)
        for k in range(folds):
            slope = (x[:n][fold != k] @ y[:n][fold != k]) / (x[:n][fold != k] @ x[:n][fold != k])
            inside = np.flatnonzero(fold == k)
            residuals[inside] = np.abs(y[inside] - slope * x[inside]) / x[inside]
            centres[inside] = slope * x[n]
        low, high = cv_plus(centres, np.full(n, x[n]), residuals)
        hits += low <= y[n] <= high
        widths[bool(x[n] > 1.1)].append(high - low)
    assert 0.87 <= hits / runs <= 0.95, hits / runs
    assert np.mean(widths[True]) > 1.5 * np.mean(widths[False])


def test_coverage_with_its_exact_interval() -> None:
    found = coverage([True] * 18 + [False] * 2)
    exact = binomtest(18, 20).proportion_ci(0.95, method="exact")
    assert found == pytest.approx({"value": 0.9, "low": exact.low, "high": exact.high, "n": 20})
    assert coverage([True])["high"] == 1 and coverage([False])["low"] == 0
    with pytest.raises(ValueError, match="nothing"):
        coverage([])
