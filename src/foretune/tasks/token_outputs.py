"""The best tag of every word, gathered batch by batch from windows, and what it scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.backbones.words import WordMap
from foretune.data.store import CutReport, RaggedStore

if TYPE_CHECKING:
    from foretune.tasks.base import Examples
    from foretune.tasks.token_labels import LabelSet

IGNORED = -100  # the target of a token that is no word's first, as torch's cross-entropy has it


@dataclass(frozen=True)
class TokenTargets:
    """The class of every token of every row of a store; `targets[rows]` is (batch, longest) int64."""

    ragged: RaggedStore

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self.ragged.padded(rows, IGNORED)[0]


def token_targets(store: RaggedStore, words: WordMap, tags: np.ndarray) -> TokenTargets:
    """Return targets that hold the tags (words,) at the words' first tokens; a negative tag is not learnt."""
    flat = np.full(len(store.flat), IGNORED, dtype=np.int32)
    learnt = (words.rows >= 0) & ~words.shared & (tags >= 0)
    flat[store.offsets[words.rows[learnt]] + words.places[learnt]] = tags[learnt]
    return TokenTargets(RaggedStore(flat, store.offsets, CutReport()))


class WordTags:
    """The best tag of every word and its probability: (words,) int32 and float32, filled by `update`.

    Words that the tokenizer dropped keep `fallback` with probability 0.
    """

    def __init__(self, words: WordMap, fallback: int) -> None:
        self.words = words
        self.ids = np.full(len(words.rows), fallback, dtype=np.int32)
        self.probabilities = np.zeros(len(words.rows), dtype=np.float32)

    @cached_property
    def _by_row(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the words in order of their rows, and where each row's begin."""
        order = np.argsort(self.words.rows, kind="stable")
        rows = self.words.rows[order]
        return order, np.searchsorted(rows, np.arange(int(rows[-1]) + 2 if len(rows) else 1))

    def update(self, rows: np.ndarray, outputs: np.ndarray | Sequence[np.ndarray]) -> None:
        """Take the outputs (tokens, 2), best class and its probability, of the store's rows `rows`."""
        order, starts = self._by_row
        for row, output in zip(rows.tolist(), outputs, strict=True):
            if row + 1 < len(starts):
                words = order[starts[row] : starts[row + 1]]
                found = output[self.words.places[words]]
                self.ids[words] = found[:, 0]
                self.probabilities[words] = found[:, 1]

    def of(self, example: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the tags and probabilities of an example's words."""
        part = self.words.of(example)
        return self.ids[part], self.probabilities[part]


@dataclass(frozen=True)
class WordSlice:
    """The words of one example: their characters (n, 2), classes, probabilities, and whether a token is shared."""

    bounds: np.ndarray
    ids: np.ndarray
    probabilities: np.ndarray
    shared: np.ndarray


def words_of(found: WordTags, example: int) -> WordSlice:
    """Return what was found of one example's words."""
    part = found.words.of(example)
    return WordSlice(
        found.words.bounds[part], found.ids[part], found.probabilities[part], found.words.shared[part]
    )


class LabellingScores:
    """Scores of whole examples: the words of all windows are gathered before anything is counted."""

    def __init__(self, labels: LabelSet, examples: Examples, words: WordMap) -> None:
        self.labels, self.examples = labels, examples
        self.found = WordTags(words, labels.fallback)

    def update(self, outputs: np.ndarray, targets: np.ndarray, rows: np.ndarray | None = None) -> None:
        """Add one batch of outputs (batch, tokens, 2); the truth is taken from the examples."""
        self.found.update(np.arange(len(outputs)) if rows is None else rows, outputs)

    def point(self) -> dict[str, float]:
        """Return {metric: value}, once all rows were added."""
        return self._counted().point()

    def result(self, seed: int = 0) -> dict[str, Any]:
        """Return {metric: {"value", "low", "high"}, …} and details, once all rows were added."""
        return self._counted().result(seed=seed)

    def _counted(self) -> Any:
        assert self.examples.targets is not None
        scores, predicted = self.labels.scores(), predictions(self.labels, self.found, self.examples)
        scores.update(predicted, list(self.examples.targets))
        return scores


def predictions(labels: LabelSet, found: WordTags, examples: Examples) -> list[Any]:
    """Return what was found in every example, in the units of its target."""
    made = []
    for number, text in enumerate(examples.inputs):
        part = words_of(found, number)
        made.append(labels.predicted(part.ids, part.shared, part.bounds if isinstance(text, str) else None))
    return made
