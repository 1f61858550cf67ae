from __future__ import annotations

import numpy as np
import pytest

from foretune.evaluation.ngram import UNSEEN, KneserNey


def _text(n: int = 400, vocabulary: int = 7, seed: int = 0) -> np.ndarray:
    """Ids that follow each other mostly in order, so that histories tell something."""
    rng = np.random.default_rng(seed)
    steps = rng.choice([1, 2, 3], p=[0.8, 0.15, 0.05], size=n)
    return np.cumsum(steps) % vocabulary


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("history", [[0, 1], [3, 6], [5, 5]])
def test_chances_of_all_ids_add_up_to_one(order: int, history: list[int]) -> None:
    model = KneserNey(_text(), 9, order)
    chances = [np.exp(-model.losses(np.array([*history, word]))[-1]) for word in range(9)]
    assert sum(chances) == pytest.approx(1, abs=1e-9) and min(chances) > 0


def test_order_one_is_frequencies() -> None:
    text = np.array([0, 0, 0, 1, 2])
    expected = (np.array([3, 1, 1, 0]) + UNSEEN) / (5 + 4 * UNSEEN)
    np.testing.assert_allclose(np.exp(-KneserNey(text, 4, 1).losses(np.arange(4))), expected)


def test_longer_histories_help_where_they_tell_something() -> None:
    train, test = _text(2000), _text(500, seed=1)
    means = [KneserNey(train, 7, order).losses(test).mean() for order in (1, 2, 3)]
    assert means[1] < means[0] - 0.5
    assert means[2] < means[1] + 0.05


def test_bigram_by_hand() -> None:
    """Bigrams 0-1 (3 times), 1-0 (twice), 1-2 and 2-0 (once): n1 = 2, n2 = 1, D = 2 / 4."""
    text = np.array([0, 1, 0, 1, 2, 0, 1, 0])
    model = KneserNey(text, 3, 2)
    below = (np.array([2, 1, 1]) + UNSEEN) / (4 + 3 * UNSEEN)  # distinct ids before each: 0 has 1 and 2
    # Behind 1 stand 0 (twice) and 2 (once): three occurrences, two kinds.
    expected = [
        (2 - 0.5 + 0.5 * 2 * below[0]) / 3,
        0.5 * 2 * below[1] / 3,
        (1 - 0.5 + 0.5 * 2 * below[2]) / 3,
    ]
    found = [np.exp(-model.losses(np.array([1, word]))[1]) for word in range(3)]
    assert found == pytest.approx(expected)


def test_unknown_histories_fall_back_and_short_texts_are_scored() -> None:
    model = KneserNey(np.array([0, 1, 0, 1]), 5, 3)
    assert np.isfinite(model.losses(np.array([4, 3, 2]))).all()
    assert model.losses(np.array([1])).shape == (1,)
    assert np.isfinite(KneserNey(np.array([2]), 5, 3).losses(np.array([2, 2, 2]))).all()


def test_large_vocabularies_do_not_overflow() -> None:
    vocabulary = 260_000
    text = np.array([vocabulary - 1, vocabulary - 2, vocabulary - 3] * 5)
    losses = KneserNey(text, vocabulary, 3).losses(text)
    assert losses[3:].max() < 2
