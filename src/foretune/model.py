"""A fine-tuned model: predict, evaluate, save."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.data.audit import check_texts
from foretune.data.columns import infer_columns
from foretune.data.read import read_table
from foretune.errors import DataError
from foretune.evaluation.mistakes import Mistakes
from foretune.training.inference import Runtime, predict

if TYPE_CHECKING:
    import pandas as pd

    from foretune.backbones.base import Backbone
    from foretune.data.store import RaggedStore
    from foretune.recipe import Recipe
    from foretune.tasks.base import Examples, Task

CHUNK = 4096  # inputs that are tokenised and predicted at a time


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
        return tuple(self.task.state()["labels"])

    @property
    def max_length(self) -> int:
        """Return the number of tokens after which an input is cut."""
        return self.recipe.max_tokens or self.backbone.max_length

    def predict(self, texts: str | Sequence[str] | pd.Series) -> list[str]:
        """Return the most probable label of every text. Raises DataError naming rows that are no text."""
        return [item["label"] for item in self.predictions(texts)]

    def predict_proba(self, texts: str | Sequence[str] | pd.Series) -> np.ndarray:
        """Return probabilities (texts, labels) float32, columns in the order of `labels`."""
        parts = [self._outputs(chunk) for chunk in _chunks(_as_texts(texts))]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.labels)), np.float32)

    def predictions(self, texts: str | Sequence[str] | pd.Series) -> Iterator[dict[str, Any]]:
        """Yield one prediction per text ({"label", "probability"}), in order, in chunks of bounded size."""
        for chunk in _chunks(_as_texts(texts)):
            yield from self.task.decode(self._outputs(chunk))

    def evaluate(
        self,
        data: Any,
        *,
        text: str | None = None,
        target: str | None = None,
        separator: str | None = None,
        offline: bool = False,
    ) -> dict[str, Any]:
        """Return the metrics with 95 % intervals on a labelled table, file or hub id.

        `text` and `target` name its columns where they differ from those of the training data, `separator`
        the mark between the columns of a csv file likewise. Raises DataError.
        """
        table = read_table(
            data,
            separator=separator or self.recipe.separator,
            offline=offline or self.recipe.offline,
            split="test",
        )
        examples = self.read(table, text=text, target=target)
        return self.score(examples)[0]

    def score(
        self, examples: Examples, store: RaggedStore | None = None, mistakes: int = 0
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return (metrics, the most confident mistakes) of encoded examples, batch by batch."""
        assert examples.targets is not None
        store = store or self.preprocess(examples.inputs)
        scores, worst = self.task.scores(), Mistakes(mistakes)
        for rows, outputs in predict(self.backbone, self.task, store, self.runtime):
            scores.update(outputs, examples.targets[rows])
            worst.update(rows, outputs, examples.targets[rows])
        names = self.labels
        top = [
            {"row": int(examples.rows[row]), "text": examples.inputs[row], "true": names[true],
             "predicted": names[guess], "probability": probability}
            for row, true, guess, probability in worst.top()
        ]  # fmt: skip
        return scores.result(seed=self.recipe.seed), top

    def read(self, table: pd.DataFrame, *, text: str | None = None, target: str | None = None) -> Examples:
        """Return the labelled examples of a table. Raises DataError."""
        columns = self.task.state()["columns"]
        wanted = {columns["text"]: text, columns["target"]: target}
        renamed = {given: own for own, given in wanted.items() if given is not None and given != own}
        infer_columns(table, text=text or columns["text"], target=target or columns["target"])
        table = table.drop(columns=[own for own in renamed.values() if own in table]).rename(columns=renamed)
        check_texts(table[columns["text"]].tolist(), columns["text"], "data")
        return self.task.examples(table, where="data")

    def preprocess(self, inputs: Sequence[Any]) -> RaggedStore:
        """Tokenise inputs as in training."""
        return self.backbone.preprocess(inputs, max_length=self.max_length, truncation=self.recipe.truncation)

    def save(self, path: str | Path) -> Path:
        """Write the artefact to a new folder and return it; see `foretune.artifact`."""
        from foretune.artifact import save

        return save(self, Path(path))

    def _outputs(self, texts: Sequence[str]) -> np.ndarray:
        store = self.preprocess(texts)
        result: np.ndarray | None = None
        for rows, outputs in predict(self.backbone, self.task, store, self.runtime):
            if result is None:
                result = np.empty((len(texts), *outputs.shape[1:]), dtype=np.float32)
            result[rows] = outputs
        assert result is not None
        return result


def _as_texts(texts: Any) -> list[str]:
    """Return a list of strings. Raises DataError for anything else, naming the rows."""
    if isinstance(texts, str):
        return [texts]
    if hasattr(texts, "columns"):
        raise DataError("Found a table; expected texts. Give one column of it, such as table['text'].")
    items = list(texts)
    return check_texts(items, "input", "data") if items else []


def _chunks(texts: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(texts), CHUNK):
        yield texts[start : start + CHUNK]
