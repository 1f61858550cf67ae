"""The training loop: one for all tasks and strategies, to be read from top to bottom."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from foretune.errors import CheckpointError, Interrupted
from foretune.strategies.base import Phase
from foretune.training import checkpoint as checkpoints
from foretune.training import optim, randomness
from foretune.training.batching import BatchPlan
from foretune.training.checkpoint import Checkpoint, Checkpoints
from foretune.training.inference import extract, predict
from foretune.training.job import Job
from foretune.training.signals import StopRequest
from foretune.training.state import Progress
from foretune.training.step import Stepper

EVALUATION_SHARE = 0.2  # of the training time that evaluations on dev may take before they become rarer
FROZEN_EVALUATIONS = 10  # at most, where the backbone is frozen and epochs take milliseconds
BACKWARD = 2  # a backward pass costs about twice its forward pass


@dataclass
class Loop:
    """Trains a job to its end, from the start or from a checkpoint."""

    job: Job
    stop: StopRequest
    state: Progress = field(default_factory=Progress)
    _saved_at: float = 0.0
    _started: float = 0.0

    def __post_init__(self) -> None:
        job = self.job
        self.plan = BatchPlan(job.train_store.lengths, job.settings.batch_tokens, job.recipe.seed)
        self.total = max(round(job.settings.epochs * self.plan.steps_per_epoch), 1)
        self.checkpoints = Checkpoints(job.checkpoints_folder)
        self.every = self._evaluation_interval()

    def run(self, resume: bool) -> Progress:
        """Train, and leave the best weights in the model. Raises Interrupted, TrainingError, ResourceError."""
        job = self.job
        randomness.seed_everything(job.recipe.seed)
        job.backbone.model.train()
        phases = job.strategy.phases(job.backbone, job.settings, job.recipe)
        self.trained = {name for phase in phases for group in phase.groups for name in group.names}
        start = self._restore() if resume else None
        self.state.micro_tokens = (
            self.state.micro_tokens or job.recipe.micro_tokens or job.settings.batch_tokens
        )
        job.events.emit("start", total=self.total, step=self.state.step, per_epoch=self.plan.steps_per_epoch)
        self._started = self._saved_at = time.perf_counter()
        self._extract()
        for phase, first, last in self._bounds(phases):
            done = self.state.step >= last or self.state.stopped_early
            if not done or (last == self.total and start is not None):
                self._phase(phase, first, last, start)
                start = None
        self._use_best()
        job.events.emit("trained", step=self.state.step, stopped_early=self.state.stopped_early)
        return self.state

    def _phase(self, phase: Phase, first: int, last: int, start: Checkpoint | None) -> None:
        """Run the steps [first, last) that are not done yet."""
        job, state = self.job, self.state
        self.optimizer = optim.make_optimizer(job.backbone.model, phase)
        if start is not None:
            self._load(start, first)
        job.backbone.model.train()
        stepper = Stepper(job, self.optimizer, self._pause, self.train_features)
        while state.step < last and not state.stopped_early:
            factor = optim.schedule(state.step - first, last - first, job.recipe.warmup)
            optim.set_rates(self.optimizer, factor)
            loss = stepper.run(self.plan.rows(state.step), state)
            state.step += 1
            state.record_loss(state.step, loss, factor)
            self._tell(loss, factor)
            if state.step % self.every == 0 or state.step == self.total:
                self._evaluate()
            self._pause()

    def _bounds(self, phases: list[Phase]) -> list[tuple[Phase, int, int]]:
        """Return (phase, first step, step after the last) for each phase."""
        ends = np.round(np.cumsum([0.0] + [phase.share for phase in phases]) * self.total).astype(int)
        ends[-1] = self.total
        return [(phase, int(a), int(b)) for phase, (a, b) in zip(phases, pairwise(ends), strict=True)]

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
        size = job.events_file.stat().st_size if job.events_file and job.events_file.exists() else 0
        extra = {"identity": job.identity, "total": self.total, "events_bytes": size, **_threads()}
        extra["precision"] = job.runtime.precision
        folder = self.checkpoints.save(self._weights(), job.backbone.model, self.optimizer, self.state, extra)
        job.events.emit("checkpoint", step=self.state.step, folder=folder.name)

    def _weights(self) -> dict[str, torch.Tensor]:
        return checkpoints.changing(self.job.backbone.model, self.trained)

    def _restore(self) -> Checkpoint | None:
        """Find the newest whole checkpoint of this very run. Raises CheckpointError for another run's."""
        found, warnings = self.checkpoints.newest()
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
        return found

    def _load(self, start: Checkpoint, first: int) -> None:
        """Put weights, optimizer, gradients and random states back into a phase that begins at step `first`."""
        model = self.job.backbone.model
        checkpoints.load_trainable(model, start.tensors_of("weight"))
        if start.progress.step > first:  # else the optimizer's state is the phase before's
            checkpoints.load_optimizer(self.optimizer, start.tensors_of("optimizer"))
        checkpoints.load_gradients(model, start.tensors_of("grad"))
        randomness.restore(start.tensors, start.values["rng"])

    def _extract(self) -> None:
        """Run a backbone that stays frozen once over all examples, instead of in every epoch."""
        job, state = self.job, self.state
        self.train_features = self.dev_features = None
        if not job.strategy.frozen_backbone:
            return
        self.train_features = extract(job.backbone, job.train_store, job.runtime)
        if self.train_features is None:
            return
        if job.dev_store is not None:
            self.dev_features = extract(job.backbone, job.dev_store, job.runtime)
        self.every = max(self.every, self.total // FROZEN_EVALUATIONS)
        if state.tokens == 0:
            lengths = job.train_store.lengths
            state.tokens = state.padded_tokens = int(lengths.sum())
            state.flops = job.flops.total(lengths)

    def _evaluation_interval(self) -> int:
        """Return the steps between evaluations: whole epochs, more where the dev set is large."""
        epoch = self.plan.steps_per_epoch
        if self.job.dev_store is None:
            return self.total + 1
        cost = self.job.dev_store.lengths.sum() / (1 + BACKWARD) / max(self.job.train_store.lengths.sum(), 1)
        return epoch * max(int(np.ceil(cost / EVALUATION_SHARE)), 1)

    def _evaluate(self) -> None:
        """Score the dev set, keep the weights if they are the best so far, stop if they stay behind."""
        job, state = self.job, self.state
        if job.dev is None or job.dev_store is None or job.dev.targets is None:
            return
        scores = job.task.scores()
        for rows, outputs in predict(
            job.backbone, job.task, job.dev_store, job.runtime, features=self.dev_features
        ):
            scores.update(outputs, job.dev.targets[rows])
        values = scores.point()
        value = values[job.metric] if job.task.metrics[job.metric] else -values[job.metric]
        state.evaluations.append({"step": state.step, **values})
        job.events.emit("evaluation", step=state.step, metric=job.metric, **values)
        gain = state.best is None or value > state.best
        if gain or value == state.best:  # of equals the later one, which was trained at lower rates
            state.best, state.best_step = value, state.step
            self.checkpoints.save_best(self._weights(), state.step)
        state.evaluations_without_gain = 0 if gain else state.evaluations_without_gain + 1
        state.stopped_early = (
            job.recipe.patience > 0 and state.evaluations_without_gain >= job.recipe.patience
        )

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
