"""All that is measured of a candidate before its cost is added up."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foretune.backbones import feature_store
from foretune.backbones.feature_budget import memory_limit, size_limit
from foretune.forecast import surroundings as around
from foretune.forecast.machine_profile import machine_profile
from foretune.forecast.meter import MemoryMeter
from foretune.forecast.rehearsal import Rehearsal
from foretune.forecast.schedule import PhaseSchedule, epoch_work, schedule
from foretune.forecast.standin import cached_feed
from foretune.forecast.startup import StartUp, known_start_up, start_up
from foretune.forecast.timing import COLUMNS, TimeModel, passes, work_of
from foretune.training.feed import HEAD, TokenFeed
from foretune.training.flops import fit_flops
from foretune.training.inference import pass_budget
from foretune.training.loop import Loop
from foretune.training.prefix import Prefix
from foretune.training.signals import StopRequest

if TYPE_CHECKING:
    from foretune.data.store import Store
    from foretune.forecast.measure import Clock
    from foretune.prepare import Prepared
    from foretune.training.job import Job

STEPS_SHARE, PASSES_SHARE, CACHE_SHARE = 0.6, 0.4, 0.3  # of the time that is left, for what is measured next
TIMED_PHASES = 3  # of those that train layers; what lies between them is interpolated
FORMAT_BYTES = {"bf16": 2, "fp32": 4}  # of a number in the cache


@dataclass
class Study:
    """A candidate's measurements. Seconds, bytes, and models of seconds."""

    job: Job
    prepared: Prepared
    loop: Loop
    plans: list[PhaseSchedule]
    rehearsal: Rehearsal
    start: StartUp | None
    load: around.Load
    tokenising: dict[str, float]  # seconds, by part
    test_lengths: np.ndarray
    fingerprint: float
    prefix: float = 0.0  # seconds that filling the cache, or checking a full one, takes, without writing
    filling: TimeModel = field(default_factory=lambda: TimeModel((0.0,) * COLUMNS))  # of the cache
    tails: dict[int, tuple[int, ...]] = field(default_factory=dict)  # shape of a row at every split point
    cached: dict[int, int] = field(default_factory=dict)  # split point -> bytes of train and dev in the cache
    new: bool = True  # whether the cache is to be filled yet
    steps: dict[int, TimeModel] = field(default_factory=dict)  # by phase
    epoch: np.ndarray = field(
        default_factory=lambda: np.zeros(COLUMNS)
    )  # work of one, as of `timing.work_of`
    forward: TimeModel = field(default_factory=lambda: TimeModel((0.0,) * COLUMNS))
    scoring: dict[str, tuple[float, float]] = field(
        default_factory=dict
    )  # by part: with intervals, and without
    growth: int | None = None  # of memory, while steps and passes were measured
    pass_growth: int = 0  # of memory, for the largest pass of an evaluation, where only parts were run
    counting: float = 0.0  # of floating-point operations, once a phase
    baselines: around.Baselines = field(default_factory=around.Baselines)

    @property
    def writing(self) -> float:
        """Return the seconds of writing one byte, with its checksum and forced to the disk."""
        return self.load.save_seconds / max(self.load.saved_bytes, 1)

    def start_of(self, plan: PhaseSchedule) -> int:
        """Return where a phase starts, given what the cache has room for."""
        return plan.start if plan.start in self.cached else 0

    def training(self, plan: PhaseSchedule) -> float:
        """Return the seconds of a phase's steps."""
        return self.steps[plan.number].seconds(self.epoch) * plan.steps / self.loop.plan.steps_per_epoch

    def pass_work(self, *lengths: np.ndarray) -> np.ndarray:
        """Return the work of passes without gradients over examples of these lengths, set by set."""
        budget = pass_budget(self.job.backbone, self.job.runtime)
        return work_of((own[rows] for own in lengths for rows in passes(own, budget)), steps=0)


def study(job: Job, prepared: Prepared, clock: Clock, folder: Path, hurried: bool = False) -> Study:
    """Measure a borrowed job; steps get most of the time, as they matter most. `folder`: where the fit will write.

    `hurried`: what starting costs is only recalled.
    """
    loop = Loop(job, StopRequest())
    tokenising, test_lengths = around.tokenising(job, prepared)
    profile = machine_profile(job.runtime.device.type)
    found = Study(
        job=job, prepared=prepared, loop=loop, plans=schedule(loop), rehearsal=Rehearsal(job, loop),
        start=known_start_up(profile) if hurried else start_up(profile), load=around.load_again(job, prepared, folder),
        tokenising=tokenising, test_lengths=test_lengths, fingerprint=around.timed(job.backbone.fingerprint),
    )  # fmt: skip
    meter = MemoryMeter(job.runtime.device)
    meter.start()
    _study_prefix(found, clock.left(CACHE_SHARE))
    _study_steps(found, found.tails, clock)
    found.forward = found.rehearsal.forward(clock.left(PASSES_SHARE))
    saves = sum(map(found.training, found.plans)) > job.recipe.checkpoint_seconds
    found.rehearsal.copies(whole=saves)
    found.growth = meter.growth()
    if found.rehearsal.forward_share < 1:
        found.pass_growth = found.rehearsal.pass_growth() or 0
    found.scoring = _study_scoring(found)
    found.counting = around.timed(lambda: fit_flops(job.backbone))
    found.baselines = around.baselines(job, prepared, clock.left())
    return found


