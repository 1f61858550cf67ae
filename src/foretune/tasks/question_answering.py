"""Extractive question answering: the part of a text that answers a question, or that none does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.backbones.passages import PassageMap, encode_passages
from foretune.backbones.words import word_bounds
from foretune.data.columns import Columns
from foretune.data.questions import Answer, read_questions
from foretune.data.text import fold
from foretune.errors import ConfigError, DataError
from foretune.evaluation.answers import ANSWER_METRICS
from foretune.tasks.answer_baselines import baselines
from foretune.tasks.answer_outputs import NULL, AnsweringScores, BestAnswers, best_threshold
from foretune.tasks.answer_report import WorstAnswers, answers_section
from foretune.tasks.base import TASKS, Encoded, Examples, Task, TaskOptions
from foretune.tasks.inputs import columns_of, columns_state

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from foretune.backbones.base import Backbone
    from foretune.recipe import Recipe

LONGEST = 30  # tokens of an answer at least, as in Devlin et al. 2019, run_squad
MOST = 0.99  # of the training answers are no longer than an answer may be
PIECES = 1.5  # tokens to a word, on the safe side


@dataclass(frozen=True, kw_only=True)
class AnsweringOptions(TaskOptions):
    """`stride`: tokens that two windows of one text share; `longest`: tokens of an answer, 0: as in training."""

    stride: int = 128  # as in Devlin et al. 2019, run_squad
    longest: int = 0

    def __post_init__(self) -> None:
        for name, value in (("stride", self.stride), ("longest", self.longest)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise ConfigError(f"Option {name} is {value!r}; expected a whole number of 0 or more.")


@TASKS.register("question-answering")
class QuestionAnswering(Task):
    """Start and end of the answer among the tokens of a text (Devlin et al. 2019, sections 4.2 and 4.3).

    Texts are read in overlapping windows behind the question. In a window without the answer, [CLS] is the target.
    Where the training data have questions without an answer, the margin from which none is given is chosen on dev.
    """

    name = "question-answering"
    auto_class = "AutoModelForQuestionAnswering"
    metrics = ANSWER_METRICS
    default_metric = "f1"
    headline = "answer"
    example = '[("Who wrote it?", "It was written by Ann.")]'
    pools = False
    Options = AnsweringOptions

    def __init__(
        self, columns: Columns, options: AnsweringOptions, impossible: bool, threshold: float = 0.0
    ) -> None:
        self.columns, self.options = columns, options
        self.impossible, self.threshold = impossible, threshold

    @classmethod
    def from_table(cls, table: pd.DataFrame, columns: Columns, recipe: Recipe) -> QuestionAnswering:
        """Note whether there are questions without an answer. Raises DataError where no question has one."""
        answers = read_questions(table, columns, where="train").answers
        if not any(answers):
            raise DataError(
                "train: not one question has an answer, expected some to learn from. See --target."
            )
        options = cls.options_of(recipe)
        options = replace(options, longest=options.longest or _usual_length(answers))
        return cls(columns, options, not all(answers))

    def state(self) -> dict[str, Any]:
        """Return columns, options and how questions without an answer are told."""
        return {
            "columns": columns_state(self.columns), "stride": self.options.stride, "longest": self.options.longest,
            "impossible": self.impossible, "threshold": self.threshold,
        }  # fmt: skip

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> QuestionAnswering:
        """Make the task of a saved model."""
        options = AnsweringOptions(stride=state["stride"], longest=state["longest"])
        return cls(columns_of(state["columns"]), options, state["impossible"], state["threshold"])

    @property
    def margin(self) -> float | None:
        """Return the margin above which no answer is given; None where every question has one."""
        return self.threshold if self.impossible else None

    @classmethod
    def audit(cls, table: pd.DataFrame, columns: Columns, *, where: str) -> list[str]:
        """Return what is to be known of questions without answers, and of copies. Raises DataError naming rows."""
        from foretune.data.audit import _duplicate_warnings, _repeats

        data = read_questions(table, columns, where=where, need_answers=columns.target is not None)
        texts = [fold(f"{pair[0]}\n{pair[1]}") for pair in zip(data.questions, data.contexts, strict=True)]
        return [*data.notes, *_duplicate_warnings(_repeats(texts), {}, len(texts), where)]

    @classmethod
    def overlap(cls, train: pd.DataFrame, other: pd.DataFrame, columns: Columns, where: str) -> list[str]:
        """Return a warning about questions of `other` on texts that `train` has too."""
        from foretune.data.audit import overlap

        assert columns.second is not None
        return overlap(train, other, columns.second, where)

    def examples(self, table: pd.DataFrame, *, where: str, need_targets: bool = True) -> Examples:
        """Read questions and texts and, where needed, the answers as (start, text)."""
        data = read_questions(table, self.columns, where=where, need_answers=need_targets)
        pairs = list(zip(data.questions, data.contexts, strict=True))
        targets = None
        if need_targets:
            targets = np.empty(len(pairs), dtype=object)
            for number, answers in enumerate(data.answers):
                targets[number] = answers
        return Examples(pairs, targets, np.arange(1, len(table) + 1))

    def from_inputs(self, inputs: Any) -> Examples:
        """Return one (question, text) or several, also as {"question", "context"}. Raises DataError."""
        whole = isinstance(inputs, str | dict) or hasattr(inputs, "columns")
        items = [inputs] if whole else list(inputs)
        if len(items) == 2 and all(isinstance(part, str) for part in items):
            items = [tuple(items)]
        pairs = [_pair(item, row) for row, item in enumerate(items, start=1)]
        return Examples(pairs, None, np.arange(1, len(pairs) + 1))

    def probes(self) -> Examples:
        """Return two questions."""
        return self.from_inputs([("what is it ?", "it is a short text"), ("这是什么？", "这是一段短文本。")])

    def groups(self, examples: Examples) -> list[str]:
        """Return the texts: questions on one text stay on one side of a split."""
        return [text for _, text in examples.inputs]

    def identities(self, examples: Examples) -> list[str]:
        """Return questions with their texts."""
        return ["\n".join(pair) for pair in examples.inputs]

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
        """Return windows, and for each the first and last token of the answer, (rows, 2)."""
        store, owner, where = encode_passages(backbone, examples.inputs, max_length, self.options.stride)
        if examples.targets is None:
            return Encoded(store, None, owner, where)
        return Encoded(store, _places(examples.targets.tolist(), owner, where), owner, where)

    def model_options(self) -> dict[str, Any]:
        """Return the head's two outputs: start and end."""
        return {"num_labels": 2}

    def normaliser(self, targets: np.ndarray) -> float:
        """Return the number of windows."""
        return float(len(targets))

    def loss(self, outputs: Tensor, targets: Tensor, batch: dict[str, Tensor] | None = None) -> Tensor:
        """Return the summed mean of the cross-entropies of start and end; logits (batch, tokens, 2)."""
        import torch

        logits = _without_padding(outputs, batch)
        pairs = zip(logits.unbind(-1), targets.unbind(-1), strict=True)
        losses = [torch.nn.functional.cross_entropy(*pair, reduction="sum") for pair in pairs]
        return torch.stack(losses).mean()

    def activate(self, outputs: Tensor, batch: dict[str, Tensor] | None = None) -> Tensor:
        """Return the logits (batch, tokens, 2) of start and end."""
        return _without_padding(outputs, batch)

    def decode(
        self, outputs: Sequence[np.ndarray], examples: Examples, encoded: Encoded
    ) -> list[dict[str, Any]]:
        """Return answer, score (0..1) and characters of every question; no answer is empty, its characters None."""
        found = self._best(outputs, encoded)
        answers = found.answers(examples, self.margin)
        made = []
        for number, answer in enumerate(answers):
            best, (score, none) = found.best(number), found.probability(number, self.impossible)
            start, end = (best.start, best.end) if best and answer else (None, None)
            made.append({"answer": answer, "score": score if answer else none, "start": start, "end": end})
        return made

    def _best(self, outputs: Sequence[np.ndarray], encoded: Encoded) -> BestAnswers:
        found = BestAnswers(encoded, self.options.longest)
        found.update(np.arange(len(outputs)), outputs)
        return found

    def scores(self, examples: Examples, encoded: Encoded) -> AnsweringScores:
        """Return an empty accumulator."""
        return AnsweringScores(examples, encoded, self.options.longest, self.margin)

    @property
    def tunes(self) -> bool:
        """Return whether there are questions without an answer."""
        return self.impossible

    def tune(self, outputs: Sequence[np.ndarray], examples: Examples, encoded: Encoded) -> list[str]:
        """Choose the margin above which no answer is given, by the F1 on the dev set."""
        self.threshold, f1 = best_threshold(self._best(outputs, encoded), examples)
        return [
            f"No answer is given where it scores {self.threshold:.2f} above the best one: the best F1 on dev, {f1:.1%}."
        ]

    def worst(self, examples: Examples, encoded: Encoded, k: int) -> WorstAnswers:
        """Return a keeper of the questions answered worst."""
        return WorstAnswers(examples, BestAnswers(encoded, self.options.longest), self.margin, k)

    def sections(self, result: dict[str, Any], worst: list[dict[str, Any]]) -> list[str]:
        """Return the questions answered worst, with what their texts say."""
        return answers_section(worst)

    def baselines(self, train: Examples, held_out: Examples, seed: int) -> dict[str, Any]:
        """Return the scores of a sliding window over the words and, where some are unanswerable, of no answers."""
        return baselines(train, held_out, seed)


