"""AdamW over a phase's groups, and the learning-rate schedule as a function of the step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn

    from foretune.strategies.base import Phase


def make_optimizer(model: nn.Module, phase: Phase) -> torch.optim.AdamW:
    """Return AdamW (Loshchilov and Hutter 2019) over the phase's groups; everything else is frozen."""
    parameters = dict(model.named_parameters())
    wanted = {name for group in phase.groups for name in group.names}
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in wanted)
    groups = [
        {
            "params": [parameters[name] for name in group.names],
            "lr": group.lr,
            "peak_lr": group.lr,
            "weight_decay": group.weight_decay,
        }
        for group in phase.groups
    ]
    fused = all(p.device.type in ("cpu", "cuda", "mps") for p in parameters.values())
    return torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8, fused=fused)


def schedule(step: float, total: int, warmup: float) -> float:
    """Return the factor on the peak rate: linear warm-up over a share of the steps, then linear to 0."""
    warm = max(int(total * warmup), 1)
    if step < warm:
        return min((step + 1) / warm, 1.0)
    return max(total - step, 0) / max(total - warm, 1)


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's rate to its peak rate times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
