"""Regression: a number for every text, or for every pair of texts (how similar, how much, how good)."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from foretune.data.columns import Columns
from foretune.data.quantities import quantities
from foretune.errors import DataError
from foretune.evaluation.linear_baselines import predict_numbers
from foretune.evaluation.regression import REGRESSION_METRICS, RegressionScores
from foretune.evaluation.report_sections import table_section
from foretune.tasks.base import TASKS, Encoded, Examples, Scores, Task
from foretune.tasks.inputs import (
    Placeless,
    audit_inputs,
    columns_of,
    columns_state,
    overlap_inputs,
    pair_inputs,
    read_inputs,
    scored,
)
from foretune.tasks.text_classification import shown

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from foretune.backbones.base import Backbone
    from foretune.backbones.text import TextBackbone
    from foretune.recipe import Recipe


@TASKS.register("text-regression")
class TextRegression(Task):
    """Squared error of standardised targets; predictions are in the targets' own units.

    `mean` and `spread` (standard deviation) of the training targets scale the head's output. After training they
    go into the head's last layer, where it has one, so that plain transformers gives the same numbers.
    """

    name = "text-regression"
    auto_class = "AutoModelForSequenceClassification"
    metrics = REGRESSION_METRICS
    default_metric = "rmse"
    headline = "value"
    pipeline = "text-classification"

    def __init__(self, columns: Columns, mean: float, spread: float) -> None:
        self.columns, self.mean, self.spread = columns, mean, spread

    @classmethod
    def audit(cls, table: pd.DataFrame, columns: Columns, *, where: str) -> list[str]:
        """Return warnings about texts and numbers. Raises DataError naming rows."""
        if columns.target is not None:
            quantities(table[columns.target].tolist(), columns.target, where)
        return audit_inputs(table, columns, where=where, classes=False)

    @classmethod
    def overlap(cls, train: pd.DataFrame, other: pd.DataFrame, columns: Columns, where: str) -> list[str]:
        """Return a warning where inputs of `train` also stand in `other`."""
        return overlap_inputs(train, other, columns, where)

    @classmethod
    def from_table(cls, table: pd.DataFrame, columns: Columns, recipe: Recipe) -> TextRegression:
        """Learn mean and spread of the training targets. Raises DataError where all are equal."""
        assert columns.target is not None
        values = quantities(table[columns.target].tolist(), columns.target, "train")
        if float(values.std()) == 0.0:
            raise DataError(
                f"train: all {len(values):,} values of column {columns.target!r} are {values[0]:g}. Expected numbers "
                "that differ; choose another column with --target."
            )
        return cls(columns, float(values.mean()), float(values.std()))

    def state(self) -> dict[str, Any]:
        """Return columns and scale."""
        return {"columns": columns_state(self.columns), "mean": self.mean, "spread": self.spread}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> TextRegression:
        """Make the task of a saved model."""
        return cls(columns_of(state["columns"]), state["mean"], state["spread"])

    def examples(self, table: pd.DataFrame, *, where: str, need_targets: bool = True) -> Examples:
        """Read inputs and, where needed, numbers (n,) float32."""
        targets = None
        if need_targets:
            assert self.columns.target is not None
            targets = quantities(table[self.columns.target].tolist(), self.columns.target, where)
            targets = targets.astype(np.float32)
        return Examples(read_inputs(table, self.columns), targets, np.arange(1, len(table) + 1))

    def strata(self, examples: Examples) -> np.ndarray | None:
        """Return fifths of the targets, so that the parts hold alike shares of high and low."""
        assert examples.targets is not None
        return np.searchsorted(np.quantile(examples.targets, (0.2, 0.4, 0.6, 0.8)), examples.targets)

    def model_options(self) -> dict[str, Any]:
        """Return one output."""
        return {"num_labels": 1, "problem_type": "regression"}

    def normaliser(self, targets: np.ndarray) -> float:
        """Return the number of targets."""
        return float(len(targets))

    def loss(self, outputs: Tensor, targets: Tensor, batch: dict[str, Tensor] | None = None) -> Tensor:
        """Return the summed squared error of standardised targets; outputs (batch, 1)."""
        wanted = (targets.float() - self.mean) / self.spread
        return (outputs[:, 0] - wanted).square().sum()

    def activate(self, outputs: Tensor, batch: dict[str, Tensor] | None = None) -> Tensor:
        """Return predictions in the targets' units: (batch,)."""
        return outputs[:, 0] * self.spread + self.mean

    def infer(self, backbone: Backbone, batch: dict[str, Tensor]) -> Tensor:
        """Return predictions in the targets' units; the head, which may hold these units, computes in float32."""
        with cast("TextBackbone", backbone).exact_head():
            return super().infer(backbone, batch)

    def finish(self, backbone: Backbone) -> None:
        """Put mean and spread into the head's last layer, where the backbone can."""
        if backbone.scale_outputs(self.spread, self.mean):
            self.mean, self.spread = 0.0, 1.0

    def decode(
        self, outputs: Sequence[np.ndarray], examples: Examples, encoded: Encoded
    ) -> list[dict[str, Any]]:
        """Return {"value"}."""
        return [{"value": float(value)} for value in outputs]

    def scores(self, examples: Examples, encoded: Encoded) -> Scores:
        """Return an empty accumulator."""
        return Placeless(RegressionScores())

    def worst(self, examples: Examples, encoded: Encoded, k: int) -> LargestErrors:
        """Return a keeper of the largest errors."""
        return LargestErrors(k, examples)

    def sections(self, result: dict[str, Any], worst: list[dict[str, Any]]) -> list[str]:
        """Return the table of the largest errors."""
        rows = [[each["text"], f"{each['true']:.4g}", f"{each['predicted']:.4g}"] for each in worst]
        note = "Where the error is largest, the label itself may be wrong: read these first."
        return [table_section("Largest errors", note, ("text", "true", "predicted"), rows)]

    def baselines(self, train: Examples, held_out: Examples, seed: int) -> dict[str, Any]:
        """Return the scores of the training mean and of ridge regression on TF-IDF."""
        assert train.targets is not None and held_out.targets is not None
        mean = np.full(len(held_out), train.targets.mean(), dtype=np.float64)
        linear = predict_numbers(train.inputs, train.targets.astype(np.float64), held_out.inputs, seed)
        parts = {"mean": mean, "tfidf_ridge": linear["predictions"]}
        found = {
            name: scored(RegressionScores(), values, held_out.targets, tuple(self.metrics), seed)
            for name, values in parts.items()
        }
        found["tfidf_ridge"]["seconds"] = linear["seconds"]
        return found


