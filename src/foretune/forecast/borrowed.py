"""A job on loan: train it, evaluate it, and everything is as it was afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch

from foretune.training import randomness
from foretune.training.events import Events, JsonLines

if TYPE_CHECKING:
    from torch import Tensor, nn

    from foretune.training.job import Job


@contextmanager
def borrowed(job: Job) -> Iterator[Job]:
    """Yield the job with a scratch folder and nobody listening; put the model back as it was afterwards.

    Restored are parameters, buffers, gradients, what trains, the mode of every module and all random states.
    The copies lie in the machine's memory. Raises OSError where no scratch folder can be made.
    """
    kept = _Kept(job.backbone.model)
    with TemporaryDirectory(prefix="foretune-forecast-") as name:
        folder = Path(name)
        events = Events([JsonLines(folder / "events.jsonl")])
        try:
            yield replace(job, folder=folder, events=events, events_file=None)
        finally:
            events.close()
            kept.restore()


class _Kept:
    """The state of a model and of the random generators."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.random = randomness.capture()
        self.tensors = {name: tensor.detach().cpu().clone() for name, tensor in self._all()}
        self.trained = {name: p.requires_grad for name, p in model.named_parameters()}
        self.gradients = {name: p.grad for name, p in model.named_parameters()}
        self.modes = [(module, module.training) for module in model.modules()]
        for parameter in model.parameters():
            parameter.grad = None

    def _all(self) -> Iterator[tuple[str, Tensor]]:
        yield from self.model.named_parameters()
        yield from self.model.named_buffers()

    @torch.no_grad()
    def restore(self) -> None:
        for module, mode in self.modes:
            module.training = mode  # not by train(), which some modules act upon
        for name, tensor in self._all():
            tensor.copy_(self.tensors[name])
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(self.trained[name])
            parameter.grad = self.gradients[name]
        randomness.restore(*self.random)
