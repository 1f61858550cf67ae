"""Linear probing, then fine-tuning: the head is fitted before the backbone moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from foretune.errors import ConfigError
from foretune.strategies.base import (
    STRATEGIES,
    ParameterGroup,
    Phase,
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

PROBE_LR = 1e-3  # as the linear probe's


@dataclass(frozen=True, kw_only=True)
class LpFtOptions:
    """`probe_epochs`: passes of the head alone over the cached features, before the fine-tuning."""

    probe_epochs: float = 20.0

    def __post_init__(self) -> None:
        if not isinstance(self.probe_epochs, int | float) or not 0 < self.probe_epochs < float("inf"):
            raise ConfigError(f"Option probe_epochs is {self.probe_epochs!r}; expected a number above 0.")


@STRATEGIES.register("lp-ft")
class LpFt(Strategy):
    """LP-FT (Kumar et al. 2022): a head that fits from the start bends the pretrained features less."""

    name = "lp-ft"
    about = "a linear probe first, then everything trains; gentle on the features, sturdier on shifted data"
    trains_embeddings = True
    Options = LpFtOptions

    _gain = 1.0  # of the head's dense layer, see `Backbone.linear_head`

    def defaults(self, workload: Workload) -> Settings:
        """Return the settings of full fine-tuning; `epochs` and `lr` are those of the second phase."""
        batch, lr = batch_and_rate(workload)
        epochs = epochs_by_size(5, 3, workload)
        return Settings(lr=lr, epochs=epochs, batch_tokens=batch, layer_decay=0.9)

    def prepare(self, backbone: Backbone) -> list[str]:
        """Make the head linear in the mean of all tokens where that is possible."""
        backbone.use_mean_pooling()
        parameters, self._gain = backbone.linear_head()
        own = {id(parameter) for parameter in parameters}
        self._head = tuple(name for name, p in backbone.model.named_parameters() if id(p) in own)
        return []

    def phases(self, backbone: Backbone, settings: Settings, recipe: Recipe) -> list[Phase]:
        """Return two phases: the head, then everything."""
        probe = ParameterGroup(self._head, PROBE_LR / self._gain, recipe.weight_decay)
        return [
            Phase("probe", self.options.probe_epochs, (probe,)),
            Phase("full", settings.epochs, layerwise_groups(backbone, settings, recipe.weight_decay)),
        ]
