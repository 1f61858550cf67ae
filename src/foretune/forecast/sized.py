"""A candidate's cost with other numbers of training examples than those it was measured on.

What a step, a pass or a text costs is measured once, on a sample; the steps of a fit are then counted over batches
of the sample's lengths, as many as the other number of examples makes.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from foretune.data.store import CutReport
from foretune.forecast.schedule import epoch_work, schedule
from foretune.forecast.study import Study, size_prefix
from foretune.strategies.base import Workload
from foretune.training.loop import Loop
from foretune.training.signals import StopRequest

if TYPE_CHECKING:
    from foretune.data.store import Store
    from foretune.strategies.base import Settings
    from foretune.training.job import Job

# Numbers of rows to choose from, times a power of ten: easy to say, and no two far apart.
ROUND = (1.0, 1.3, 1.6, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)

Settle = Callable[[Workload], "Settings"]


def round_sizes(least: int, most: int) -> list[int]:
    """Return `least`, round numbers of rows above it, and `most` itself, ascending."""
    tens = (10**power for power in range(1, len(str(most)) + 1))
    numbers = (round(factor * ten) for ten in tens for factor in ROUND)
    return sorted({number for number in numbers if least <= number < most} | {min(least, most), most})


@dataclass(frozen=True)
class Lengths:
    """Stands in for a store of which only the lengths are known."""

    lengths: np.ndarray  # (n,)
    varies: bool = False
    cuts: CutReport = field(default_factory=CutReport)

    @classmethod
    def like(cls, store: Store, rows: int) -> Lengths:
        """Return `rows` lengths that are distributed as those of `store`."""
        places = np.linspace(0, len(store) - 1, max(rows, 1)).round().astype(np.int64)
        return cls(np.sort(store.lengths)[places], store.varies)

    def __len__(self) -> int:
        return len(self.lengths)

    def key(self) -> str:
        """Return a name that no stored features have."""
        return "lengths"


def workload(job: Job, examples: int) -> Workload:
    """Return what a strategy chooses its settings from, for so many examples like those of the job."""
    store, share = job.train_store, examples / max(len(job.train), 1)
    classes = int(job.task.model_options().get("num_labels", 1))
    rows, tokens = round(len(store) * share), round(int(store.lengths.sum()) * share)
    return Workload(rows, tokens, classes, job.backbone.unit)


def sized(found: Study, examples: int, settle: Settle, anew: float) -> Study:
    """Return the study as it would be with so many training examples, and settings for them.

    `anew`: seconds of preprocessing one example.
    """
    job = found.job
    work = workload(job, examples)
    store = Lengths.like(job.train_store, work.examples)
    train_set = replace(job.train_set, store=store)
    other = copy(found)
    other.job = replace(job, settings=settle(work), train_set=train_set)
    other.loop = Loop(other.job, StopRequest())
    other.plans = schedule(other.loop)
    other.epoch = epoch_work(other.loop, found.rehearsal.micro_tokens)
    other.tokenising = found.tokenising | {"train": anew * examples}
    held_out = found.prepared.held_out
    other.baselines = found.baselines.at(examples, 0 if held_out is None else len(held_out[1]))
    other.cached, other.new = {}, True
    other.prefix = size_prefix(other)
    return other
