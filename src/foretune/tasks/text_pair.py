"""Text pairs: one of two or more labels for every two texts (paraphrase, entailment, same question)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.evaluation.linear_baselines import predict_classes
from foretune.evaluation.metrics import ClassificationScores
from foretune.tasks.base import TASKS, Examples
from foretune.tasks.inputs import (
    audit_inputs,
    columns_of,
    columns_state,
    overlap_inputs,
    pair_inputs,
    read_inputs,
    scored,
)
from foretune.tasks.text_classification import TextClassification

if TYPE_CHECKING:
    import pandas as pd

    from foretune.data.columns import Columns

SHOWN = ("accuracy", "macro_f1")  # of the baselines


@TASKS.register("text-pair")
class TextPair(TextClassification):
    """Both texts are read in one sequence, so that each attends to the other; the rest is classification."""

    name = "text-pair"
    forecasts = False  # the outcomes that forecasts are learnt from are of single texts
    example = '{"text": "first text", "text_pair": "second text"}'
    metrics = {**TextClassification.metrics}  # noqa: RUF012

    @classmethod
    def audit(cls, table: pd.DataFrame, columns: Columns, *, where: str) -> list[str]:
        """Return warnings about the pairs and labels. Raises DataError."""
        return audit_inputs(table, columns, where=where, classes=columns.target is not None)

    @classmethod
    def overlap(cls, train: pd.DataFrame, other: pd.DataFrame, columns: Columns, where: str) -> list[str]:
        """Return a warning where pairs of `train` also stand in `other`."""
        return overlap_inputs(train, other, columns, where)

    def state(self) -> dict[str, Any]:
        """Return label names, columns and weights."""
        return {**super().state(), "columns": columns_state(self.columns)}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> TextPair:
        """Make the task of a saved model."""
        weights = state.get("class_weights")
        return cls(tuple(state["labels"]), columns_of(state["columns"]), tuple(weights) if weights else None)

    def examples(self, table: pd.DataFrame, *, where: str, need_targets: bool = True) -> Examples:
        """Read pairs and, where needed, label ids."""
        found = super().examples(table, where=where, need_targets=need_targets)
        return Examples(read_inputs(table, self.columns), found.targets, found.rows)

    def from_inputs(self, inputs: Any) -> Examples:
        """Return pairs of texts as examples."""
        return pair_inputs(inputs)

    def probes(self) -> Examples:
        """Return two short pairs."""
        return pair_inputs([("a short text", "another text"), ("一段短文本", "另一段文本")])

    def baselines(self, train: Examples, held_out: Examples, seed: int) -> dict[str, Any]:
        """Return the scores of the majority class, and of logistic regression on what both texts share."""
        assert train.targets is not None and held_out.targets is not None
        count = len(self.names)
        majority = np.full(len(held_out), np.bincount(train.targets).argmax())
        linear = predict_classes(train.inputs, train.targets, held_out.inputs, seed)
        parts = {"majority": majority, "tfidf_pair_logreg": linear["predictions"]}
        found = {
            name: scored(ClassificationScores(count), np.eye(count)[ids], held_out.targets, SHOWN, seed)
            for name, ids in parts.items()
        }
        found["tfidf_pair_logreg"]["seconds"] = linear["seconds"]
        return found
