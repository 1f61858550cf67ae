"""Count the useful floating-point operations of a training step from two measured ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from foretune.backbones.base import Backbone


@dataclass(frozen=True)
class FlopModel:
    """FLOPs of forward and backward of one example of t tokens: constant + linear t + quadratic t².

    Matrix products only, as is usual for the fraction of peak (Chowdhery et al. 2022, appendix B). Padding
    is not counted, so what is spent on it lowers the fraction.
    """

    constant: float
    linear: float
    quadratic: float

    def total(self, lengths: np.ndarray) -> float:
        """Return the FLOPs of examples of these lengths (tokens)."""
        t = lengths.astype(np.float64)
        return float((self.constant + self.linear * t + self.quadratic * t * t).sum())


def fit_flops(backbone: Backbone, start: int = 0) -> FlopModel:
    """Count one step at three lengths with torch's FLOP counter and solve for the three coefficients.

    `start`: the split point from which the step runs, 0 for the whole model.
    """
    points = backbone.sample_lengths
    if len(points) == 1:  # all examples are equally long
        return FlopModel(0.0, _count(backbone, points[0], start) / points[0], 0.0)
    if len(points) < 3:
        return FlopModel(0.0, 0.0, 0.0)
    counted = [_count(backbone, t, start) for t in points]
    matrix = np.array([[1.0, t, t * t] for t in points])
    constant, linear, quadratic = np.linalg.solve(matrix, np.array(counted))
    return FlopModel(float(constant), float(linear), float(max(quadratic, 0.0)))


def _count(backbone: Backbone, tokens: int, start: int) -> float:
    """Count forward and backward of one example; gradients are dropped and nothing is updated."""
    from torch.utils.flop_counter import FlopCounterMode

    from foretune.backbones.split import evaluating

    batch = backbone.sample_batch(tokens)
    with evaluating(backbone.model):  # without dropout: no random numbers are drawn
        below = backbone.hidden(batch, [start])[0].detach() if start > 0 else None
        with FlopCounterMode(display=False) as counter:
            outputs = backbone.forward(batch) if below is None else backbone.forward_from(start, below, batch)
            loss = outputs.sum()
            if loss.requires_grad:
                loss.backward()
    backbone.model.zero_grad(set_to_none=True)
    return float(counter.get_total_flops())
