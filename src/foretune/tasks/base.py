"""The Task seam: how targets are encoded, what head is added, the loss, the predictions, the metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from foretune.errors import ConfigError, DataError
from foretune.registry import Registry

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from torch import Tensor

    from foretune.backbones.base import Backbone
    from foretune.data.columns import Columns
    from foretune.data.store import Store
    from foretune.recipe import Recipe
    from foretune.strategies.base import Settings, Workload


@dataclass(frozen=True)
class Examples:
    """Raw inputs and their encoded targets, in the table's order.

    `targets`: (n, …), of objects where they differ in size, or None where there are none (prediction). `rows`:
    (n,) 1-based row numbers in the user's file, for messages.
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


@dataclass(frozen=True)
class Encoded:
    """Examples as a backbone reads them, one row of the store per model input.

    `targets[rows]` is an array (batch, …) of the rows' targets. `owner`: (rows,) the example that a row comes
    from, where long inputs make several rows; None: row i is example i. `info`: what decoding needs besides.
    """

    store: Store
    targets: Any | None = None
    owner: np.ndarray | None = None
    info: Any = None

    def examples_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the examples that the rows `rows` come from."""
        return rows if self.owner is None else self.owner[rows]


class Scores(Protocol):
    """An accumulator of metrics that never holds all outputs."""

    def update(self, outputs: np.ndarray, targets: np.ndarray, rows: np.ndarray | None = None) -> None:
        """Add one batch: the outputs of the store's rows `rows`."""

    def point(self) -> dict[str, float]:
        """Return {metric: value} without intervals, cheaply."""

    def result(self, seed: int = 0) -> dict[str, Any]:
        """Return {metric: {"value", "low", "high"}, …}."""


class Worst(Protocol):
    """A keeper of the examples that a model is worst at."""

    def update(self, rows: np.ndarray, outputs: np.ndarray, targets: np.ndarray) -> None:
        """Look through one batch."""

    def top(self) -> list[dict[str, Any]]:
        """Return the worst examples, the worst first, as the report shows them."""


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """The options of a task that has none."""


