"""Gradual unfreezing: the head trains first, then the layers join from the top down."""

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
class GradualOptions(PoolingOptions):
    """`stages`: phases before everything trains; `unfreezing`: their share of the epochs."""

    stages: int = 3
    unfreezing: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.stages, int) or self.stages < 1:
            raise ConfigError(f"Option stages is {self.stages!r}; expected a whole number of 1 or more.")
        if not isinstance(self.unfreezing, float) or not 0 < self.unfreezing < 1:
            raise ConfigError(f"Option unfreezing is {self.unfreezing!r}; expected a number between 0 and 1.")


@STRATEGIES.register("gradual-unfreezing")
class GradualUnfreezing(Strategy):
    """Unfreeze from the top layer down (Howard and Ruder 2018, section 3.3), then train everything.

    Their method frees one layer an epoch; here the layers are freed in `stages` groups, so that deep
    backbones do not need many epochs. What is still frozen in a phase comes from the cache.
    """

    name = "gradual-unfreezing"
    about = "the head first, then layers join from the top down; cheap first epochs, little forgetting"
    trains_embeddings = True
    Options = GradualOptions

    def defaults(self, workload: Workload) -> Settings:
        """Return the settings of full fine-tuning with more epochs, as the first ones train little."""
        batch, lr = batch_and_rate(workload)
        epochs = epochs_by_size(8, 4, workload)
        return Settings(lr=lr, epochs=epochs, batch_tokens=batch, layer_decay=0.9)

    def prepare(self, backbone: Backbone) -> list[str]:
        """Let the head read the mean of all tokens, unless asked not to or the backbone cannot."""
        if self.options.pooling == "mean":
            backbone.use_mean_pooling()
        return []

    def phases(self, backbone: Backbone, settings: Settings, recipe: Recipe) -> list[Phase]:
        """Return the phases: the head, groups of layers from the top, everything."""
        borders = self._borders(trainable_depths(backbone), backbone.layers.count + 1)
        early = settings.epochs * self.options.unfreezing / len(borders)
        phases = [
            Phase(f"from layer {depth}" if depth <= backbone.layers.count else "head", early, groups)
            for depth in borders
            for groups in [
                layerwise_groups(backbone, settings, recipe.weight_decay, names_from(backbone, depth))
            ]
            if groups  # a language model's head may be its table of embeddings, which trains last
        ]
        rest = settings.epochs * (1 - self.options.unfreezing)
        return [*phases, Phase("full", rest, layerwise_groups(backbone, settings, recipe.weight_decay))]

    def _borders(self, depths: list[int], head: int) -> list[int]:
        """Return the lowest depth that trains in each phase but the last: the head's, then ever lower ones."""
        freed = max(self.options.stages - 1, 0)
        steps = [len(depths) * number // (freed + 1) for number in range(1, freed + 1)]
        return [head, *dict.fromkeys(depths[-step] for step in steps if step > 0)]
