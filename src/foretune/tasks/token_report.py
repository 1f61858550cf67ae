"""The part of the report that is about token labelling: scores by type, and the sentences with most errors."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.backbones.words import WordMap, joined
from foretune.evaluation.svg import escape
from foretune.tasks.token_outputs import WordTags, predictions

if TYPE_CHECKING:
    from foretune.tasks.base import Examples
    from foretune.tasks.token_labels import LabelSet

MOST_CHARACTERS = 600  # shown of a sentence, beginning shortly before its first error
BEFORE = 120


class WorstSentences:
    """The sentences with most errors, with what is true and what was predicted in characters of their text."""

    def __init__(self, labels: LabelSet, examples: Examples, words: WordMap, k: int) -> None:
        self.labels, self.examples, self.k = labels, examples, k
        self.found = WordTags(words, labels.fallback)

    def update(self, rows: np.ndarray, outputs: np.ndarray, targets: np.ndarray) -> None:
        """Take one batch of outputs (batch, tokens, 2)."""
        self.found.update(rows, outputs)

    def top(self) -> list[dict[str, Any]]:
        """Return row, text, `true` and `predicted` marks [start, end, label], and errors; most errors first."""
        targets = self.examples.targets
        assert targets is not None
        made = predictions(self.labels, self.found, self.examples)
        errors = [self.labels.errors(*pair) for pair in zip(made, targets, strict=True)]
        worst = heapq.nsmallest(self.k, range(len(errors)), key=lambda number: (-errors[number], number))
        return [self._shown(number, made[number], errors[number]) for number in worst if errors[number]]

    def _shown(self, number: int, predicted: Any, errors: int) -> dict[str, Any]:
        each, true = self.examples.inputs[number], self.examples.targets[number]  # type: ignore[index]
        text, bounds = (each, None) if isinstance(each, str) else joined(each)
        if self.labels.kind == "tags":
            names = self.labels.names
            wrong = [i for i, (a, b) in enumerate(zip(true, predicted, strict=True)) if a != b]
            true, predicted = ([(i, i + 1, names[tags[i]]) for i in wrong] for tags in (true, predicted))
        marks = {"true": _in_characters(true, bounds), "predicted": _in_characters(predicted, bounds)}
        return {"row": int(self.examples.rows[number]), "text": text, **marks, "errors": errors}


def _in_characters(spans: Sequence[Any], bounds: np.ndarray | None) -> list[list[Any]]:
    """Return [start, end, label] in characters; `bounds` of the words where spans count words."""
    if bounds is None:
        return [list(span) for span in spans]
    return [[int(bounds[start, 0]), int(bounds[end - 1, 1]), label] for start, end, label in spans]


def sentences_section(result: dict[str, Any], worst: Sequence[dict[str, Any]]) -> list[str]:
    """Return the HTML of the table of types, where there are entities, and of the worst sentences."""
    sections = [_types(result["per_type"])] if result.get("per_type") else []
    if worst:
        head = '<tr><th class="n">row</th><th></th><th>sentence</th></tr>'
        rows = "".join(map(_rows, worst))
        sections.append(
            "<section><h2>Sentences with most errors</h2>"
            '<p class="soft">Underlined is what is right, in bold what one has and the other has not.</p>'
            f'<div class="scroll"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div></section>'
        )
    return sections


def _types(per_type: Sequence[dict[str, Any]]) -> str:
    def cells(row: dict[str, Any]) -> str:
        f1 = row["f1"]
        span = f'<span class="soft">({100 * f1["low"]:.1f} to {100 * f1["high"]:.1f})</span>'
        shares = "".join(f'<td class="n">{100 * row[name]:.1f}</td>' for name in ("precision", "recall"))
        return (
            f'<tr><td class="name">{escape(row["label"])}</td>{shares}'
            f'<td class="n">{100 * f1["value"]:.1f} {span}</td><td class="n">{row["support"]:,}</td></tr>'
        )

    head = '<th>type</th><th class="n">precision</th><th class="n">recall</th><th class="n">F1</th><th class="n">n</th>'
    body = "".join(map(cells, per_type))
    return (
        "<section><h2>By type, %</h2>"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        '<p class="soft">An entity is right where its start, end and type are. In brackets: 95 % intervals.</p>'
        "</section>"
    )


def _rows(item: dict[str, Any]) -> str:
    """Return two lines of the table: the sentence with its true marks, and with those predicted."""
    true, predicted = ({tuple(mark) for mark in item[name]} for name in ("true", "predicted"))
    places = [mark[0] for mark in true ^ predicted]
    begin = max(min(places, default=0) - BEFORE, 0)
    lines = ((item["row"], "true", true), ("", "predicted", predicted))
    return "".join(
        f'<tr><td class="n">{number}</td><td class="soft">{name}</td>'
        f'<td class="text" dir="auto">{marked(item["text"], sorted(own), true & predicted, begin)}</td></tr>'
        for number, name, own in lines
    )


def marked(
    text: str, marks: Sequence[tuple[int, int, str]], right: set[tuple[int, int, str]], begin: int
) -> str:
    """Return part of a text from `begin` as HTML with its marks: `<u>` where in `right`, else `<b>`, then the label."""
    stop, place, parts = begin + MOST_CHARACTERS, begin, ["… " if begin else ""]
    for start, end, label in marks:
        if start < place or end > stop:  # one inside another, or cut off
            continue
        tag = "u" if (start, end, label) in right else "b"
        inner = f"<{tag}>{escape(text[start:end])}</{tag}>"
        parts += [escape(text[place:start]), inner, f'<sub class="soft">{escape(label)}</sub>']
        place = end
    return "".join([*parts, escape(text[place:stop]), " …" if stop < len(text) else ""])
