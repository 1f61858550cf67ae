"""Segmenters and detectors on any network of timm: loaded with a new head, saved, and loaded again.

A saved folder holds config.json (the architecture, the head's size, the labels, mean and std of the pixels) and
model.safetensors. Foretune loads it; `SNIPPETS` shows how timm and torchvision alone do.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foretune.backbones.image import Look
from foretune.backbones.image_timm import WEIGHTS, _head_names, _loaded_keys, _normalised
from foretune.backbones.scene import SceneBackbone, look_at
from foretune.backbones.scene_heads import Detector, Segmenter, Trunk
from foretune.backbones.source import Source
from foretune.errors import BackboneError

KIND = "foretune_head"  # the entry of config.json that says which head the folder holds
WIDTH = 96  # channels of the head: of 64, 96 and 128 a CPU's compromise
CONVOLUTIONS = 2  # of a detector's towers; FCOS has 4 of 256 channels, on far larger machines
LEVELS = {"segmentation": (4, 8, 16, 32), "detection": (8, 16, 32)}  # the strides whose maps the head reads


class TimmSceneBackbone(SceneBackbone):
    """A segmenter or detector on a trunk of timm; `config` is what config.json holds."""

    library = "timm"

    def __init__(
        self, name: str, model: nn.Module, trunk: Trunk, look: Look, source: Source, config: dict[str, Any]
    ) -> None:
        self.config = config
        self.snippet = SNIPPETS[config[KIND]] if trunk.plain is None else ""
        super().__init__(name, model, trunk, look, source)

    def head_names(self) -> tuple[str, ...]:
        """Return the names of the modules outside the trunk."""
        inside = {id(module) for module in self.trunk.modules()}
        return tuple(
            name
            for name, module in self.model.named_modules()
            if id(module) not in inside and any(True for _ in module.parameters(recurse=False))
        )

    def logits(self, numbers: Tensor) -> Tensor:
        """Return the network's output for scaled pixels (batch, 3, height, width)."""
        found = self.model(numbers)
        return found[0] if isinstance(found, tuple) else found

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return logits (batch, classes, h, w), or findings (batch, places, classes + 4) of a detector.

        A detector that trains adds `loss` to the batch: the mean over the objects in it.
        """
        if self.config[KIND] == "segmentation":
            return self.logits(self.numbers(batch)).float()
        targets = None
        if "boxes" in batch and torch.is_grad_enabled():
            kept = [each[each[:, 0] >= 0] for each in batch["boxes"]]
            targets = [{"boxes": each[:, 1:], "labels": each[:, 0].long()} for each in kept]
        findings, loss = self.model(self.numbers(batch), targets)
        if loss is not None:
            batch["loss"] = loss
        batch["overlap"] = torch.tensor(OVERLAP)
        return findings.float()

    def save(self, folder: Path) -> None:
        """Write config.json and model.safetensors."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        weights = {
            name: tensor.detach().cpu().contiguous() for name, tensor in self.model.state_dict().items()
        }
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
        (folder / "config.json").write_text(
            json.dumps(self.config, indent=2, ensure_ascii=False) + "\n", "utf-8"
        )


OVERLAP = 0.6  # IoU above which the less sure of two boxes of a class is dropped (Tian et al. 2019)


