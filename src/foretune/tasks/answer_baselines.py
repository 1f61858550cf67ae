"""What question answering scores without a model: words of the question in a sliding window, or no answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.backbones.words import word_bounds
from foretune.evaluation.answers import ANSWER_METRICS, AnswerScores
from foretune.tasks.answer_outputs import true_answers

if TYPE_CHECKING:
    from foretune.tasks.base import Examples

REACH = 10  # words on each side of an answer in which words of the question count


def baselines(train: Examples, held_out: Examples, seed: int) -> dict[str, Any]:
    """Return {name: {metric: {"value", "low", "high"}}}.

    `sliding_window`: the run of words around which most of the question's words stand (after Richardson et al.
    2013, MCTest, section 4.1). `no_answer`, where some questions have none: always the empty answer.
    """
    assert train.targets is not None
    lengths = [len(word_bounds(text)) for answers in train.targets for _, text in answers[:1]]
    usual = max(round(float(np.median(lengths or [1]))), 1)
    truth = true_answers(held_out)
    found = {"sliding_window": [slide(question, text, usual) for question, text in held_out.inputs]}
    if not all(truth):
        found["no_answer"] = [""] * len(truth)
    return {name: _score(answers, truth, seed) for name, answers in found.items()}


def slide(question: str, text: str, length: int) -> str:
    """Return the run of at most `length` words, none of the question, around which most of the question stands.

    A word of the question counts log(1 + 1 / c), c its number in the text, once, and less the further away it
    is. Runs end at marks and at words of the question.
    """
    bounds = word_bounds(text)
    words = [text[start:end].casefold() for start, end in bounds.tolist()]
    asked = {question[start:end].casefold() for start, end in word_bounds(question).tolist()}
    counts = Counter(words)
    weight = {word: float(np.log1p(1 / counts[word])) for word in asked & set(counts) if word.isalnum()}
    free = np.array([word.isalnum() and word not in asked for word in words], dtype=bool)
    if not free.any():
        return ""
    near = _nearness(words, weight)
    best, place = float("-inf"), (0, 0)
    for start, stop in _runs(free):
        for first in range(start, max(stop - length, start) + 1):
            last = min(first + length, stop)
            score = float(near[first:last].sum())
            if score > best:
                best, place = score, (first, last)
    return text[bounds[place[0], 0] : bounds[place[1] - 1, 1]]


def _nearness(words: Sequence[str], weight: dict[str, float]) -> np.ndarray:
    """Return for every place the summed weights of the question's words nearby, each once, by distance."""
    near = np.zeros(len(words))
    for word, value in weight.items():
        own = np.zeros(len(words))
        for place in (i for i, other in enumerate(words) if other == word):
            low, high = max(place - REACH, 0), place + REACH + 1
            distance = np.abs(np.arange(low, min(high, len(words))) - place)
            own[low:high] = np.maximum(own[low:high], value * (1 - distance / (REACH + 1)))
        near += own
    return near


def _runs(free: np.ndarray) -> list[tuple[int, int]]:
    """Return where runs of true values begin and end."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], free, [False]]).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def _score(answers: Sequence[str], truth: Sequence[Sequence[str]], seed: int) -> dict[str, Any]:
    scores = AnswerScores()
    scores.update(answers, truth)
    result = scores.result(seed=seed)
    return {name: result[name] for name in ANSWER_METRICS}
