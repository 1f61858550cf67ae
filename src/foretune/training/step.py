"""One optimizer step: micro-batches, a loss normalised over the whole step, memory that runs out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from foretune.errors import ResourceError, TrainingError
from foretune.training import randomness
from foretune.training.batching import split_rows
from foretune.training.feed import HEAD, Feed
from foretune.training.flops import FlopModel
from foretune.training.inference import free_memory, out_of_memory, too_long
from foretune.training.state import Progress

if TYPE_CHECKING:
    from foretune.training.job import Job


@dataclass
class Stepper:
    """Runs the steps of one phase. `pause` is called after every micro-batch that does not end its step."""

    job: Job
    optimizer: torch.optim.Optimizer
    pause: Callable[[], None]
    feed: Feed
    flops: FlopModel

    def run(self, rows: np.ndarray, state: Progress) -> float:
        """Accumulate the gradient of the mean loss over `rows`, clip it, update; return that loss.

        Out of memory halves the micro-batch and runs the step again: the effective batch stays as it is.
        Raises TrainingError for a loss or gradient that is not finite.
        """
        while True:
            rng = randomness.capture()
            try:
                loss = self._accumulate(rows, state)
                break
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                self._shrink(rows, state, error)
            randomness.restore(*rng)
        self._update(rows, state)
        return loss

    def _accumulate(self, rows: np.ndarray, state: Progress) -> float:
        """Add up the gradients of the micro-batches not done yet; return the mean loss of the step."""
        job, targets = self.job, self.job.train_set.targets
        assert targets is not None
        normaliser = job.task.normaliser(targets[rows])  # of the whole step: equal to one large batch
        micros = split_rows(rows, job.train_store.lengths, state.micro_tokens)
        for number in range(state.micro, len(micros)):
            loss = self._backward(micros[number], normaliser, len(micros[number]) / len(rows))
            if not math.isfinite(loss):
                raise TrainingError(_not_finite("loss", state.step, self._lines(micros[number])))
            state.partial_loss += loss
            self._count(micros[number], state)
            state.micro = number + 1
            if number + 1 < len(micros):
                self.pause()
        return state.partial_loss

    def _backward(self, rows: np.ndarray, normaliser: float, share: float) -> float:
        job, device = self.job, self.job.runtime.device
        assert job.train_set.targets is not None
        targets = torch.from_numpy(job.train_set.targets[rows]).to(device)
        with job.runtime.autocast():
            outputs, batch = self.feed(rows)
            loss = job.task.loss(outputs, targets, batch) / normaliser
            extra = job.strategy.extra_loss(job.backbone.model, batch, outputs)
            if extra is not None:
                loss = loss + extra * share
        loss.backward()
        return float(loss.detach())

    def _count(self, rows: np.ndarray, state: Progress, sign: int = 1) -> None:
        """Add a micro-batch to the counters, or take it back with `sign` -1."""
        lengths = self.job.train_store.lengths[rows]
        state.examples += sign * len(rows)
        if self.feed.start == HEAD:
            return  # the backbone's work was counted when it was done, once
        state.tokens += sign * int(lengths.sum())
        state.padded_tokens += sign * int(lengths.max()) * len(rows)
        state.flops += sign * self.flops.total(lengths)

    def _update(self, rows: np.ndarray, state: Progress) -> None:
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(trained, self.job.recipe.clip_norm)
        if not math.isfinite(float(norm)):
            raise TrainingError(_not_finite("gradient", state.step, self._lines(rows)))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        state.micro, state.partial_loss = 0, 0.0

    def _lines(self, rows: np.ndarray) -> np.ndarray:
        """Return the line numbers of the examples that rows of the store come from."""
        return np.unique(self.job.train.rows[self.job.train_set.examples_of(rows)])

    def _shrink(self, rows: np.ndarray, state: Progress, error: BaseException) -> None:
        """Start the step again with half the micro-batch. Raises ResourceError when it is one example."""
        lengths = self.job.train_store.lengths[rows]
        micro = split_rows(rows, self.job.train_store.lengths, state.micro_tokens)
        if max(len(m) for m in micro) == 1:
            raise ResourceError(too_long(int(lengths.max()))) from error
        for done in micro[: state.micro]:
            self._count(done, state, sign=-1)
        state.micro_tokens = max(min(state.micro_tokens, int(lengths.max()) * len(rows)) // 2, 1)
        state.micro, state.partial_loss = 0, 0.0
        self.optimizer.zero_grad(set_to_none=True)
        free_memory(self.job.runtime)
        text = f"Out of memory: the micro-batch is now {state.micro_tokens} tokens; the effective batch is unchanged."
        self.job.events.emit("warning", text=text, step=state.step)


def _not_finite(what: str, step: int, rows: np.ndarray) -> str:
    shown = ", ".join(str(int(row)) for row in sorted(rows)[:20])
    more = f" and {len(rows) - 20} more" if len(rows) > 20 else ""
    return (
        f"The {what} is not finite at step {step + 1}. The batch holds the training rows {shown}{more}. "
        "Look at these rows, lower --lr, or try --precision fp32. Checkpoints written before are kept."
    )
