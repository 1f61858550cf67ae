"""A fine-tuned model: predict, evaluate, save."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.data.audit import as_texts
from foretune.data.read import read_table
from foretune.errors import ConfigError, DataError, did_you_mean
from foretune.prepare import column_names, readable, target_option
from foretune.tasks.base import Encoded, Examples
from foretune.training.feed import TokenFeed
from foretune.training.inference import Runtime, batch_on, predict, run_all

if TYPE_CHECKING:
    import pandas as pd

    from foretune.backbones.base import Backbone
    from foretune.recipe import Recipe
    from foretune.tasks.base import Task

CHUNK = 4096  # inputs that are prepared and predicted at a time, fewer where the task says so


@dataclass
class Model:
    """A model with its task, preprocessing and record. Made by `foretune.fit` or `foretune.load`.

    `record` is what `foretune.json` holds: metrics, baselines, training figures, fingerprints, environment.
    """

    backbone: Backbone
    task: Task
    recipe: Recipe
    runtime: Runtime
    record: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the label names in the order of the columns of `predict_proba`."""
        return self.task.labels

    @property
    def max_length(self) -> int:
        """Return the number of tokens after which an input is cut."""
        return self.recipe.max_tokens or self.backbone.max_length

    def predict(self, inputs: Any) -> list[Any]:
        """Return what the task predicts for every input, for classification the most probable label.

        `inputs`: one text or several (a list, a column of a table); pairs, paths … as the task reads them. Raises
        DataError naming rows that are of another kind.
        """
        return [item[self.task.headline] for item in self.predictions(inputs)]

    def predict_proba(self, inputs: Any) -> np.ndarray:
        """Return probabilities (inputs, labels) float32, columns in the order of `labels`.

        Raises ConfigError where the task gives no such probabilities.
        """
        if not self.task.gives_probabilities:
            raise ConfigError(
                f"{self.task.name} gives no probabilities per label. Use predict or predictions."
            )
        parts = [
            np.stack(self.outputs(chunk)[0]) for chunk in _chunks(self._examples(inputs), self.task.chunk)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.labels)), np.float32)

    def predictions(self, inputs: Any) -> Iterator[dict[str, Any]]:
        """Yield one prediction per input, in order, in chunks of bounded size.

        For classification {"label", "probability"}; the tasks' pages say what others give. `inputs` may be `Examples`.
        """
        for chunk in _chunks(self._examples(inputs), self.task.chunk):
            outputs, encoded = self.outputs(chunk)
            yield from self.task.decode(outputs, chunk, encoded)

    def _examples(self, inputs: Any) -> Examples:
        """Return what a user gives as examples. Raises DataError for what is neither an input nor several."""
        if isinstance(inputs, Examples):
            return inputs
        path = self.task.modality != "text" and isinstance(inputs, os.PathLike)
        if not (path or hasattr(inputs, "__iter__")):
            raise DataError(
                f"Found {inputs!r} ({type(inputs).__name__}); expected one input or several, such as "
                f"{self.task.example}."
            )
        return self.task.from_inputs(inputs)

    def evaluate(
        self,
        data: Any,
        *,
        text: str | None = None,
        second: str | None = None,
        target: str | None = None,
        separator: str | None = None,
        offline: bool = False,
        skip_broken: bool = False,
        tell: Callable[[str], None] = lambda text: None,
    ) -> dict[str, Any]:
        """Return the metrics with 95 % intervals on a labelled table, file or hub id.

        `text`, `second` and `target` name its columns where they differ from those of the training data, `separator`
        the mark between the columns of a csv file likewise. `skip_broken` leaves out pictures and sounds that
        cannot be decoded; `tell` is called with a sentence that counts them. Raises DataError.
        """
        self._name_target(target)
        table = read_table(
            data,
            separator=separator,
            offline=offline or self.recipe.offline,
            split="test",
            usual=self.recipe.separator,
            known=column_names(self.task.columns),
        )
        table = self.renamed(table, text=text, second=second, target=target)
        table, broken = readable(type(self.task), table, self.task.columns, skip_broken, "data")
        for warning in broken:
            tell(warning)
        examples = self.read(table)
        return self.score(examples)[0]

    def score(
        self,
        examples: Examples,
        encoded: Encoded | None = None,
        mistakes: int = 0,
        quick: bool = False,
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return (metrics, the worst mistakes) of labelled examples, batch by batch.

        `quick`: only what the task measures during training, and no mistakes.
        """
        encoded = encoded or self.encode(examples)
        assert encoded.targets is not None
        scores = self.task.progress(examples, encoded) if quick else self.task.scores(examples, encoded)
        worst = None if quick else self.task.worst(examples, encoded, mistakes)
        feed = TokenFeed(self.backbone, encoded.store, self.runtime) if quick else None
        for rows, outputs in predict(self.backbone, self.task, encoded.store, self.runtime, feed=feed):
            targets = encoded.targets[rows]
            scores.update(outputs, targets, rows)
            if worst is not None:
                worst.update(rows, outputs, targets)
        return scores.result(seed=self.recipe.seed), [] if worst is None else worst.top()

    def tune(self, examples: Examples, encoded: Encoded | None) -> list[str]:
        """Settle what the task chooses on the dev set after training; return notes."""
        if not self.task.tunes:
            return []
        outputs, encoded = self.outputs(examples, encoded)
        return self.task.tune(outputs, examples, encoded)

    def read(
        self,
        table: pd.DataFrame,
        *,
        text: str | None = None,
        second: str | None = None,
        target: str | None = None,
    ) -> Examples:
        """Return the labelled examples of a table. Raises DataError."""
        self._name_target(target)
        table = self.renamed(table, text=text, second=second, target=target)
        self.task.check(table, where="data")
        return self.task.examples(table, where="data")

    def _name_target(self, target: str | None) -> None:
        """Let a model that was made of label names alone know the column of labels. Raises ConfigError without one."""
        columns = self.task.columns
        if not self.labels or columns.target is not None or columns.targets:
            return
        if target is None:
            raise ConfigError(
                "The model was made from texts without labels, so it knows no column of them. Name it with --target."
            )
        self.task.columns = replace(columns, target=target)

    def _check_names(self, second: str | None, target: str | None) -> None:
        """Raise ConfigError for the name of a column that the task does not read, or not under another name."""
        columns = self.task.columns
        own = {"second": columns.second, "target": target_option(columns)}
        for option, given in (("second", second), ("target", target)):
            if given is not None and getattr(columns, option) is None and given != own[option]:
                reads = f"reads the columns {own[option]}" if own[option] else "reads no such column"
                raise ConfigError(
                    f"--{option} is {given!r}, but this {self.task.name} {reads}. Leave it out."
                )

    def renamed(
        self,
        table: pd.DataFrame,
        *,
        text: str | None = None,
        second: str | None = None,
        target: str | None = None,
    ) -> pd.DataFrame:
        """Return the table with its columns called as in the training data.

        Raises DataError for a missing column, ConfigError for one that the task does not read.
        """
        columns = self.task.columns
        self._check_names(second, target)
        wanted = {columns.text: text, columns.second: second, columns.target: target}
        renamed = {
            given: own for own, given in wanted.items() if given is not None and own not in (None, given)
        }
        for given in renamed:
            if given not in table.columns:
                found = ", ".join(map(str, table.columns))
                raise DataError(
                    f"There is no column {given!r}.{did_you_mean(given, table.columns)} Columns: {found}."
                )
        hidden = [own for own in renamed.values() if own in table and own not in renamed]
        named = table.drop(columns=hidden).rename(columns=renamed)
        return self.task.tidy(named, columns)

    def encode(self, examples: Examples) -> Encoded:
        """Return examples as the backbone reads them, prepared as in training."""
        return self.task.encode(
            self.backbone,
            examples,
            max_length=self.max_length,
            truncation=self.recipe.truncation,
            seed=self.recipe.seed,
        )

    def embed(self, texts: Any) -> np.ndarray:
        """Return a vector per text, (texts, hidden) float32 at unit length; their products are cosines.

        Raises ConfigError where the task has no embeddings, DataError for what is no text.
        """
        from foretune.backbones.embeddings import EmbeddingBackbone

        backbone = self.backbone
        if not isinstance(backbone, EmbeddingBackbone):
            raise ConfigError(f"{self.task.name} gives no embeddings. Fine-tune with --task similarity.")
        given = as_texts(texts)
        store = backbone.preprocess(given, max_length=self.max_length, truncation=self.recipe.truncation)
        found = np.zeros((len(given), backbone.model.config.hidden_size), np.float32)

        def run(rows: np.ndarray) -> np.ndarray:
            return backbone.embed(batch_on(backbone, store, rows, self.runtime)).float().cpu().numpy()

        for rows, vectors in run_all(backbone, store, self.runtime, run):
            found[rows] = vectors
        return found

    def save(self, path: str | Path) -> Path:
        """Write the artefact to a new folder, or over an older one, and return it; see `foretune.artifact`.

        Raises ConfigError where the folder holds something else.
        """
        from foretune.artifact import RECORD, save
        from foretune.training.files import holds_others

        folder = Path(path).expanduser()
        if holds_others(folder, (RECORD, "recipe.toml")):
            raise ConfigError(
                f"{folder} holds files, but no model: they might be overwritten. Give a new folder."
            )
        return save(self, folder)

    def outputs(self, examples: Examples, encoded: Encoded | None = None) -> tuple[list[np.ndarray], Encoded]:
        """Return the activated outputs of every row of the encoded examples, in order, and these."""
        encoded = encoded or self.encode(examples)
        found: dict[int, np.ndarray] = {}
        for rows, outputs in predict(self.backbone, self.task, encoded.store, self.runtime):
            found.update(zip(rows.tolist(), outputs, strict=True))
        return [found[row] for row in range(len(found))], encoded


def _chunks(examples: Examples, size: int) -> Iterator[Examples]:
    step = min(CHUNK, size)
    for start in range(0, len(examples), step):
        yield examples.take(np.arange(start, min(start + step, len(examples))))
