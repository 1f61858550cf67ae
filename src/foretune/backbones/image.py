"""Image networks behind the Backbone's face: convolutional ones and Transformers, by block or stage."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from foretune.backbones.base import Backbone
from foretune.backbones.image_layers import (
    channels_last,
    map_image_layers,
    places_mean,
    stacked,
    train_above,
)
from foretune.backbones.layers import LayerMap
from foretune.backbones.split import TOLERANCE, evaluating, find_layers
from foretune.data.image_store import Fit, ImageStore

if TYPE_CHECKING:
    from foretune.backbones.source import Source
    from foretune.data.store import Store

# Pictures of one pass without gradients; on a CPU 64 of 224 x 224 took a ResNet-18 0.45 GB more than 32, as fast.
PASS_PICTURES = {"cpu": 32}
PASS_PICTURES_ELSE = 64


@dataclass(frozen=True)
class Look:
    """How a network sees a picture: `fit` to its size, then (value / 255 - `mean`) / `std` by colour.

    `reverse`: the network takes blue, green, red.
    """

    fit: Fit
    mean: tuple[float, ...]
    std: tuple[float, ...]
    reverse: bool = False

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return pixels (batch, 3, height, width) uint8 as the network's numbers, float32."""
        mean, std = (pixels.new_tensor(v, dtype=torch.float32)[:, None, None] for v in (self.mean, self.std))
        ordered = pixels.flip(1) if self.reverse else pixels
        return (ordered.float() / 255 - mean) / std


