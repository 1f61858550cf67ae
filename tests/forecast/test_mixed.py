from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.stats import multivariate_normal

from foretune.forecast.mixed import (
    Block,
    MixedModel,
    Rows,
    _evidence,
    _kernels,
    block_kernel,
    fit_mixed,
    with_spreads,
)

MEAN = Block("mean", 1.0, doubt=0)


def rows_of(groups, slope=None, others=None) -> Rows:
    n = len(groups)
    numbers = {"x": np.zeros(n) if slope is None else np.asarray(slope, dtype=float)}
    levels = {"group": np.asarray(groups, dtype=str), "other": np.asarray(others or [""] * n, dtype=str)}
    return Rows(numbers, levels)


def drawn(seed: int, groups: int = 30, size: int = 8) -> tuple[Rows, np.ndarray]:
    """Offsets of spread 0.5, a slope of 2, residuals of spread 0.2."""
    rng = np.random.default_rng(seed)
    names, x = np.repeat(np.arange(groups), size), rng.normal(size=groups * size)
    y = rng.normal(scale=0.5, size=groups)[names] + 2 * x + rng.normal(scale=0.2, size=len(x))
    return rows_of(names.astype(str), x), y


BLOCKS = (MEAN, Block("slope", 1.0, slopes=("x",)), Block("group", 0.3, by=("group",)))


def test_offsets_of_a_balanced_design_shrink_as_they_should() -> None:
    # One-way random effects: the BLUP of an offset is its group's mean times m s^2 / (m s^2 + e^2).
    spread, residual, size = 0.7, 0.4, 5
    y = np.random.default_rng(0).normal(size=(3, size))
    rows = rows_of(np.repeat(["a", "b", "c"], size))
    block = Block("group", spread, by=("group",), doubt=0)
    model = _fixed((block,), rows, y.ravel(), residual)
    shrink = size * spread**2 / (size * spread**2 + residual**2)
    mean, variance = model.predict(rows_of(["a", "b", "c", "new"]))
    np.testing.assert_allclose(mean, [*shrink * y.mean(axis=1), 0], atol=1e-12)
    np.testing.assert_allclose(variance, [*[spread**2 * (1 - shrink)] * 3, spread**2])


def _fixed(blocks, rows, targets, residual, noise=None) -> MixedModel:
    spreads = np.array([block.spread for block in blocks] + [residual])
    return with_spreads(blocks, spreads, rows, targets, np.zeros(len(targets)) if noise is None else noise)


def test_a_vague_slope_is_weighted_least_squares() -> None:
    rng = np.random.default_rng(1)
    x, noise = rng.normal(size=50), rng.uniform(0.1, 2, 50)
    y = 1.5 * x + rng.normal(size=50) * np.sqrt(noise)
    model = _fixed((Block("slope", 50.0, slopes=("x",), doubt=0),), rows_of(["a"] * 50, x), y, 1e-3, noise)
    weights = 1 / (noise + 1e-6)
    expected = (weights * x) @ y / ((weights * x) @ x)
    mean, variance = model.predict(rows_of(["a"], [1.0]))
    assert mean[0] == pytest.approx(expected, rel=1e-4)
    assert variance[0] == pytest.approx(1 / ((weights * x) @ x), rel=1e-4)


def test_the_evidence_and_its_gradient() -> None:
    rows, y = drawn(2, groups=4, size=5)
    kernels, noise = _kernels(BLOCKS, rows), np.random.default_rng(0).uniform(0.01, 0.2, len(y))
    logs = np.log([0.8, 1.5, 0.4, 0.3])
    covariance = sum(np.exp(2 * s) * k for s, k in zip(logs, kernels, strict=False))
    covariance += np.diag(noise + np.exp(2 * logs[-1]))
    expected = multivariate_normal(np.zeros(len(y)), covariance).logpdf(y)
    assert _evidence(kernels, np.exp(logs), y, noise)[0] == pytest.approx(expected)
    wrong = check_grad(
        lambda v: _evidence(kernels, np.exp(v), y, noise)[0],
        lambda v: _evidence(kernels, np.exp(v), y, noise)[1],
        logs,
    )
    assert wrong < 1e-3 * np.abs(_evidence(kernels, np.exp(logs), y, noise)[1]).max()


