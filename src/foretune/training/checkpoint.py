"""Checkpoints from which a run goes on bit for bit: safetensors and JSON, atomic, checksummed.

`checkpoints/step-…` hold everything (the newest, and the one before as a spare should the newest be
damaged); `checkpoints/best-…` hold the trained weights at the best evaluation.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretune.errors import CheckpointError
from foretune.training import randomness
from foretune.training.files import damage, write_folder
from foretune.training.state import Progress

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint: tensors on the CPU, and plain values."""

    folder: Path
    tensors: dict[str, Tensor]
    values: dict[str, Any]

    @property
    def progress(self) -> Progress:
        """Return where the run stood."""
        return Progress.from_json(self.values["progress"])

    def tensors_of(self, kind: str) -> dict[str, Tensor]:
        """Return the tensors of one kind (weight, grad, optimizer) by their names."""
        start = f"{kind}/"
        return {name[len(start) :]: t for name, t in self.tensors.items() if name.startswith(start)}


Found = tuple[Checkpoint | None, list[str]]  # the newest whole one, and warnings of damaged ones


class Checkpoints:
    """The checkpoints of one run, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(
        self,
        weights: dict[str, Tensor],
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        progress: Progress,
        extra: dict[str, Any],
    ) -> Path:
        """Write the state of the run; then delete what is no longer needed. Raises ResourceError."""
        rng_tensors, rng_values = randomness.capture()
        tensors = _named("weight", weights) | _named("grad", dict(_gradients(model, progress)))
        tensors |= dict(_optimizer_tensors(optimizer)) | rng_tensors
        values = {"progress": progress.to_json(), "rng": rng_values, **extra}
        target = self.folder / f"step-{progress.step:09d}-{progress.micro:06d}"
        write_folder(target, lambda draft: _write(draft, tensors, values))
        self._prune()
        return target

    def save_best(self, weights: dict[str, Tensor], step: int) -> None:
        """Write the trained weights of the best evaluation so far. Raises ResourceError."""
        tensors = _named("weight", weights)
        write_folder(self.folder / f"best-{step:09d}", lambda draft: _write(draft, tensors, {"step": step}))
        self._prune(step)

    def load_best(self, step: int) -> dict[str, Tensor]:
        """Return the weights that `save_best` wrote at `step`. Raises CheckpointError."""
        folder = self.folder / f"best-{step:09d}"
        wrong = damage(folder)
        if wrong:
            raise CheckpointError(
                f"The best checkpoint {folder} cannot be used: {wrong}. Run again from the start."
            )
        return _read(folder).tensors_of("weight")

    def newest(self) -> Found:
        """Return the newest whole checkpoint, or None, and a warning for each damaged one passed over."""
        warnings: list[str] = []
        for folder in reversed(self._steps()):
            wrong = damage(folder)
            if wrong is None:
                return _read(folder), warnings
            warnings.append(f"Checkpoint {folder.name} is not used: {wrong}. Falling back to the one before.")
        return None, warnings

    def _steps(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"))

    def forget_after(self, start: Checkpoint | None) -> None:
        """Delete what a run that goes on from `start` will write anew: newer checkpoints (damaged ones), drafts."""
        whole = start.folder.name if start else ""
        newer = [folder for folder in self._steps() if folder.name > whole]
        for folder in [*newer, *self.folder.glob(".tmp-*")]:
            shutil.rmtree(folder, ignore_errors=True)

    def _prune(self, best: int = 0) -> None:
        """Keep the newest checkpoints, the best weights that they refer to, and those of step `best`."""
        steps = self._steps()
        for folder in steps[:-KEPT]:
            shutil.rmtree(folder, ignore_errors=True)
        wanted = {best} | {_best_step(folder) for folder in steps[-KEPT:]}
        for folder in self.folder.glob("best-*"):
            if int(folder.name.split("-")[1]) not in wanted:
                shutil.rmtree(folder, ignore_errors=True)


def changing(model: nn.Module, trained: set[str]) -> dict[str, Tensor]:
    """Return what training changes: the parameters named in `trained`, all saved buffers (running means …)."""
    saved = model.state_dict().keys()
    parameters = {name: p.detach() for name, p in model.named_parameters() if name in trained}
    return parameters | {name: buffer for name, buffer in model.named_buffers() if name in saved}


def load_trainable(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copy tensors into the model's parameters and buffers of the same names. Raises CheckpointError."""
    own = dict(model.named_parameters()) | dict(model.named_buffers())
    for name, tensor in tensors.items():
        if name not in own or own[name].shape != tensor.shape:
            raise CheckpointError(f"The checkpoint's {name} does not fit this model. Was the recipe changed?")
        own[name].data.copy_(tensor)


def load_gradients(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put partly accumulated gradients back."""
    own = dict(model.named_parameters())
    for name, tensor in tensors.items():
        own[name].grad = tensor.to(own[name].device)


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put the optimizer's state back; `tensors` are named "<parameter number>/<entry>"."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, entry = name.split("/")
        state.setdefault(int(number), {})[entry] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _gradients(model: nn.Module, progress: Progress) -> Iterator[tuple[str, Tensor]]:
    """Yield the gradients where a step is partly accumulated."""
    if progress.micro:
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                yield name, parameter.grad


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    for number, entries in optimizer.state_dict()["state"].items():
        for entry, tensor in entries.items():
            yield f"optimizer/{number}/{entry}", tensor


def _named(kind: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{kind}/{name}": tensor for name, tensor in tensors.items()}


def _write(draft: Path, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    save_file(
        {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()},
        draft / "state.safetensors",
    )
    (draft / "state.json").write_text(json.dumps(values))


def _read(folder: Path) -> Checkpoint:
    from safetensors.torch import load_file

    values = json.loads((folder / "state.json").read_text())
    return Checkpoint(folder, load_file(folder / "state.safetensors"), values)


def _best_step(folder: Path) -> int:
    try:
        return int(json.loads((folder / "state.json").read_text())["progress"]["best_step"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
