"""Token labelling: entities in texts (NER, slots), or a tag for every word (parts of speech)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.backbones.words import encode_words, joined, word_bounds
from foretune.data.cells import as_texts, is_list
from foretune.data.columns import Columns
from foretune.data.tagged import Tagged, read_tagged, tagged_warnings
from foretune.data.text import counted, listed, row_list
from foretune.errors import ConfigError
from foretune.evaluation.entities import ENTITY_METRICS
from foretune.tasks.base import TASKS, Encoded, Examples, Task, TaskOptions
from foretune.tasks.inputs import columns_of, columns_state
from foretune.tasks.token_baselines import baselines
from foretune.tasks.token_labels import LabelSet, entity_spans, labels_from_state, learn_labels
from foretune.tasks.token_outputs import IGNORED, LabellingScores, WordTags, token_targets, words_of
from foretune.tasks.token_report import WorstSentences, sentences_section

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from foretune.backbones.base import Backbone
    from foretune.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class LabellingOptions(TaskOptions):
    """`labels`: what tags mean: "entities" of one or more words, "tags" of single words, or "auto" (as they look)."""

    labels: str = "auto"

    def __post_init__(self) -> None:
        if self.labels not in ("auto", "entities", "tags"):
            raise ConfigError(f"Option labels is {self.labels!r}; expected entities, tags or auto.")


@TASKS.register("token-labelling")
class TokenLabelling(Task):
    """Cross-entropy at the first token of every word (Devlin et al. 2019, section 5.3).

    An example is a list of words, or a text, whose words are found here. Long ones are read in overlapping
    windows, and each word is learnt and predicted in the window that shows most around it: nothing is cut.
    """

    name = "token-labelling"
    auto_class = "AutoModelForTokenClassification"
    metrics = ENTITY_METRICS
    default_metric = "f1"
    headline = "entities"
    pipeline = "token-classification"
    pools = False
    reads_words = True
    # F1 of 700 sentences of CoNLL-2003 on MiniLM, five epochs, by the rate: 1.5e-4 74.6, 3e-4 79.0, 6e-4 78.2.
    rate_factor = 2.0
    Options = LabellingOptions

    def __init__(self, label_set: LabelSet, columns: Columns) -> None:
        self.label_set, self.columns = label_set, columns
        self.metrics = label_set.metrics  # type: ignore[misc]
        self.default_metric = label_set.default_metric  # type: ignore[misc]
        self.headline = label_set.headline  # type: ignore[misc]

    @classmethod
    def from_table(cls, table: pd.DataFrame, columns: Columns, recipe: Recipe) -> TokenLabelling:
        """Learn the labels of the training table."""
        data = read_tagged(table, columns, where="train")
        return cls(learn_labels(data, cls.options_of(recipe).labels, "train"), columns)

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the types of entities, or the tags, in alphabetical order."""
        return self.label_set.shown

    def state(self) -> dict[str, Any]:
        """Return labels and columns."""
        return {**self.label_set.state(), "columns": columns_state(self.columns)}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> TokenLabelling:
        """Make the task of a saved model."""
        return cls(labels_from_state(state), columns_of(state["columns"]))

    @classmethod
    def audit(cls, table: pd.DataFrame, columns: Columns, *, where: str) -> list[str]:
        """Return warnings: repeated sentences, odd spans. Raises DataError for tags that do not fit words."""
        data = read_tagged(table, columns, where=where)
        return [*tagged_warnings(data, where), *_within_words(data, where)]

    @classmethod
    def overlap(cls, train: pd.DataFrame, other: pd.DataFrame, columns: Columns, where: str) -> list[str]:
        """Return warnings about sentences of `train` in `other`, and about entities of types that `train` lacks."""
        from foretune.data.audit import overlap

        name = columns.text
        own, others = (table.assign(**{name: as_texts(table[name].tolist())}) for table in (train, other))
        return overlap(own, others, name, where) + _unseen(train, other, columns, where)

    def examples(self, table: pd.DataFrame, *, where: str, need_targets: bool = True) -> Examples:
        """Read sentences and, where needed, entities or tags."""
        columns = self.columns if need_targets else Columns(self.columns.text, None, "")
        data = read_tagged(table, columns, where=where)
        targets = _objects(self.label_set.targets(data, where)) if need_targets else None
        return Examples(data.inputs, targets, np.arange(1, len(table) + 1))

    def from_inputs(self, inputs: Any) -> Examples:
        """Return one text, several, or several lists of words. Raises DataError naming what does not fit."""
        from foretune.data.audit import as_texts as checked_texts
        from foretune.data.tokens import check_tokens

        items = inputs if isinstance(inputs, str) or hasattr(inputs, "columns") else list(inputs)
        if isinstance(items, list) and any(is_list(item) for item in items):
            check_tokens(items, None, "data")
            items = [list(item) for item in items]
        else:
            items = checked_texts(items)
        return Examples(items, None, np.arange(1, len(items) + 1))

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
        """Return windows of tokens; `info` says where each word stands in them. Nothing is cut."""
        pairs = [_text_and_words(each) for each in examples.inputs]
        texts, bounds = [text for text, _ in pairs], [words for _, words in pairs]
        store, owner, words = encode_words(backbone, texts, bounds, max_length)
        if examples.targets is None:
            return Encoded(store, None, owner, words)
        own = [
            found if isinstance(each, str) else None
            for each, found in zip(examples.inputs, bounds, strict=True)
        ]
        rows = zip(examples.targets, bounds, own, strict=True)
        classes = [self.label_set.word_classes(target, len(found), place) for target, found, place in rows]
        targets = token_targets(store, words, np.concatenate([*classes, np.zeros(0, np.int32)]))
        return Encoded(store, targets, owner, words)

    def model_options(self) -> dict[str, Any]:
        """Return the names of the classes for `id2label` and `label2id`."""
        names = self.label_set.names
        return {
            "num_labels": len(names),
            "id2label": dict(enumerate(names)),
            "label2id": {name: number for number, name in enumerate(names)},
        }

    def normaliser(self, targets: np.ndarray) -> float:
        """Return the number of words in `targets` (batch, tokens)."""
        return float(max(int(np.count_nonzero(targets != IGNORED)), 1))

    def loss(self, outputs: Tensor, targets: Tensor, batch: dict[str, Tensor] | None = None) -> Tensor:
        """Return the summed cross-entropy of logits (batch, tokens, classes) at the words."""
        import torch

        logits, wanted = outputs.flatten(0, 1), targets.flatten()
        return torch.nn.functional.cross_entropy(logits, wanted, ignore_index=IGNORED, reduction="sum")

    def activate(self, outputs: Tensor, batch: dict[str, Tensor] | None = None) -> Tensor:
        """Return the best class of every token and its probability, (batch, tokens, 2)."""
        import torch

        probability, best = outputs.softmax(dim=-1).max(dim=-1)
        return torch.stack([best.to(probability.dtype), probability], dim=-1)

    def comparable(self, outputs: np.ndarray) -> np.ndarray:
        """Return the probabilities of the best classes, (tokens,)."""
        return outputs[:, 1]

    def decode(
        self, outputs: Sequence[np.ndarray], examples: Examples, encoded: Encoded
    ) -> list[dict[str, Any]]:
        """Return entities with offsets, or words with their tags, for every example."""
        found = WordTags(encoded.info, self.label_set.fallback)
        found.update(np.arange(len(outputs)), outputs)
        made = []
        for number, each in enumerate(examples.inputs):
            text = each if isinstance(each, str) else joined(each)[0]
            made.append(self.label_set.decode(text, words_of(found, number), not isinstance(each, str)))
        return made

    def scores(self, examples: Examples, encoded: Encoded) -> LabellingScores:
        """Return an empty accumulator."""
        return LabellingScores(self.label_set, examples, encoded.info)

    def worst(self, examples: Examples, encoded: Encoded, k: int) -> WorstSentences:
        """Return a keeper of the sentences with most errors."""
        return WorstSentences(self.label_set, examples, encoded.info, k)

    def sections(self, result: dict[str, Any], worst: list[dict[str, Any]]) -> list[str]:
        """Return the table of types and the sentences with most errors."""
        return sentences_section(result, worst)

    def baselines(self, train: Examples, held_out: Examples, seed: int) -> dict[str, Any]:
        """Return the scores of one tag for all, of each word's usual tag, and of the entities seen in training."""
        return baselines(self.label_set, train, held_out, seed)


