"""What token labelling scores without a model: one tag for all, a word's usual tag, entities seen in training."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.backbones.words import joined, word_bounds
from foretune.tasks.token_labels import Entities

if TYPE_CHECKING:
    from foretune.tasks.base import Examples
    from foretune.tasks.token_labels import LabelSet


class _Sentence:
    """An example's words, their bounds in its text (None for a list of words), and their classes."""

    def __init__(self, labels: LabelSet, example: Any, target: Any) -> None:
        text, bounds = (example, word_bounds(example)) if isinstance(example, str) else joined(example)
        self.words = [text[start:end] for start, end in bounds.tolist()]
        self.bounds = bounds if isinstance(example, str) else None
        self.classes = labels.word_classes(target, len(self.words), self.bounds)


def baselines(labels: LabelSet, train: Examples, held_out: Examples, seed: int) -> dict[str, Any]:
    """Return {name: {metric: {"value", "low", "high"}}} of models that learn nothing but counts.

    `majority`: the most frequent tag everywhere. `word_tag`: each word's most frequent tag, the most frequent
    of all for a word not seen. `seen_entities`, for entities: the longest phrases that were entities in the
    training data, as the type they mostly were; with CoNLL-2003 it scores what that task's baseline does (Tjong
    Kim Sang and De Meulder 2003, table 5).
    """
    assert train.targets is not None and held_out.targets is not None
    known, asked = _sentences(labels, train), _sentences(labels, held_out)
    usual = _usual(known, labels)
    guesses = {
        "majority": [np.full(len(one.words), labels.fallback, dtype=np.int32) for one in asked],
        "word_tag": [
            np.array([usual.get(word, labels.fallback) for word in one.words], int) for one in asked
        ],
    }
    if isinstance(labels, Entities):
        phrases, longest = _phrases(known, labels)
        guesses["seen_entities"] = [_looked_up(one.words, phrases, longest, labels) for one in asked]
    return {name: _score(labels, asked, guessed, held_out, seed) for name, guessed in guesses.items()}


def _sentences(labels: LabelSet, examples: Examples) -> list[_Sentence]:
    assert examples.targets is not None
    return [_Sentence(labels, *pair) for pair in zip(examples.inputs, examples.targets, strict=True)]


def _usual(known: Sequence[_Sentence], labels: LabelSet) -> dict[str, int]:
    """Return the most frequent class of every word."""
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for one in known:
        for word, number in zip(one.words, one.classes.tolist(), strict=True):
            counts[word][number] += 1
    return {word: found.most_common(1)[0][0] for word, found in counts.items()}


def _phrases(known: Sequence[_Sentence], labels: Entities) -> tuple[dict[tuple[str, ...], str], int]:
    """Return the phrases that were entities, with their most frequent type, and the words of the longest."""
    types: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for one in known:
        nothing = np.zeros(len(one.words), dtype=bool)
        for start, end, label in labels.predicted(one.classes, nothing, None):
            types[tuple(one.words[start:end])][label] += 1
    usual = {phrase: found.most_common(1)[0][0] for phrase, found in types.items()}
    return usual, max(map(len, usual), default=0)


def _looked_up(
    words: Sequence[str], phrases: dict[tuple[str, ...], str], longest: int, labels: Entities
) -> np.ndarray:
    """Return the classes of the words: the longest known phrase from the left, then on behind it."""
    found: list[tuple[int, int, str]] = []
    place = 0
    while place < len(words):
        sizes = range(min(longest, len(words) - place), 0, -1)
        size = next((size for size in sizes if tuple(words[place : place + size]) in phrases), 0)
        if size:
            found.append((place, place + size, phrases[tuple(words[place : place + size])]))
        place += max(size, 1)
    return labels.word_classes(found, len(words), None)


def _score(
    labels: LabelSet, asked: Sequence[_Sentence], guessed: Sequence[np.ndarray], held_out: Examples, seed: int
) -> dict[str, Any]:
    assert held_out.targets is not None
    scores = labels.scores()
    predicted = [
        labels.predicted(np.maximum(ids, 0), np.zeros(len(ids), dtype=bool), one.bounds)
        for ids, one in zip(guessed, asked, strict=True)
    ]
    scores.update(predicted, list(held_out.targets))
    result = scores.result(seed=seed)
    return {name: result[name] for name in labels.metrics}
