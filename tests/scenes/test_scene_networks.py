"""Networks under the heads for masks and boxes: where their maps' channels lie, which sizes and pixels they take."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from foretune.backbones.scene_heads import Detector, Segmenter, Trunk
from foretune.backbones.scene_load import load_scene_backbone
from foretune.errors import BackboneError

timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")
LABELS = {"num_labels": 2, "id2label": {0: "disc", 1: "bar"}, "label2id": {"disc": 0, "bar": 1}}


def swin():
    """Return a tiny Swin, whose maps have their channels last."""
    torch.manual_seed(0)
    sizes = {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}
    return timm.create_model(
        "swin_tiny_patch4_window7_224", features_only=True, pretrained=False, dynamic_img_size=True, **sizes
    )


def test_maps_with_channels_last_are_turned():
    network = swin()
    trunk = Trunk(network).eval()
    numbers = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        found, own = trunk(numbers), network(numbers)
        assert Segmenter(trunk, 3, 32).eval()(numbers).shape == (2, 3, 16, 24)
        findings, loss = Detector(trunk, 3, 32, 1).eval()(numbers)
    assert trunk.last and [tuple(each.shape[1:]) for each in found] == [
        (8, 16, 24),
        (16, 8, 12),
        (32, 4, 6),
        (64, 2, 3),
    ]
    assert all(torch.equal(a, b.permute(0, 3, 1, 2)) for a, b in zip(found, own, strict=True))
    assert findings.shape == (2, 16 * 24 + 8 * 12 + 4 * 6 + 2 * 3, 7) and loss is None


def test_a_map_as_high_as_it_has_channels_is_not_turned():
    class Maps(nn.Module):
        """Gives maps of 5 channels, 3 high and 5 wide, for what `Trunk` tries it on."""

        class feature_info:
            channels = staticmethod(lambda: [5])
            reduction = staticmethod(lambda: [32])

        def forward(self, numbers):
            return [numbers.new_zeros(len(numbers), 5, numbers.shape[2] // 32, numbers.shape[3] // 32)]

    assert not Trunk(Maps()).last


def written(folder, name, side, **sizes):
    """Write a random network of timm, built for pictures of one side, as a folder that the hub would hold."""
    from safetensors.torch import save_file

    model = timm.create_model(name, pretrained=False, num_classes=5, **sizes)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")
    inner = {"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [3, side, side]}
    inner |= {"num_classes": 5, "first_conv": None}
    config = {"architecture": name, "num_classes": 5, "model_args": sizes, "pretrained_cfg": inner}
    (folder / "config.json").write_text(json.dumps(config))


def test_networks_of_one_size_are_refused_when_they_are_loaded(tmp_path):
    """Not in the first step, by an assertion of timm's."""
    written(tmp_path, "vit_small_patch14_dinov2", 56, embed_dim=16, num_heads=2, img_size=56)
    with pytest.raises(BackboneError, match=r"does not read pictures of any size.*patch size \(14\)"):
        load_scene_backbone(
            str(tmp_path), auto_class="AutoModelForSemanticSegmentation", options=LABELS, offline=True
        )


def test_a_detr_on_maps_with_channels_last_is_refused(tmp_path):
    sizes = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}
    written(tmp_path, "swin_tiny_patch4_window7_224", 224, **sizes)

    def load(head):
        given = LABELS | {"head": head}
        return load_scene_backbone(
            str(tmp_path), auto_class="AutoModelForObjectDetection", options=given, offline=True
        )

    with pytest.raises(BackboneError, match=r"channels last.*head=fcos"):
        load("detr")
    assert load("fcos").trunk.last


def kin(name, **processor):
    """Return a tiny detector of RT-DETR's kin, and its processor."""
    torch.manual_seed(0)
    trunk = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = getattr(transformers, f"{name}Config")(
        backbone_config=trunk, encoder_hidden_dim=16, encoder_in_channels=[16] * 3, d_model=16, num_queries=10,
        decoder_in_channels=[16] * 3, encoder_ffn_dim=16, decoder_ffn_dim=16, decoder_layers=2,
        decoder_attention_heads=2, encoder_attention_heads=2, num_denoising=4, num_labels=3,
    )  # fmt: skip
    model = getattr(transformers, f"{name}ForObjectDetection")(config)
    return model, transformers.RTDetrImageProcessor(do_resize=False, **processor)


