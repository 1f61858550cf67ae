"""What the tasks on one text or two texts share: reading them, checking them, what stays together in a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.data.audit import as_texts, audit, check_texts, overlap
from foretune.data.columns import Columns
from foretune.errors import DataError
from foretune.tasks.base import Examples, Scores

if TYPE_CHECKING:
    import pandas as pd

JOINED = "both texts"  # the column under which a pair is audited


def columns_state(columns: Columns) -> dict[str, Any]:
    """Return columns as JSON values."""
    found = {"text": columns.text, "second": columns.second, "target": columns.target}
    return {**{key: value for key, value in found.items() if value}, "targets": list(columns.targets)}


def columns_of(state: dict[str, Any]) -> Columns:
    """Return the columns of a saved model."""
    return Columns(
        state["text"], state.get("target"), "as saved with the model",
        second=state.get("second"), targets=tuple(state.get("targets", ())),
    )  # fmt: skip


def read_inputs(table: pd.DataFrame, columns: Columns) -> list[Any]:
    """Return the texts, or pairs of texts, of a table that was checked."""
    texts = table[columns.text].tolist()
    if columns.second is None:
        return texts
    return list(zip(texts, table[columns.second].tolist(), strict=True))


def audit_inputs(table: pd.DataFrame, columns: Columns, *, where: str, classes: bool) -> list[str]:
    """Return warnings about the texts and, with `classes`, the labels. Raises DataError naming rows."""
    named = columns if classes else replace(columns, target=None)
    if columns.second is None:
        return audit(table, named, where=where).warnings
    for name in (columns.text, columns.second):
        check_texts(table[name].tolist(), name, where)
    joined, both = joined_texts(table, named)
    return audit(joined, both, where=where).warnings


def overlap_inputs(train: pd.DataFrame, other: pd.DataFrame, columns: Columns, where: str) -> list[str]:
    """Return a warning where inputs of `train` also stand in `other`."""
    if columns.second is None:
        return overlap(train, other, columns.text, where)
    return overlap(joined_texts(train, columns)[0], joined_texts(other, columns)[0], JOINED, where)


def joined_texts(table: pd.DataFrame, columns: Columns) -> tuple[pd.DataFrame, Columns]:
    """Return a table with both texts of every pair in one column, and its columns."""
    pairs = zip(table[columns.text].tolist(), table[columns.second].tolist(), strict=True)
    joined = table.assign(**{JOINED: [f"{first}\n{second}" for first, second in pairs]})
    return joined, replace(columns, text=JOINED, second=None)


def pair_inputs(inputs: Any) -> Examples:
    """Return one pair of texts, or several, as examples. Raises DataError for anything else, naming the rows."""
    if isinstance(inputs, str) or hasattr(inputs, "columns"):
        raise DataError(
            "Expected pairs of texts, such as [('first', 'second'), …]; found a single text or table."
        )
    items = list(inputs)
    if len(items) == 2 and all(isinstance(item, str) for item in items):
        items = [tuple(items)]
    wrong = [row for row, item in enumerate(items, start=1) if not _is_pair(item)]
    if wrong:
        raise DataError(f"Input {wrong[0]} is no pair: {items[wrong[0] - 1]!r}. Expected two texts each.")
    firsts, seconds = as_texts([a for a, _ in items]), as_texts([b for _, b in items])
    return Examples(list(zip(firsts, seconds, strict=True)), None, np.arange(1, len(items) + 1))


def _is_pair(item: Any) -> bool:
    """Say whether `item` holds two things in order; of a dict or set that would be its keys, of a text letters."""
    return not isinstance(item, str | dict | set) and hasattr(item, "__len__") and len(item) == 2


class Placeless:
    """Scores that need outputs and targets only, and not which rows they belong to."""

    def __init__(self, scores: Any) -> None:
        self.scores = scores

    def update(self, outputs: np.ndarray, targets: np.ndarray, rows: np.ndarray | None = None) -> None:
        """Add one batch."""
        self.scores.update(outputs, targets)

    def point(self) -> dict[str, float]:
        """Return {metric: value}."""
        return self.scores.point()

    def result(self, seed: int = 0) -> dict[str, Any]:
        """Return {metric: {"value", "low", "high"}, …}."""
        return self.scores.result(seed)


def scored(
    scores: Scores | Any, outputs: np.ndarray, targets: np.ndarray, names: Sequence[str], seed: int
) -> dict[str, Any]:
    """Return the metrics `names`, with intervals, of outputs that are there whole: for baselines."""
    scores.update(outputs, targets)
    result = scores.result(seed)
    return {name: result[name] for name in names}
