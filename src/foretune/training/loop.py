"""The training loop: one for all tasks and strategies, to be read from top to bottom."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from foretune.errors import CheckpointError, Interrupted
from foretune.training import checkpoint as checkpoints
from foretune.training import optim, randomness
from foretune.training.batching import BatchPlan
from foretune.training.checkpoint import Checkpoint, Checkpoints, Found
from foretune.training.feed import HEAD, Feed
from foretune.training.flops import FlopModel, fit_flops
from foretune.training.inference import predict
from foretune.training.job import Job
from foretune.training.prefix import WORTH, Prefix, starts, unsplit
from foretune.training.signals import StopRequest
from foretune.training.state import Progress
from foretune.training.step import Stepper

EVALUATION_SHARE = 0.2  # of the training time that evaluations on dev may take before they become rarer
FROZEN_EVALUATIONS = 10  # at most in a phase whose backbone is frozen: epochs take milliseconds
ENOUGH = 0.8  # of the steps: with fewer, a fit that a deadline ended is not the one that was planned
CLOSING_MARGIN = 1.2  # on the time that evaluation, baselines and saving are expected to take
PATIENCE = 3  # evaluations without gain, where layers train
BACKWARD = 2  # a backward pass costs about twice its forward pass


@dataclass
class Loop:
    """Trains a job to its end, from the start or from a checkpoint."""

    job: Job
    stop: StopRequest
    found: Found | None = None  # what a resumed run starts from
    state: Progress = field(default_factory=Progress)
    _saved_at: float = 0.0
    _started: float = 0.0

    def __post_init__(self) -> None:
        job = self.job
        self.plan = BatchPlan(job.train_store.lengths, job.settings.batch_tokens, job.recipe.seed)
        self.phases = job.strategy.phases(job.backbone, job.settings, job.recipe)
        self.ends = np.cumsum([max(round(p.epochs * self.plan.steps_per_epoch), 1) for p in self.phases])
        self.total = int(self.ends[-1]) if self.phases else 0
        self.trained = {name for phase in self.phases for group in phase.groups for name in group.names}
        self.frozen = starts(self.phases, job.backbone)
        self.starts = self._starts()
        self.feeds: dict[str, dict[int, Feed]] = {}
        self.checkpoints = Checkpoints(job.checkpoints_folder)
        self.every = self._evaluation_interval()

    def run(self) -> Progress:
        """Train, and leave the best weights in the model.

        Raises Interrupted, TrainingError, ResourceError and CheckpointError.
        """
        job = self.job
        randomness.seed_everything(job.recipe.seed)
        job.backbone.model.train()
        start = None if self.found is None else self._restore(*self.found)
        self.found = None  # its tensors are needed once
        self.state.micro_tokens = (
            self.state.micro_tokens or job.recipe.micro_tokens or job.settings.batch_tokens
        )
        self._tell_unsplit()
        job.events.emit("start", total=self.total, step=self.state.step, per_epoch=self.plan.steps_per_epoch)
        self._started = self._saved_at = time.perf_counter()
        for number, (first, last) in enumerate(pairwise([0, *map(int, self.ends)])):
            done = self.state.step >= last or self.state.stopped_early
            if not done or (last == self.total and start is not None):
                self._phase(number, first, last, start)
                start = None
        self._use_best()
        job.events.emit("trained", step=self.state.step, stopped_early=self.state.stopped_early)
        return self.state

    def _phase(self, number: int, first: int, last: int, start: Checkpoint | None) -> None:
        """Run the steps [first, last) of phase `number` that are not done yet."""
        job, state, phase = self.job, self.state, self.phases[number]
        self.optimizer = optim.make_optimizer(job.backbone.model, phase)
        if start is not None:
            self._load_weights(start)
        feed = self._feed("train", number)
        self.dev_feed = None if job.dev_store is None else self._feed("dev", number)
        flops = FlopModel(0.0, 0.0, 0.0) if feed.start == HEAD else fit_flops(job.backbone, feed.start)
        frozen = self.frozen[number]
        job.backbone.train_above(job.backbone.layers.count if frozen == HEAD else frozen)
        if start is not None:
            self._load_rest(start, first)
        if state.step == first:
            state.evaluations_without_gain = 0
        every = max(self.every, (last - first) // FROZEN_EVALUATIONS) if feed.start == HEAD else self.every
        job.events.emit("phase", name=phase.name, first=first, last=last, start=feed.start)
        stepper = Stepper(job, self.optimizer, self._pause, feed, flops)
        clock = self._time_share((state.step - first) / (last - first), last == self.total)
        while state.step < last and not state.stopped_early:
            behind = max(state.step - first, clock() * (last - first))
            factor = optim.schedule(behind, last - first, job.recipe.warmup)
            optim.set_rates(self.optimizer, factor)
            loss = stepper.run(self.plan.rows(state.step), state)
            state.step += 1
            state.record_loss(state.step, loss, factor)
            self._tell(loss, factor)
            late = state.step < self.total and self._out_of_time()
            if (state.step - first) % every == 0 or state.step == last or late:
                self._evaluate(last_phase=last == self.total)
            state.stopped_early = state.stopped_early or late
            state.cut_short = late and state.step < ENOUGH * self.total
            self._pause()

    def _time_share(self, done: float, last_phase: bool) -> Callable[[], float]:
        """Return a clock of the share of a phase that is over, if the rest, after `done`, lasts until the deadline.

        Where a budget ends training before its last step, the rate so falls to 0 by then; else the steps are ahead.
        """
        end, now = self._end_of_training(), time.perf_counter()
        if end is None or not last_phase:
            return lambda: 0.0
        left = max(end - now, 1e-9)
        return lambda: min(done + (1 - done) * (time.perf_counter() - now) / left, 1.0)

    def _out_of_time(self) -> bool:
        """Return whether no more than what follows training fits before the deadline."""
        end = self._end_of_training()
        if end is None or time.perf_counter() < end:
            return False
        steps = f"step {self.state.step} of {self.total}"
        text = f"The budget is used up but for evaluation and saving: stopped at {steps}."
        self.job.events.emit("note", text=text)
        return True

    def _end_of_training(self) -> float | None:
        """Return when what follows training must begin to meet the deadline, on its clock; None without one."""
        job = self.job
        return None if job.deadline is None else job.deadline - job.closing * CLOSING_MARGIN

    def _starts(self) -> list[int]:
        """Return where each phase starts: behind its frozen layers, where caching them pays."""
        if self.job.recipe.cache == "off" or self.job.train_store.varies:
            return [0] * len(self.phases)
        pairs = zip(self.phases, self.frozen, strict=True)
        cached = sum(phase.epochs for phase, start in pairs if start != 0)
        return self.frozen if cached >= WORTH else [0] * len(self.phases)

    def _tell_unsplit(self) -> None:
        """Say where frozen layers could come from the cache, but that the model cannot be split."""
        if self.job.recipe.cache == "off" or self.job.train_store.varies:
            return
        text = unsplit(self.phases, self.job.backbone, self.frozen)
        if text is not None:
            self.job.events.emit("note", text=text)

    def _feed(self, part: str, number: int) -> Feed:
        """Return the feed of a phase; the first that needs the cache fills it for all that follow."""
        job, start = self.job, self.starts[number]
        store = job.train_store if part == "train" else job.dev_store
        assert store is not None
        prefix = Prefix(job.backbone, store, job.runtime, job.recipe.cache)
        if start == 0:
            return prefix.whole()
        if part not in self.feeds:
            points = sorted({point for point in self.starts[number:] if point != 0})
            self.feeds[part], computed = prefix.compute(points)
            self._count_prefix(part, computed)
        if start not in self.feeds[part]:
            text = f"No room to cache the frozen layers of the {part} data: they run in every step instead."
            job.events.emit("note", text=text)
        return self.feeds[part].get(start) or prefix.whole()

    def _count_prefix(self, part: str, computed: list[int]) -> None:
        """Count the work of a frozen backbone, which is done once."""
        if part == "train" and HEAD in computed and self.state.tokens == 0:
            lengths = self.job.train_store.lengths
            self.state.tokens = self.state.padded_tokens = int(lengths.sum())
            self.state.flops = fit_flops(self.job.backbone).total(lengths)

    def _pause(self) -> None:
        """A safe point: save when it is time, and stop when asked to."""
        finished = self.state.step >= self.total or self.state.stopped_early
        now = time.perf_counter()
        due = now - self._saved_at >= self.job.recipe.checkpoint_seconds
        if (due and not finished) or self.stop.requested:
            self._clock()
            self._save()
            self._saved_at = time.perf_counter()
        if self.stop.requested:
            raise Interrupted(
                f"Stopped at step {self.state.step} of {self.total}; everything is saved in {self.job.folder}. "
                f"To go on: the same command with --resume --output {self.job.folder}"
            )

    def _clock(self) -> None:
        """Add the time since the last call to the seconds spent."""
        now = time.perf_counter()
        self.state.seconds += now - self._started
        self._started = now

    def _save(self) -> None:
        job = self.job
        self.state.spent = self.state.earlier + time.perf_counter() - job.began
        size = job.events_file.stat().st_size if job.events_file and job.events_file.exists() else 0
        extra = {"identity": job.identity, "total": self.total, "events_bytes": size, **_threads()}
        extra["precision"] = job.runtime.precision
        folder = self.checkpoints.save(self._weights(), job.backbone.model, self.optimizer, self.state, extra)
        job.events.emit("checkpoint", step=self.state.step, folder=folder.name)

    def _weights(self) -> dict[str, torch.Tensor]:
        return checkpoints.changing(self.job.backbone.model, self.trained)

    def _restore(self, found: Checkpoint | None, warnings: list[str]) -> Checkpoint | None:
        """Go back to a checkpoint of this very run. Raises CheckpointError for another run's."""
        for text in warnings:
            self.job.events.emit("warning", text=text)
        if found is None:
            if warnings:
                self.job.events.emit(
                    "warning", text="No whole checkpoint is left: starting from the beginning."
                )
            else:
                text = f"There is no checkpoint in {self.job.folder} yet: starting from the beginning."
                self.job.events.emit("note", text=text)
            self.checkpoints.forget_after(None)
            return None
        if found.values["identity"] != self.job.identity or found.values["total"] != self.total:
            raise CheckpointError(
                f"{found.folder} belongs to another run: the data, the backbone or the options differ. Resume with "
                "the same command, or give another --output."
            )
        if found.values["threads"] != _threads()["threads"]:
            text = "Another number of threads than before: the result may differ in the last digits."
            self.job.events.emit("warning", text=text)
        self.checkpoints.forget_after(found)
        self.state = found.progress
        self.state.earlier = self.state.spent
        return found

    def _load_weights(self, start: Checkpoint) -> None:
        """Put the weights of a checkpoint into the model."""
        checkpoints.load_trainable(self.job.backbone.model, start.tensors_of("weight"))

    def _load_rest(self, start: Checkpoint, first: int) -> None:
        """Put optimizer, gradients and random states back into a phase that begins at step `first`."""
        model = self.job.backbone.model
        if start.progress.step > first:  # else the optimizer's state is the phase before's
            checkpoints.load_optimizer(self.optimizer, start.tensors_of("optimizer"))
        checkpoints.load_gradients(model, start.tensors_of("grad"))
        randomness.restore(start.tensors, start.values["rng"])

    def _evaluation_interval(self) -> int:
        """Return the steps between evaluations: whole epochs, more where the dev set is large."""
        epoch = self.plan.steps_per_epoch
        if self.job.dev_store is None:
            return self.total + 1
        cost = self.job.dev_store.lengths.sum() / (1 + BACKWARD) / max(self.job.train_store.lengths.sum(), 1)
        return epoch * max(int(np.ceil(cost / EVALUATION_SHARE)), 1)

    def _evaluate(self, last_phase: bool) -> None:
        """Score the dev set, keep the weights if they are the best so far, stop if they stay behind."""
        job, state = self.job, self.state
        if job.dev is None or job.dev_set is None or job.dev_set.targets is None:
            return
        scores, store = job.task.progress(job.dev, job.dev_set), job.dev_set.store
        for rows, outputs in predict(job.backbone, job.task, store, job.runtime, feed=self.dev_feed):
            scores.update(outputs, job.dev_set.targets[rows], rows)
        values = scores.point()
        metric = job.task.watched(job.metric)
        value = values[metric] if job.task.metrics[metric] else -values[metric]
        state.evaluations.append({"step": state.step, **values})
        job.events.emit("evaluation", step=state.step, metric=metric, **values)
        for sample in job.task.samples(job.backbone, job.dev, job.dev_set):
            job.events.emit("sample", step=state.step, **sample)
        gain = state.best is None or value > state.best
        if gain or value == state.best:  # of equals the later one, which was trained at lower rates
            state.best, state.best_step = value, state.step
            self.checkpoints.save_best(self._weights(), state.step)
        state.evaluations_without_gain = 0 if gain else state.evaluations_without_gain + 1
        patience = self.patience(len(self.phases) - 1)
        state.stopped_early = last_phase and 0 < patience <= state.evaluations_without_gain

    def patience(self, number: int) -> int:
        """Return the evaluations without gain after which phase `number` stops; 0 for never.

        Where only a head trains, its epochs take milliseconds, and a small dev set's accuracy stands still while
        the loss still falls: stopping would save nothing and has cost up to 14 points.
        """
        given = self.job.recipe.patience
        quick = self.frozen[number] == HEAD and not self.job.train_store.varies
        usual = 0 if quick else PATIENCE
        return usual if given is None else given

    def _use_best(self) -> None:
        """Put the best weights into the model, unless they are the last ones."""
        self._clock()
        if self.state.best_step and self.state.best_step != self.state.step:
            tensors = self.checkpoints.load_best(self.state.best_step)
            checkpoints.load_trainable(self.job.backbone.model, tensors)
        self.job.backbone.model.eval()

    def _tell(self, loss: float, factor: float) -> None:
        """Report a step."""
        self._clock()
        state = self.state
        seconds = max(state.seconds, 1e-9)
        self.job.events.emit(
            "step",
            step=state.step,
            loss=loss,
            schedule=factor,
            epoch=state.step / self.plan.steps_per_epoch,
            examples_per_s=state.examples / seconds,
            tokens_per_s=state.tokens / seconds,
            flops_per_s=state.flops / seconds,
        )


def _threads() -> dict[str, Any]:
    return {"threads": torch.get_num_threads()}
