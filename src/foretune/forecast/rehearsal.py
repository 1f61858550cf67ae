"""A few real steps and forward passes of a job, timed at several batch shapes, with the memory that they need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from foretune.errors import ResourceError
from foretune.forecast.machine_profile import free_memory
from foretune.forecast.measure import measure, part_of
from foretune.forecast.meter import MemoryMeter, SavedBytes, nbytes
from foretune.forecast.timing import TimeModel, passes, step_work, work_of
from foretune.training import checkpoint, machine, optim
from foretune.training.batching import split_rows
from foretune.training.feed import HEAD, Feed
from foretune.training.flops import FlopModel
from foretune.training.inference import batch_on, out_of_memory, pass_budget
from foretune.training.inference import free_memory as free_cached
from foretune.training.state import Progress
from foretune.training.step import Stepper

if TYPE_CHECKING:
    from torch import Tensor

    from foretune.data.store import Store
    from foretune.forecast.schedule import PhaseSchedule
    from foretune.training.job import Job
    from foretune.training.loop import Loop


@dataclass
class Rehearsal:
    """Runs parts of a borrowed job; what it learns beside times is kept in its fields."""

    job: Job
    loop: Loop
    micro_tokens: int = 0  # of one pass; halved, as in a fit, when memory runs out
    saved_bytes: int = 0  # kept for the backward pass of the largest batch, the most of all phases
    trained_bytes: int = 0  # of what trains at once, the most of all phases
    share: float = 1.0  # of the largest batch that was run: below 1 where time did not allow the whole
    forward_share: float = 1.0  # likewise, of the largest pass without gradients
    outputs: dict[int, np.ndarray] = field(default_factory=dict)  # example -> what `forward` gave for it
    _optimizer: torch.optim.Optimizer | None = None

    def __post_init__(self) -> None:
        recipe = self.job.recipe
        self.micro_tokens = recipe.micro_tokens or self.job.settings.batch_tokens

    def phase(self, plan: PhaseSchedule, feed: Feed, limit: float) -> TimeModel:
        """Time steps of a phase within about `limit` seconds. Raises ResourceError and TrainingError.

        The rate is 0: moments are made and read as ever, and the weights stay what they are.
        """
        job, lengths = self.job, self.job.train_store.lengths
        optimizer = self._optimizer = optim.make_optimizer(job.backbone.model, plan.phase)
        optim.set_rates(optimizer, 0.0)
        frozen = self.loop.frozen[plan.number]
        job.backbone.train_above(job.backbone.layers.count if frozen == HEAD else frozen)
        trained = nbytes(p for group in optimizer.param_groups for p in group["params"])
        self.trained_bytes = max(self.trained_bytes, trained)
        run = _Steps(self, Stepper(job, optimizer, lambda: None, feed, FlopModel(0.0, 0.0, 0.0)))
        batches = [self.loop.plan.rows(step) for step in range(self.loop.plan.steps_per_epoch)]
        model, share = measure(batches, lengths, run, limit, run.check)
        self.micro_tokens, self.share = run.state.micro_tokens, min(self.share, share)
        optimizer.zero_grad(set_to_none=True)
        return model

    def forward(self, limit: float) -> TimeModel:
        """Time passes of the whole model without gradients, in the batches of an evaluation."""
        model, self.forward_share = self._passes(self._evaluated(), self._evaluate, limit)
        return model

    def pass_growth(self) -> int | None:
        """Return the memory (bytes) that the largest pass of an evaluation takes, judged by a part of it."""
        lengths, meter = self._evaluated().lengths, MemoryMeter(self.job.runtime.device)
        budget = pass_budget(self.job.backbone, self.job.runtime)
        largest = max(passes(lengths, budget), key=lambda rows: len(rows) * int(lengths[rows].max()) ** 2)
        part = part_of(largest, lengths)
        meter.start()
        with torch.inference_mode(), self.job.runtime.autocast():
            self._evaluate(part)
        growth = meter.growth()
        return None if growth is None else growth * len(largest) // len(part)

    def _evaluated(self) -> Store:
        return self.job.train_store if self.job.dev_store is None else self.job.dev_store

    def _evaluate(self, rows: np.ndarray) -> None:
        job = self.job
        batch = batch_on(job.backbone, self._evaluated(), rows, job.runtime)
        outputs = job.task.activate(job.backbone.forward(batch), batch).float().cpu().numpy()
        self.outputs.update(zip(rows.tolist(), outputs, strict=True))

    def prefix(self, points: Sequence[int], limit: float) -> tuple[TimeModel, dict[int, tuple[int, ...]]]:
        """Time what fills the cache for the split points; return also the shape of one row at each of them.

        A point at which this backbone gives nothing (a head that reads every token) is left out.
        """
        job, tails = self.job, {}

        def run(rows: np.ndarray) -> None:
            found = prefix_outputs(job, rows, points)
            tails.update({point: tuple(t.shape[2 if point > 0 else 1 :]) for point, t in found.items()})

        return self._passes(job.train_store, run, limit)[0], tails

    def _passes(
        self, store: Store, run: Callable[[np.ndarray], None], limit: float
    ) -> tuple[TimeModel, float]:
        """Time passes without gradients over the batches of a store, smaller ones where memory runs out.

        Returns also the share of the largest batch that was run.
        """
        job, lengths = self.job, store.lengths
        budget = pass_budget(job.backbone, job.runtime)
        job.backbone.model.eval()

        def counted(rows: np.ndarray) -> np.ndarray:
            with torch.inference_mode(), job.runtime.autocast():
                run(rows)
            machine.synchronise(job.runtime.device.type)
            return work_of([lengths[rows]], steps=0)

        while True:
            try:
                return measure(passes(lengths, budget), lengths, counted, limit)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or budget <= int(lengths.max()):
                    raise
                budget //= 2
                free_cached(job.runtime)

    def copies(self, *, whole: bool) -> None:
        """Hold what saving holds: copies of the trained weights, with `whole` also of the optimizer's state."""
        kept = list(checkpoint.changing(self.job.backbone.model, self.loop.trained).values())
        if whole and self._optimizer is not None:
            kept += [t for entry in self._optimizer.state.values() for t in entry.values()]
        held = [tensor.detach().cpu().contiguous().clone() for tensor in kept]
        del held