def _text_and_words(each: Any) -> tuple[str, np.ndarray]:
    return (each, word_bounds(each)) if isinstance(each, str) else joined(each)


def _objects(values: Sequence[Any]) -> np.ndarray:
    """Return an array (n,) of objects, also where all have one length."""
    array = np.empty(len(values), dtype=object)
    for number, value in enumerate(values):
        array[number] = value
    return array


def _within_words(data: Tagged, where: str) -> list[str]:
    """Return a warning about entities that begin or end within a word: they cannot be found exactly."""
    rows = [
        row
        for row, found in enumerate(zip(data.inputs, data.spans or [], strict=False))
        if _is_within(*found)
    ]
    if not rows:
        return []
    return [
        f"{where}: {counted(len(rows), 'row')} with entities that begin or end within a word ({row_list(rows)}); the "
        "whole word is learnt, and these count as missed; fix: correct the offsets, if they are off"
    ]


def _is_within(text: str, spans: Sequence[tuple[int, int, str]]) -> bool:
    bounds = word_bounds(text)
    starts, ends = set(bounds[:, 0].tolist()), set(bounds[:, 1].tolist())
    return any(start not in starts or end not in ends for start, end, _ in spans)


def _unseen(train: pd.DataFrame, other: pd.DataFrame, columns: Columns, where: str) -> list[str]:
    """Return a warning about entities of types that the training data lack: none of them can be found."""
    known, there = (
        read_tagged(table, columns, where=name) for table, name in ((train, "train"), (other, where))
    )
    if known.spans is None and learn_labels(known, "auto", "train").kind != "entities":
        return []
    types = {label for spans in entity_spans(known, "train") for *_, label in spans}
    missed = [label for spans in entity_spans(there, where) for *_, label in spans if label not in types]
    if not missed:
        return []
    names = listed(sorted(set(missed)))
    return [
        f"{where}: {counted(len(missed), 'entity', 'entities')} of types that the training data lack ({names}) "
        "count as missed; fix: add examples of them to train"
    ]
