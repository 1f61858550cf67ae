"""Full fine-tuning: every parameter trains, the lower layers more slowly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from foretune.errors import ConfigError
from foretune.strategies.base import STRATEGIES, Phase, Settings, Strategy, Workload, layerwise_groups

if TYPE_CHECKING:
    from foretune.backbones.base import Backbone
    from foretune.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class FullOptions:
    """`pooling`: "mean" over all tokens, where the backbone allows it, or "cls", what its own head reads."""

    pooling: str = "mean"

    def __post_init__(self) -> None:
        if self.pooling not in ("mean", "cls"):
            raise ConfigError(f"Option pooling is {self.pooling!r}; expected mean or cls.")


@STRATEGIES.register("full")
class Full(Strategy):
    """Train everything, with layer-wise learning-rate decay."""

    name = "full"
    about = "every parameter trains; most accurate with some hundred labels or more"
    trains_embeddings = True
    Options = FullOptions

    def defaults(self, workload: Workload) -> Settings:
        """Return settings by size: small data get smaller batches and more epochs."""
        tokens = workload.tokens
        batch = int(min(max(tokens / 60, 512), 4096))
        epochs = 5 if workload.examples < 20_000 else 3
        lr = 2e-4 * min(max((batch / 1024) ** 0.5, 0.7), 1.5)
        return Settings(lr=lr, epochs=epochs, batch_tokens=batch, layer_decay=0.9)

    def prepare(self, backbone: Backbone) -> list[str]:
        """Let the head read the mean of all tokens, unless asked not to or the backbone cannot."""
        if self.options.pooling == "mean":
            backbone.use_mean_pooling()
        return []

    def phases(self, backbone: Backbone, settings: Settings, recipe: Recipe) -> list[Phase]:
        """Return one phase."""
        return [Phase("full", 1.0, layerwise_groups(backbone, settings, recipe.weight_decay))]