class _Steps:
    """Runs optimizer steps as the loop does, and looks at the first one's memory."""

    def __init__(self, rehearsal: Rehearsal, stepper: Stepper) -> None:
        self.rehearsal, self.stepper = rehearsal, stepper
        self.state = Progress(micro_tokens=rehearsal.micro_tokens)
        self.saved = 0

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        job = self.stepper.job
        if self.state.step:
            loss = self.stepper.run(rows, self.state)
        else:
            with SavedBytes(job.backbone.model.parameters()) as counter:
                loss = self.stepper.run(rows, self.state)
            self.saved = counter.most
        machine.synchronise(job.runtime.device.type)
        self.state.step += 1
        job.events.emit("step", step=self.state.step, loss=loss)
        return step_work(rows, job.train_store.lengths, self.state.micro_tokens)

    def check(self, part: np.ndarray, whole: np.ndarray) -> None:
        """Raise ResourceError where the batch `whole` would not fit, judging by the first step, over `part`."""
        larger = self._largest_pass(whole) / self._largest_pass(part)
        need, free = int(self.saved * larger), free_memory(self.stepper.job.runtime.device)
        if need > free:
            raise ResourceError(
                f"A training step keeps about {need / 1e9:,.1f} GB for its backward pass, and {free / 1e9:,.1f} GB are "
                "free. Set --micro-tokens, lower --max-tokens, or choose a smaller --backbone."
            )
        self.rehearsal.saved_bytes = max(self.rehearsal.saved_bytes, need)

    def _largest_pass(self, rows: np.ndarray) -> int:
        """Return the padded tokens of the largest micro-batch."""
        lengths = self.stepper.job.train_store.lengths
        micros = split_rows(rows, lengths, self.state.micro_tokens)
        return max(int(lengths[micro].max()) * len(micro) for micro in micros)


def prefix_outputs(job: Job, rows: np.ndarray, points: Sequence[int]) -> dict[int, Tensor]:
    """Return what the cache holds of the examples `rows` at every split point, padded, on the CPU."""
    batch = batch_on(job.backbone, job.train_store, rows, job.runtime)
    found: dict[int, Tensor] = {}
    if HEAD in points:
        features = job.backbone.features(batch)
        found |= {} if features is None else {HEAD: features.cpu()}
    inner = [point for point in points if point > 0]
    if inner:
        hidden = job.backbone.hidden(batch, inner)
        found |= {point: outputs.cpu() for point, outputs in zip(inner, hidden, strict=True)}
    return found