def load_timm_scene(
    folder: Path, source: Source, kind: str, options: dict[str, Any], head: str = "auto"
) -> SceneBackbone:
    """Return the network of timm in a folder with a new head of `kind`, or with the saved one.

    `options`: num_labels and id2label of a new head; `head` "detr" makes one of that kind. Raises BackboneError.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    _check_known(config["architecture"], source.name)
    saved = KIND in config and not options
    if KIND in config and not saved:
        raise BackboneError(
            f"{source.name} is a fine-tuned {config[KIND]} model; another head for other labels needs the "
            "backbone that it was made from. Give that as --backbone."
        )
    if head == "detr":
        from foretune.backbones.scene_detr import load_detr

        own = _normalised(config)
        own["out_indices"] = list(_levels(own, LEVELS[kind]))
        network = _network({"model_args": {}, **own}, folder, source.name)
        if Trunk(network).last:
            raise BackboneError(
                f"{source.name} gives maps with their channels last, which a detector of DETR's kind does not read. "
                "Take a ResNet or ConvNeXt, or --option head=fcos."
            )
        return load_detr(network, own, source, options)
    if not saved:
        config = _described(_normalised(config), kind, options)
    if config[KIND] != kind:
        raise BackboneError(f"{source.name} is made for {config[KIND]}, not for {kind}. Take another folder.")
    trunk = Trunk(_network(config, None if saved else folder, source.name))
    config["strides"], config["channels_last"] = trunk.strides, trunk.last
    classes = len(config["label_names"])
    model: nn.Module = (
        Segmenter(trunk, classes, config["width"])
        if kind == "segmentation"
        else Detector(trunk, classes, config["width"], config["convolutions"])
    )
    if saved:
        from safetensors.torch import load_file

        model.load_state_dict(load_file(folder / WEIGHTS))
    seen = config["pretrained_cfg"]
    return TimmSceneBackbone(source.name, model, trunk, look_at(seen["mean"], seen["std"]), source, config)


def _described(config: dict[str, Any], kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return config.json of the network with a new head."""
    names = options["id2label"]
    return {
        KIND: kind,
        "architecture": config["architecture"],
        "out_indices": list(_levels(config, LEVELS[kind])),
        "width": WIDTH,
        "convolutions": CONVOLUTIONS,
        "label_names": [names[number] for number in sorted(names)],
        "model_args": config.get("model_args", {}),
        "pretrained_cfg": {key: config["pretrained_cfg"][key] for key in ("mean", "std")},
    }


def _check_known(architecture: str, name: str) -> None:
    """Raise BackboneError for an architecture that timm does not have."""
    import timm

    if not timm.is_model(architecture):
        raise BackboneError(
            f"{name} is of the architecture {architecture!r}, which this timm ({timm.__version__}) does not know. "
            "Update timm, or take another backbone."
        )


def _network(config: dict[str, Any], folder: Path | None, name: str) -> Any:
    """Return timm's network as a giver of maps, with the weights of `folder`; note in `config` how it was made.

    Raises BackboneError.
    """
    import timm

    architecture = config["architecture"]
    where = architecture if folder is None else f"local-dir:{folder}"
    arguments = {**config["model_args"], "pretrained": folder is not None, "features_only": True}
    indices = tuple(config["out_indices"])
    sized = config["network_args"] = {"dynamic_img_size": True}
    with _loaded_keys() as results:
        try:
            network = timm.create_model(where, out_indices=indices, **sized, **arguments)
        except TypeError:  # convolutional networks take any size anyway, and no such argument
            network = timm.create_model(where, out_indices=indices, **arguments)
            sized.clear()
    if folder is None:
        return network
    heads = _head_names(_normalised(json.loads((folder / "config.json").read_text(encoding="utf-8"))))
    found = [key for result in results for key in result.missing_keys]
    missing = [key for key in found if not key.startswith(tuple(f"{head}." for head in heads))]
    if missing:
        raise BackboneError(
            f"Backbone {name!r} lacks {len(missing)} of its weights: {', '.join(missing[:3])} … Get the whole "
            "model again."
        )
    return network


def _levels(config: dict[str, Any], wanted: Sequence[int]) -> tuple[int, ...]:
    """Return which of the network's maps the head reads: those of the wanted strides, else the last two."""
    import timm

    arguments = {**config.get("model_args", {}), "pretrained": False, "features_only": True}
    with torch.device("meta"):
        network: Any = timm.create_model(config["architecture"], **arguments)
    strides = [each["reduction"] for each in network.feature_info.info]
    by_stride = {stride: index for index, stride in enumerate(strides)}
    found = tuple(by_stride[stride] for stride in wanted if stride in by_stride)
    return found if len(found) > 1 else tuple(range(len(strides)))[-2:]


