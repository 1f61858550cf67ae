"""Scores of search: do the documents that belong to a query come first?"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretune.errors import ConfigError, DataError
from foretune.evaluation.counts import Floats
from foretune.evaluation.summed import SummedScores, check_paired

Relevant = Collection[Hashable] | Mapping[Hashable, float]


def retrieval_metrics(ks: Sequence[int] = (1, 5, 10), ndcg_at: int = 10) -> dict[str, bool]:
    """Return metric name -> True when greater is better, for the ranks that are looked at."""
    return {**{f"recall_at_{k}": True for k in ks}, "mrr": True, f"ndcg_at_{ndcg_at}": True}


#: Metric name -> True when greater is better.
RETRIEVAL_METRICS: dict[str, bool] = retrieval_metrics()


def _discounted(gains: Sequence[float]) -> float:
    """Return the discounted cumulative gain: gains divided by log2 of 1 + rank."""
    return float(np.sum(np.asarray(gains, dtype=np.float64) / np.log2(np.arange(len(gains)) + 2)))


class RetrievalScores(SummedScores):
    """Streaming scores of rankings.

    `recall_at_k` is the share of a query's relevant documents among its first k (trec_eval's, and BEIR's);
    `mrr` the mean of 1 / rank of the first relevant one, 0 where it is not in the ranking; `ndcg_at_k` the
    gain / log2(1 + rank) over the first k, divided by the best possible (Järvelin & Kekäläinen 2002, with
    trec_eval's linear gains; gains are 1 unless given). Holds one number per query and metric. Raises
    ConfigError for ranks below 1.
    """

    def __init__(self, ks: Sequence[int] = (1, 5, 10), ndcg_at: int = 10) -> None:
        super().__init__()
        if not ks or min(*ks, ndcg_at) < 1:
            raise ConfigError(f"Ranks to look at start with 1; found ks={tuple(ks)}, ndcg_at={ndcg_at}.")
        self.ks, self.ndcg_at = tuple(sorted(set(ks))), ndcg_at
        self.tops = dict.fromkeys(retrieval_metrics(self.ks, ndcg_at), 1.0)  # type: ignore[misc]

    def update(self, ranked: Sequence[Sequence[Hashable]], relevant: Sequence[Relevant]) -> None:
        """Count queries: document ids, best first, and the set (or id -> gain) of relevant ones.

        Raises DataError where they do not pair up, nothing is relevant, or a ranking repeats a document.
        """
        check_paired(ranked, relevant, "query")
        pairs = enumerate(zip(ranked, relevant, strict=True), start=self.n + 1)
        rows = [self._row(list(order), _gains(known, number), number) for number, (order, known) in pairs]
        if rows:
            self._add(np.array(rows))

    def update_scores(self, scores: NDArray[Any], relevant: Sequence[Relevant]) -> None:
        """Count queries by scores (queries, documents); relevant documents are column numbers.

        A tie goes to the lower column. Raises DataError for another shape or non-finite scores.
        """
        scores = np.asarray(scores)
        if scores.ndim != 2 or not np.isfinite(scores).all():
            raise DataError(f"Expected finite scores (queries, documents), found the shape {scores.shape}.")
        self.update(np.argsort(-scores, axis=1, kind="stable").tolist(), relevant)

    def _row(self, order: list[Hashable], gains: Mapping[Hashable, float], number: int) -> list[float]:
        """Return the metrics of one query."""
        if len(set(order)) < len(order):
            raise DataError(f"The ranking of query {number} names a document twice: expected each once.")
        found = [rank for rank, document in enumerate(order, start=1) if document in gains]
        recalls = [sum(rank <= k for rank in found) / len(gains) for k in self.ks]
        best = sorted(gains.values(), reverse=True)[: self.ndcg_at]
        got = [gains.get(document, 0.0) for document in order[: self.ndcg_at]]
        return [*recalls, 1 / found[0] if found else 0.0, _discounted(got) / _discounted(best)]

    def metrics(self, sums: Floats) -> dict[str, Floats]:
        """Return each metric (...) of the sums (..., 1 + metrics)."""
        return {name: sums[..., i] / sums[..., 0] for i, name in enumerate(self.tops, start=1)}


def _gains(relevant: Relevant, number: int) -> dict[Hashable, float]:
    """Return id -> gain of the relevant documents of query `number`. Raises DataError when there are none."""
    pairs = relevant.items() if isinstance(relevant, Mapping) else ((document, 1.0) for document in relevant)
    gains = {document: float(gain) for document, gain in pairs if gain > 0}
    if not gains:
        raise DataError(
            f"Query {number} has no relevant document, so recall is undefined. Leave such queries out."
        )
    return gains
