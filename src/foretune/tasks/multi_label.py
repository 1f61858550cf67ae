"""Multi-label classification: any number of labels for every text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.data.columns import Columns
from foretune.data.labels import label_names
from foretune.data.multilabel import label_lists, label_separator, without_labels
from foretune.data.text import listed
from foretune.errors import ConfigError, DataError, did_you_mean
from foretune.evaluation.linear_baselines import predict_labels
from foretune.evaluation.multilabel import MULTILABEL_METRICS, MultiLabelScores, tune_thresholds
from foretune.evaluation.report_sections import table_section
from foretune.tasks.base import TASKS, Encoded, Examples, Scores, Task
from foretune.tasks.inputs import Placeless, audit_inputs, columns_of, columns_state, scored

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from foretune.recipe import Recipe

FEWEST = 5  # rows with a label, below which a warning names it
STRONGEST = 100.0  # at most, as the weight of a rare label's rows
SHOWN = ("micro_f1", "macro_f1", "subset_accuracy")  # of the baselines
SURE = (";", "|", "；")  # separate labels also where none of them stands in another cell


@TASKS.register("multi-label")
class MultiLabel(Task):
    """One sigmoid per label; the thresholds that call them are tuned on dev after training."""

    name = "multi-label"
    auto_class = "AutoModelForSequenceClassification"
    metrics = MULTILABEL_METRICS
    default_metric = "micro_f1"
    headline = "labels"
    pipeline = "text-classification"
    gives_probabilities = True
    class_weighted = True

    def __init__(
        self,
        names: tuple[str, ...],
        columns: Columns,
        separator: str | None,
        thresholds: tuple[float, ...],
        weights: tuple[float, ...] | None,
    ) -> None:
        self.names, self.columns, self.separator = names, columns, separator
        self.thresholds, self.weights = thresholds, weights

    @classmethod
    def audit(cls, table: pd.DataFrame, columns: Columns, *, where: str) -> list[str]:
        """Return warnings about texts and labels. Raises DataError."""
        warnings = audit_inputs(table, columns, where=where, classes=False)
        if columns.target is None and not columns.targets:
            return warnings
        separator = _separator(table, columns)
        lists = label_lists(table, columns, separator=separator, where=where)
        names, counts = np.unique([name for row in lists for name in row], return_counts=True)
        rare = [
            f"{name!r} ({count})"
            for name, count in zip(names.tolist(), counts, strict=True)
            if count < FEWEST
        ]
        if rare:
            warnings.append(
                f"{where}: labels on fewer than {FEWEST} rows: {listed(rare, 10)}; add rows, or leave them out"
            )
        return [*warnings, *without_labels(lists, where)]

    @classmethod
    def from_table(cls, table: pd.DataFrame, columns: Columns, recipe: Recipe) -> MultiLabel:
        """Learn the label names of the training table. Raises DataError where there are fewer than two."""
        separator = _separator(table, columns)
        lists = label_lists(table, columns, separator=separator)
        names = columns.targets or label_names([name for row in lists for name in row])
        if len(names) < 2:
            raise DataError(
                f"train: found {len(names)} label in the target; expected two or more. Name the column with --target; "
                "labels in one cell are lists, or separated by ; | or ,"
            )
        flags = _flags(lists, names, "train")
        weights = _weights(recipe.class_weights, names, flags)
        return cls(tuple(names), columns, separator, (0.5,) * len(names), weights)

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the label names in the order of their numbers."""
        return self.names

    def state(self) -> dict[str, Any]:
        """Return names, columns, separator, thresholds and weights."""
        return {
            "labels": list(self.names), "columns": columns_state(self.columns), "separator": self.separator,
            "thresholds": list(self.thresholds), "class_weights": self.weights,
        }  # fmt: skip

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> MultiLabel:
        """Make the task of a saved model."""
        weights = state.get("class_weights")
        return cls(
            tuple(state["labels"]), columns_of(state["columns"]), state["separator"], tuple(state["thresholds"]),
            tuple(weights) if weights else None,
        )  # fmt: skip

    def examples(self, table: pd.DataFrame, *, where: str, need_targets: bool = True) -> Examples:
        """Read texts and, where needed, flags (n, labels) float32. Raises DataError for a label never trained on."""
        targets = None
        if need_targets:
            lists = label_lists(table, self.columns, separator=self.separator, where=where)
            targets = _flags(lists, self.names, where)
        return Examples(table[self.columns.text].tolist(), targets, np.arange(1, len(table) + 1))

    def strata(self, examples: Examples) -> np.ndarray | None:
        """Return the rarest label of every row, so that rare labels stand on every side; the last class: none."""
        assert examples.targets is not None
        order = np.argsort(examples.targets.sum(axis=0), kind="stable")
        flags = np.concatenate([examples.targets[:, order], np.ones((len(examples), 1))], axis=1)
        return flags.argmax(axis=1)

    def model_options(self) -> dict[str, Any]:
        """Return the label names for `id2label` and `label2id`."""
        return {
            "num_labels": len(self.names),
            "id2label": dict(enumerate(self.names)),
            "label2id": {name: number for number, name in enumerate(self.names)},
            "problem_type": "multi_label_classification",
        }

    def normaliser(self, targets: np.ndarray) -> float:
        """Return rows times labels."""
        return float(targets.size)

    def loss(self, outputs: Tensor, targets: Tensor, batch: dict[str, Tensor] | None = None) -> Tensor:
        """Return the summed binary cross-entropy of logits (batch, labels)."""
        import torch

        weight = None if self.weights is None else torch.tensor(self.weights, device=outputs.device)
        return torch.nn.functional.binary_cross_entropy_with_logits(
            outputs, targets.to(outputs.dtype), pos_weight=weight, reduction="sum"
        )

    def activate(self, outputs: Tensor, batch: dict[str, Tensor] | None = None) -> Tensor:
        """Return probabilities (batch, labels)."""
        return outputs.float().sigmoid()

    @property
    def tunes(self) -> bool:
        """Return True: thresholds are tuned."""
        return True

    def tune(self, outputs: Sequence[np.ndarray], examples: Examples, encoded: Encoded) -> list[str]:
        """Choose each label's threshold by its F1 on dev."""
        assert examples.targets is not None
        found = tune_thresholds(np.stack(outputs), examples.targets)
        self.thresholds = tuple(float(value) for value in found)
        return [
            f"Thresholds of {len(found)} labels were tuned on dev ({found.min():.2f} to {found.max():.2f}), so scores "
            "on dev are a little too good; those on test are not."
        ]

    def decode(
        self, outputs: Sequence[np.ndarray], examples: Examples, encoded: Encoded
    ) -> list[dict[str, Any]]:
        """Return {"labels", "probabilities"}: the names at or above their thresholds, and every label's probability."""
        return [
            {
                "labels": [
                    name
                    for name, p, least in zip(self.names, row, self.thresholds, strict=True)
                    if p >= least
                ],
                "probabilities": dict(zip(self.names, map(float, row), strict=True)),
            }
            for row in outputs
        ]

    def scores(self, examples: Examples, encoded: Encoded) -> Scores:
        """Return an empty accumulator."""
        return Placeless(MultiLabelScores(len(self.names), self.thresholds))

    def worst(self, examples: Examples, encoded: Encoded, k: int) -> MostWrong:
        """Return a keeper of the rows with the most wrong labels."""
        return MostWrong(k, examples, self.names, np.asarray(self.thresholds))

    def sections(self, result: dict[str, Any], worst: list[dict[str, Any]]) -> list[str]:
        """Return the table of the rows with the most wrong labels."""
        rows = [[each["text"], each["missed"], each["wrong"]] for each in worst]
        note = "Rows with the most labels that were missed or wrongly given."
        return [table_section("Most wrong rows", note, ("text", "missed", "wrongly given"), rows)]

    def baselines(self, train: Examples, held_out: Examples, seed: int) -> dict[str, Any]:
        """Return the scores of the labels that most rows have, and of TF-IDF + logistic regression."""
        assert train.targets is not None and held_out.targets is not None
        usual = np.tile(train.targets.mean(axis=0), (len(held_out), 1))
        linear = predict_labels(train.inputs, train.targets, held_out.inputs, seed)
        parts = {"majority": usual, "tfidf_logreg": linear["predictions"]}
        count = len(self.names)
        found = {
            name: scored(MultiLabelScores(count), values, held_out.targets, SHOWN, seed)
            for name, values in parts.items()
        }
        found["tfidf_logreg"]["seconds"] = linear["seconds"]
        return found


