"""Partial fine-tuning: the top layers and the head train, everything below stays frozen and is cached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from foretune.errors import ConfigError
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
    names_from,
    trainable_depths,
)

if TYPE_CHECKING:
    from foretune.backbones.base import Backbone
    from foretune.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class TopLayersOptions(PoolingOptions):
    """`layers`: how many of the top layers train (`--trainable-layers`)."""

    layers: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.layers, int) or isinstance(self.layers, bool) or self.layers < 1:
            raise ConfigError(
                f"Option layers is {self.layers!r}; expected 1 or more. For 0 take --strategy linear-probe."
            )


@STRATEGIES.register("top-layers")
class TopLayers(Strategy):
    """Train the top n layers and the head (Yosinski et al. 2014; Lee et al. 2019, "What would Elsa do?")."""

    name = "top-layers"
    about = "the top layers and the head train, the rest runs once and is cached; between probe and full"
    Options = TopLayersOptions

    def defaults(self, workload: Workload) -> Settings:
        """Return settings; epochs are cheap, as the frozen layers run once."""
        batch, lr = batch_and_rate(workload)
        epochs = epochs_by_size(8, 4, workload)
        return Settings(lr=2 * lr, epochs=epochs, batch_tokens=batch, layer_decay=0.9)

    def prepare(self, backbone: Backbone) -> list[str]:
        """Freeze what lies below the top layers. Raises ConfigError where there are not so many."""
        if self.options.pooling == "mean":
            backbone.use_mean_pooling()
        depths, wanted = trainable_depths(backbone), self.options.layers
        if wanted > len(depths):
            raise ConfigError(
                f"{backbone.name} has {len(depths)} layers, but --trainable-layers is {wanted}. "
                f"Give {len(depths)} or less, or take --strategy full, which trains the embeddings too."
            )
        trained = set(names_from(backbone, depths[-wanted]))
        for name, parameter in backbone.model.named_parameters():
            parameter.requires_grad_(name in trained)
        return []

    def phases(self, backbone: Backbone, settings: Settings, recipe: Recipe) -> list[Phase]:
        """Return one phase."""
        groups = layerwise_groups(backbone, settings, recipe.weight_decay)
        return [Phase(f"top {self.options.layers}", settings.epochs, groups)]
