"""Scores of token labelling: entities counted whole, and tags counted one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from foretune.errors import ConfigError, DataError
from foretune.evaluation.counts import Floats, _ratio, metrics_from_counts
from foretune.evaluation.intervals import _f1_interval
from foretune.evaluation.summed import SummedScores, check_any, check_paired, group_of
from foretune.evaluation.tags import Span, scheme_of_tags, spans_of_tags

__all__ = [
    "ENTITY_METRICS",
    "TAG_METRICS",
    "EntityScores",
    "Span",
    "TagScores",
    "scheme_of_tags",
    "spans_of_tags",
]

#: Metric name -> True when greater is better.
ENTITY_METRICS: dict[str, bool] = {"f1": True, "precision": True, "recall": True}
TAG_METRICS: dict[str, bool] = {"accuracy": True, "macro_f1": True}


def _per_class(sums: Floats, resampled: Floats) -> list[dict[str, Any]]:
    """Return precision, recall, f1 (with interval) and support of each class.

    Arguments hold hits, predictions and truths: (3, classes) and (3, resamples, classes).
    """
    hits, predicted, true = sums
    precision, recall, f1 = _ratio(hits, predicted), _ratio(hits, true), _ratio(2 * hits, predicted + true)
    both = resampled[1] + resampled[2]
    drawn = np.where(both > 0, _ratio(2 * resampled[0], both), np.nan)
    union = predicted + true - hits
    return [
        {
            "precision": float(precision[i]),
            "recall": float(recall[i]),
            "f1": _f1_interval(float(f1[i]), drawn[:, i], int(hits[i]), int(union[i])),
            "support": int(true[i]),
        }
        for i in range(len(hits))
    ]


def _thirds(sums: Floats) -> Floats:
    """Return hits, predictions and truths (3, ..., classes) from sums (..., 1 + 3 classes)."""
    return np.stack(np.split(sums[..., 1:], 3, axis=-1))


class EntityScores(SummedScores):
    """Streaming F1, precision and recall of entities: start, end and label must all be right.

    They are micro-averages over all types, as in conlleval and seqeval (`average="micro"`); spans decoded
    with `spans_of_tags` give seqeval's default scores, with `strict=True` those of its strict mode. Spans
    may overlap; one given twice in a sentence counts once. Intervals resample sentences, for the entities
    of one sentence stand and fall together. Holds four integers per sentence and type that occurs in it.
    """

    tops: ClassVar[dict[str, float]] = dict.fromkeys(ENTITY_METRICS, 1.0)

    def __init__(self) -> None:
        super().__init__()
        self._types: dict[str, int] = {}  # label -> number, as they came; a part is (rows, 5): see `update`

    def update(self, predicted: Sequence[Sequence[Span]], true: Sequence[Sequence[Span]]) -> None:
        """Count sentences, each a sequence of spans (start, end, label) in any unit both share.

        Raises DataError where predictions and truths do not pair up, or a span is none.
        """
        check_paired(predicted, true, "sentence")
        pairs = [(_checked(one), _checked(other)) for one, other in zip(predicted, true, strict=True)]
        counts = []  # sentence, type, hits, predicted and true entities
        for sentence, (guessed, known) in enumerate(pairs, start=self.n):
            for label in sorted({span[2] for span in guessed | known}):
                ours = {span for span in guessed if span[2] == label}
                theirs = {span for span in known if span[2] == label}
                kind = self._types.setdefault(label, len(self._types))
                counts.append((sentence, kind, len(ours & theirs), len(ours), len(theirs)))
        self._parts.append(np.array(counts, dtype=np.int32).reshape(-1, 5))
        self.n += len(pairs)

    @property
    def labels(self) -> list[str]:
        """The types that occurred, in alphabetical order."""
        return sorted(self._types)

    def rows(self) -> NDArray[np.int32]:
        """Return (groups, 1 + 3 types): sentences, then hits, predicted and true entities of each type.

        A group is one sentence, up to the many of `summed.GROUPS`.
        """
        check_any(self.n)
        groups = group_of(self.n)
        rows = np.zeros((groups.max() + 1, 1 + 3 * len(self._types)), dtype=np.int32)
        rows[:, 0] = np.bincount(groups)
        sentence, kind, *counts = np.concatenate(self._parts).T
        column = np.array([self.labels.index(label) for label in self._types], dtype=np.int64)[kind]
        for third, count in enumerate(counts):
            np.add.at(rows, (groups[sentence], 1 + third * len(self._types) + column), count)
        return rows

    def metrics(self, sums: Floats) -> dict[str, Floats]:
        """Return each metric of `ENTITY_METRICS` (...) of the sums (..., 1 + 3 types)."""
        hits, predicted, true = _thirds(sums).sum(axis=-1)
        return {
            "f1": _ratio(2 * hits, predicted + true),
            "precision": _ratio(hits, predicted),
            "recall": _ratio(hits, true),
        }

    def details(self, sums: Floats, resampled: Floats) -> dict[str, Any]:
        """Return `per_type` (label, precision, recall, f1 with interval, support) and `entities`, their number."""
        thirds = _thirds(sums)
        per_type = _per_class(thirds, _thirds(resampled))
        return {
            "per_type": [{"label": label, **row} for label, row in zip(self.labels, per_type, strict=True)],
            "entities": int(thirds[2].sum()),
        }


def _checked(spans: Sequence[Span]) -> set[Span]:
    """Return the spans as a set. Raises DataError for what is no span."""
    found = {(int(start), int(end), str(label)) for start, end, label in spans}
    empty = [span for span in found if span[0] < 0 or span[1] <= span[0]]
    if empty:
        raise DataError(
            f"The span {min(empty)} covers nothing: expected (start, end, label) with 0 <= start < end."
        )
    return found


class TagScores(SummedScores):
    """Streaming scores of tags, one per word: `accuracy`, and `macro_f1` over the tags that occur.

    Words of a sentence share their errors, so that intervals resample sentences and not words. Holds one
    integer per word and the confusion matrix (rows = true). Raises ConfigError for fewer than 1 tag.
    """

    tops: ClassVar[dict[str, float]] = dict.fromkeys(TAG_METRICS, 1.0)

    def __init__(self, n_tags: int) -> None:
        super().__init__()
        if n_tags < 1:
            raise ConfigError(f"A tagger needs at least 1 tag, found n_tags={n_tags}.")
        self.n_tags = n_tags
        self.confusion = np.zeros((n_tags, n_tags), dtype=np.int64)
        self._lengths: list[int] = []

    def update(self, predicted: Sequence[Any], true: Sequence[Any]) -> None:
        """Count sentences, each of tag ids (words,). Raises DataError for other lengths or ids."""
        check_paired(predicted, true, "sentence")
        pairs = [(self._ids(one), self._ids(other)) for one, other in zip(predicted, true, strict=True)]
        for number, (guessed, known) in enumerate(pairs, start=self.n + 1):
            if guessed.shape != known.shape:
                raise DataError(
                    f"Sentence {number} has {len(known)} tags and {len(guessed)} predicted ones: expected one"
                    " prediction per word. Score whole words, never their pieces."
                )
        if not pairs:
            return
        codes = np.concatenate([known * self.n_tags + guessed for guessed, known in pairs])
        self.confusion += np.bincount(codes, minlength=self.n_tags**2).reshape(self.confusion.shape)
        self._parts.append(codes.astype(np.int32))
        self._lengths.extend(len(known) for _, known in pairs)
        self.n += len(pairs)

    def _ids(self, tags: Any) -> NDArray[np.int64]:
        """Return tag ids (words,) as int64. Raises DataError unless they are ids of this tagger."""
        ids = np.asarray(tags)
        if ids.size == 0:
            return np.zeros(0, dtype=np.int64)
        if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
            raise DataError(f"Expected tag ids (words,), found the shape {ids.shape} of {ids.dtype}.")
        if ids.min() < 0 or ids.max() >= self.n_tags:
            raise DataError(
                f"Tag ids run from {ids.min()} to {ids.max()}; expected 0 to {self.n_tags - 1}."
                " Leave ignored positions (-100) out."
            )
        return ids.astype(np.int64)

    @property
    def words(self) -> int:
        """Words counted so far."""
        return int(self.confusion.sum())

    def rows(self) -> NDArray[np.int32]:
        """Return (groups, 1 + 3 tags): sentences, then right, predicted and true words of each tag.

        A group is one sentence, up to the many of `summed.GROUPS`.
        """
        check_any(self.words)
        codes = np.concatenate(self._parts)
        groups = group_of(self.n)
        group = np.repeat(groups, self._lengths)
        known, guessed = np.divmod(codes, self.n_tags)
        rows = np.zeros((groups.max() + 1, 1 + 3 * self.n_tags), dtype=np.int32)
        rows[:, 0] = np.bincount(groups)
        right = known == guessed
        np.add.at(rows, (group[right], 1 + known[right]), 1)
        np.add.at(rows, (group, 1 + self.n_tags + guessed), 1)
        np.add.at(rows, (group, 1 + 2 * self.n_tags + known), 1)
        return rows

    def metrics(self, sums: Floats) -> dict[str, Floats]:
        """Return each metric of `TAG_METRICS` (...) of the sums (..., 1 + 3 tags)."""
        right, predicted, true = _thirds(sums)
        scores = metrics_from_counts(right, true, predicted)
        return {name: scores[name] for name in TAG_METRICS}

    def details(self, sums: Floats, resampled: Floats) -> dict[str, Any]:
        """Return `per_class` (precision, recall, f1 with interval, support), `confusion` and `words`."""
        return {
            "per_class": _per_class(_thirds(sums), _thirds(resampled)),
            "confusion": self.confusion.tolist(),
            "words": self.words,
        }