@TASKS.register("pair-regression")
class PairRegression(TextRegression):
    """A number for every pair of texts, both read in one sequence."""

    name = "pair-regression"
    example = '{"text": "first text", "text_pair": "second text"}'
    default_metric = "pearson"

    def from_inputs(self, inputs: Any) -> Examples:
        """Return pairs of texts as examples."""
        return pair_inputs(inputs)

    def probes(self) -> Examples:
        """Return two short pairs."""
        return pair_inputs([("a short text", "another text"), ("一段短文本", "另一段文本")])


@dataclass
class LargestErrors:
    """The k examples with the largest absolute error, in O(k) memory."""

    k: int
    examples: Examples
    _heap: list[tuple[float, int, float, float]] = field(default_factory=list)

    def update(self, rows: np.ndarray, outputs: np.ndarray, targets: np.ndarray) -> None:
        """Look through one batch of predictions (batch,)."""
        for row, guess, true in zip(rows.tolist(), outputs.tolist(), targets.tolist(), strict=True):
            heapq.heappush(self._heap, (abs(guess - true), -row, true, guess))
            if len(self._heap) > self.k:
                heapq.heappop(self._heap)

    def top(self) -> list[dict[str, Any]]:
        """Return row number, text, true and predicted value, the largest error first."""
        return [
            {"row": int(self.examples.rows[-row]), "text": shown(self.examples.inputs[-row]), "true": true,
             "predicted": guess}
            for _, row, true, guess in sorted(self._heap, reverse=True)
        ]  # fmt: skip
