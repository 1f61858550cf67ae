"""The best answers of every question, gathered batch by batch from windows, and what they score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.backbones.passages import PassageMap
from foretune.evaluation.answers import AnswerScores, score_answer

if TYPE_CHECKING:
    from foretune.tasks.base import Encoded, Examples

BEST = 20  # answers kept of a question, as in Devlin et al. 2019, run_squad
NULL = 0  # the place of [CLS], which stands for "no answer here"


@dataclass(frozen=True)
class Candidate:
    """An answer: characters [start, end) of the text, and the sum of its two logits."""

    score: float
    start: int
    end: int


class BestAnswers:
    """The best answers of each question over all its windows, and how much speaks for none.

    A token begins an answer only in the window that shows most around it. The score of no answer is the
    smallest of the windows' (Devlin et al. 2019, section 4.3 and run_squad).
    """

    def __init__(self, encoded: Encoded, longest: int) -> None:
        self.encoded, self.longest = encoded, longest
        self.map: PassageMap = encoded.info
        self.found: dict[int, list[Candidate]] = {}
        self.nothing = np.full(len(self.map.offsets) - 1, np.inf)

    def update(self, rows: np.ndarray, outputs: np.ndarray | Sequence[np.ndarray]) -> None:
        """Take the logits (tokens, 2) of start and end of the store's rows `rows`."""
        for row, logits in zip(rows.tolist(), outputs, strict=True):
            example = int(self.encoded.examples_of(np.array([row]))[0])
            self.nothing[example] = min(self.nothing[example], float(logits[NULL].sum()))
            kept = self.found.get(example, []) + self._of_row(row, example, logits)
            self.found[example] = sorted(kept, key=lambda one: -one.score)[:BEST]

    def _of_row(self, row: int, example: int, logits: np.ndarray) -> list[Candidate]:
        """Return the best answers of one window."""
        where = self.map
        first, shift, count = (int(each[row]) for each in (where.first, where.shift, where.count))
        begin, end = int(where.low[row]) - shift, int(where.high[row]) - shift
        starts, ends = logits[first + begin : first + end, 0], logits[first : first + count, 1]
        if not len(starts):
            return []
        places = np.arange(begin, end)[None, :] + np.arange(min(self.longest, count))[:, None]
        scores = np.where(places < count, starts[None, :] + ends[np.minimum(places, count - 1)], -np.inf)
        flat = scores.ravel()
        top = np.argpartition(-flat, min(BEST, len(flat)) - 1)[:BEST]
        found = []
        for place in top[np.isfinite(flat[top])].tolist():
            length, offset = divmod(place, end - begin)
            token = shift + begin + offset
            start, stop = where.characters(example, token, token + length)
            if start < stop:
                found.append(Candidate(float(flat[place]), start, stop))
        return found

    def best(self, example: int) -> Candidate | None:
        """Return the best answer of a question; None for a text without a token."""
        found = self.found.get(example)
        return found[0] if found else None

    def margin(self, example: int) -> float:
        """Return by how much no answer scores above the best one."""
        best = self.best(example)
        return np.inf if best is None else float(self.nothing[example]) - best.score

    def probability(self, example: int, of_none: bool) -> tuple[float, float]:
        """Return the shares of the best answer and of none in the softmax over all that were kept.

        Without `of_none` no answer is not among them.
        """
        scores = [one.score for one in self.found.get(example, [])]
        values = np.array([*scores, self.nothing[example] if of_none or not scores else -np.inf])
        shares = np.exp(values - values.max())
        shares /= shares.sum()
        return (float(shares[0]) if scores else 0.0), float(shares[-1])

    def answers(self, examples: Examples, threshold: float | None) -> list[str]:
        """Return every question's answer; empty where no answer scores more than `threshold` above it."""
        found = []
        for number, (_, text) in enumerate(examples.inputs):
            best = self.best(number)
            none = best is None or (threshold is not None and self.margin(number) > threshold)
            found.append("" if none or best is None else text[best.start : best.end])
        return found


class AnsweringScores:
    """Exact match and F1 of whole questions: all windows are gathered before anything is counted."""

    def __init__(self, examples: Examples, encoded: Encoded, longest: int, threshold: float | None) -> None:
        self.examples, self.threshold = examples, threshold
        self.found = BestAnswers(encoded, longest)

    def update(self, outputs: np.ndarray, targets: np.ndarray, rows: np.ndarray | None = None) -> None:
        """Add one batch of logits (batch, tokens, 2); the truth is taken from the examples."""
        self.found.update(np.arange(len(outputs)) if rows is None else rows, outputs)

    def point(self) -> dict[str, float]:
        """Return {metric: value}, once all rows were added."""
        return self._counted().point()

    def result(self, seed: int = 0) -> dict[str, Any]:
        """Return {metric: {"value", "low", "high"}, …} and details, once all rows were added."""
        return self._counted().result(seed=seed)

    def _counted(self) -> AnswerScores:
        scores = AnswerScores()
        scores.update(self.found.answers(self.examples, self.threshold), true_answers(self.examples))
        return scores


def true_answers(examples: Examples) -> list[list[str]]:
    """Return the texts of every question's right answers; none for a question without an answer."""
    assert examples.targets is not None
    return [[text for _, text in answers] for answers in examples.targets]


def best_threshold(found: BestAnswers, examples: Examples) -> tuple[float, float]:
    """Return the margin above which a question is left unanswered, and the F1 (0..1) that it gives.

    The best of all that tell two questions apart, halfway between them (Rajpurkar et al. 2018, evaluate-v2.0).
    """
    answers, truth = found.answers(examples, None), true_answers(examples)
    own = np.array([score_answer(*pair)[1] for pair in zip(answers, truth, strict=True)])
    empty = np.array([float(not any(text.strip() for text in known)) for known in truth])
    margins = np.array([found.margin(number) for number in range(len(answers))])
    order = np.argsort(margins, kind="stable")  # questions left of a threshold are answered
    gains = np.concatenate([[0.0], np.cumsum((own - empty)[order])])
    edges = np.concatenate([[margins[order][0] - 1], margins[order], [margins[order][-1] + 1]])
    edges = np.where(np.isfinite(edges), edges, 1e6)
    best = int(np.argmax(np.where(edges[:-1] < edges[1:], gains, -np.inf)))
    return float(edges[best : best + 2].mean()), float((empty.sum() + gains[best]) / len(own))
