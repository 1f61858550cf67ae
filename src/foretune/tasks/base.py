"""The Task seam: how targets are encoded, what head is added, the loss, the predictions, the metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from foretune.registry import Registry

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from torch import Tensor

    from foretune.data.columns import Columns
    from foretune.recipe import Recipe


@dataclass(frozen=True)
class Examples:
    """Raw inputs and their encoded targets, in the table's order.

    `targets`: (n,) or None where there are none (prediction). `rows`: (n,) 1-based row numbers in the
    user's file, for messages.
    """

    inputs: Sequence[Any]
    targets: np.ndarray | None
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, rows: np.ndarray) -> Examples:
        """Return the examples at positions `rows`."""
        targets = None if self.targets is None else self.targets[rows]
        return Examples([self.inputs[row] for row in rows], targets, self.rows[rows])


class Scores(Protocol):
    """An accumulator of metrics that never holds all outputs."""

    def update(self, outputs: np.ndarray, targets: np.ndarray) -> None:
        """Add one batch."""

    def point(self) -> dict[str, float]:
        """Return {metric: value} without intervals, cheaply."""

    def result(self, seed: int = 0) -> dict[str, Any]:
        """Return {metric: {"value", "low", "high"}, …}."""


class Task(ABC):
    """What is learnt. A task is made from the training table and can be written as plain values."""

    name: ClassVar[str]
    auto_class: ClassVar[str]  # of transformers: the backbone with this task's head
    metrics: ClassVar[dict[str, bool]]  # name -> greater is better
    default_metric: ClassVar[str]

    @classmethod
    @abstractmethod
    def from_table(cls, table: pd.DataFrame, columns: Columns, recipe: Recipe) -> Task:
        """Make the task from the training table. Raises DataError where it does not fit."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return what `from_state` needs, as JSON values."""

    @classmethod
    @abstractmethod
    def from_state(cls, state: dict[str, Any]) -> Task:
        """Make the task of a saved model."""

    @abstractmethod
    def examples(self, table: pd.DataFrame, *, where: str, need_targets: bool = True) -> Examples:
        """Read inputs and targets from a table. Raises DataError naming `where`, rows and columns."""

    @abstractmethod
    def model_options(self) -> dict[str, Any]:
        """Return what the model's configuration needs to know (number and names of labels …)."""

    @abstractmethod
    def normaliser(self, targets: np.ndarray) -> float:
        """Return what the summed loss of `targets` is divided by: the sum of their weights."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the summed (not averaged), weighted loss of a batch: a scalar tensor."""

    @abstractmethod
    def activate(self, outputs: Tensor) -> Tensor:
        """Turn the head's outputs into what is scored and shown, such as probabilities."""

    @abstractmethod
    def decode(self, activated: np.ndarray) -> list[dict[str, Any]]:
        """Turn activated outputs (batch, …) into one prediction per example, for people."""

    @abstractmethod
    def scores(self) -> Scores:
        """Return an empty accumulator of this task's metrics."""

    @abstractmethod
    def baselines(self, train: Examples, held_out: Examples, seed: int) -> dict[str, Any]:
        """Return the scores of trivial models on the held-out examples."""


TASKS: Registry[type[Task]] = Registry("task")
