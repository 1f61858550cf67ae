"""Text classification: one of two or more labels for every text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from foretune.data.columns import Columns
from foretune.data.labels import encode_labels, label_text, label_texts
from foretune.data.text import listed
from foretune.errors import ConfigError, DataError, did_you_mean
from foretune.evaluation.baselines import baselines
from foretune.evaluation.metrics import CLASSIFICATION_METRICS, ClassificationScores
from foretune.evaluation.mistakes import Mistakes
from foretune.tasks.base import TASKS, Encoded, Examples, Task

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from foretune.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """`labels`: the names of the labels, where the data hold none (with --strategy zero-shot) or not all of them."""

    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        given = self.labels.split(",") if isinstance(self.labels, str) else self.labels
        names = tuple(dict.fromkeys(str(name).strip() for name in given))
        object.__setattr__(self, "labels", tuple(name for name in names if name))


@TASKS.register("text-classification")
class TextClassification(Task):
    """Cross-entropy over softmax; class weights as the recipe says."""

    name = "text-classification"
    auto_class = "AutoModelForSequenceClassification"
    metrics = CLASSIFICATION_METRICS
    default_metric = "accuracy"
    pipeline = "text-classification"
    gives_probabilities = True
    class_weighted = True
    forecasts = True

    Options: ClassVar[type] = LabelOptions

    def __init__(self, names: tuple[str, ...], columns: Columns, weights: tuple[float, ...] | None) -> None:
        self.names, self.columns, self.weights = names, columns, weights

    @classmethod
    def from_table(cls, table: pd.DataFrame, columns: Columns, recipe: Recipe) -> TextClassification:
        """Learn the label names (sorted, unless the options give them) and weights of the training table."""
        given = cls.options_of(recipe).labels
        if columns.target is None:
            if len(given) < 2:
                raise DataError(
                    "The data have no target. Name it with --target, or name labels with --option labels=a,b"
                )
            return cls(given, columns, None)
        values = table[columns.target].tolist()
        encoding = encode_labels(values, names=_named(values, given, columns.target))
        counts = np.bincount(encoding.ids, minlength=len(encoding.names))
        return cls(encoding.names, columns, class_weights(recipe.class_weights, encoding.names, counts))

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the label names in the order of their numbers."""
        return self.names

    def state(self) -> dict[str, Any]:
        """Return label names, columns and weights."""
        columns = {"text": self.columns.text, "target": self.columns.target}
        return {"labels": list(self.names), "columns": columns, "class_weights": self.weights}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> TextClassification:
        """Make the task of a saved model."""
        weights = state.get("class_weights")
        columns = Columns(state["columns"]["text"], state["columns"]["target"], "as saved with the model")
        return cls(tuple(state["labels"]), columns, tuple(weights) if weights else None)

    def examples(self, table: pd.DataFrame, *, where: str, need_targets: bool = True) -> Examples:
        """Read texts and, where needed, label ids."""
        targets = None
        if need_targets and self.columns.target is not None:
            values = table[self.columns.target].tolist()
            targets = encode_labels(values, names=self.names, where=where).ids
        texts = table[self.columns.text].tolist()
        return Examples(texts, targets, np.arange(1, len(table) + 1))

    def model_options(self) -> dict[str, Any]:
        """Return the label names for `id2label` and `label2id`."""
        return {
            "num_labels": len(self.names),
            "id2label": dict(enumerate(self.names)),
            "label2id": {name: number for number, name in enumerate(self.names)},
            "problem_type": "single_label_classification",
        }

    def normaliser(self, targets: np.ndarray) -> float:
        """Return the sum of the weights of `targets` (their number, without weights)."""
        return float(len(targets) if self.weights is None else np.asarray(self.weights)[targets].sum())

    def loss(self, outputs: Tensor, targets: Tensor, batch: dict[str, Tensor] | None = None) -> Tensor:
        """Return the summed cross-entropy of logits (batch, classes)."""
        import torch

        weight = None if self.weights is None else torch.tensor(self.weights, device=outputs.device)
        return torch.nn.functional.cross_entropy(outputs, targets, weight=weight, reduction="sum")

    def activate(self, outputs: Tensor, batch: dict[str, Tensor] | None = None) -> Tensor:
        """Return probabilities (batch, classes)."""
        return outputs.softmax(dim=-1)

    def decode(
        self, outputs: Sequence[np.ndarray], examples: Examples, encoded: Encoded
    ) -> list[dict[str, Any]]:
        """Return the most probable label and its probability."""
        best = [int(row.argmax()) for row in outputs]
        return [
            {"label": self.names[number], "probability": float(row[number])}
            for number, row in zip(best, outputs, strict=True)
        ]

    def scores(self, examples: Examples, encoded: Encoded) -> ClassificationScores:
        """Return an empty accumulator."""
        return ClassificationScores(len(self.names))

    def worst(self, examples: Examples, encoded: Encoded, k: int) -> ConfidentMistakes:
        """Return a keeper of the most confident mistakes."""
        return ConfidentMistakes(Mistakes(k), examples, self.names)

    def baselines(self, train: Examples, held_out: Examples, seed: int) -> dict[str, Any]:
        """Return the scores of the majority class and of TF-IDF + logistic regression."""
        assert train.targets is not None and held_out.targets is not None
        return baselines(
            train.inputs, train.targets, held_out.inputs, held_out.targets, len(self.names), seed=seed
        )


