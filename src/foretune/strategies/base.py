"""The Strategy seam: what trains, in which phases, at which rate, and what is added to the loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from foretune.errors import ConfigError, did_you_mean
from foretune.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn

    from foretune.backbones.base import Backbone
    from foretune.recipe import Recipe
    from foretune.tasks.base import Task


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a peak learning rate and a weight decay."""

    names: tuple[str, ...]
    lr: float
    weight_decay: float


@dataclass(frozen=True)
class Phase:
    """A stretch of training of `epochs` passes over the data in which the same parameters train.

    What lies below the lowest trained layer is run once and cached (see `foretune.training.prefix`).
    """

    name: str
    epochs: float
    groups: tuple[ParameterGroup, ...]


@dataclass(frozen=True)
class Workload:
    """What a strategy chooses its defaults from: examples, tokens per epoch, classes."""

    examples: int
    tokens: int
    classes: int
    unit: str = "tokens"  # what `tokens` counts: of pictures "images", each of them one


@dataclass(frozen=True)
class Settings:
    """The numbers of a run that a strategy has defaults for."""

    lr: float
    epochs: float
    batch_tokens: int
    layer_decay: float = 1.0


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """The options of a strategy that has none."""


@dataclass(frozen=True, kw_only=True)
class PoolingOptions:
    """`pooling`: "mean" over all tokens, where the backbone allows it, or "cls", what its own head reads."""

    pooling: str = "mean"

    def __post_init__(self) -> None:
        if self.pooling not in ("mean", "cls"):
            raise ConfigError(f"Option pooling is {self.pooling!r}; expected mean or cls.")


class Strategy(ABC):
    """How a backbone is adapted. Options are a small dataclass `Options` beside the class."""

    name: ClassVar[str]
    about: ClassVar[str]
    trains_embeddings: ClassVar[bool] = False  # then unknown characters can become tokens
    needs_targets: ClassVar[bool] = True
    planned: ClassVar[bool] = True  # whether `foretune plan` weighs it without being told
    augments: ClassVar[bool] = False  # whether augmented inputs are worth it: not where they hinder the cache
    Options: ClassVar[type] = NoOptions

    def __init__(self, options: dict[str, Any] | None = None) -> None:
        self.options = _options(type(self), options or {})

    @abstractmethod
    def defaults(self, workload: Workload) -> Settings:
        """Return good settings for data of this size."""

    def prepare(self, backbone: Backbone) -> list[str]:
        """Change the model before training (freeze, wrap …); return notes for the user."""
        return []

    @abstractmethod
    def phases(self, backbone: Backbone, settings: Settings, recipe: Recipe) -> list[Phase]:
        """Return the phases in order."""

    def extra_loss(self, model: nn.Module, batch: dict[str, Tensor], outputs: Tensor) -> Tensor | None:
        """Return what is added to the mean loss of a step, weighted by the batch's share; None for nothing."""
        return None

    def finish(self, backbone: Backbone) -> None:  # noqa: B027 (most strategies have nothing to do here)
        """Bring the model into the form that is saved (merge adapters …)."""


STRATEGIES: Registry[type[Strategy]] = Registry("strategy")


def make_strategy(name: str, recipe: Recipe, task: type[Task] | Task) -> Strategy:
    """Return the strategy with its options of the recipe: those that are not the task's. Raises ConfigError."""
    options = {key: value for key, value in recipe.options.items() if key not in task.option_names()}
    return STRATEGIES[name](options)


def _options(strategy: type[Strategy], given: dict[str, Any]) -> Any:
    """Make the strategy's options. Raises ConfigError for one that it does not have."""
    known = {field.name for field in fields(strategy.Options)}
    for name in given:
        if name not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise ConfigError(
                f"Strategy {strategy.name} has no option {name!r}.{did_you_mean(name, known)} It has: {listed}."
            )
    try:
        return strategy.Options(**given)
    except TypeError as error:
        raise ConfigError(f"An option of strategy {strategy.name} is of the wrong type: {error}.") from error


