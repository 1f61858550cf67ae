"""Linear probe: the backbone stays frozen, a linear classifier learns on the mean of its outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foretune.strategies.base import STRATEGIES, ParameterGroup, Phase, Settings, Strategy, Workload

if TYPE_CHECKING:
    from foretune.backbones.base import Backbone
    from foretune.recipe import Recipe


@STRATEGIES.register("linear-probe")
class LinearProbe(Strategy):
    """Train the classifier alone (Alain and Bengio 2016)."""

    name = "linear-probe"
    about = "only a linear classifier trains; fastest, and a sound choice with few labels"

    _gain = 1.0  # of the head's dense layer, see `Backbone.linear_head`

    def defaults(self, workload: Workload) -> Settings:
        """Return settings for a convex problem on features that are computed once: many cheap epochs."""
        return Settings(lr=1e-3, epochs=30, batch_tokens=1024)

    def prepare(self, backbone: Backbone) -> list[str]:
        """Freeze everything but the classifier, which reads the mean of all tokens where that is possible."""
        pooled = backbone.use_mean_pooling()
        parameters, self._gain = backbone.linear_head()
        head = {id(parameter) for parameter in parameters}
        for parameter in backbone.model.parameters():
            parameter.requires_grad_(id(parameter) in head)
        note = f"{backbone.name} has no place for mean pooling; the probe reads what its own head reads."
        return [] if pooled or not backbone.pools else [note]

    def phases(self, backbone: Backbone, settings: Settings, recipe: Recipe) -> list[Phase]:
        """Return one phase; the rate is in units of the features' size."""
        names = tuple(n for n, p in backbone.model.named_parameters() if p.requires_grad)
        group = ParameterGroup(names, settings.lr / self._gain, recipe.weight_decay)
        return [Phase("probe", settings.epochs, (group,))]
