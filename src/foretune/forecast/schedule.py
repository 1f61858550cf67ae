"""What a fit will do, step by step, read off the loop itself: steps, evaluations, how soon it may stop."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from foretune.forecast.timing import step_work
from foretune.training.feed import HEAD
from foretune.training.loop import FROZEN_EVALUATIONS, Loop

if TYPE_CHECKING:
    from foretune.strategies.base import Phase

# The chance that an evaluation finds new best weights. Maximum likelihood over the stopping points of 32 fits
# of the ledger (linear probes and full fine-tuning of four backbones on sets of 400 rows, patience 3).
GAIN = 0.3


@dataclass(frozen=True)
class PhaseSchedule:
    """A phase of a fit. `steps` and `evaluations` are expected numbers where training may stop early."""

    number: int
    phase: Phase
    start: int  # 0, k or HEAD: where it starts if the cache has room
    steps: float
    evaluations: float
    gains: float  # evaluations after which the best weights are written


def schedule(loop: Loop) -> list[PhaseSchedule]:
    """Return what each phase of the loop will do."""
    found = []
    evaluated = loop.job.dev is not None and loop.job.dev_store is not None
    for number, (first, last) in enumerate(pairwise([0, *map(int, loop.ends)])):
        steps, start = last - first, loop.starts[number]
        every = max(loop.every, steps // FROZEN_EVALUATIONS) if start == HEAD else loop.every
        most = -(-steps // every) if evaluated else 0
        done, gains = expected_evaluations(most, loop.patience(number) if last == loop.total else 0)
        share = done / most if most else 1.0
        found.append(PhaseSchedule(number, loop.phases[number], start, steps * share, done, gains))
    return found


def expected_evaluations(most: int, patience: int, gain: float = GAIN) -> tuple[float, float]:
    """Return how many of `most` evaluations will be made, and how many of these find new best weights.

    Training stops after `patience` evaluations in a row without gain (0: never); the first is always a gain.
    """
    if most == 0:
        return 0.0, 0.0
    made = gains = 1.0
    going = np.zeros(max(patience, 1))  # the chance of having gone on with so many evaluations without gain
    going[0] = 1.0
    for _ in range(1, most):
        made, gains = made + going.sum(), gains + going.sum() * gain
        missed = going * (1 - gain)
        going = np.concatenate([[going.sum() * gain], missed[:-1]]) if patience else going
    return float(made), float(gains)


def epoch_work(loop: Loop, micro_tokens: int) -> np.ndarray:
    """Return the work of one epoch, summed over its true batches: (4,) as of `timing.work_of`.

    Every epoch has batches of the same lengths; only rows of equal length change places.
    """
    lengths = loop.job.train_store.lengths
    works = [
        step_work(loop.plan.rows(step), lengths, micro_tokens) for step in range(loop.plan.steps_per_epoch)
    ]
    return np.sum(works, axis=0)