SMALL = 4400  # tokens of an epoch below which steps get smaller and epochs more, lest there be too few steps


def batch_and_rate(work: Workload) -> tuple[int, float]:
    """Return tokens per step and peak rate of full fine-tuning.

    Measured on SST-2, TREC-6 and the example messages: small data need small batches, and the rate follows
    the square root of the batch, down to 512 tokens. The smallest sets of texts have 8 steps an epoch.
    """
    batch = int(min(max(work.tokens / 120, 512), 4096))
    if work.unit == "tokens":
        batch = min(batch, max(work.tokens // 8, 128))
    return batch, 2e-4 * min(max((batch / 1024) ** 0.5, 0.7), 1.5)


def epochs_by_size(usual: float, of_many: float, work: Workload) -> float:
    """Return `usual` epochs, `of_many` from 20,000 examples on, and up to twice as many for small sets of texts.

    Fine-tuning all of MiniLM on 100 short questions of TREC-6 for 20 steps of 512 tokens in 5 epochs stayed at
    71 % on test; 120 steps of 128 in 10 epochs reached 90 %.
    """
    epochs = usual if work.examples < 20_000 else of_many
    if work.unit != "tokens":
        return epochs
    return float(round(epochs * min(max(SMALL / max(work.tokens, 1), 1.0), 2.0)))


def trainable_depths(backbone: Backbone) -> list[int]:
    """Return the depths of the layers that can train, lowest first (1 … n; a pooling layer is fixed)."""
    depth, count = backbone.layers.depth, backbone.layers.count
    parameters = dict(backbone.model.named_parameters())
    return sorted({d for name, d in depth.items() if 1 <= d <= count and parameters[name].requires_grad})


def names_from(backbone: Backbone, lowest: int) -> list[str]:
    """Return the parameters that can train and lie at depth `lowest` or above."""
    depth = backbone.layers.depth
    return [
        name for name, p in backbone.model.named_parameters() if p.requires_grad and depth[name] >= lowest
    ]


def undecayed(model: nn.Module) -> set[str]:
    """Return the parameters without weight decay: biases, norms and embedding tables."""
    from torch import nn

    tables = {
        f"{name}.{own}"
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding)
        for own, _ in module.named_parameters(recurse=False)
    }
    return tables | {name for name, parameter in model.named_parameters() if parameter.ndim < 2}


NEW_TOKENS = ".new"  # ends the name of the embedding rows of new tokens
NEW_TOKENS_RATE = 25.0  # their rate as a multiple of lr: they start at random and are updated rarely


def layerwise_groups(
    backbone: Backbone, settings: Settings, weight_decay: float, names: Iterable[str] | None = None
) -> tuple[ParameterGroup, ...]:
    """Return groups with layer-wise learning-rate decay (Howard and Ruder 2018, section 3.2).

    A layer's rate is lr * layer_decay ** (layers above it); the head's is lr. `names`: only these parameters.
    """
    depth = backbone.layers.depth
    top = backbone.layers.count + 1
    wanted = None if names is None else set(names)
    buckets: dict[tuple[int, bool], list[str]] = {}
    new: list[str] = []
    plain = undecayed(backbone.model)
    for name, parameter in backbone.model.named_parameters():
        if wanted is not None and name not in wanted:
            continue
        if parameter.requires_grad and name.endswith(NEW_TOKENS):
            new.append(name)
        elif parameter.requires_grad:
            buckets.setdefault((depth[name], name not in plain), []).append(name)
    fresh = (ParameterGroup(tuple(new), settings.lr * NEW_TOKENS_RATE, 0.0),) if new else ()
    return fresh + tuple(
        ParameterGroup(
            tuple(names),
            settings.lr * settings.layer_decay ** max(top - 1 - level, 0),
            weight_decay if decayed else 0.0,
        )
        for (level, decayed), names in sorted(buckets.items())
    )
