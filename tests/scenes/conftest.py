"""Painted pictures with masks and boxes, tiny networks, and runs on them."""

import json
import os

import numpy as np
import pytest

from foretune.errors import Interrupted

CLASSES = ("ground", "disc", "bar")
COLOURS = ((90, 90, 90), (220, 40, 40), (40, 60, 220))
VOID = 9


@pytest.fixture(scope="session")
def one_thread():
    """Results of two runs can be compared bit by bit with one thread."""
    import torch

    before, os.environ["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS"), "1"
    torch.set_num_threads(1)
    yield
    if before is None:
        del os.environ["OMP_NUM_THREADS"]


def paint(number, size):
    """Return a noisy picture (h, w, 3), its mask of class numbers, and boxes (label, x, y, w, h)."""
    draw, (height, width) = np.random.default_rng(number), size
    mask, boxes = np.zeros(size, dtype=np.uint8), []
    for label in (1, 2, 1 + number % 2):
        h, w = (14, 14) if label == 1 else (8, 24)
        y, x = int(draw.integers(0, height - h)), int(draw.integers(0, width - w))
        mask[y : y + h, x : x + w] = label
        boxes.append((label - 1, x, y, w, h))
    pixels = np.array(COLOURS)[mask] + draw.integers(-20, 21, (*size, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8), mask, boxes


@pytest.fixture(scope="session")
def painted(tmp_path_factory):
    """Return a folder with images, masks, classes.json and a COCO json of 12 pictures of two sizes."""
    from PIL import Image

    root = tmp_path_factory.mktemp("painted")
    (root / "images").mkdir()
    (root / "masks").mkdir()
    coco = {"images": [], "annotations": [], "categories": []}
    coco["categories"] = [{"id": i, "name": name} for i, name in enumerate(CLASSES[1:])]
    for number in range(12):
        size = (64, 64) if number % 3 else (48, 80)
        pixels, mask, boxes = paint(number, size)
        mask[:2, :2] = VOID
        Image.fromarray(pixels).save(root / "images" / f"{number}.png")
        Image.fromarray(mask).save(root / "masks" / f"{number}.png")
        coco["images"].append(
            {"id": number, "file_name": f"images/{number}.png", "width": size[1], "height": size[0]}
        )
        for label, *box in boxes:
            entry = {
                "id": len(coco["annotations"]) + 1,
                "image_id": number,
                "category_id": label,
                "bbox": box,
            }
            coco["annotations"].append({**entry, "area": box[2] * box[3], "iscrowd": 0})
    (root / "annotations.json").write_text(json.dumps(coco))
    names = [{"id": 2 * i, "name": name} for i, name in enumerate(CLASSES)]  # ids are not numbers
    (root / "classes.json").write_text(json.dumps({"classes": names, "ignore_id": VOID}))
    for file in (root / "masks").iterdir():
        mask = np.asarray(Image.open(file))
        Image.fromarray(np.where(mask == VOID, VOID, 2 * mask).astype(np.uint8)).save(file)
    return root


@pytest.fixture(scope="session")
def masks_table(painted):
    from foretune.data.mask_folders import read_masks

    return read_masks(painted)


@pytest.fixture(scope="session")
def boxes_table(painted):
    from foretune.data.coco import read_coco

    return read_coco(painted / "annotations.json")


@pytest.fixture(scope="session")
def network(tmp_path_factory, one_thread):
    """Return a function: architecture of timm -> folder with its random weights."""
    timm = pytest.importorskip("timm")
    import torch
    from safetensors.torch import save_file

    made = {}

    def make(name="test_resnet"):
        if name not in made:
            torch.manual_seed(0)
            arguments = {"img_size": 64} if "vit" in name else {}
            model = timm.create_model(name, pretrained=False, num_classes=5, **arguments)
            folder = made[name] = tmp_path_factory.mktemp(name)
            save_file(
                {k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors"
            )
            inner = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3], "input_size": [3, 64, 64]}
            inner |= {"classifier": model.pretrained_cfg["classifier"], "num_classes": 5, "first_conv": None}
            config = {
                "architecture": name,
                "num_classes": 5,
                "pretrained_cfg": inner,
                "model_args": arguments,
            }
            (folder / "config.json").write_text(json.dumps(config))
        return str(made[name])

    return make


@pytest.fixture(scope="session")
def hub(tmp_path_factory, one_thread):
    """Return a function: segformer or yolos or detr -> folder with a tiny random one of transformers."""
    import torch
    import transformers

    made = {}

    def make(kind):
        if kind not in made:
            torch.manual_seed(0)
            made[kind] = tmp_path_factory.mktemp(kind)
            _hub_model(transformers, kind).save_pretrained(made[kind])
        return str(made[kind])

    return make


def _hub_model(library, kind):
    if kind == "segformer":
        config = library.SegformerConfig(
            depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 16, 16], num_attention_heads=[1, 1, 2, 2],
            decoder_hidden_size=16, num_labels=4,
        )  # fmt: skip
        return library.SegformerForSemanticSegmentation(config)
    if kind == "yolos":
        config = library.YolosConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=[64, 64],
            num_detection_tokens=8, num_labels=4,
        )  # fmt: skip
        return library.YolosForObjectDetection(config)
    trunk = library.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", out_features=["stage2"]
    )
    config = library.DetrConfig(
        use_timm_backbone=False, backbone=None, backbone_config=trunk, use_pretrained_backbone=False, d_model=16,
        encoder_layers=1, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, num_queries=8, num_labels=4,
    )  # fmt: skip
    return library.DetrForObjectDetection(config)


class StopAt:
    """A listener that interrupts the run at the n-th event of a kind."""

    def __init__(self, kind, number):
        self.kind, self.left = kind, number

    def on(self, kind, values):
        self.left -= kind == self.kind
        if kind == self.kind and self.left == 0:
            raise KeyboardInterrupt

    def close(self):
        pass


@pytest.fixture(scope="session")
def stopped_and_resumed():
    """Return a function: output and options of a fit -> the model of a run stopped in its middle and resumed."""

    def run(data, output, **options):
        from foretune import api

        with pytest.raises((Interrupted, KeyboardInterrupt)):
            api.fit(data, output=output, listeners=[StopAt("step", 3)], **options)
        return api.fit(data, output=output, resume=True, **options)

    return run


@pytest.fixture
def options():
    """Options of a short run, saved after every step."""
    return {
        "epochs": 2, "batch_tokens": 4, "micro_tokens": 2, "device": "cpu", "precision": "fp32", "offline": True,
        "checkpoint_seconds": 0.0, "dev_fraction": 0.25, "test_fraction": 0.25,
    }  # fmt: skip