def _study_scoring(found: Study) -> dict[str, tuple[float, float]]:
    """Time the metrics of every held-out part on outputs that the model gave for dev, or for train without it."""
    job = found.job
    scored = job.train if job.dev is None or job.dev_store is None else job.dev
    parts = {name: part for name, part in found.prepared.parts.items() if name != "train"}
    return {
        name: around.scoring(job, found.rehearsal.outputs, scored, len(part)) for name, part in parts.items()
    }


def _study_prefix(found: Study, limit: float) -> None:
    """Time what fills the cache, unless it is full."""
    points = sorted({plan.start for plan in found.plans if plan.start != 0})
    if not points:
        return
    found.filling, found.tails = found.rehearsal.prefix(points, limit)
    filling = size_prefix(found)
    looking, found.new = _look(found, _stores(found))
    found.prefix = filling if found.new else looking


def size_prefix(found: Study) -> float:
    """Note the bytes of the cache at every split point that has room; return the seconds of filling it."""
    job, stores = found.job, _stores(found)
    lengths = np.concatenate([store.lengths for store in stores])
    for point, tail in found.tails.items():
        rows = len(lengths) if point == HEAD else int(lengths.sum())
        size = rows * int(np.prod(tail)) * FORMAT_BYTES[job.recipe.cache]
        if size <= max(size_limit(), memory_limit()):
            found.cached[point] = size
    return found.filling.seconds(found.pass_work(*(store.lengths for store in stores)))


def _stores(found: Study) -> list[Store]:
    return [store for store in (found.job.train_store, found.job.dev_store) if store is not None]


def _look(found: Study, stores: list[Store]) -> tuple[float, bool]:
    """Return whether the cache is to be filled yet, and the seconds of looking: what is there is verified."""
    job, started = found.job, time.perf_counter()
    prefixes = [Prefix(job.backbone, store, job.runtime, job.recipe.cache) for store in stores]
    there = [
        feature_store.load(prefix.key(point)) is not None for prefix in prefixes for point in found.cached
    ]
    return time.perf_counter() - started, not all(there)


def _study_steps(found: Study, tails: dict[int, tuple[int, ...]], clock: Clock) -> None:
    """Time steps of the phases, or of some and the rest by interpolation over how deep they train."""
    job, depth = found.job, {plan.number: _frozen(found.loop, plan) for plan in found.plans}
    chosen = _chosen(found, depth)
    for left, plan in enumerate(chosen):
        start = found.start_of(plan)
        feed = (
            TokenFeed(job.backbone, job.train_store, job.runtime)
            if start == 0
            else cached_feed(job, start, tails[start])
        )
        limit = clock.left(STEPS_SHARE / (len(chosen) - left))
        found.steps[plan.number] = found.rehearsal.phase(plan, feed, limit)
    found.epoch = epoch_work(found.loop, found.rehearsal.micro_tokens)
    known = sorted((plan for plan in chosen if found.start_of(plan) != HEAD), key=lambda p: depth[p.number])
    table = np.array([found.steps[plan.number].coefficients for plan in known]).T
    for plan in found.plans:
        if plan.number not in found.steps and found.start_of(plan) == HEAD:
            found.steps[plan.number] = next(found.steps[p.number] for p in chosen if p.start == HEAD)
        elif plan.number not in found.steps:
            xs = [depth[p.number] for p in known]
            found.steps[plan.number] = TimeModel(
                tuple(float(np.interp(depth[plan.number], xs, row)) for row in table)
            )


def _frozen(loop: Loop, plan: PhaseSchedule) -> int:
    """Return the number of layers that stay frozen in a phase."""
    frozen = loop.frozen[plan.number]
    return loop.job.backbone.layers.count if frozen == HEAD else frozen


def _chosen(found: Study, depth: dict[int, int]) -> list[PhaseSchedule]:
    """Return the phases to time: one of the head, and of the others at most a few, evenly spread."""
    head = [plan for plan in found.plans if found.start_of(plan) == HEAD][:1]
    rest = sorted(
        (plan for plan in found.plans if found.start_of(plan) != HEAD), key=lambda p: -depth[p.number]
    )
    if len(rest) > TIMED_PHASES:
        rest = [rest[i] for i in np.linspace(0, len(rest) - 1, TIMED_PHASES).round().astype(int)]
    return head + rest
