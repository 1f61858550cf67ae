from __future__ import annotations

import json
import math

import numpy as np
import pytest

from foretune.errors import DataError
from foretune.evaluation.perplexity import PERPLEXITY_METRICS, PerplexityScores


def texts(n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(5, 50, n)
    return tokens * rng.normal(3, 0.5, n), tokens, tokens * 4


def test_perplexity_is_over_tokens_and_not_over_texts() -> None:
    scores = PerplexityScores()
    scores.update(np.array([10 * math.log(2)]), np.array([10]))
    scores.update(np.array([30 * math.log(8)], dtype=np.float32), np.array([30]))
    point = scores.point()
    assert point["nats_per_token"] == pytest.approx(math.log(2) / 4 + 3 * math.log(8) / 4)
    assert point["perplexity"] == pytest.approx(2 ** ((1 + 3 * 3) / 4)) and "bits_per_byte" not in point


def test_bits_per_byte_do_not_depend_on_the_tokeniser() -> None:
    for tokens in (4, 16):
        scores = PerplexityScores()
        scores.update(np.array([64 * math.log(2)]), np.array([tokens]), np.array([32]))
        assert scores.point()["bits_per_byte"] == pytest.approx(2)


def test_result_is_json_with_intervals_around_the_points() -> None:
    scores = PerplexityScores()
    scores.update(*texts())
    result = json.loads(json.dumps(scores.result()))
    assert [*result] == [*PERPLEXITY_METRICS, "tokens", "n"] and not any(PERPLEXITY_METRICS.values())
    for name, value in scores.point().items():
        assert result[name]["value"] == pytest.approx(value)
        assert result[name]["low"] < value < result[name]["high"]
    assert result["tokens"] == texts()[1].sum() and result["n"] == 300
    assert result["perplexity"]["low"] == pytest.approx(math.exp(result["nats_per_token"]["low"]), rel=1e-4)


def test_the_interval_covers_the_truth_about_95_times_in_100() -> None:
    hits = 0
    for seed in range(200):
        scores = PerplexityScores()
        scores.update(*texts(80, seed))
        interval = scores.result(seed)["nats_per_token"]
        hits += interval["low"] <= 3 <= interval["high"]
    assert 0.9 <= hits / 200 <= 0.985


def test_a_hopeless_model_has_a_number_too() -> None:
    scores = PerplexityScores()
    scores.update(np.array([1e6]), np.array([1]))
    assert math.isfinite(scores.point()["perplexity"]) and scores.point()["nats_per_token"] == 1e6


@pytest.mark.parametrize(
    ("sums", "tokens", "sizes", "says"),
    [
        ([1.0], [0], None, "at least 1"),
        ([1.0], [1], [0], "at least 1"),
        ([float("nan")], [1], None, "not finite"),
        ([1.0, 2.0], [1], None, "per text"),
        ([[1.0]], [[1]], None, "per text"),
    ],
)
def test_bad_batches_are_errors_and_change_nothing(
    sums: list, tokens: list, sizes: list | None, says: str
) -> None:
    scores = PerplexityScores()
    with pytest.raises(DataError, match=says):
        scores.update(np.array(sums), np.array(tokens), None if sizes is None else np.array(sizes))
    assert scores.n == 0


def test_bytes_are_given_always_or_never() -> None:
    scores = PerplexityScores()
    scores.update(np.array([1.0]), np.array([1]))
    with pytest.raises(DataError, match="all or none"):
        scores.update(np.array([1.0]), np.array([1]), np.array([3]))


def test_nothing_to_score_is_an_error() -> None:
    scores = PerplexityScores()
    scores.update(np.zeros(0), np.zeros(0))
    for call in (scores.result, scores.point):
        with pytest.raises(DataError, match="no examples"):
            call()