_HEAD = """import json
import numpy, timm, torch
from PIL import Image, ImageOps
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate
from torchvision.ops import FeaturePyramidNetwork

config = json.load(open("config.json", encoding="utf-8"))
weights = load_file("model.safetensors")
part = lambda prefix: {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
picture = ImageOps.exif_transpose(Image.open("picture.jpg")).convert("RGB")
side = json.load(open("foretune.json", encoding="utf-8"))["task"]["side"]  # pixels, as in training
scale = side / max(picture.size) if side else min(1, 640 / max(picture.size))
read = picture.resize([max(round(n * scale), 1) for n in picture.size], Image.Resampling.BILINEAR)
pixels = torch.from_numpy(numpy.array(read)).permute(2, 0, 1)[None] / 255
height, width = pixels.shape[2:]
mean, std = (torch.tensor(config["pretrained_cfg"][k])[:, None, None] for k in ("mean", "std"))
grey = torch.tensor([124, 116, 104])[:, None, None] / 255
canvas = grey.expand(1, 3, -(-height // 32) * 32, -(-width // 32) * 32).clone()
canvas[..., :height, :width] = pixels
pixels = (canvas - mean) / std
made = {**config["model_args"], **config["network_args"], "out_indices": config["out_indices"]}
net = timm.create_model(config["architecture"], features_only=True, **made)
net.load_state_dict(part("PREFIXtrunk.network."))
maps = net.eval()(pixels)
if config["channels_last"]:
    maps = [m.permute(0, 3, 1, 2) for m in maps]
fpn = FeaturePyramidNetwork(net.feature_info.channels(), config["width"])
fpn.load_state_dict(part("PREFIXpyramid."))
"""
_SEGMENTATION = """def conv(x, name):
    return nn.functional.conv2d(x, weights[name + ".weight"], weights.get(name + ".bias"))

top = maps[-1]
pools = [conv(adaptive_avg_pool2d(top, n), f"pooling.parts.{i}").relu() for i, n in enumerate((1, 2, 3, 6))]
pools = [interpolate(p, top.shape[2:], mode="bilinear") for p in pools]
maps[-1] = top + conv(torch.cat([top, *pools], 1), "pooling.out")
maps = list(fpn({str(i): m for i, m in enumerate(maps)}).values())
x = torch.cat([interpolate(m, maps[0].shape[2:], mode="bilinear") for m in maps], 1)
x = nn.functional.group_norm(conv(x, "fuse"), 32, weights["norm.weight"], weights["norm.bias"]).relu()
x = interpolate(conv(x, "classify"), pixels.shape[2:], mode="bilinear")[..., :height, :width]
x = interpolate(x, picture.size[::-1], mode="bilinear")
mask = x.argmax(1)[0]  # (height, width) of numbers of config["label_names"]
"""
_DETECTION = """from torchvision.models.detection.fcos import FCOSHead
from torchvision.ops import batched_nms

head = FCOSHead(config["width"], 1, len(config["label_names"]), config["convolutions"])
head.load_state_dict(part("head."))
maps = list(fpn({str(i): m for i, m in enumerate(maps)}).values())
found = head.eval()(maps)
places = []
for m, stride in zip(maps, config["strides"]):
    y, x = torch.meshgrid(torch.arange(m.shape[2]), torch.arange(m.shape[3]), indexing="ij")
    places.append(torch.stack([x, y, x, y, torch.ones_like(x)], 2).flatten(0, 1) * stride)
places = torch.cat(places)
reach = found["bbox_regression"][0] * places[:, 4:]
boxes = torch.cat([places[:, :2] - reach[:, :2], places[:, :2] + reach[:, 2:]], 1)
boxes = boxes.clamp(min=0).minimum(torch.tensor([width, height] * 2))
scores = (found["cls_logits"][0].sigmoid() * found["bbox_ctrness"][0].sigmoid()).sqrt()
place, label = (scores > 0.05).nonzero().T
boxes, scores = boxes[place], scores[place, label]
kept = batched_nms(boxes, scores, label, 0.6)[:100]  # boxes[kept], scores[kept], label[kept]
boxes = boxes * torch.tensor([picture.width / width, picture.height / height] * 2)  # x1, y1, x2, y2
"""
#: Python that runs a saved folder with timm and torchvision alone.
SNIPPETS = {
    "segmentation": _HEAD.replace("PREFIX", "") + _SEGMENTATION,
    "detection": _HEAD.replace("PREFIX", "backbone.") + _DETECTION,
}