@dataclass
class MostWrong:
    """The k rows with the most wrong labels."""

    k: int
    examples: Examples
    names: tuple[str, ...]
    thresholds: np.ndarray
    _kept: list[tuple[int, int, np.ndarray]] = field(default_factory=list)

    def update(self, rows: np.ndarray, outputs: np.ndarray, targets: np.ndarray) -> None:
        """Look through one batch of probabilities (batch, labels)."""
        difference = (outputs >= self.thresholds).astype(np.int8) - (targets > 0.5).astype(np.int8)
        wrong = np.abs(difference).sum(axis=1)
        self._kept += [(-int(n), int(r), d) for n, r, d in zip(wrong, rows, difference, strict=True) if n]
        self._kept = sorted(self._kept, key=lambda item: item[:2])[: self.k]

    def top(self) -> list[dict[str, Any]]:
        """Return row number, text, and the labels that were missed and wrongly given."""
        return [
            {"row": int(self.examples.rows[row]), "text": self.examples.inputs[row],
             "missed": self._named(difference == -1), "wrong": self._named(difference == 1)}
            for _, row, difference in self._kept
        ]  # fmt: skip

    def _named(self, flags: np.ndarray) -> str:
        return ", ".join(self.names[i] for i in np.flatnonzero(flags))


def _separator(table: pd.DataFrame, columns: Columns) -> str | None:
    """Return what separates labels: what is believed to, else a mark that hardly stands in a label's name."""
    if columns.target is None:
        return None
    cells = table[columns.target].tolist()
    sure = (mark for mark in SURE if any(isinstance(cell, str) and mark in cell for cell in cells))
    return label_separator(cells) or next(sure, None)


