from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import binomtest

from foretune.errors import DataError
from foretune.evaluation.comparison import mcnemar, paired_bootstrap


def models(n: int, only_a: int, only_b: int, both: int) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.zeros((2, n), dtype=bool)
    a[:only_a] = b[only_a : only_a + only_b] = True
    a[only_a + only_b :][:both] = b[only_a + only_b :][:both] = True
    return a, b


def test_the_difference_and_its_interval() -> None:
    a, b = models(1000, 90, 40, 700)
    found = paired_bootstrap(a, b)
    assert found["difference"] == pytest.approx(0.05)
    assert found["low"] < 0.05 < found["high"]
    # The standard error of a paired difference: sqrt(p10 + p01 - d^2) / sqrt(n).
    error = np.sqrt(0.13 - 0.05**2) / np.sqrt(1000)
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert found["p_value"] < 0.001
    json.dumps(found)


def test_swapping_the_models_changes_the_sign_only() -> None:
    a, b = models(300, 30, 20, 200)
    there, back = paired_bootstrap(a, b), paired_bootstrap(b, a)
    assert there["difference"] == -back["difference"]
    assert there["p_value"] == pytest.approx(back["p_value"], abs=0.02)
    assert there["low"] == pytest.approx(-back["high"], abs=0.01)


def test_it_is_deterministic_by_seed() -> None:
    a, b = models(300, 30, 20, 200)
    assert paired_bootstrap(a, b, seed=5) == paired_bootstrap(a, b, seed=5)


def test_under_the_null_hypothesis_p_is_below_5_percent_about_5_times_in_100() -> None:
    rng, runs, below, covered = np.random.default_rng(0), 300, 0, 0
    for _ in range(runs):
        a, b = rng.random((2, 400)) < 0.8
        found = paired_bootstrap(a, b, resamples=1000)
        below += found["p_value"] < 0.05
        covered += found["low"] <= 0 <= found["high"]
    assert 0.02 <= below / runs <= 0.09 and 0.91 <= covered / runs <= 0.98


def test_models_that_agree_everywhere_still_have_an_interval() -> None:
    same = np.ones(60, dtype=bool)
    found = paired_bootstrap(same, same)
    assert found["difference"] == 0 and found["p_value"] == 1
    assert found["low"] == pytest.approx(-found["high"]) and 0.04 < found["high"] < 0.08


def test_models_that_differ_everywhere() -> None:
    found = paired_bootstrap(np.ones(60), np.zeros(60))
    assert found["difference"] == found["high"] == 1 and 0.8 < found["low"] < 1
    assert found["p_value"] < 0.001


@pytest.mark.parametrize(("only_a", "only_b"), [(12, 4), (4, 12), (1, 0), (7, 7), (50, 20)])
def test_mcnemar_is_the_exact_binomial_test(only_a: int, only_b: int) -> None:
    found = mcnemar(*models(200, only_a, only_b, 100))
    assert (found["only_a"], found["only_b"]) == (only_a, only_b)
    assert found["p_value"] == pytest.approx(binomtest(only_a, only_a + only_b).pvalue)


def test_mcnemar_without_a_discordant_pair_says_nothing() -> None:
    assert mcnemar(np.ones(5), np.ones(5))["p_value"] == 1.0


@pytest.mark.parametrize(
    ("a", "b"), [(np.ones(3), np.ones(4)), (np.ones(0), np.ones(0)), (np.ones((2, 2)), np.ones((2, 2)))]
)
def test_unpaired_input_is_an_error(a: np.ndarray, b: np.ndarray) -> None:
    for test in (paired_bootstrap, mcnemar):
        with pytest.raises(DataError, match="paired test"):
            test(a, b)


def test_class_ids_instead_of_right_and_wrong_are_an_error() -> None:
    with pytest.raises(DataError, match="right or wrong"):
        mcnemar(np.array([0, 2]), np.array([1, 1]))