@dataclass(frozen=True)
class ConfidentMistakes:
    """The most confident mistakes with their texts and labels."""

    kept: Mistakes
    examples: Examples
    names: tuple[str, ...]

    def update(self, rows: np.ndarray, outputs: np.ndarray, targets: np.ndarray) -> None:
        """Look through one batch of probabilities."""
        self.kept.update(rows, outputs, targets)

    def top(self) -> list[dict[str, Any]]:
        """Return row number, text, true and predicted label, and probability of each."""
        found = []
        for row, true, guess, probability in self.kept.top():
            place = {"row": int(self.examples.rows[row]), "text": shown(self.examples.inputs[row])}
            names = {"true": self.names[true], "predicted": self.names[guess]}
            found.append({**place, **names, "probability": probability})
        return found


def shown(text: Any) -> str:
    """Return an input as one text: the two of a pair on two lines."""
    return text if isinstance(text, str) else "\n".join(map(str, text))


def _named(values: Sequence[object], given: tuple[str, ...], column: str) -> tuple[str, ...] | None:
    """Return the names of the labels that the options give, if any. Raises DataError where they lack some."""
    if not given:
        return None
    strange = set(label_texts(values)) - set(given)
    if strange:
        raise DataError(
            f"train: column {column!r} was taken for the labels, but holds {listed(sorted(strange))}, which option "
            f"labels does not name ({listed(given)}). Name all labels, name the right column with --target, or leave "
            "this column out where the texts have no labels."
        )
    return given


def class_weights(
    wanted: str | dict[str, float], names: tuple[str, ...], counts: np.ndarray
) -> tuple[float, ...] | None:
    """Return one weight per class, or None.

    "auto" is n / (classes * count) (King and Zeng 2001; scikit-learn's "balanced"). A table must name every
    label. Raises ConfigError.
    """
    if wanted == "none":
        return None
    if wanted == "auto":
        return tuple(float(counts.sum() / (len(names) * max(count, 1))) for count in counts)
    assert isinstance(wanted, dict)
    given = {label_text(label): float(weight) for label, weight in wanted.items()}
    for label in given:
        if label not in names:
            raise ConfigError(
                f"Class weights name {label!r}, which is no label here.{did_you_mean(label, names)}"
            )
    missing = [name for name in names if name not in given]
    if missing:
        raise ConfigError(
            f"Class weights are missing for: {', '.join(missing[:10])}. Give one for every label."
        )
    return tuple(given[name] for name in names)