def _flags(lists: Sequence[Sequence[str]], names: Sequence[str], where: str) -> np.ndarray:
    """Return which labels each row has: (rows, labels) float32 of 0 and 1. Raises DataError for an unknown label."""
    number = {name: i for i, name in enumerate(names)}
    flags = np.zeros((len(lists), len(names)), dtype=np.float32)
    for row, labels in enumerate(lists):
        for label in labels:
            if label not in number:
                raise DataError(
                    f"{where}: row {row + 1} has the label {label!r}, which the training data do not have."
                    f"{did_you_mean(label, names)} Correct it, or put such rows into the training data."
                )
            flags[row, number[label]] = 1.0
    return flags


def _weights(
    wanted: str | dict[str, float], names: Sequence[str], flags: np.ndarray
) -> tuple[float, ...] | None:
    """Return the weight of each label's positive rows: "auto" is rows without / rows with it, at most 100."""
    if wanted == "none":
        return None
    if isinstance(wanted, dict):
        unknown = [name for name in wanted if name not in names]
        if unknown:
            hint = did_you_mean(unknown[0], names)
            raise ConfigError(f"Class weights name {unknown[0]!r}, which is no label here.{hint}")
        return tuple(float(wanted.get(name, 1.0)) for name in names)
    having = np.maximum(flags.sum(axis=0), 1)
    return tuple(float(value) for value in np.clip((len(flags) - having) / having, 1.0, STRONGEST))
