"""A detector of DETR's kind on any network of timm: RT-DETR's encoder and decoder, new, above a pretrained trunk.

RT-DETR (Zhao et al. 2024, DETRs Beat YOLOs on Real-time Object Detection) is DETR with maps of several strides,
deformable attention and denoising queries, without which set prediction takes hundreds of epochs. The result is a
model of transformers: its plain `AutoModelForObjectDetection.from_pretrained` loads what is saved (timm must be
installed).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from foretune.backbones.scene import look_at
from foretune.backbones.scene_heads import STRIDES
from foretune.backbones.scene_hub import HubSceneBackbone
from foretune.backbones.source import Source
from foretune.backbones.text import quiet
from foretune.errors import BackboneError

WIDTH = 128  # channels; RT-DETR has 256, on far larger machines
HEADS, DECODERS, QUERIES, DENOISING = 4, 3, 100, 50  # of RT-DETR: 8, 6, 300, 100


class DetrBackbone(HubSceneBackbone):
    """A detector whose head starts at random; what was pretrained is the trunk alone."""

    unit = "scenes"


def load_detr(
    trunk: nn.Module, config: dict[str, Any], source: Source, options: dict[str, Any]
) -> DetrBackbone:
    """Return a new detector on `trunk`, a network of timm that gives maps; `config` is that of its folder.

    `options`: num_labels, id2label, label2id. Raises BackboneError for a trunk without maps of strides 8, 16, 32.
    """
    import transformers

    info: Any = trunk.feature_info
    indices = [index for index, each in enumerate(info.info) if each["reduction"] in STRIDES]
    found = [info.info[index]["reduction"] for index in indices]
    if found != list(STRIDES):
        given = ", ".join(str(each["reduction"]) for each in info.info)
        raise BackboneError(
            f"{source.name} gives maps at strides {given}; a detector of DETR's kind reads those at 8, 16 and 32. "
            "Take a network with stages, such as a ResNet or ConvNeXt, or --option head=fcos."
        )
    channels = [info.info[index]["num_chs"] for index in indices]
    with quiet():
        described = transformers.TimmBackboneConfig(
            backbone=config["architecture"],
            out_indices=indices,  # type: ignore[call-arg]
            **config.get("model_args", {}),
        )
        model = transformers.RTDetrForObjectDetection(
            transformers.RTDetrConfig(
                backbone_config=described, encoder_in_channels=channels, feat_strides=list(STRIDES), d_model=WIDTH,
                encoder_hidden_dim=WIDTH, decoder_in_channels=[WIDTH] * len(STRIDES), encoder_ffn_dim=4 * WIDTH,
                decoder_ffn_dim=4 * WIDTH, encoder_attention_heads=HEADS, decoder_attention_heads=HEADS,
                decoder_layers=DECODERS, num_queries=QUERIES, num_denoising=DENOISING, hidden_expansion=0.5,
                **options,
            )
        )  # fmt: skip
    _copy(trunk, model.model.backbone, source.name)
    seen = config["pretrained_cfg"]
    processor = transformers.RTDetrImageProcessor(
        do_resize=False, do_normalize=True, image_mean=list(seen["mean"]), image_std=list(seen["std"])
    )
    return DetrBackbone(
        source.name, model, look_at(seen["mean"], seen["std"]), source, "detection", processor
    )


@torch.no_grad()
def _copy(trunk: nn.Module, into: nn.Module, name: str) -> None:
    """Copy every weight of timm's network into the model's. Raises BackboneError where one finds no place."""
    own = into.state_dict()
    weights = {
        key: value for key, value in trunk.state_dict().items() if not key.endswith("num_batches_tracked")
    }  # frozen batch norms count no batches
    first = next(iter(weights))
    prefixes = [place.removesuffix(first) for place in own if place.endswith(first)]
    prefix = next((each for each in prefixes if all(f"{each}{key}" in own for key in weights)), None)
    if prefix is None or any(own[prefix + key].shape != value.shape for key, value in weights.items()):
        raise BackboneError(
            f"The weights of {name} have no place in the detector that transformers build of "
            f"{type(trunk).__name__}. Take --option head=fcos."
        )
    for key, value in weights.items():
        own[prefix + key].copy_(value)
