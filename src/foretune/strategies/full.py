"""Full fine-tuning: every parameter trains, the lower layers more slowly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foretune.strategies.base import (
    STRATEGIES,
    Phase,
    PoolingOptions,
    Settings,
    Strategy,
    Workload,
    batch_and_rate,
    epochs_by_size,
    layerwise_groups,
)

if TYPE_CHECKING:
    from foretune.backbones.base import Backbone
    from foretune.recipe import Recipe


@STRATEGIES.register("full")
class Full(Strategy):
    """Train everything, with layer-wise learning-rate decay."""

    name = "full"
    about = "every parameter trains; most accurate with some hundred labels or more"
    trains_embeddings = True
    augments = True
    Options = PoolingOptions

    def defaults(self, workload: Workload) -> Settings:
        """Return settings by size: small data get smaller batches and more epochs."""
        batch, lr = batch_and_rate(workload)
        epochs = epochs_by_size(5, 3, workload)
        return Settings(lr=lr, epochs=epochs, batch_tokens=batch, layer_decay=0.9)

    def prepare(self, backbone: Backbone) -> list[str]:
        """Let the head read the mean of all tokens, unless asked not to or the backbone cannot."""
        if self.options.pooling == "mean":
            backbone.use_mean_pooling()
        return []

    def phases(self, backbone: Backbone, settings: Settings, recipe: Recipe) -> list[Phase]:
        """Return one phase."""
        return [Phase("full", settings.epochs, layerwise_groups(backbone, settings, recipe.weight_decay))]
