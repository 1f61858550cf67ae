"""The part of the report that is about question answering: the questions answered worst, in their texts."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.evaluation.answers import score_answer
from foretune.evaluation.svg import escape
from foretune.tasks.answer_outputs import BestAnswers, true_answers

if TYPE_CHECKING:
    from foretune.tasks.base import Examples

AROUND = 120  # characters shown on each side of what is marked


class WorstAnswers:
    """The questions with the lowest F1, of equals the surest first."""

    def __init__(self, examples: Examples, found: BestAnswers, margin: float | None, k: int) -> None:
        self.examples, self.found, self.threshold, self.k = examples, found, margin, k

    def update(self, rows: np.ndarray, outputs: np.ndarray, targets: np.ndarray) -> None:
        """Take one batch of logits (batch, tokens, 2)."""
        self.found.update(rows, outputs)

    def top(self) -> list[dict[str, Any]]:
        """Return row, question, context around the places, true answers, answer, F1 and score of each."""
        answers, truth = self.found.answers(self.examples, self.threshold), true_answers(self.examples)
        f1 = [score_answer(*pair)[1] for pair in zip(answers, truth, strict=True)]
        sure = [self._score(number, answer) for number, answer in enumerate(answers)]
        wrong = [number for number, value in enumerate(f1) if value < 1]
        worst = heapq.nsmallest(self.k, wrong, key=lambda number: (f1[number], -sure[number], number))
        return [self._shown(number, answers[number], f1[number], sure[number]) for number in worst]

    def _score(self, number: int, answer: str) -> float:
        best, none = self.found.probability(number, self.threshold is not None)
        return best if answer else none

    def _shown(self, number: int, answer: str, f1: float, sure: float) -> dict[str, Any]:
        question, text = self.examples.inputs[number]
        assert self.examples.targets is not None
        true = [[start, start + len(known)] for start, known in self.examples.targets[number][:1]]
        best = self.found.best(number)
        given = [[best.start, best.end]] if best and answer else []
        marks = {"true": true, "given": given}
        known = list(dict.fromkeys(known for _, known in self.examples.targets[number]))
        row = int(self.examples.rows[number])
        return {
            "row": row, "question": question, "answer": answer, "answers": known, "f1": f1, "score": sure,
            "excerpt": excerpt(text, [tuple(mark) for mark in true + given]), "marks": marks,
        }  # fmt: skip


def excerpt(text: str, marks: Sequence[tuple[int, ...]]) -> str:
    """Return the parts of a text around the marks, with " … " where something is left out."""
    parts: list[tuple[int, int]] = []
    for start, end in sorted(marks) or [(0, 0)]:
        low, high = max(start - AROUND, 0), min(end + AROUND, len(text))
        if parts and low <= parts[-1][1]:
            parts[-1] = (parts[-1][0], max(high, parts[-1][1]))
        else:
            parts.append((low, high))
    inner = " … ".join(text[low:high] for low, high in parts)
    return f"{'… ' if parts[0][0] else ''}{inner}{' …' if parts[-1][1] < len(text) else ''}"


def answers_section(worst: Sequence[dict[str, Any]]) -> list[str]:
    """Return the HTML of the questions answered worst; nothing where all are right."""
    if not worst:
        return []
    names = ("row", "question", "right", "answer", "F1", "score", "text")
    head = "".join(f"<th>{name}</th>" for name in names)
    return [
        "<section><h2>Questions answered worst</h2>"
        '<p class="soft">Of equal F1 the surest first: where the model is sure and wrong, the answer in the data may '
        'be wrong.</p><div class="scroll"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(map(_row, worst))}</tbody></table></div></section>"
    ]


def _row(item: dict[str, Any]) -> str:
    right = " / ".join(item["answers"]) or "no answer"
    cells = [item["question"], right, item["answer"] or "no answer"]
    texts = "".join(f'<td class="name" dir="auto">{escape(cell)}</td>' for cell in cells)
    numbers = f'<td class="n">{100 * item["f1"]:.0f}</td><td class="n">{100 * item["score"]:.0f} %</td>'
    text = f'<td class="text" dir="auto">{escape(item["excerpt"])}</td>'
    return f'<tr><td class="n">{item["row"]}</td>{texts}{numbers}{text}</tr>'
