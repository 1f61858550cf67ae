"""The cost model: what a fit of an assembled candidate will take, in seconds, memory and disk, before it runs.

A few real steps and passes are timed and metered (`rehearsal`), and summed over the true batches of the loop's
true plan (`schedule`); around them stands what every fit costs here (`startup`) and what these data cost
(`surroundings`).
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from foretune.errors import ResourceError, TrainingError
from foretune.forecast import footprint
from foretune.forecast.borrowed import borrowed
from foretune.forecast.measure import Clock
from foretune.forecast.schedule import PhaseSchedule
from foretune.forecast.sized import Settle, sized
from foretune.forecast.study import Study, study
from foretune.forecast.surroundings import tokenising_anew
from foretune.training.feed import HEAD
from foretune.training.inference import out_of_memory
from foretune.training.loop import BACKWARD

if TYPE_CHECKING:
    from foretune.prepare import Prepared
    from foretune.training.job import Job

TOO_MUCH = sys.maxsize  # bytes of a candidate that does not fit


@dataclass(frozen=True)
class Cost:
    """What a fit will take: wall-clock seconds of the whole command, most memory and most disk at any time.

    `peak_memory_bytes` is the GPU's on CUDA, else the process's. `parts`: seconds by what they are spent on.
    A candidate that cannot run here costs infinitely much, and `reason` says why. `spent`: seconds of forecasting.
    """

    seconds: float
    peak_memory_bytes: int
    disk_bytes: int
    parts: dict[str, float] = field(default_factory=dict)
    reason: str | None = None
    spent: float = 0.0
    memory_parts: dict[str, int] = field(default_factory=dict)  # bytes at the peak by what holds them
    begun: float = (
        0.0  # of `seconds`, those before anything is loaded: the process's start, reading, checking
    )
    steps: float = 0.0  # of training that `seconds` counts: fewer than planned where it may stop early


def forecast_cost(
    job: Job, prepared: Prepared, *, limit_seconds: float, prepare_seconds: float = 0.0
) -> Cost:
    """Return what `foretune fit` of this job will cost in a process of its own. The job is left as it was.

    `limit_seconds`: about how long to measure; where it does not suffice for whole batches, parts of them are
    timed. On a machine's first forecast a minimal fit is timed besides (see `startup`). `prepare_seconds`:
    what reading and checking the data took.
    """
    started = time.perf_counter()
    try:
        with borrowed(job) as loan:
            found = study(loan, prepared, Clock(limit_seconds), job.folder)
            return _cost(found, prepare_seconds, started)
    except (ResourceError, TrainingError, RuntimeError, MemoryError) as error:
        return _impossible(error, started)


def forecast_costs(
    job: Job,
    prepared: Prepared,
    sizes: Sequence[int],
    settle: Settle,
    *,
    limit_seconds: float,
    prepare_seconds: float = 0.0,
    hurried: bool = False,
) -> dict[int, Cost]:
    """Return what `foretune fit` will cost with each of these numbers of training examples, measured on the job's.

    `prepared`: all the data, of which the job's training examples are a sample; `settle` gives the settings for a
    number of examples. `hurried`: the minimal fit is not run where its time is not known. The rest is as in
    `forecast_cost`.
    """
    started = time.perf_counter()
    try:
        with borrowed(job) as loan:
            sample = replace(prepared, train=job.train)
            found = study(loan, sample, Clock(limit_seconds), job.folder, hurried)
            anew = tokenising_anew(loan, job.train)
            found.prepared = prepared
            studies = (found if n == len(job.train) else sized(found, n, settle, anew) for n in sizes)
            return {n: _cost(own, prepare_seconds, started) for n, own in zip(sizes, studies, strict=True)}
    except (ResourceError, TrainingError, RuntimeError, MemoryError) as error:
        return dict.fromkeys(sizes, _impossible(error, started))


def _cost(found: Study, prepare_seconds: float, started: float) -> Cost:
    """Add up what was measured; `started`: when forecasting began."""
    parts = seconds_of(found, prepare_seconds)
    training = parts["training"] + parts["validation"]
    memory, disk = footprint.memory_parts(found), footprint.peak_disk(found, training)
    begun = prepare_seconds + (found.start.seconds - found.start.closing if found.start else 0.0)
    spent = time.perf_counter() - started
    steps = sum(plan.steps for plan in found.plans)
    return Cost(sum(parts.values()), sum(memory.values()), disk, parts, None, spent, memory, begun, steps)


def _impossible(error: Exception, started: float) -> Cost:
    """Return the cost of what cannot run here; what is no lack of anything is raised again."""
    reason = str(error)
    if not isinstance(error, ResourceError | TrainingError):
        if not out_of_memory(error):
            raise error
        reason = "Memory ran out while a few steps were tried. Choose a smaller --backbone."
    return Cost(math.inf, TOO_MUCH, TOO_MUCH, {}, reason, time.perf_counter() - started)


def seconds_of(found: Study, prepare_seconds: float = 0.0) -> dict[str, float]:
    """Return the seconds of a fit by what they are spent on; the sum is the whole command's.

    Evaluation, baselines, saving and report come after training; validation is the evaluation on dev while
    training, with the weights that are kept.
    """
    start = found.start
    counted = sum(found.start_of(plan) != HEAD for plan in found.plans)
    loading = found.load.seconds + found.fingerprint + counted * found.counting + prepare_seconds
    return {
        "loading": loading + (start.seconds - start.closing if start else 0.0),
        "tokenising": sum(found.tokenising.values()),
        "caching": found.prefix + found.new * sum(found.cached.values()) * found.writing,
        "training": sum(map(found.training, found.plans)),
        "validation": validation(found),
        "evaluation": _final_evaluation(found),
        "baselines": found.baselines.seconds,
        "saving": footprint.artefact_bytes(found) * found.writing + found.load.seconds,
        "report": start.closing if start else 0.0,
    }


def validation(found: Study) -> float:
    """Return the seconds of evaluations on dev and of the weights written while training."""
    evaluating, training = _evaluating(found), sum(map(found.training, found.plans))
    best, whole = footprint.saved_bytes(found)
    gains = sum(plan.gains for plan in found.plans)
    count = footprint.checkpoints_written(found, training + evaluating)
    return evaluating + (gains * best + count * whole) * found.writing


def _evaluating(found: Study) -> float:
    """Return the seconds of all evaluations on dev while training."""
    job = found.job
    if job.dev is None or job.dev_store is None:
        return 0.0
    work = found.pass_work(job.dev_store.lengths)
    return sum(
        plan.evaluations * (_pass_seconds(found, plan, work) + found.scoring["dev"][1])
        for plan in found.plans
    )


def _pass_seconds(found: Study, plan: PhaseSchedule, work: np.ndarray) -> float:
    """Return the seconds of `work` without gradients from where a phase starts."""
    start, count = found.start_of(plan), found.job.backbone.layers.count
    if start == HEAD:
        return found.steps[plan.number].seconds(work) / (1 + BACKWARD)
    return found.forward.seconds(work) * (1 - start / max(count, 1))


def _final_evaluation(found: Study) -> float:
    """Return the seconds of the metrics, with intervals, of the finished model on dev and test."""
    job, test = found.job, found.prepared.test
    lengths = {} if job.dev_store is None else {"dev": job.dev_store.lengths}
    if test is not None:
        lengths["test"] = np.resize(found.test_lengths, len(test))
    total = 0.0
    for name, own in lengths.items():
        total += found.forward.seconds(found.pass_work(own)) + found.scoring[name][0]
    return total