def _pair(item: Any, row: int) -> tuple[str, str]:
    """Return (question, text). Raises DataError for anything else, and for blank texts."""
    parts: Any = (item.get("question"), item.get("context")) if isinstance(item, dict) else item
    fits = (
        isinstance(parts, list | tuple) and len(parts) == 2 and all(isinstance(part, str) for part in parts)
    )
    if not fits or not all(part.strip() for part in parts):
        raise DataError(
            f"data: input {row} is {repr(item)[:80]}, expected (question, text) or "
            '{"question": …, "context": …}, neither of them blank.'
        )
    return str(parts[0]), str(parts[1])


def _usual_length(answers: Sequence[Sequence[Answer]]) -> int:
    """Return how many tokens an answer may have: those of nearly all in the training data, 30 at least."""
    words = [len(word_bounds(text)) for found in answers for _, text in found[:1]]
    return max(int(PIECES * np.quantile(words, MOST)), LONGEST)


def _places(answers: Sequence[Any], owner: np.ndarray, where: PassageMap) -> np.ndarray:
    """Return the places of the first answer's first and last token in every row, (rows, 2); [CLS] where not whole."""
    known = [
        where.tokens(number, found[0][0], found[0][0] + len(found[0][1])) if found else None
        for number, found in enumerate(answers)
    ]
    places = np.full((len(owner), 2), NULL, dtype=np.int64)
    for row, example in enumerate(owner.tolist()):
        tokens, shift = known[example], int(where.shift[row])
        if tokens and shift <= tokens[0] and tokens[1] < shift + int(where.count[row]):
            places[row] = [token - shift + int(where.first[row]) for token in tokens]
    return places


def _without_padding(outputs: Tensor, batch: dict[str, Tensor] | None) -> Tensor:
    """Return logits (batch, tokens, 2) that are very low at padding."""
    mask = None if batch is None else batch.get("attention_mask")
    return outputs if mask is None else outputs.masked_fill(mask[..., None] == 0, -1e4)
