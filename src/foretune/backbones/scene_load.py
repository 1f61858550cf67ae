"""Find a segmenter or detector by name: a folder, a name of timm, or a hub id; only safetensors are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from foretune.backbones.image_load import _explain, _folder, image_source
from foretune.backbones.scene import SceneBackbone
from foretune.backbones.source import Source
from foretune.data.media import require
from foretune.errors import BackboneError, ConfigError, ForetuneError

#: Which kind of head a task asks for, by the class of transformers that has one.
KINDS = {"AutoModelForSemanticSegmentation": "segmentation", "AutoModelForObjectDetection": "detection"}


def load_scene_backbone(
    name: str, *, auto_class: str, options: dict[str, Any], offline: bool, seed: int = 0
) -> SceneBackbone:
    """Load a network with a new head for masks or boxes, or a fine-tuned one with its own.

    `options`: num_labels, id2label … of the new head, empty to keep the saved one; `head` of a detector on timm:
    auto, fcos or detr. Raises BackboneError, and ConfigError where timm or torchvision is not installed.
    """
    import torch

    for module in ("timm", "torchvision"):
        require(module, "image")
    source = image_source(name)
    torch.manual_seed(seed)  # the new head's initial weights
    try:
        return _load(_folder(source, offline), source, KINDS[auto_class], options)
    except ForetuneError:
        raise
    except Exception as error:  # the libraries raise many kinds; all mean that it cannot be loaded
        raise BackboneError(_explain(name, source, offline, error)) from error


def _load(folder: Path, source: Source, kind: str, options: dict[str, Any]) -> SceneBackbone:
    from foretune.backbones.scene_hub import load_hub_scene
    from foretune.backbones.scene_timm import load_timm_scene

    if not list(folder.glob("*.safetensors")):
        raise BackboneError(
            f"{source.location} holds no safetensors; other formats can run code when read and are refused. "
            f"It holds: {', '.join(sorted(path.name for path in folder.iterdir())[:12])}."
        )
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    wanted = options.get("head", "auto")
    options = {key: value for key, value in options.items() if key != "head"}
    if "architecture" in config:
        return load_timm_scene(folder, source, kind, options, wanted)
    if "model_type" in config and wanted != "auto":
        raise ConfigError(
            f"--option head={wanted}: {source.name} is a model of transformers and keeps its own head. "
            "Leave the option out, or give a network of timm."
        )
    if "model_type" in config:
        return load_hub_scene(folder, source, kind, options)
    raise BackboneError(
        f"{source.location}: config.json names neither timm's `architecture` nor the `model_type` of "
        f"transformers. Give the folder of a pretrained image network."
    )
