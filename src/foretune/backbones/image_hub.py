"""Image networks of transformers behind the Backbone's face."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from foretune.backbones.image import ImageBackbone, Look
from foretune.backbones.source import Source
from foretune.backbones.text import quiet
from foretune.errors import BackboneError

INTERPOLATIONS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # by Pillow's numbers


@dataclass(frozen=True, eq=False)
class ProcessorFit:
    """A processor of transformers without its scaling of the numbers and its order of the colours."""

    processor: Any
    size: tuple[int, int]
    interpolation: str

    def key(self) -> str:
        """Return what decides the result besides the picture."""
        return f"transformers {self.processor.to_json_string()}"

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """Return (height, width, 3) of an RGB picture (h, w, 3)."""
        # Augmented pictures do not come this way: what they need as well is the look's.
        ordered = {"do_flip_channel_order": False} if reverses(self.processor) else {}
        fitted = self.processor(
            torch.from_numpy(picture).permute(2, 0, 1),
            do_rescale=False,
            do_normalize=False,
            return_tensors="pt",
            **ordered,
        )["pixel_values"][0]
        return fitted.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()


def reverses(processor: Any) -> bool:
    """Return whether a processor gives blue, green, red, as MobileViT's do."""
    return bool(getattr(processor, "do_flip_channel_order", False))


class HubImageBackbone(ImageBackbone):
    """A classifier of transformers with its processor."""

    def __init__(self, name: str, model: nn.Module, look: Look, source: Source, processor: Any) -> None:
        self.processor = processor
        super().__init__(name, model, look, source)

    def logits(self, numbers: Tensor) -> Tensor:
        """Return the network's output (batch, classes)."""
        return self.model(pixel_values=numbers).logits

    def head_names(self) -> tuple[str, ...]:
        """Return the names of what stands on the base model."""
        base = self.model.base_model_prefix
        return tuple(name for name, _ in self.model.named_children() if name != base)

    @property
    def classifier(self) -> nn.Linear | None:
        """Return the head's linear map, where it has just one."""
        named = [getattr(self.model, name) for name in self.head_names()]
        linears = [m for part in named for m in part.modules() if isinstance(m, nn.Linear)]
        return linears[0] if len(linears) == 1 else None

    def save(self, folder: Path) -> None:
        """Write config, safetensors and processor; plain `from_pretrained` loads them."""
        weights = {name: tensor.contiguous() for name, tensor in self.model.state_dict().items()}
        with quiet():
            self.model.save_pretrained(folder, state_dict=weights)
            self.processor.save_pretrained(folder)


def load_hub(folder: Path, source: Source, options: dict[str, Any], size: int | None) -> HubImageBackbone:
    """Return the network of a folder as transformers write it. Raises BackboneError, and whatever loading raises."""
    import transformers

    with quiet():
        processor = transformers.AutoImageProcessor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        model, report = transformers.AutoModelForImageClassification.from_pretrained(
            folder, use_safetensors=True, dtype=torch.float32, output_loading_info=True, local_files_only=True,
            ignore_mismatched_sizes=True, trust_remote_code=False, **options,
        )  # fmt: skip
    if size is not None:
        raise BackboneError(f"{source.name}: another size of pictures is offered for timm's networks only.")
    fit = _fit(processor)
    scaled = getattr(processor, "do_normalize", True)
    mean = tuple(processor.image_mean) if scaled else (0.0, 0.0, 0.0)
    std = tuple(processor.image_std) if scaled else (1.0, 1.0, 1.0)
    look = Look(fit, mean, std, reverses(processor))
    backbone = HubImageBackbone(source.name, model, look, source, processor)
    absent = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    lacking = sorted(key for key in absent if backbone.layers.depth.get(key, 0) <= backbone.layers.count)
    if lacking:
        raise BackboneError(
            f"Backbone {source.name!r} lacks {len(lacking)} of its weights, or they have other sizes than its "
            f"config.json says: {', '.join(lacking[:3])} … Get the whole model again."
        )
    return backbone


def _fit(processor: Any) -> ProcessorFit:
    """Return the processor with the size of what it gives, found by trying it."""
    resample = int(getattr(processor, "resample", 2) or 0)
    trial = ProcessorFit(processor, (1, 1), INTERPOLATIONS[resample])
    height, width, _ = trial(np.zeros((320, 400, 3), dtype=np.uint8)).shape
    return ProcessorFit(processor, (height, width), INTERPOLATIONS[resample])
