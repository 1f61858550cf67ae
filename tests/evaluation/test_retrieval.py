from __future__ import annotations

import json
import math

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from foretune.errors import ConfigError, DataError
from foretune.evaluation.retrieval import RETRIEVAL_METRICS, RetrievalScores, retrieval_metrics


def searches(n: int = 80, documents: int = 30, seed: int = 0) -> tuple[np.ndarray, list[set[int]]]:
    rng = np.random.default_rng(seed)
    relevant = [{int(d) for d in rng.choice(documents, rng.integers(1, 4), replace=False)} for _ in range(n)]
    scores = rng.normal(size=(n, documents))
    for row, known in zip(scores, relevant, strict=True):
        row[list(known)] += 1.5
    return scores, relevant


def test_one_ranking_by_hand() -> None:
    scores = RetrievalScores(ks=(1, 3), ndcg_at=3)
    scores.update([["a", "b", "c", "d"]], [{"b", "d"}])
    gain = 1 / math.log2(3) / (1 + 1 / math.log2(3))
    assert scores.point() == pytest.approx(
        {"recall_at_1": 0, "recall_at_3": 0.5, "mrr": 0.5, "ndcg_at_3": gain}
    )


def test_a_document_that_was_not_found_counts_against_recall() -> None:
    scores = RetrievalScores(ks=(5,))
    scores.update([[1], [], [4, 5]], [{1, 2}, {3}, {9}])
    assert scores.point() == pytest.approx(
        {"recall_at_5": 0.5 / 3, "mrr": 1 / 3, "ndcg_at_10": 0.2043824}, abs=1e-6
    )


def test_scores_rank_as_ids_do_and_ndcg_is_sklearns() -> None:
    matrix, relevant = searches()
    by_scores, by_ids = RetrievalScores(), RetrievalScores()
    for start in range(0, 80, 32):
        by_scores.update_scores(matrix[start : start + 32], relevant[start : start + 32])
    by_ids.update(np.argsort(-matrix, axis=1).tolist(), relevant)
    truth = np.array([[float(d in known) for d in range(30)] for known in relevant])
    assert by_scores.result() == by_ids.result()
    assert by_ids.point()["ndcg_at_10"] == pytest.approx(ndcg_score(truth, matrix, k=10))


def test_gains_are_graded_where_given() -> None:
    matrix, relevant = searches(seed=1)
    rng = np.random.default_rng(0)
    graded = [{d: float(rng.integers(1, 4)) for d in known} | {29: 0.0} for known in relevant]
    graded = [{29: 1.0, **g} if not any(g.values()) else g for g in graded]
    scores = RetrievalScores(ndcg_at=5)
    scores.update_scores(matrix, graded)
    truth = np.array([[known.get(d, 0.0) for d in range(30)] for known in graded])
    assert scores.point()["ndcg_at_5"] == pytest.approx(ndcg_score(truth, matrix, k=5))


def test_result_is_json_with_intervals_around_the_points() -> None:
    scores = RetrievalScores()
    scores.update_scores(*searches())
    result = json.loads(json.dumps(scores.result()))
    assert [*result] == [*RETRIEVAL_METRICS, "n"] == [*retrieval_metrics(), "n"] and all(
        RETRIEVAL_METRICS.values()
    )
    for name, value in scores.point().items():
        assert result[name]["value"] == pytest.approx(value)
        assert 0 <= result[name]["low"] < value < result[name]["high"] <= 1
    assert result["n"] == 80 and result["recall_at_1"]["value"] < result["recall_at_10"]["value"]


def test_a_perfect_search_has_an_interval_that_is_not_empty() -> None:
    scores = RetrievalScores()
    scores.update([[i, -1] for i in range(20)], [{i} for i in range(20)])
    assert all(scores.result()[name]["low"] == pytest.approx(0.8316, abs=1e-4) for name in RETRIEVAL_METRICS)


def test_a_tie_goes_to_the_lower_column() -> None:
    scores = RetrievalScores(ks=(1,))
    scores.update_scores(np.zeros((2, 3)), [{0}, {1}])
    assert scores.point()["recall_at_1"] == 0.5


@pytest.mark.parametrize(
    ("ranked", "relevant", "says"),
    [
        ([[1, 2]], [set()], "Query 1 has no relevant"),
        ([[1, 2]], [{3: 0.0}], "no relevant"),
        ([[1, 1]], [{1}], "twice"),
        ([[1]], [{1}, {2}], "per query"),
    ],
)
def test_bad_rankings_are_errors_and_change_nothing(ranked: list, relevant: list, says: str) -> None:
    scores = RetrievalScores()
    with pytest.raises(DataError, match=says):
        scores.update(ranked, relevant)
    assert scores.n == 0


def test_misuse_is_an_error() -> None:
    for options in ({"ks": ()}, {"ks": (0, 1)}, {"ndcg_at": 0}):
        with pytest.raises(ConfigError, match="start with 1"):
            RetrievalScores(**options)
    with pytest.raises(DataError, match="finite"):
        RetrievalScores().update_scores(np.array([[np.nan, 1.0]]), [{0}])
    with pytest.raises(DataError, match="no examples"):
        RetrievalScores().result()
