"""Heads over a pyramid of features: a segmenter of the UPerNet type and a detector of the FCOS type."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOS, FCOSHead
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FeaturePyramidNetwork

from foretune.backbones.split import evaluating
from foretune.errors import BackboneError

POOLS = (1, 2, 3, 6)  # places per side of pyramid pooling (Zhao et al. 2017, section 3.2)
GROUPS = 32  # of group norm (Wu and He 2018)
TRIED = (96, 160)  # height and width (pixels) of what a network is tried on: multiples of 32, as canvases are
PLACES = 9.0  # that hold an object, at most: within 1.5 strides of its centre (Tian et al. 2019, version 4)
STRIDES = (8, 16, 32)  # of a detector's maps; plain Vision Transformers have one, which is resized to them


class Trunk(nn.Module):
    """A network of timm that gives maps of several strides, the finest first.

    Where all of its maps have one stride (plain Vision Transformers) the last one is resized to `STRIDES`
    (Li et al. 2022, "Exploring plain Vision Transformer backbones for object detection", section 3).
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        channels, strides = network.feature_info.channels(), network.feature_info.reduction()
        self.plain = strides[-1] if len(set(strides)) == 1 and len(strides) > 1 else None
        self.channels: list[int] = [channels[-1]] * len(STRIDES) if self.plain else list(channels)
        self.strides: list[int] = list(STRIDES) if self.plain else list(strides)
        self.last = False  # whether the network's maps have their channels last, as Swin's do
        self._try()

    @torch.no_grad()
    def _try(self) -> None:
        """See how the maps lie. Raises BackboneError for a network that does not read pictures of any size."""
        try:
            with evaluating(self.network):
                maps = self.network(torch.zeros(1, 3, *TRIED))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise BackboneError(
                f"{type(self.network).__name__} does not read pictures of any size, as this task needs it: {error} "
                "Take a ResNet, a ConvNeXt, a Swin, or a plain vision Transformer with patches of 16."
            ) from error
        self.last = any(
            each.shape[1] != own and each.shape[-1] == own
            for each, own in zip(maps, self.network.feature_info.channels(), strict=True)
        )

    def forward(self, numbers: Tensor) -> list[Tensor]:
        """Return maps (batch, channels, h, w) of pixels (batch, 3, height, width)."""
        maps = self.network(numbers)
        if self.last:
            maps = [each.permute(0, 3, 1, 2).contiguous() for each in maps]
        if self.plain is None:
            return maps
        sizes = [(numbers.shape[2] // stride, numbers.shape[3] // stride) for stride in self.strides]
        return [nn.functional.interpolate(maps[-1], size, mode="bilinear") for size in sizes]


class PyramidPooling(nn.Module):
    """A map beside its means over 1, 4, 9 and 36 places (Zhao et al. 2017): what stands where in the picture."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Conv2d(channels, width, 1) for _ in POOLS)
        self.out = nn.Conv2d(channels + width * len(POOLS), channels, 1)

    def forward(self, top: Tensor) -> Tensor:
        """Return (batch, channels, h, w), as `top` is."""
        pooled = [
            nn.functional.interpolate(
                part(nn.functional.adaptive_avg_pool2d(top, pool)).relu(), top.shape[2:], mode="bilinear"
            )
            for pool, part in zip(POOLS, self.parts, strict=True)
        ]
        return top + self.out(torch.cat([top, *pooled], dim=1))


class Segmenter(nn.Module):
    """Class logits at the finest map's stride, by a head of the UPerNet type (Xiao et al. 2018, section 3.1)."""

    def __init__(self, trunk: Trunk, classes: int, width: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.pooling = PyramidPooling(trunk.channels[-1], width)
        self.pyramid = FeaturePyramidNetwork(trunk.channels, width)
        self.fuse = nn.Conv2d(width * len(trunk.channels), width, 1, bias=False)
        self.norm = nn.GroupNorm(GROUPS, width)
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, numbers: Tensor) -> Tensor:
        """Return logits (batch, classes, h, w) of pixels (batch, 3, height, width)."""
        maps = self.trunk(numbers)
        maps[-1] = self.pooling(maps[-1])
        levels = list(self.pyramid(_named(maps)).values())
        size = levels[0].shape[2:]
        same = [levels[0], *(nn.functional.interpolate(m, size, mode="bilinear") for m in levels[1:])]
        return self.classify(self.norm(self.fuse(torch.cat(same, dim=1))).relu())


class TrunkPyramid(nn.Module):
    """The maps of a trunk, brought to one width: what torchvision's detectors call their backbone."""

    def __init__(self, trunk: Trunk, width: int) -> None:
        super().__init__()
        self.trunk, self.out_channels = trunk, width
        self.pyramid = FeaturePyramidNetwork(trunk.channels, width)

    def forward(self, numbers: Tensor) -> OrderedDict[str, Tensor]:
        """Return maps (batch, width, h, w), the finest first."""
        return self.pyramid(_named(self.trunk(numbers)))


class ObjectsHead(FCOSHead):
    """FCOS's head, with a loss that is a sum over places divided by the objects times `PLACES`.

    FCOS divides by the places that hold an object, whose number depends on the boxes' sizes: means over parts of
    a batch then do not add up to that of the whole, and accumulated gradients would differ from those of one step.
    """

    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        matched_idxs: list[Tensor],
    ) -> dict[str, Tensor]:
        """Return the three losses, each the mean over objects."""
        parts = super().compute_loss(targets, head_outputs, anchors, matched_idxs)
        places = max(sum(int((matched >= 0).sum()) for matched in matched_idxs), 1)
        objects = max(sum(len(each["boxes"]) for each in targets), 1)
        return {name: value * (places / (objects * PLACES)) for name, value in parts.items()}


class Detector(FCOS):
    """FCOS (Tian et al. 2019) of torchvision on any trunk, with a lighter head.

    `forward` takes pixels that are scaled and padded already, and gives every place's finding.
    """

    def __init__(self, trunk: Trunk, classes: int, width: int, convolutions: int) -> None:
        sizes = tuple((stride,) for stride in trunk.strides)
        super().__init__(
            TrunkPyramid(trunk, width), classes,
            anchor_generator=AnchorGenerator(sizes, ((1.0,),) * len(sizes)),
            head=ObjectsHead(width, 1, classes, convolutions),
        )  # fmt: skip

    def forward(
        self, numbers: Tensor, targets: list[dict[str, Tensor]] | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return findings (batch, places, classes + 4) and, with targets, the loss averaged over objects.

        A finding is the probability of every class and the corners x1, y1, x2, y2 in pixels. `targets`: boxes
        (n, 4) as corners and labels (n,) of every picture.
        """
        maps = list(self.backbone(numbers).values())
        outputs = self.head(maps)
        images = ImageList(numbers, [(numbers.shape[2], numbers.shape[3])] * len(numbers))
        anchors = self.anchor_generator(images, maps)
        boxes = self.box_coder.decode(outputs["bbox_regression"], torch.stack(anchors))
        scores = (outputs["cls_logits"].sigmoid() * outputs["bbox_ctrness"].sigmoid()).clamp(min=1e-12).sqrt()
        loss = None
        if targets is not None:
            levels = [each.shape[2] * each.shape[3] for each in maps]
            parts = self.compute_loss(targets, {k: v.float() for k, v in outputs.items()}, anchors, levels)
            loss = torch.stack(list(parts.values())).sum()
        return torch.cat([scores, boxes], dim=2), loss


def _named(maps: Sequence[Tensor]) -> OrderedDict[str, Tensor]:
    return OrderedDict((str(number), each) for number, each in enumerate(maps))
