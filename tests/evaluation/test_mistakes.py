from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretune.errors import ConfigError, DataError
from foretune.evaluation.mistakes import Mistakes


def batch(seed: int, n: int = 200, classes: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    # Rounded, so that equal probabilities occur.
    raw = np.round(rng.dirichlet(np.ones(classes), n), 1) + 0.01
    return np.arange(n), raw / raw.sum(axis=1, keepdims=True), rng.integers(0, classes, n)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 60), st.integers(0, 250))
def test_streaming_in_any_order_equals_sorting_everything(seed: int, size: int, k: int) -> None:
    rows, probabilities, targets = batch(seed)
    order = np.random.default_rng(seed).permutation(len(rows))
    mistakes = Mistakes(k)
    for start in range(0, len(rows), size):
        part = order[start : start + size]
        mistakes.update(rows[part], probabilities[part], targets[part])
    predicted = probabilities.argmax(axis=1)
    wrong = [
        (int(r), int(targets[r]), int(predicted[r]), float(probabilities[r].max()))
        for r in rows
        if predicted[r] != targets[r]
    ]
    assert mistakes.top() == sorted(wrong, key=lambda m: (-m[3], m[0]))[:k]


def test_a_perfect_model_makes_no_mistakes() -> None:
    mistakes = Mistakes()
    mistakes.update(np.arange(3), np.eye(3), np.arange(3))
    assert mistakes.top() == []


def test_the_result_is_plain_python() -> None:
    mistakes = Mistakes(1)
    mistakes.update(np.array([41]), np.array([[0.9, 0.1]], dtype=np.float32), np.array([1]))
    [(row, true, predicted, probability)] = mistakes.top()
    assert (row, true, predicted) == (41, 1, 0) and probability == pytest.approx(0.9)
    assert [type(v) for v in (row, true, predicted, probability)] == [int, int, int, float]


def test_memory_is_bounded_by_k() -> None:
    mistakes = Mistakes(5)
    for seed in range(10):
        mistakes.update(*batch(seed))
    assert len(mistakes._heap) == 5


def test_misuse_is_an_error() -> None:
    with pytest.raises(ConfigError, match="k=-1"):
        Mistakes(-1)
    with pytest.raises(DataError, match="row number"):
        Mistakes().update(np.arange(2), np.eye(3), np.arange(3))
    with pytest.raises(DataError, match="not finite"):
        Mistakes().update(np.arange(1), np.array([[np.nan, 1]]), np.array([0]))
