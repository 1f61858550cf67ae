"""What the tags of words mean: entities of several words, or one tag for every word."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from foretune.data.spans import without_overlaps
from foretune.data.text import listed, row_list
from foretune.errors import DataError, did_you_mean
from foretune.evaluation.entities import ENTITY_METRICS, TAG_METRICS, EntityScores, TagScores
from foretune.evaluation.tags import Scheme, Span, scheme_of_tags, spans_of_tags

if TYPE_CHECKING:
    from foretune.data.tagged import Tagged
    from foretune.tasks.token_outputs import WordSlice

OUTSIDE = "O"
UNLEARNT = -1  # the class of a word whose label the training data do not have


class LabelSet(Protocol):
    """The meaning of the classes that the head tells apart.

    Targets are what an example is scored against. Those of a text count characters, those of a list of words
    count words; `bounds` (words, 2) are the characters of a text's words and None for a list.
    """

    kind: str
    names: tuple[str, ...]  # of the head's classes
    shown: tuple[str, ...]  # of the labels, as people know them
    metrics: dict[str, bool]
    default_metric: str
    headline: str
    fallback: int  # the class of a word of which nothing is known

    def state(self) -> dict[str, Any]:
        """Return what `labels_from_state` needs."""

    def targets(self, data: Tagged, where: str) -> list[Any]:
        """Return one target per input. Raises DataError for tags that do not fit."""

    def word_classes(self, target: Any, words: int, bounds: np.ndarray | None) -> np.ndarray:
        """Return the class of every word, (words,)."""

    def predicted(self, ids: np.ndarray, shared: np.ndarray, bounds: np.ndarray | None) -> Any:
        """Return the target that the classes (words,) say; `shared`: words whose token is the one before's."""

    def scores(self) -> Any:
        """Return an empty accumulator over sentences: `update(predicted, true)`."""

    def decode(self, text: str, words: WordSlice, in_words: bool) -> dict[str, Any]:
        """Return the prediction of one example for people."""

    def errors(self, predicted: Any, true: Any) -> int:
        """Return the number of errors in one example."""


class Entities:
    """Labelled spans of words; the head's classes are their tags in BIO2 (Tjong Kim Sang and Veenstra 1999)."""

    kind = "entities"
    metrics = ENTITY_METRICS
    default_metric = "f1"
    headline = "entities"
    fallback = 0

    def __init__(self, types: Sequence[str]) -> None:
        self.shown = tuple(types)
        self.names = (OUTSIDE, *(f"{prefix}-{label}" for label in self.shown for prefix in "BI"))
        self._classes = {label: 1 + 2 * number for number, label in enumerate(self.shown)}

    @classmethod
    def learnt(cls, data: Tagged, where: str) -> Entities:
        """Take the types that occur, in alphabetical order. Raises DataError where there is none."""
        types = {label for spans in entity_spans(data, where) for *_, label in spans}
        if not types:
            raise DataError(
                f"{where}: not one entity, expected some to learn from. Name the column of tags or spans with --target."
            )
        return cls(sorted(types))

    def state(self) -> dict[str, Any]:
        """Return the kind and the types."""
        return {"kind": self.kind, "types": list(self.shown)}

    def targets(self, data: Tagged, where: str) -> list[Any]:
        """Return the spans of every input."""
        return entity_spans(data, where)

    def word_classes(self, target: Sequence[Span], words: int, bounds: np.ndarray | None) -> np.ndarray:
        """Return B- for an entity's first word and I- for the rest; of entities that overlap the longest."""
        classes = np.zeros(words, dtype=np.int32)
        for start, end, label in without_overlaps(target):
            if bounds is not None:  # every word that the characters touch
                start = int(np.searchsorted(bounds[:, 1], start, side="right"))
                end = int(np.searchsorted(bounds[:, 0], end, side="left"))
            first = self._classes.get(label, UNLEARNT)
            classes[start:end] = first if first == UNLEARNT else first + 1
            classes[start : min(start + 1, end)] = first
        return classes

    def predicted(self, ids: np.ndarray, shared: np.ndarray, bounds: np.ndarray | None) -> list[Span]:
        """Return the spans, malformed ones repaired as by conlleval: I- without a beginning begins an entity."""
        if not ids.any():
            return []
        tags = [self.names[number] for number in ids]
        for place in np.flatnonzero(shared):  # the rest of a token cannot begin another entity
            tags[place] = re.sub("^B-", "I-", tags[place])
        spans = spans_of_tags(tags, "BIO")
        if bounds is None:
            return spans
        return [(int(bounds[start, 0]), int(bounds[end - 1, 1]), label) for start, end, label in spans]

    def scores(self) -> EntityScores:
        """Return an empty accumulator."""
        return EntityScores()

    def decode(self, text: str, words: WordSlice, in_words: bool) -> dict[str, Any]:
        """Return `entities`, in order; for a list of words also the `text` that their characters count in."""
        found = []
        for first, last, label in self.predicted(words.ids, words.shared, None):
            start, end = int(words.bounds[first, 0]), int(words.bounds[last - 1, 1])
            place = {"first_word": first, "end_word": last} if in_words else {}
            probability = float(words.probabilities[first:last].mean())
            entity = {"start": start, "end": end, "label": label, "text": text[start:end], **place}
            found.append({**entity, "probability": probability})
        return {"entities": found, "text": text} if in_words else {"entities": found}

    def errors(self, predicted: Sequence[Span], true: Sequence[Span]) -> int:
        """Return the number of entities that are missed or wrong."""
        return len(set(map(tuple, predicted)) ^ set(map(tuple, true)))


