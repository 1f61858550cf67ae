"""Networks that say something of every place in a picture (masks, boxes), behind the Backbone's face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from foretune.backbones.image import ImageBackbone, Look
from foretune.backbones.image_layers import channels_last
from foretune.backbones.split import find_layers
from foretune.data.scene_store import SceneStore
from foretune.data.scene_views import rounded_up

if TYPE_CHECKING:
    from foretune.backbones.source import Source
    from foretune.data.store import Store

SAMPLE = (256, 256)  # height and width (pixels) at which the work of a picture is counted before there is one


@dataclass(frozen=True)
class AnySize:
    """Stands for the fit to a size, which these networks do not need; `size` is that of a sample."""

    size: tuple[int, int] = SAMPLE
    interpolation: str = "bilinear"

    def key(self) -> str:
        """Return what decides the result besides the picture."""
        return "any size"

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """Return the picture as it is."""
        return picture


def look_at(mean: Sequence[float], std: Sequence[float]) -> Look:
    """Return how pixels are scaled; `mean` and `std` by colour, of values from 0 to 1."""
    return Look(AnySize(), tuple(mean), tuple(std))


class SceneBackbone(ImageBackbone):
    """A network for pictures of any size. `trunk` is the part of `model` that was pretrained.

    Its batches come from `SceneStore.batch`. It cannot be split: pictures of unequal size have hidden states of
    unequal shape. A subclass says what `forward` gives.
    """

    pass_limit = 8  # pictures in one pass without gradients: masks of all classes are large
    unit = "scenes"
    pools = False
    trunk: nn.Module

    def __init__(self, name: str, model: nn.Module, trunk: nn.Module, look: Look, source: Source) -> None:
        super().__init__(name, model, look, source)
        self.trunk = trunk
        self.sample_size: tuple[int, int] | None = None  # height and width (pixels), once there is a store
        self._slots = find_layers(trunk)
        self.layers_changed()

    @property
    def classifier(self) -> nn.Linear | None:
        """Return None: the head is no linear map of one vector per picture."""
        return None

    @property
    def linear(self) -> bool:
        """Return False, for the same reason."""
        return False

    def preprocess(self, inputs: Sequence[Any], *, max_length: int, truncation: str) -> Any:
        """Return the pictures (paths or RGB arrays) as a store; nothing is decoded yet."""
        return SceneStore(list(inputs))

    def collate(self, store: Store, rows: np.ndarray) -> dict[str, Tensor]:
        """Return the store's batch as tensors, `pixels` as (batch, 3, height, width) uint8."""
        assert isinstance(store, SceneStore)
        batch = {name: torch.from_numpy(values) for name, values in store.batch(rows).items()}
        return batch | {"pixels": batch["pixels"].permute(0, 3, 1, 2)}

    def like(self, store: SceneStore) -> None:
        """Count the work of a picture at the size that pictures of `store`, the first one, are read at."""
        if self.sample_size is None:
            height, width = store.sizes[0].tolist()
            self.sample_size = store.canvas or rounded_up(store.fitted((height, width)))

    def _sample(self, n: int) -> dict[str, Tensor]:
        """Return n noisy pictures."""
        height, width = self.sample_size or SAMPLE
        pixels = np.random.default_rng(0).integers(0, 256, (n, 3, height, width), dtype=np.uint8)
        sizes = torch.tensor([[height, width] * 2] * n)
        batch = {"pixels": torch.from_numpy(pixels), "sizes": sizes}
        return {name: tensor.to(self._device) for name, tensor in batch.items()}

    def numbers(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the pixels as the network takes them: (batch, 3, height, width) float32."""
        return channels_last(self.look(batch["pixels"]))

    def split_points(self) -> tuple[int, ...]:
        """Return no point."""
        return ()

    def features(self, batch: dict[str, Tensor]) -> Tensor | None:
        """Return None: there is no vector that a linear head reads."""
        return None

    def use_mean_pooling(self) -> bool:
        """Return False: the head reads every place."""
        return False

    def train_above(self, k: int) -> None:
        """Put what lies above layer k into training mode; the trunk's batch norms keep their pretrained means.

        Batches of large pictures hold too few for means of their own (as torchvision's detectors do).
        """
        super().train_above(k)
        for module in self.trunk.modules():
            if isinstance(module, _BatchNorm):
                module.eval()


def restored(logits: Tensor, sizes: Sequence[int], canvas: tuple[int, int]) -> Tensor:
    """Return one picture's logits (classes, h, w), which cover the canvas, at the original's full size.

    `sizes`: height and width on the canvas, and of the original. Bilinear, before any argmax.
    """
    height, width, full_height, full_width = sizes
    whole = nn.functional.interpolate(logits[None].float(), canvas, mode="bilinear", align_corners=False)
    part = whole[..., :height, :width]
    if (height, width) == (full_height, full_width):
        return part[0]
    return nn.functional.interpolate(part, (full_height, full_width), mode="bilinear", align_corners=False)[0]