@pytest.mark.parametrize("scaled", [False, True])
def test_pixels_are_scaled_as_the_processor_does(scaled, tmp_path):
    """RT-DETR's kin divide by 255 and no more, though their processors name a mean."""
    model, processor = kin("RTDetr", do_normalize=scaled)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    backbone = load_scene_backbone(
        str(tmp_path), auto_class="AutoModelForObjectDetection", options=LABELS, offline=True
    )
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    given = torch.from_numpy(pixels).permute(2, 0, 1)
    expected = processor(given, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(backbone.look(given[None]), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["RTDetr", "yolos", "detr"])
def test_boxes_keep_their_places_in_bf16(name, tmp_path, hub):
    """A sigmoid in bf16 would put every box of 640 pixels to a multiple of 2.5."""
    folder = tmp_path
    if name == "RTDetr":
        kin(name)[0].save_pretrained(folder)
    else:
        folder = hub(name)
    backbone = load_scene_backbone(
        str(folder), auto_class="AutoModelForObjectDetection", options=LABELS, offline=True
    )
    backbone.model.eval()
    batch = backbone._sample(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with torch.no_grad():
            boxes = backbone.model(pixel_values=backbone.numbers(batch)).pred_boxes
        batch["boxes"] = torch.tensor([[[0.0, 10, 20, 110, 90]]])
        findings = backbone.forward(batch)
        batch["loss"].backward()
    assert boxes.dtype == torch.float32 and (boxes != boxes.bfloat16()).float().mean() > 0.4
    assert torch.isfinite(findings).all() and torch.isfinite(batch["loss"])


@pytest.mark.parametrize("name", ["RTDetr", "Deimv2"])
def test_boxes_of_models_that_ignore_the_mask_are_relative_to_the_canvas(name, tmp_path):
    model, processor = kin(name)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    backbone = load_scene_backbone(
        str(tmp_path), auto_class="AutoModelForObjectDetection", options=LABELS, offline=True
    )
    backbone.model.eval()
    batch = backbone._sample(1)  # 256 x 256, of which the picture takes a part
    batch["sizes"][:, :2] = torch.tensor([128, 192])
    with torch.no_grad():
        found = backbone.forward(batch)[0, :, -4:]
        boxes = backbone.model(pixel_values=backbone.numbers(batch)).pred_boxes[0] * 256
    torch.testing.assert_close((found[:, :2] + found[:, 2:]) / 2, boxes[:, :2], atol=1e-3, rtol=0)


def test_a_detectors_loss_adds_up_over_parts_of_a_batch(network):
    """One large box in one picture, three small ones in another: together and one after the other."""
    backbone = load_scene_backbone(
        network(), auto_class="AutoModelForObjectDetection", options=LABELS, offline=True
    )
    model = backbone.model.train()
    backbone.train_above(0)
    numbers = torch.randn(2, 3, 96, 96)
    large = {"boxes": torch.tensor([[4.0, 4.0, 90.0, 90.0]]), "labels": torch.tensor([0])}
    corners = [[2.0, 2.0, 8.0, 8.0], [40.0, 40.0, 47.0, 45.0], [70.0, 20.0, 76.0, 30.0]]
    small = {"boxes": torch.tensor(corners), "labels": torch.tensor([1, 0, 1])}
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    for targets in ([large, small], [small, none], [none, large]):
        objects = [len(each["boxes"]) for each in targets]
        whole = model(numbers, targets)[1] * max(sum(objects), 1)
        parts = [model(numbers[i : i + 1], targets[i : i + 1])[1] * max(objects[i], 1) for i in range(2)]
        torch.testing.assert_close(whole, sum(parts), rtol=1e-4, atol=1e-5)