class Tags:
    """One tag for every word, such as its part of speech."""

    kind = "tags"
    metrics = TAG_METRICS
    default_metric = "accuracy"
    headline = "tags"

    def __init__(self, names: Sequence[str], fallback: int) -> None:
        self.names = self.shown = tuple(names)
        self.fallback = fallback
        self._classes = {name: number for number, name in enumerate(self.names)}

    @classmethod
    def learnt(cls, data: Tagged) -> Tags:
        """Take the tags that occur, in alphabetical order; the most frequent one is the fallback."""
        counts = Counter(tag for row in data.tags or [] for tag in row)
        names = sorted(counts)
        return cls(names, max(range(len(names)), key=lambda number: counts[names[number]]))

    def state(self) -> dict[str, Any]:
        """Return the kind, the tags and the fallback."""
        return {"kind": self.kind, "names": list(self.names), "fallback": self.fallback}

    def targets(self, data: Tagged, where: str) -> list[Any]:
        """Return the class numbers of every sentence's words."""
        if data.tags is None:
            raise DataError(
                f"{where}: texts with spans, expected lists of words with a tag for each, as in the training data."
            )
        unknown = {tag: row for row, tags in reversed(list(enumerate(data.tags))) for tag in tags}
        unknown = {tag: row for tag, row in unknown.items() if tag not in self._classes}
        if unknown:
            tag, row = min(unknown.items(), key=lambda item: item[1])
            raise DataError(
                f"{where}: tags that the training data do not have: {listed(sorted(unknown))} (first in row {row + 1})."
                f"{did_you_mean(tag, self.names)} Known: {listed(self.names, 20)}. Correct them, or train with them."
            )
        return [[self._classes[tag] for tag in tags] for tags in data.tags]

    def word_classes(self, target: Sequence[int], words: int, bounds: np.ndarray | None) -> np.ndarray:
        """Return the target itself."""
        return np.asarray(target, dtype=np.int32)

    def predicted(self, ids: np.ndarray, shared: np.ndarray, bounds: np.ndarray | None) -> list[int]:
        """Return the classes themselves."""
        return [int(number) for number in ids]

    def scores(self) -> TagScores:
        """Return an empty accumulator."""
        return TagScores(len(self.names))

    def decode(self, text: str, words: WordSlice, in_words: bool) -> dict[str, Any]:
        """Return `tags`, `words` and `probabilities`, for a text also the words' `offsets` in characters."""
        bounds = words.bounds.tolist()
        found = {
            "tags": [self.names[number] for number in words.ids],
            "words": [text[start:end] for start, end in bounds],
            "probabilities": [float(value) for value in words.probabilities],
        }
        return found if in_words else {**found, "offsets": bounds}

    def errors(self, predicted: Sequence[int], true: Sequence[int]) -> int:
        """Return the number of words with another tag."""
        return sum(a != b for a, b in zip(predicted, true, strict=True))


def entity_spans(data: Tagged, where: str) -> list[list[Span]]:
    """Return the entities of every input: in characters of a text, or in words. Raises DataError for odd tags."""
    if data.spans is not None:
        return data.spans
    rows = data.tags or [[] for _ in data.inputs]
    scheme = tag_scheme(rows, where)
    return [spans_of_tags(row, scheme) for row in rows]


def tag_scheme(rows: Sequence[Sequence[str]], where: str) -> Scheme:
    """Return the scheme of all tags. Raises DataError where most, but not all tags are written in one."""
    tags = Counter(tag for row in rows for tag in row if tag != OUTSIDE)
    scheme = scheme_of_tags(tags)
    plain = [tag for tag in tags if tag[1:2] != "-"]
    if scheme == "IO" and 2 * sum(tags[tag] for tag in plain) < tags.total():
        found = [number for number, row in enumerate(rows) if set(plain) & set(row)]
        raise DataError(
            f"{where}: the tags {listed(sorted(plain))} stand beside tags such as "
            f"{next(tag for tag in tags if tag[1:2] == '-')!r} ({row_list(found)}). Expected O, or a prefix and a "
            "label for every word; correct these tags."
        )
    return scheme


def learn_labels(data: Tagged, wanted: str, where: str) -> LabelSet:
    """Return the labels of the training data; `wanted`: "entities", "tags", or "auto".

    Tags are parts of entities where one of them is O or all have a prefix as in BIO. Raises DataError.
    """
    if data.spans is not None:
        return Entities.learnt(data, where)
    tags = {tag for row in data.tags or [] for tag in row}
    entities = OUTSIDE in tags or scheme_of_tags(tags) != "IO"
    if wanted == "entities" or (wanted == "auto" and entities):
        return Entities.learnt(data, where)
    return Tags.learnt(data)


def labels_from_state(state: dict[str, Any]) -> LabelSet:
    """Return the labels of a saved model."""
    if state["kind"] == Entities.kind:
        return Entities(state["types"])
    return Tags(state["names"], state["fallback"])