class ImageBackbone(Backbone):
    """A network of pictures; subclasses say how their library runs and saves it.

    A picture counts as one token. What a layer gives for it is stored as one row whatever its shape, tokens
    or a map of channels: `hidden` is (batch, 1, …).
    """

    unit = "images"
    model: Any

    def __init__(self, name: str, model: nn.Module, look: Look, source: Source) -> None:
        self.name, self.model, self.look, self.source = name, model, look, source
        self._slots = find_layers(model)
        self.layers_changed()

    @abstractmethod
    def logits(self, numbers: Tensor) -> Tensor:
        """Return the network's output (batch, classes) for (batch, 3, height, width) float32."""

    @abstractmethod
    def head_names(self) -> tuple[str, ...]:
        """Return the names of the head's modules."""

    @property
    @abstractmethod
    def classifier(self) -> nn.Linear | None:
        """Return the head where it is one linear map."""

    def layers_changed(self) -> None:
        """Look at the layers anew: a strategy has changed the modules."""
        self._map: LayerMap | None = None
        self._points: tuple[int, ...] | None = None
        self._linear: bool | None = None

    @property
    def layers(self) -> LayerMap:
        """Return the blocks or stages in order and the depth of every parameter."""
        if self._map is None:
            self._map = map_image_layers(self.model, self._slots, self.head_names())
        return self._map

    @property
    def max_length(self) -> int:
        """Return 1: a picture is one unit."""
        return 1

    def preprocess(self, inputs: Sequence[Any], *, max_length: int, truncation: str) -> ImageStore:
        """Return the pictures (paths or RGB arrays) as a store; nothing is decoded yet."""
        return ImageStore(list(inputs), self.look.fit)

    def collate(self, store: Store, rows: np.ndarray) -> dict[str, Tensor]:
        """Return pixels (batch, 3, height, width) uint8 and, with mixup, who is mixed with whom."""
        assert isinstance(store, ImageStore)
        pixels = torch.from_numpy(store.pixels(rows)).permute(0, 3, 1, 2)
        mixing = store.augmentation.mixing(len(rows)) if store.augmentation is not None else {}
        return {"pixels": pixels, **mixing}

    def context(self, store: Store, rows: np.ndarray) -> dict[str, Tensor]:
        """Return what layers above a split need besides the hidden states: nothing, so nothing is decoded."""
        return {}

    def sample_batch(self, length: int) -> dict[str, Tensor]:
        """Return one picture, the same in every process, on the model's device."""
        return self._sample(1)

    @property
    def sample_lengths(self) -> tuple[int, ...]:
        """Return 1: all pictures cost the same."""
        return (1,)

    def _sample(self, n: int) -> dict[str, Tensor]:
        """Return n noisy pictures."""
        chance = np.random.default_rng(0)
        pixels = chance.integers(0, 256, (n, 3, *self.look.fit.size), dtype=np.uint8)
        return {"pixels": torch.from_numpy(pixels).to(self._device)}

    @property
    def pass_limit(self) -> int:  # type: ignore[override]
        """Return how many pictures go into one pass without gradients at most."""
        return PASS_PICTURES.get(self._device.type, PASS_PICTURES_ELSE)

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _numbers(self, batch: dict[str, Tensor]) -> Tensor:
        """Return what the network takes, mixed where the batch says so (Zhang et al. 2018, eq. 1)."""
        numbers = self.look(batch["pixels"])
        if "mix_order" in batch:
            share = batch["mix_share"]
            numbers = share * numbers + (1 - share) * numbers[batch["mix_order"]]
        return channels_last(numbers)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return logits (batch, classes) in float32."""
        return self.logits(self._numbers(batch)).float()

    def split_points(self) -> tuple[int, ...]:
        """Return every k behind which the network can be split, tried on two pictures."""
        if self._points is None:
            with torch.no_grad(), evaluating(self.model):
                self._points = self._tried_points()
        return self._points

    def _tried_points(self) -> tuple[int, ...]:
        ks, batch = list(range(1, self._slots.count + 1)), self._sample(2)
        if not ks:
            return ()
        expected = self.forward(batch)
        try:
            hidden = self.hidden(batch, ks)
        except KeyError:  # a layer that the model does not call
            return ()
        return tuple(k for k, each in zip(ks, hidden, strict=True) if self._same(k, each, expected))

    def _same(self, k: int, hidden: Tensor, expected: Tensor) -> bool:
        """Return whether starting behind layer k gives what the whole network gives."""
        try:
            output = self.forward_from(k, hidden, {})
        except (RuntimeError, TypeError, AttributeError, IndexError, KeyError, ValueError):
            return False  # this model looks at its layers in a way that stand-ins do not bear
        scale = float(expected.abs().max()) or 1.0
        return output.shape == expected.shape and float((output - expected).abs().max()) <= TOLERANCE * scale

    def hidden(self, batch: dict[str, Tensor], points: Sequence[int]) -> list[Tensor]:
        """Return the output of the first k layers, one row per picture: (batch, 1, …), for every k of `points`."""
        found = self._slots.read(lambda: self.logits(self._numbers(batch)), points)
        return [hidden[:, None] for hidden in found]

    def forward_from(self, k: int, hidden: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Return logits (batch, classes), given the output of the first k layers: (batch, 1, …).

        The stem runs on a single blank picture, which costs little, and its output goes nowhere.
        """
        blank = torch.zeros(1, 3, *self.look.fit.size, device=hidden.device)
        with self._slots.starting_at(k, channels_last(hidden[:, 0])):
            return self.logits(blank).float()

    def layer_means(self, batch: dict[str, Tensor]) -> Tensor:
        """Return every layer's mean over places: (batch, n + 1, widest), the stem's first, zeros behind ends."""
        hidden = self.hidden(batch, range(self._slots.count + 1))
        return stacked([places_mean(each[:, 0]) for each in hidden])

    def train_above(self, k: int) -> None:
        """Put layers from k on and the head into training mode, what is frozen into evaluation mode."""
        train_above(self.model, self._slots, self.layers, k)

    @property
    def linear(self) -> bool:
        """Return whether the head is a linear map of one vector per picture, tried on two."""
        if self._linear is None:
            with torch.no_grad(), evaluating(self.model):
                batch = self._sample(2)
                features = self.features(batch)
                self._linear = features is not None and torch.allclose(
                    self.head(features), self.forward(batch), atol=1e-4, rtol=1e-4
                )
        return self._linear

    def features(self, batch: dict[str, Tensor]) -> Tensor | None:
        """Return the classifier's input (batch, hidden), or None where it is not one vector per picture."""
        seen: list[Tensor] = []
        if self.classifier is None:
            return None
        hook = self.classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            self.logits(self._numbers(batch))
        finally:
            hook.remove()
        return seen[0] if seen and seen[0].ndim == 2 else None

    def head(self, features: Tensor) -> Tensor:
        """Return the logits (batch, classes) of the classifier in float32."""
        assert self.classifier is not None
        return self.classifier(features).float()

    def linear_head(self) -> tuple[list[nn.Parameter], float]:
        """Return the head's parameters; the features they see are the backbone's own."""
        own = dict(self.model.named_parameters())
        return [own[name] for name in self.layers.head()], 1.0

    def use_mean_pooling(self) -> bool:
        """Return whether the head reads the mean of all places anyway; it is left as it was pretrained."""
        return bool(self.averages)

    @cached_property
    def averages(self) -> bool:
        """Return whether the network averages over places before its head."""
        return any(isinstance(module, nn.AdaptiveAvgPool2d) for module in self.model.modules())

    def train_seen_embeddings(self, store: Store) -> None:
        """Do nothing: pictures have no vocabulary."""

    def learn_vocabulary(self, inputs: Sequence[Any]) -> int:
        """Return 0: pictures have no vocabulary."""
        return 0

    def fold_embeddings(self) -> None:
        """Do nothing: pictures have no vocabulary."""

    def fingerprint(self) -> str:
        """Return the hash of the weights that this model was loaded from (hex)."""
        return self.source.fingerprint()

    def state_key(self) -> str:
        """Return the hash of the weights and the scale of the pixels."""
        return f"{self.fingerprint()} {self.look.mean} {self.look.std} {self.look.reverse}"
