"""Average precision of ranked detections, of all pictures and of bootstrap resamples of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foretune.evaluation.counts import Floats
from foretune.evaluation.intervals import CHUNK, RESAMPLES
from foretune.evaluation.matching import THRESHOLDS
from foretune.evaluation.summed import resample_weights

#: COCO's recalls at which the precision is read.
RECALLS = np.linspace(0, 1, 101)
#: Detections times thresholds times resamples that are looked at: some seconds of one core.
WORK = 600_000_000
#: Percentile intervals need at least so many resamples (Efron & Tibshirani 1993, ch. 13).
FEWEST_RESAMPLES = 100


@dataclass(frozen=True)
class Found:
    """Detections of one class: the picture and the score of each (n,).

    `right` and `skipped`, (thresholds, n): whether it is right, or does not count, at each IoU threshold.
    """

    pictures: NDArray[np.int64]
    scores: Floats
    right: NDArray[np.bool_]
    skipped: NDArray[np.bool_]

    @classmethod
    def joined(cls, parts: Sequence[Found], place: NDArray[np.int64]) -> Found:
        """Return all parts as one, the surest first; picture i becomes `place[i]`, which orders equal scores."""
        if not parts:
            nothing = np.zeros((len(THRESHOLDS), 0), dtype=bool)
            return cls(np.zeros(0, dtype=np.int64), np.zeros(0), nothing, nothing)
        pictures = place[np.concatenate([part.pictures for part in parts])]
        scores = np.concatenate([part.scores for part in parts])
        order = np.lexsort((pictures, -scores))
        right = np.concatenate([part.right for part in parts], axis=1)
        skipped = np.concatenate([part.skipped for part in parts], axis=1)
        return cls(pictures[order], scores[order], right[:, order], skipped[:, order])


def average_precisions(found: Found, true: NDArray[np.int64], weights: Floats | None = None) -> Floats:
    """Return the average precision at every threshold, (thresholds,); NaN without true boxes.

    `true`: (pictures,) true boxes of the class. `weights`: (pictures,) how often each picture counts.
    """
    times = np.ones(len(true)) if weights is None else weights
    boxes = float(times @ true)
    if boxes <= 0:
        return np.full(len(THRESHOLDS), np.nan)
    if not len(found.scores):
        return np.zeros(len(THRESHOLDS))
    own = times[found.pictures]
    hits = np.cumsum(found.right * own, axis=1)
    misses = np.cumsum(~(found.right | found.skipped) * own, axis=1)
    precision = hits / np.maximum(hits + misses, np.spacing(1))
    # The best precision at this recall or any higher one.
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    padded = np.concatenate([envelope, np.zeros((len(envelope), 1))], axis=1)
    at = [np.searchsorted(recall, RECALLS, side="left") for recall in hits / boxes]
    return np.take_along_axis(padded, np.stack(at), axis=1).mean(axis=1)


def resampled_precisions(found: Sequence[Found], true: NDArray[np.int64], seed: int) -> Floats:
    """Return average precisions (resamples, classes, thresholds) of bootstrap resamples of the pictures.

    `true`: (pictures, classes). 1,000 resamples, fewer (but at least 100) where the detections are so many
    that this would take long.
    """
    work = sum(len(each.scores) for each in found) * len(THRESHOLDS)
    resamples = int(np.clip(WORK // max(work, 1), FEWEST_RESAMPLES, RESAMPLES))
    drawn = [
        [average_precisions(each, true[:, c], row) for c, each in enumerate(found)]
        for weights in resample_weights(len(true), seed, resamples, CHUNK)
        for row in weights
    ]
    return np.asarray(drawn)
