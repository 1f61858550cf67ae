"""Segmenters and detectors of transformers (SegFormer, UPerNet; DETR and its kin) behind the Backbone's face."""

from __future__ import annotations

import inspect
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foretune.backbones.image import Look
from foretune.backbones.image_hub import reverses
from foretune.backbones.scene import SceneBackbone, look_at
from foretune.backbones.source import Source
from foretune.backbones.text import _in_float32, quiet
from foretune.errors import BackboneError

# Kin of DETR that take a mask of the padding and do not use it: their boxes are relative to the whole canvas.
WHOLE_CANVAS = ("rt_detr", "d_fine", "deimv2")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, where a folder has no processor
_BOX_HEAD = re.compile(r"bbox_\w+(\.\d+)?$")  # one for all layers, or one for each
AUTO = {"segmentation": "AutoModelForSemanticSegmentation", "detection": "AutoModelForObjectDetection"}


class HubSceneBackbone(SceneBackbone):
    """A segmenter or detector of transformers; `processor` is saved as it was loaded."""

    unit = "pretrained scenes"  # most of the head is pretrained as well, so that rates are smaller

    def __init__(self, name: str, model: Any, look: Look, source: Source, kind: str, processor: Any) -> None:
        self.kind, self.processor = kind, processor
        takes_mask = "pixel_mask" in inspect.signature(model.forward).parameters
        kin = str(getattr(model.config, "model_type", ""))
        whole = kin.startswith(WHOLE_CANVAS)
        self.masks_pixels = takes_mask and not whole
        self.least = _least_side(model.config.num_queries) if whole else 0
        super().__init__(name, model, model, look, source)
        for linear in _box_linears(model):
            linear.register_forward_hook(_in_float32)

    def head_names(self) -> tuple[str, ...]:
        """Return the names of what stands on the base model, or where that holds the head, on its trunk."""
        base = str(self.model.base_model_prefix)
        outside = [name for name, _ in self.model.named_children() if name != base]
        inner: Any = getattr(self.model, base, None)
        if outside or not hasattr(inner, "backbone"):
            return tuple(outside)
        return tuple(f"{base}.{name}" for name, _ in inner.named_children() if name != "backbone")

    def numbers(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the pixels as the network takes them, on a canvas that is not too small for its queries."""
        numbers = super().numbers(batch)
        below, right = (max(self.least - side, 0) for side in numbers.shape[2:])
        return nn.functional.pad(numbers, (0, right, 0, below)) if below or right else numbers

    def logits(self, numbers: Tensor) -> Tensor:
        """Return the network's class logits for scaled pixels (batch, 3, height, width)."""
        return self.model(pixel_values=numbers).logits

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return logits (batch, classes, h, w), or findings (batch, queries, classes + 4) of a detector.

        A detector that trains adds `loss` to the batch: the model's own, of which most is a mean over objects.
        """
        numbers = self.numbers(batch)
        if self.kind == "segmentation":
            return self.logits(numbers).float()
        given: dict[str, Any] = {"pixel_values": numbers}
        if self.masks_pixels:
            given["pixel_mask"] = _inside(numbers, batch["sizes"])
        scale = self._scale(numbers, batch["sizes"])
        if "boxes" in batch and torch.is_grad_enabled():
            given["labels"] = [
                _relative(each, size) for each, size in zip(batch["boxes"], scale, strict=True)
            ]
        outputs = self.model(**given)
        if "labels" in given:
            batch["loss"] = outputs.loss
        batch["overlap"] = torch.tensor(1.0)  # set prediction gives no doubles: nothing is dropped
        return torch.cat(
            [self._probabilities(outputs.logits), _corners(outputs.pred_boxes) * scale[:, None]], 2
        )

    def _scale(self, numbers: Tensor, sizes: Tensor) -> Tensor:
        """Return what relative corners are multiplied by: (batch, 4); pictures without their padding, if masked."""
        whole = sizes.new_tensor(numbers.shape[2:]).expand(len(sizes), 2)
        size = sizes[:, :2] if self.masks_pixels else whole
        return size[:, [1, 0, 1, 0]].float()

    def _probabilities(self, logits: Tensor) -> Tensor:
        """Return the probability of every class: by softmax with a class for nothing, else by sigmoid."""
        if logits.shape[-1] == self.model.config.num_labels + 1:
            return logits.float().softmax(dim=-1)[..., :-1]
        return logits.float().sigmoid()

    def save(self, folder: Path) -> None:
        """Write config, safetensors and processor; plain `from_pretrained` loads them."""
        weights = {name: tensor.contiguous() for name, tensor in self.model.state_dict().items()}
        with quiet():
            self.model.save_pretrained(folder, state_dict=weights)
            if self.processor is not None:
                self.processor.save_pretrained(folder)


def _least_side(queries: int) -> int:
    """Return the side (pixels) of the least canvas with as many places as queries, which RT-DETR draws from them.

    A block of 32 x 32 pixels has 21 places: 16, 4 and 1 at the strides 8, 16 and 32.
    """
    return 32 * math.ceil(math.sqrt(queries / 21))


def _box_linears(model: nn.Module) -> list[nn.Linear]:
    """Return the last linear maps of the heads that give boxes.

    In bf16 a place between a half and one is a multiple of 1/256 of the picture: 2.5 of 640 pixels.
    """
    heads = [
        m for name, m in model.named_modules() if _BOX_HEAD.search(name) and not isinstance(m, nn.ModuleList)
    ]
    linears = [[m for m in head.modules() if isinstance(m, nn.Linear)] for head in heads]
    return list({id(each[-1]): each[-1] for each in linears if each}.values())


def _inside(numbers: Tensor, sizes: Tensor) -> Tensor:
    """Return 1 where a canvas holds the picture, 0 where it is padded: (batch, height, width) int64."""
    rows = torch.arange(numbers.shape[2], device=numbers.device)[None, :, None] < sizes[:, 0, None, None]
    columns = torch.arange(numbers.shape[3], device=numbers.device)[None, None] < sizes[:, 1, None, None]
    return (rows & columns).long()


def _relative(boxes: Tensor, scale: Tensor) -> dict[str, Tensor]:
    """Return labels as DETR's losses take them: boxes (n, 4) as centre and size, relative to the picture."""
    real = boxes[boxes[:, 0] >= 0]
    corners = real[:, 1:] / scale
    centre, size = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
    return {"class_labels": real[:, 0].long(), "boxes": torch.cat([centre, size], dim=1)}


def _corners(boxes: Tensor) -> Tensor:
    centre, half = boxes[..., :2].float(), boxes[..., 2:].float() / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def _look(processor: Any | None) -> Look:
    """Return how pixels are scaled: as by the processor, of which some (RT-DETR's) only divide by 255."""
    scaled = processor is None or getattr(processor, "do_normalize", True)
    mean, std = (getattr(processor, name, None) for name in ("image_mean", "image_std"))
    look = look_at(mean or MEAN, std or STD) if scaled else look_at((0.0,) * 3, (1.0,) * 3)
    return replace(look, reverse=reverses(processor))


def load_hub_scene(folder: Path, source: Source, kind: str, options: dict[str, Any]) -> HubSceneBackbone:
    """Return the model of a folder as transformers write it. Raises BackboneError, and whatever loading raises."""
    import transformers

    with quiet():
        try:
            processor = transformers.AutoImageProcessor.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError):
            processor = None
        model, report = getattr(transformers, AUTO[kind]).from_pretrained(
            folder, use_safetensors=True, dtype=torch.float32, output_loading_info=True, local_files_only=True,
            ignore_mismatched_sizes=True, trust_remote_code=False, **options,
        )  # fmt: skip
    look = _look(processor)
    backbone = HubSceneBackbone(source.name, model, look, source, kind, processor)
    heads = tuple(f"{name}." for name, _ in model.named_children() if name != model.base_model_prefix)
    lacking = sorted(key for key in report["missing_keys"] if not key.startswith(heads))
    if lacking:
        raise BackboneError(
            f"Backbone {source.name!r} lacks {len(lacking)} of its weights: {', '.join(lacking[:3])} … Get the "
            "whole model again."
        )
    return backbone
