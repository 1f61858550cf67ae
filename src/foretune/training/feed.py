"""Where a phase's model starts: at the tokens, behind k frozen layers, or at the head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from foretune.training.inference import batch_on

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from foretune.backbones.base import Backbone
    from foretune.backbones.feature_store import FeatureStore
    from foretune.data.store import Store
    from foretune.training.inference import Runtime

HEAD = -1  # the split point of a frozen backbone with a linear head: one vector per example


class Feed(Protocol):
    """Gives the model's outputs for examples, starting as late as what is frozen allows."""

    @property
    def start(self) -> int:
        """Return 0, the number of layers that are skipped, or HEAD."""

    def __call__(self, rows: np.ndarray) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the head's outputs (batch, …) for the examples `rows`, and the batch they came from."""


@dataclass(frozen=True)
class TokenFeed:
    """Runs the whole model."""

    backbone: Backbone
    store: Store
    runtime: Runtime
    start: int = 0

    def __call__(self, rows: np.ndarray) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the outputs and the batch."""
        batch = batch_on(self.backbone, self.store, rows, self.runtime)
        return self.backbone.forward(batch), batch


@dataclass(frozen=True)
class HiddenFeed:
    """Runs the model from layer `start`; what lies below is read from the feature store."""

    backbone: Backbone
    store: Store
    runtime: Runtime
    features: FeatureStore
    start: int

    def __call__(self, rows: np.ndarray) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the outputs and the batch."""
        batch = batch_on(self.backbone, self.store, rows, self.runtime)
        hidden = self.features.padded(rows).to(self.runtime.device)
        return self.backbone.forward_from(self.start, hidden, batch), batch


@dataclass(frozen=True)
class HeadFeed:
    """Runs the linear head on one stored vector per example."""

    backbone: Backbone
    runtime: Runtime
    features: FeatureStore
    start: int = HEAD

    def __call__(self, rows: np.ndarray) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the outputs, and an empty batch: the head sees nothing else."""
        return self.backbone.head(self.features.rows(rows).to(self.runtime.device)), {}
