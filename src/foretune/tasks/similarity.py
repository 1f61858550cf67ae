"""Similarity: queries and the documents that belong to them; embeddings that bring both together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.data.columns import Columns
from foretune.evaluation.report_sections import table_section
from foretune.evaluation.retrieval import RETRIEVAL_METRICS, RetrievalScores
from foretune.tasks.base import TASKS, Encoded, Examples, Task
from foretune.tasks.inputs import (
    audit_inputs,
    columns_of,
    columns_state,
    overlap_inputs,
    pair_inputs,
    read_inputs,
)

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from foretune.recipe import Recipe

SHARPNESS = 20.0  # of cosines in the loss: sentence-transformers' MultipleNegativesRankingLoss
JOINED = 0.5  # of the rows: beside a larger group too little is left for the other parts
CHUNK = 256  # queries that are ranked at a time


@TASKS.register("similarity")
class Similarity(Task):
    """Each query's document must be nearer than the other documents of its batch (Henderson et al. 2017).

    Documents of equal text count as one, and a query that stands in several rows has several right documents, in
    the loss (no false negatives) and in the ranking. Held-out queries are ranked against all documents of their
    part. Smaller micro-batches see fewer negatives: with --micro-tokens the loss is not that of the whole batch.
    """

    name = "similarity"
    auto_class = "AutoModel"
    metrics = RETRIEVAL_METRICS
    default_metric = "mrr"
    headline = "score"
    example = '[("query", "document")]'
    pools = False
    scores_untuned = True
    sampled_untuned = False  # among fewer documents every query looks easier

    def __init__(self, columns: Columns) -> None:
        self.columns = columns

    @classmethod
    def audit(cls, table: pd.DataFrame, columns: Columns, *, where: str) -> list[str]:
        """Return warnings about the pairs. Raises DataError naming rows."""
        warnings = audit_inputs(table, columns, where=where, classes=False)
        if columns.target is not None:
            warnings.append(
                f"{where}: column {columns.target!r} is not used: every pair counts as belonging together. Leave out "
                "the rows that do not, or predict the column with --task text-pair or pair-regression."
            )
        return warnings

    @classmethod
    def overlap(cls, train: pd.DataFrame, other: pd.DataFrame, columns: Columns, where: str) -> list[str]:
        """Return a warning where pairs of `train` also stand in `other`."""
        return overlap_inputs(train, other, columns, where)

    @classmethod
    def from_table(cls, table: pd.DataFrame, columns: Columns, recipe: Recipe) -> Similarity:
        """Return the task; nothing is learnt from the table."""
        return cls(replace(columns, target=None))

    def state(self) -> dict[str, Any]:
        """Return the columns."""
        return {"columns": columns_state(self.columns)}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Similarity:
        """Make the task of a saved model."""
        return cls(columns_of(state["columns"]))

    def examples(self, table: pd.DataFrame, *, where: str, need_targets: bool = True) -> Examples:
        """Read pairs; targets are the numbers of query and document, equal for equal texts: (n, 2) int64."""
        pairs = read_inputs(table, self.columns)
        return Examples(pairs, _numbers(pairs), np.arange(1, len(pairs) + 1))

    def strata(self, examples: Examples) -> None:
        """Return None: there are no classes."""
        return None

    def groups(self, examples: Examples) -> list[str]:
        """Return what holds rows together: a query's documents, and all queries of a document, stay on one side.

        Where that joins more than `JOINED` of the rows, only the queries of a document stay together.
        """
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        numbers = _numbers(examples.inputs)
        queries, documents = numbers[:, 0], numbers[:, 1] + len(numbers)
        edges = coo_array((np.ones(len(numbers)), (queries, documents)), shape=(2 * len(numbers),) * 2)
        found = connected_components(edges, directed=False)[1][queries]
        whole = np.bincount(found).max(initial=0) <= JOINED * len(numbers)
        return [str(number) for number in (found if whole else documents).tolist()]

    def identities(self, examples: Examples) -> list[str]:
        """Return queries with their documents."""
        return ["\n".join(pair) for pair in examples.inputs]

    def from_inputs(self, inputs: Any) -> Examples:
        """Return pairs of texts as examples."""
        return pair_inputs(inputs)

    def probes(self) -> Examples:
        """Return two short pairs."""
        return pair_inputs([("a short text", "another text"), ("一段短文本", "另一段文本")])

    def model_options(self) -> dict[str, Any]:
        """Return none: the model has no head."""
        return {}

    def normaliser(self, targets: np.ndarray) -> float:
        """Return the number of pairs."""
        return float(len(targets))

    def loss(self, outputs: Tensor, targets: Tensor, batch: dict[str, Tensor] | None = None) -> Tensor:
        """Return the summed cross-entropy of each query (batch, 2, hidden) over the batch's documents."""
        import torch

        cosines = outputs[:, 0] @ outputs[:, 1].T * SHARPNESS  # (batch, batch)
        right = (targets[:, None] == targets[None, :]).any(dim=-1)  # of the same query, or the same document
        right.fill_diagonal_(False)
        cosines = cosines.masked_fill(right, float("-inf"))
        wanted = torch.arange(len(targets), device=outputs.device)
        return torch.nn.functional.cross_entropy(cosines, wanted, reduction="sum")

    def activate(self, outputs: Tensor, batch: dict[str, Tensor] | None = None) -> Tensor:
        """Return the embeddings as they are: (batch, 2, hidden)."""
        return outputs

    def decode(
        self, outputs: Sequence[np.ndarray], examples: Examples, encoded: Encoded
    ) -> list[dict[str, Any]]:
        """Return {"score"}: the cosine of both texts, -1 to 1."""
        return [{"score": float(first @ second)} for first, second in outputs]

    def scores(self, examples: Examples, encoded: Encoded) -> Rankings:
        """Return an empty accumulator."""
        return Rankings()

    def worst(self, examples: Examples, encoded: Encoded, k: int) -> LowestRanks:
        """Return a keeper of the queries whose document came last."""
        return LowestRanks(k, examples)

    def sections(self, result: dict[str, Any], worst: list[dict[str, Any]]) -> list[str]:
        """Return the table of the queries that were answered worst."""
        rows = [[each["query"], each["wanted"], str(each["rank"]), each["found"]] for each in worst]
        note = "The queries whose own document stands lowest, and the document that came first."
        return [table_section("Worst rankings", note, ("query", "its document", "rank", "came first"), rows)]

    def baselines(self, train: Examples, held_out: Examples, seed: int) -> dict[str, Any]:
        """Return the scores of TF-IDF's cosine."""
        from foretune.evaluation.linear_baselines import text_vectors

        assert held_out.targets is not None
        queries, documents = ([pair[i] for pair in held_out.inputs] for i in (0, 1))
        known = [text for pair in train.inputs for text in pair]
        vectors = text_vectors(known, queries), text_vectors(known, documents)
        result = ranking_scores(*vectors, held_out.targets).result(seed)
        return {"tfidf": {name: result[name] for name in self.metrics}}