def test_planted_spreads_are_found() -> None:
    rows, y = drawn(3, groups=60)
    model = fit_mixed(BLOCKS, rows, y, np.zeros(len(y)))
    assert model.spreads[2] == pytest.approx(0.5, rel=0.2)
    assert model.residual == pytest.approx(0.2, rel=0.1)
    assert model.predict(rows_of(["new"], [1.0]))[0] - model.predict(rows_of(["new"], [0.0]))[
        0
    ] == pytest.approx(2, abs=0.05)
    assert model.spreads[0] == 1.0  # doubt 0: fixed


def test_known_noise_is_not_taken_for_residual() -> None:
    rows, y = drawn(4, groups=60)
    model = fit_mixed(BLOCKS, rows, y, np.full(len(y), 0.2**2))
    assert model.residual < 0.08


def test_the_expected_spread_holds_where_data_say_nothing() -> None:
    blocks = (*BLOCKS, Block("other", 0.25, by=("other",)))  # one level only, "": never seen
    rows, y = drawn(5, groups=5)
    assert fit_mixed(blocks, rows, y, np.zeros(len(y))).spreads[3] == pytest.approx(0.25)


def test_intervals_of_new_groups_hold_the_truth() -> None:
    inside = []
    for seed in range(20):
        rows, y = drawn(seed, groups=24, size=4)
        keep = np.arange(80)
        model = fit_mixed(BLOCKS, rows.take(keep), y[keep], np.zeros(80))
        mean, variance = model.predict(rows.take(np.arange(80, 96)))
        inside += list(np.abs(y[80:] - mean) <= 1.645 * np.sqrt(variance + model.residual**2))
    assert 0.84 <= np.mean(inside) <= 0.96


def test_a_level_never_seen_keeps_its_whole_variance() -> None:
    rows, y = drawn(6)
    model = fit_mixed(BLOCKS, rows, y, np.zeros(len(y)))
    _, variance = model.predict(rows_of(["0", "new", ""]))
    assert variance[0] < 0.2 * model.spreads[2] ** 2 < model.spreads[2] ** 2 < variance[1]
    assert variance[1] == pytest.approx(variance[2])


def test_the_unknown_level_is_not_a_group_of_its_own() -> None:
    kernel = block_kernel(Block("b", 1, by=("group",)), rows_of(["", "a"]), rows_of(["", "a", "a"]))
    np.testing.assert_array_equal(kernel, [[0, 0, 0], [0, 1, 1]])
    both = Block("b", 1, by=("group", "other"), slopes=("x",))
    a, b = rows_of(["a", "a"], [2, 3], ["u", "v"]), rows_of(["a", "b"], [5, 7], ["u", "u"])
    np.testing.assert_array_equal(block_kernel(both, a, b), [[10, 0], [0, 0]])


def test_fewer_rows_are_a_model_fitted_on_them_with_the_same_spreads() -> None:
    rows, y = drawn(7, groups=6)
    model = fit_mixed(BLOCKS, rows, y, np.full(len(y), 0.01))
    keep = np.arange(10, 40)
    fewer = model.only(keep)
    blocks = [Block(b.name, s, b.by, b.slopes, 0) for b, s in zip(model.blocks, model.spreads, strict=False)]
    again = _fixed(blocks, rows.take(keep), y[keep], model.residual, np.full(30, 0.01))
    for mine, other in zip(fewer.predict(rows), again.predict(rows), strict=True):
        np.testing.assert_allclose(mine, other)


def test_the_parts_add_up_to_the_mean() -> None:
    rows, y = drawn(8, groups=6)
    model = fit_mixed(BLOCKS, rows, y, np.zeros(len(y)))
    parts = sum(model.part(block.name, rows) for block in BLOCKS)
    np.testing.assert_allclose(parts, model.predict(rows)[0], atol=1e-9)
    np.testing.assert_array_equal(model.part("no such block", rows), np.zeros(len(y)))


def test_without_any_row_the_expectation_stands() -> None:
    rows = rows_of([]).take(np.zeros(0, dtype=int))
    model = fit_mixed(BLOCKS, rows, np.zeros(0), np.zeros(0))
    mean, variance = model.predict(rows_of(["a", "b"], [0.0, 2.0]))
    np.testing.assert_allclose(mean, 0)
    np.testing.assert_allclose(variance, [1 + 0.3**2, 1 + 4 + 0.3**2])
