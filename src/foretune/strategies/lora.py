"""LoRA: small low-rank matrices beside the frozen weights train, and are merged into them at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
)

if TYPE_CHECKING:
    from foretune.backbones.base import Backbone
    from foretune.recipe import Recipe

ADAPTER = "foretune"  # its name inside peft


@dataclass(frozen=True, kw_only=True)
class LoraOptions(PoolingOptions):
    """`rank` r of the update, its scale `alpha` / r, `lora_dropout` before it, `layers`: only the top n (0: all)."""

    rank: int = 8
    alpha: float = 16.0
    lora_dropout: float = 0.0
    layers: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.rank, int) or self.rank < 1:
            raise ConfigError(f"Option rank is {self.rank!r}; expected a whole number of 1 or more.")
        if not isinstance(self.alpha, int | float) or not 0 < self.alpha < float("inf"):
            raise ConfigError(f"Option alpha is {self.alpha!r}; expected a number above 0.")
        if not isinstance(self.lora_dropout, int | float) or not 0 <= self.lora_dropout < 1:
            raise ConfigError(f"Option lora_dropout is {self.lora_dropout!r}; expected 0 or more, below 1.")
        if not isinstance(self.layers, int) or self.layers < 0:
            raise ConfigError(f"Option layers is {self.layers!r}; expected 0 (all) or more.")


@STRATEGIES.register("lora")
class Lora(Strategy):
    """LoRA (Hu et al. 2022) on every linear map of the layers, by peft; the head trains fully and is kept.

    It saves memory (gradients and moments of few parameters), not time: the products of the frozen weights
    stay. The update is merged, so that the artefact is an ordinary model.
    """

    name = "lora"
    about = (
        "low-rank updates of frozen weights, merged at the end; needs less memory than full, not less time"
    )
    Options = LoraOptions

    def defaults(self, workload: Workload) -> Settings:
        """Return settings; the rate of the small matrices is about ten times that of full fine-tuning."""
        batch, lr = batch_and_rate(workload)
        epochs = epochs_by_size(6, 3, workload)
        return Settings(lr=5 * lr, epochs=epochs, batch_tokens=batch, layer_decay=1.0)

    def prepare(self, backbone: Backbone) -> list[str]:
        """Freeze everything but the head and put the matrices beside the linear maps of the layers."""
        import torch
        from peft import LoraConfig, inject_adapter_in_model
        from transformers.pytorch_utils import Conv1D

        if self.options.pooling == "mean":
            backbone.use_mean_pooling()
        head = set(backbone.layers.head() if backbone.new_head else ())
        linears = self._linears(backbone, (torch.nn.Linear, Conv1D))
        config = LoraConfig(
            r=self.options.rank, lora_alpha=self.options.alpha, lora_dropout=self.options.lora_dropout,
            target_modules=linears, bias="none",
            fan_in_fan_out=isinstance(backbone.model.get_submodule(linears[0]), Conv1D),  # GPT-2's form
        )  # fmt: skip
        inject_adapter_in_model(config, backbone.model, adapter_name=ADAPTER)
        backbone.layers_changed()
        for name, parameter in backbone.model.named_parameters():
            parameter.requires_grad_("lora_" in name or name in head)
        return []

    def _linears(self, backbone: Backbone, kind: Any) -> list[str]:
        """Return the names of the linear maps inside the layers that can train (the top ones, if asked)."""
        from foretune.strategies.base import trainable_depths

        depths = trainable_depths(backbone)[-self.options.layers :]
        depth = backbone.layers.depth
        names = [
            name for name, module in backbone.model.named_modules()
            if isinstance(module, kind) and depth.get(f"{name}.weight") in depths
        ]  # fmt: skip
        if not names:
            raise ConfigError(
                f"{backbone.name} has no linear maps in its layers for LoRA. Take another --strategy."
            )
        return names

    def phases(self, backbone: Backbone, settings: Settings, recipe: Recipe) -> list[Phase]:
        """Return one phase."""
        return [Phase("lora", settings.epochs, layerwise_groups(backbone, settings, recipe.weight_decay))]

    def finish(self, backbone: Backbone) -> None:
        """Add the updates to the weights and take the matrices away."""
        from peft.tuners.lora import LoraLayer

        for name, module in list(backbone.model.named_modules()):
            if isinstance(module, LoraLayer):
                module.merge()
                parent, _, own = name.rpartition(".")
                setattr(backbone.model.get_submodule(parent), own, module.get_base_layer())
        if hasattr(backbone.model, "peft_config"):
            del backbone.model.peft_config
        backbone.layers_changed()