def _numbers(pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """Return a number per query and per document, equal for equal texts: (n, 2)."""
    found = np.zeros((len(pairs), 2), dtype=np.int64)
    for side in (0, 1):
        known: dict[str, int] = {}
        found[:, side] = [known.setdefault(pair[side].strip(), len(known)) for pair in pairs]
    return found


def orders(queries: Any, documents: Any, numbers: np.ndarray) -> Any:
    """Yield (positions of queries, their best documents' positions, best first), by cosine; copies count once.

    queries, documents: (n, hidden) arrays or sparse matrices at unit length; numbers: (n, 2) of both.
    """
    asked, first = (np.unique(numbers[:, side], return_index=True)[1] for side in (0, 1))
    kept = documents[first]
    for start in range(0, len(asked), CHUNK):
        rows = asked[start : start + CHUNK]
        found = queries[rows] @ kept.T
        cosines = found.toarray() if hasattr(found, "toarray") else np.asarray(found)
        yield rows, first[np.argsort(-cosines, axis=1, kind="stable")]


def ranking_scores(queries: Any, documents: Any, numbers: np.ndarray) -> RetrievalScores:
    """Return the scores of ranking all documents for every query; the documents of its rows are right."""
    scores, right = RetrievalScores(), _right(numbers)
    for rows, found in orders(queries, documents, numbers):
        wanted = [right[int(query)] for query in numbers[rows, 0]]
        ranked = [_down_to(*pair) for pair in zip(numbers[found, 1], wanted, strict=True)]
        scores.update(ranked, wanted)
    return scores


def _down_to(order: np.ndarray, wanted: set[int]) -> list[int]:
    """Return a ranking down to the last document that is wanted: what comes behind it changes no score."""
    last = int(np.flatnonzero(np.isin(order, list(wanted)))[-1])
    return order[: last + 1].tolist()


def _right(numbers: np.ndarray) -> dict[int, set[int]]:
    """Return the documents that belong to every query."""
    found: dict[int, set[int]] = {}
    for query, document in numbers.tolist():
        found.setdefault(query, set()).add(document)
    return found


class _Gathered:
    """Embeddings of both texts by row, as they come batch by batch: two vectors per pair are kept."""

    def __init__(self) -> None:
        self.rows: list[np.ndarray] = []
        self.vectors: list[np.ndarray] = []
        self.numbers: list[np.ndarray] = []

    def add(self, rows: np.ndarray, outputs: np.ndarray, targets: np.ndarray) -> None:
        self.rows.append(rows)
        self.vectors.append(outputs.astype(np.float32))
        self.numbers.append(targets)

    def ordered(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return rows, queries, documents and numbers in the order of the rows."""
        rows = np.concatenate(self.rows)
        order = np.argsort(rows, kind="stable")
        vectors = np.concatenate(self.vectors)[order]
        return rows[order], vectors[:, 0], vectors[:, 1], np.concatenate(self.numbers)[order]


class Rankings:
    """Retrieval scores of embeddings that come batch by batch; the ranking is made at the end."""

    def __init__(self) -> None:
        self._seen = _Gathered()

    def update(self, outputs: np.ndarray, targets: np.ndarray, rows: np.ndarray | None = None) -> None:
        """Add a batch of embeddings (batch, 2, hidden)."""
        self._seen.add(np.arange(len(outputs)) if rows is None else rows, outputs, targets)

    def point(self) -> dict[str, float]:
        """Return {metric: value}."""
        return self._scores().point()

    def result(self, seed: int = 0) -> dict[str, Any]:
        """Return {metric: {"value", "low", "high"}, …}."""
        return self._scores().result(seed)

    def _scores(self) -> RetrievalScores:
        return ranking_scores(*self._seen.ordered()[1:])


class LowestRanks:
    """The k queries whose own documents all stand lowest."""

    def __init__(self, k: int, examples: Examples) -> None:
        self.k, self.examples, self._seen = k, examples, _Gathered()

    def update(self, rows: np.ndarray, outputs: np.ndarray, targets: np.ndarray) -> None:
        """Look through one batch of embeddings."""
        self._seen.add(rows, outputs, targets)

    def top(self) -> list[dict[str, Any]]:
        """Return query, wanted document, its rank from 1, and the document that came first."""
        rows, queries, documents, numbers = self._seen.ordered()
        kept: list[tuple[int, int, int]] = []
        right = _right(numbers)
        for some, found in orders(queries, documents, numbers):
            wanted = [list(right[int(query)]) for query in numbers[some, 0]]
            pairs = zip(numbers[found, 1], wanted, strict=True)
            ranks = np.array([np.isin(order, own).argmax() + 1 for order, own in pairs])
            kept += [
                (-int(r), int(rows[s]), int(rows[f[0]]))
                for r, s, f in zip(ranks, some, found, strict=True)
                if r > 1
            ]
            kept = sorted(kept)[: self.k]
        texts = self.examples.inputs
        return [
            {"row": int(self.examples.rows[row]), "query": texts[row][0], "wanted": texts[row][1], "rank": -rank,
             "found": texts[best][1]}
            for rank, row, best in kept
        ]  # fmt: skip
