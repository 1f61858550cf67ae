"""Where a run stands: everything the loop changes besides weights, optimizer and random states."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

HISTORY_POINTS = 1000  # of the loss curve; longer runs keep every second, fourth … point


@dataclass
class Progress:
    """The loop's counters. `step` counts finished optimizer steps, `micro` micro-batches of the next one."""

    step: int = 0
    micro: int = 0
    partial_loss: float = 0.0  # of the micro-batches done, already divided by the step's normaliser
    micro_tokens: int = 0  # token budget of one forward pass; halved when memory runs out
    best: float | None = None  # of the selection metric
    best_step: int = 0
    evaluations_without_gain: int = 0
    seconds: float = 0.0  # spent training, over all resumed parts
    examples: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    flops: float = 0.0
    thinning: int = 1
    losses: list[dict[str, float]] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    stopped_early: bool = False
    cut_short: bool = False  # the budget ended training well before its last step
    earlier: float = 0.0  # wall-clock seconds of the parts of the fit before this one, without planning
    spent: float = 0.0  # likewise of all parts up to the last checkpoint

    def record_loss(self, step: int, loss: float, factor: float) -> None:
        """Add a point to the loss curve, thinning it when it grows long."""
        if step % self.thinning:
            return
        self.losses.append({"step": step, "loss": loss, "schedule": factor})
        if len(self.losses) > HISTORY_POINTS:
            self.losses = self.losses[::2]
            self.thinning *= 2

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Progress:
        """Return the state that `to_json` gave."""
        return cls(**values)