class Task(ABC):
    """What is learnt. A task is made from the training table and can be written as plain values."""

    name: ClassVar[str]
    modality: ClassVar[str] = "text"  # of its inputs: "text", "image" or "audio"
    auto_class: ClassVar[str]  # of transformers: the backbone with this task's head
    metrics: ClassVar[dict[str, bool]]  # name -> greater is better
    default_metric: ClassVar[str]
    headline: ClassVar[str] = "label"  # what `Model.predict` returns of a prediction
    pipeline: ClassVar[str | None] = None  # of transformers, that runs the saved model: for the model card
    example: ClassVar[str] = '"your text"'  # of an input, as Python, for the model card
    gives_probabilities: ClassVar[bool] = False  # one per label and example, that sum to 1
    class_weighted: ClassVar[bool] = False  # whether it takes class weights
    reads_words: ClassVar[bool] = False  # lists of tokens in the table stay lists
    pools: ClassVar[bool] = (
        True  # False: the head reads every token, so no mean over them may be put before it
    )
    file_key: ClassVar[str | None] = None  # of what `foretune predict` writes as a PNG per input
    chunk: ClassVar[int] = 4096  # inputs that are predicted at a time: all of their outputs are held
    forecasts: ClassVar[bool] = False  # whether `foretune plan` can forecast its score
    rate_factor: ClassVar[float] = (
        1.0  # on the strategy's learning rate, which was measured on classification
    )
    scores_untuned: ClassVar[bool] = False  # whether the pretrained model can do the task: a baseline then
    sampled_untuned: ClassVar[bool] = True  # whether some of the held-out examples will do for that baseline
    Options: ClassVar[type] = TaskOptions
    columns: Columns

    @classmethod
    def options_of(cls, recipe: Recipe) -> Any:
        """Return this task's options among those of the recipe; the others are the strategy's.

        Raises ConfigError for one of a wrong type.
        """
        own = {name: value for name, value in recipe.options.items() if name in cls.option_names()}
        try:
            return cls.Options(**own)
        except TypeError as error:
            raise ConfigError(f"An option of task {cls.name} is of the wrong type: {error}.") from error

    @classmethod
    def option_names(cls) -> set[str]:
        """Return the names of this task's options."""
        return {field.name for field in fields(cls.Options)}

    @classmethod
    def varying_options(cls) -> set[str]:
        """Return the names of those options that say what chance does to training inputs."""
        return set()

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

    @classmethod
    def tidy(cls, table: pd.DataFrame, columns: Columns) -> pd.DataFrame:
        """Return the table as this task reads it: lists of tokens joined to texts, but where words are wanted."""
        from foretune.data.cells import as_texts, is_list

        if cls.modality != "text" or cls.reads_words:
            return table
        listed = [
            name
            for name in (columns.text, columns.second)
            if name in table and any(map(is_list, table[name]))
        ]
        tidied = (
            table.assign(**{str(name): as_texts(table[name].tolist()) for name in listed})
            if listed
            else table
        )
        tidied.attrs.update(table.attrs)
        return tidied

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the names of the classes in the order of their numbers; empty where there are none."""
        return ()

    @classmethod
    def audit(cls, table: pd.DataFrame, columns: Columns, *, where: str) -> list[str]:
        """Return warnings about a table. Raises DataError for what cannot be used."""
        from foretune.data.audit import audit

        return audit(table, columns, where=where).warnings

    def check(self, table: pd.DataFrame, *, where: str, need_targets: bool = True) -> None:
        """Raise DataError where a table cannot be read by this task: columns, texts, targets."""
        wanted = [self.columns.text, self.columns.second]
        if need_targets:
            wanted += [self.columns.target, *self.columns.targets]
        missing = [name for name in wanted if name and name not in table]
        if missing:
            found = ", ".join(map(str, table.columns))
            raise DataError(
                f"{where}: there is no column {missing[0]!r}, as in the training data. Columns: {found}. Name the "
                "columns with --text and --target."
            )
        columns = self.columns if need_targets else replace(self.columns, target=None, targets=())
        self.audit(table, columns, where=where)

    @classmethod
    def overlap(cls, train: pd.DataFrame, other: pd.DataFrame, columns: Columns, where: str) -> list[str]:
        """Return warnings about examples of `train` that also stand in `other`, called `where`."""
        from foretune.data.audit import overlap

        return overlap(train, other, columns.text, where)

    @abstractmethod
    def examples(self, table: pd.DataFrame, *, where: str, need_targets: bool = True) -> Examples:
        """Read inputs and targets from a table. Raises DataError naming `where`, rows and columns."""

    def from_inputs(self, inputs: Any) -> Examples:
        """Return what a user gives to `Model.predict` as examples. Raises DataError naming what does not fit."""
        import numpy as np

        from foretune.data.audit import as_texts

        texts = as_texts(inputs)
        return Examples(texts, None, np.arange(1, len(texts) + 1))

    def probes(self) -> Examples | None:
        """Return a few inputs on which a saved model can be compared with the one in memory, if it can make some."""
        return self.from_inputs(["a short text", "一段短文本"])

    def texts(self, examples: Examples) -> list[str]:
        """Return all texts of the inputs, to look for characters that a vocabulary lacks."""
        return [part for each in examples.inputs for part in ((each,) if isinstance(each, str) else each)]

    def groups(self, examples: Examples) -> list[str]:
        """Return a text per example; examples of equal text stay on one side of a split."""
        return [each if isinstance(each, str) else "\n".join(map(str, each)) for each in examples.inputs]

    def identities(self, examples: Examples) -> list[str]:
        """Return a text per example that is the same only for equal inputs, for fingerprints."""
        return self.groups(examples)

    def strata(self, examples: Examples) -> np.ndarray | None:
        """Return a class number per example, (n,), that splits keep the shares of; None for none."""
        targets = examples.targets
        return targets if targets is not None and targets.ndim == 1 and targets.dtype.kind in "iub" else None

    def in_order(self, examples: Examples) -> bool:
        """Return whether the examples are parts of one whole: then what is held out is its end, not drawn."""
        return False

    def encode(
        self,
        backbone: Backbone,
        examples: Examples,
        *,
        max_length: int,
        truncation: str,
        training: bool = False,
        seed: int = 0,
    ) -> Encoded:
        """Return the examples as the backbone reads them; `training`: inputs may be augmented at random."""
        store = backbone.preprocess(examples.inputs, max_length=max_length, truncation=truncation)
        return Encoded(store, examples.targets)

    def check_learnable(self, backbone: Backbone, examples: Examples, encoded: Encoded) -> None:  # noqa: B027
        """Raise DataError for training examples that this backbone cannot learn from; others it may still score."""

    def adjusted(self, settings: Settings, work: Workload) -> Settings:
        """Return a strategy's settings as this task needs them; those that the user gives come before."""
        return settings

    @abstractmethod
    def model_options(self) -> dict[str, Any]:
        """Return what the model's configuration needs to know (number and names of labels …)."""

    @abstractmethod
    def normaliser(self, targets: np.ndarray) -> float:
        """Return what the summed loss of `targets` is divided by: the sum of their weights."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor, batch: dict[str, Tensor] | None = None) -> Tensor:
        """Return the summed (not averaged), weighted loss of a batch: a scalar tensor."""

    @abstractmethod
    def activate(self, outputs: Tensor, batch: dict[str, Tensor] | None = None) -> Tensor:
        """Turn the head's outputs into what is scored and shown, such as probabilities."""

    def infer(self, backbone: Backbone, batch: dict[str, Tensor]) -> Tensor:
        """Return what is scored and shown of a batch; tasks that generate do it here."""
        return self.activate(backbone.forward(batch), batch)

    def comparable(self, outputs: np.ndarray) -> np.ndarray:
        """Return what of a row's outputs a saved model must repeat up to rounding: no choice that a hair may turn."""
        return outputs

    @abstractmethod
    def decode(
        self, outputs: Sequence[np.ndarray], examples: Examples, encoded: Encoded
    ) -> list[dict[str, Any]]:
        """Turn the outputs of every row of the store into one prediction per example, for people."""

    @abstractmethod
    def scores(self, examples: Examples, encoded: Encoded) -> Scores:
        """Return an empty accumulator of this task's metrics."""

    def progress(self, examples: Examples, encoded: Encoded) -> Scores:
        """Return an empty accumulator of what is measured during training, on activated outputs."""
        return self.scores(examples, encoded)

    def watched(self, metric: str) -> str:
        """Return the metric of `progress` that stands for `metric` during training: itself, where it is cheap."""
        return metric

    def samples(self, backbone: Backbone, examples: Examples, encoded: Encoded) -> list[dict[str, str]]:
        """Return a few texts that the model writes now, told as events during training; the same each time."""
        return []

    def worst(self, examples: Examples, encoded: Encoded, k: int) -> Worst | None:
        """Return a keeper of the `k` examples that the model is worst at; None where the task shows none."""
        return None

    def finish(self, backbone: Backbone) -> None:  # noqa: B027
        """Bring head and task into the form that is saved, after training."""

    def tune(self, outputs: Sequence[np.ndarray], examples: Examples, encoded: Encoded) -> list[str]:
        """Settle what is chosen on the dev set after training (thresholds …); return notes for the user."""
        return []

    @property
    def tunes(self) -> bool:
        """Return whether `tune` does anything: the outputs on the dev set are then computed for it."""
        return False

    def sections(self, result: dict[str, Any], worst: list[dict[str, Any]]) -> list[str]:
        """Return further sections of the report as HTML, of the headline split's result."""
        return []

    @abstractmethod
    def baselines(self, train: Examples, held_out: Examples, seed: int) -> dict[str, Any]:
        """Return the scores of trivial models on the held-out examples."""


TASKS: Registry[type[Task]] = Registry("task")
