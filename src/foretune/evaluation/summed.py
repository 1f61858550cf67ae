"""Scores that depend on the examples only through sums, with bootstrap intervals over the examples.

BLEU, entity F1, word error rate and perplexity are no means of per-example scores, but functions of sums of
per-example counts. A bootstrap resample (Efron & Tibshirani 1993, *An Introduction to the Bootstrap*, ch. 13)
of such a score needs only the counts again, each weighted by how often its example was drawn: one matrix
product for all resamples, and never the texts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from foretune.errors import DataError
from foretune.evaluation.counts import Floats
from foretune.evaluation.intervals import (
    CHUNK,
    RESAMPLES,
    Interval,
    _interval,
    _percentiles,
    clopper_pearson,
)

#: Above this many examples, whole groups of examples are drawn in place of examples.
GROUPS = 20_000


def grouped(rows: NDArray[Any], groups: int = GROUPS) -> NDArray[Any]:
    """Return at most `groups` sums of `rows` (n, columns): row i goes to group i modulo `groups`.

    Sums of groups of independent examples vary, drawn with replacement, as sums of the examples do, so that
    20,000 groups give the interval of millions of examples in the time of 20,000.
    """
    if len(rows) <= groups:
        return rows
    wide = np.int64 if np.issubdtype(rows.dtype, np.integer) else np.float64
    sums = rows[:groups].astype(wide)
    for start in range(groups, len(rows), groups):
        part = rows[start : start + groups]
        sums[: len(part)] += part
    return sums


def group_of(n: int) -> NDArray[np.int64]:
    """Return the group (n,) that `grouped` puts each of `n` examples into."""
    return np.arange(n) % GROUPS


def resample_weights(n: int, seed: int, resamples: int = RESAMPLES, chunk: int = CHUNK) -> Iterator[Floats]:
    """Yield how often each of `n` examples was drawn, (resamples in this chunk, n), at most `chunk` numbers."""
    rng, step = np.random.default_rng(seed), max(1, chunk // n)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = rng.integers(0, n, size=(size, n)) + np.arange(size)[:, None] * n
        yield np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)


def resampled_sums(rows: NDArray[Any], *, seed: int = 0, resamples: int = RESAMPLES) -> Floats:
    """Return the sums (resamples, columns) of bootstrap resamples of `rows` (n, columns).

    The same seed and n draw the same examples, so that sums of several arrays fit together. Raises
    DataError without rows.
    """
    check_any(len(rows))
    units = grouped(rows)
    block = max(1, CHUNK // len(units))  # columns made float64 at once
    return np.concatenate(
        [
            np.concatenate(
                [
                    weights @ units[:, start : start + block].astype(np.float64)
                    for start in range(0, units.shape[1], block)
                ],
                axis=1,
            )
            for weights in resample_weights(len(units), seed, resamples)
        ]
    )


def check_any(n: int) -> None:
    """Raise DataError when there are no examples to score."""
    if n == 0:
        raise DataError("There are no examples to score: expected at least 1, found 0. Check the split.")


def check_paired(predicted: Any, true: Any, what: str) -> None:
    """Raise DataError unless there are as many predictions as truths; `what` names the example."""
    if len(predicted) != len(true):
        raise DataError(
            f"Expected one prediction per {what}, found {len(predicted)} predictions for {len(true)}."
            " Score a model on the same rows in the same order."
        )


def score_interval(value: float, resampled: Floats, n: int, top: float | None) -> Interval:
    """Return `value` with the percentile interval of `resampled` (resamples,).

    Where all resamples agree (nothing or everything right, or one example) a bootstrap knows nothing. A
    score in 0..`top` then takes the exact interval of a share of `n` examples (Clopper & Pearson 1934):
    no score in that range varies more than one that is 0 or `top` on each example. Without `top` the
    interval stays empty.
    """
    if top is not None and np.ptp(resampled) <= 1e-12 * top:
        low, high = clopper_pearson(min(n, max(0, round(n * value / top))), n)
        return _interval(value, low * top, high * top)
    return _interval(value, *_percentiles(resampled))


class SummedScores(ABC):
    """Streaming scores that are functions of sums over examples.

    Holds one row of numbers per example, of which the first is 1 (so the first sum counts examples).
    A subclass turns sums into metrics; `tops` names the largest value of the metrics that lie in 0..top.
    """

    tops: ClassVar[dict[str, float]]

    def __init__(self) -> None:
        self._parts: list[NDArray[Any]] = []
        self.n = 0

    def _add(self, *columns: Any) -> None:
        """Add a batch of rows, given as columns (batch,) or (batch, several)."""
        self._parts.append(np.column_stack([np.ones(len(columns[0])), *columns]).astype(np.float64))
        self.n += len(columns[0])

    @abstractmethod
    def metrics(self, sums: Floats) -> dict[str, Floats]:
        """Return each metric (...) of the sums (..., columns)."""

    def details(self, sums: Floats, resampled: Floats) -> dict[str, Any]:
        """Return what else the report shows, from the sums (columns,) and resamples (resamples, columns)."""
        return {}

    def rows(self) -> NDArray[Any]:
        """Return the numbers of all examples (n, columns). Raises DataError when nothing was counted."""
        check_any(self.n)
        return np.concatenate(self._parts)

    def sums(self) -> Floats:
        """Return the sums over all examples (columns,). Raises DataError when nothing was counted."""
        return np.asarray(self.rows().sum(axis=0, dtype=np.float64))

    def resampled(self, seed: int) -> Floats:
        """Return the sums of bootstrap resamples of the examples (resamples, columns)."""
        return resampled_sums(self.rows(), seed=seed)

    def point(self) -> dict[str, float]:
        """Return each metric without interval, cheap enough for every evaluation.

        Raises DataError when nothing was counted.
        """
        return {name: float(value) for name, value in self.metrics(self.sums()).items()}

    def result(self, seed: int = 0) -> dict[str, Any]:
        """Return all scores, ready for JSON: each metric as `{"value", "low", "high"}`, and `n` examples.

        Raises DataError when nothing was counted.
        """
        sums, resampled = self.sums(), self.resampled(seed)
        drawn = self.metrics(resampled)
        scores = {
            name: score_interval(float(value), drawn[name], self.n, self.tops.get(name))
            for name, value in self.metrics(sums).items()
        }
        return {**scores, **self.details(sums, resampled), "n": self.n}
