"""Seconds of work as a function of its batches: a few measured ones, a fit, and the sum over all true ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from foretune.training.batching import cut_by_budget, split_rows

COLUMNS = 4  # steps, passes, padded tokens, padded tokens x longest
PENALTIES = (
    0.03,
    0.03,
    0.0,
    0.03,
)  # on all but the part per token: where measurements leave it open, that one


def work_of(batches: Iterable[np.ndarray], *, steps: int) -> np.ndarray:
    """Return what a stretch of work consists of: (steps, passes, padded tokens, padded tokens x longest).

    `batches`: the lengths (tokens) of the examples of every pass through the model.
    """
    shapes = np.array([(int(b.max()), len(b)) for b in batches if len(b)], dtype=np.float64).reshape(-1, 2)
    padded = shapes[:, 0] * shapes[:, 1]
    return np.array([steps, len(shapes), padded.sum(), (padded * shapes[:, 0]).sum()])


def step_work(rows: np.ndarray, lengths: np.ndarray, micro_tokens: int) -> np.ndarray:
    """Return the work of one optimizer step over the examples `rows`."""
    return work_of((lengths[part] for part in split_rows(rows, lengths, micro_tokens)), steps=1)


def passes(lengths: np.ndarray, budget: int) -> list[np.ndarray]:
    """Return the batches, as row numbers, in which `predict` runs over examples of these lengths."""
    order = np.argsort(lengths, kind="stable")
    return [order[start:stop] for start, stop in cut_by_budget(lengths[order], budget)]


def spread(sizes: np.ndarray, weights: np.ndarray) -> list[int]:
    """Return the positions of the batches to measure: the largest, one from the small end, one from the middle.

    `sizes`: (batches,) to compare them by; `weights`: (batches,) the share of the work that each stands for.
    The largest comes first, as it needs the most memory.
    """
    order = np.argsort(sizes, kind="stable")
    share = np.cumsum(weights[order]) / weights.sum()
    inner = [int(order[min(int(np.searchsorted(share, q)), len(order) - 1)]) for q in (0.15, 0.6)]
    return list(dict.fromkeys([int(order[-1]), *inner]))


@dataclass(frozen=True)
class TimeModel:
    """Seconds = coefficients x work, none of them negative.

    A pass through a Transformer costs a constant, a part per token (projections, feed-forward) and a part per
    token and token attended to (Kaplan et al. 2020, section 2.1); a step adds the optimizer's constant.
    """

    coefficients: tuple[float, ...]  # seconds per step, pass, padded token, padded token x longest

    def seconds(self, work: np.ndarray) -> float:
        """Return the seconds of `work`: (4,) or summed over several, as of `work_of`."""
        return float(np.dot(self.coefficients, work))


def fit_times(work: Sequence[np.ndarray], seconds: Sequence[float]) -> TimeModel:
    """Return the model that fits measured seconds best, relative errors counting, by non-negative least squares.

    work: (measurements, 4). What few measurements leave open is put down to the tokens. Raises ValueError
    where there is none.
    """
    from scipy.optimize import nnls

    if not len(work):
        raise ValueError("There is no measurement to fit.")
    rows, times = np.array(work, dtype=np.float64), np.maximum(np.array(seconds, dtype=np.float64), 1e-9)
    scale = np.maximum(rows.max(axis=0), 1e-12)  # columns of one size: tokens are thousands, steps are one
    relative = rows / scale / times[:, None]
    penalties = np.diag(PENALTIES) * relative.max(axis=0)
    found, _ = nnls(np.vstack([relative, penalties]), np.append(np.ones(len(rows)), np.zeros(len(penalties))))
    return TimeModel(tuple(float(c) for c in found / scale))


def steady(times: Sequence[float]) -> float:
    """Return the seconds to go by of repeated measurements: the median; of two the smaller one.

    The first run of a shape also fills caches and pages; what else runs on the machine only ever adds.
    """
    return float(np.median(times)) if len(times) > 2 else float(min(times))
