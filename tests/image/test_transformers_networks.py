"""Image networks of transformers behind the Backbone's face."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from foretune.backbones.image_load import load_image_backbone
from foretune.backbones.split import evaluating
from foretune.data.image_augment import Augmentation
from foretune.errors import BackboneError
from foretune.training.feed import HEAD
from foretune.training.inference import Runtime
from foretune.training.prefix import Prefix

transformers = pytest.importorskip("transformers")
pytest.importorskip("timm")
SIDE = {"height": 32, "width": 32}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny vision Transformer as transformers saves it."""
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64, image_size=32, patch_size=8,
        num_labels=5,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("vit")
    transformers.ViTForImageClassification(config).save_pretrained(path)
    transformers.ViTImageProcessor(
        size=SIDE, image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.3, 0.4]
    ).save_pretrained(path)
    return path


def load(folder, **more):
    options = {"num_labels": 3, "id2label": {0: "ant", 1: "bee", 2: "cat"}}
    return load_image_backbone(str(folder), options=more.pop("options", options), offline=True, **more)


def test_pictures_are_prepared_as_the_processor_does(folder, pictures):
    backbone = load(folder)
    store = backbone.preprocess(pictures, max_length=1, truncation="tail")
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    images = [Image.open(path).convert("RGB") for path in pictures]
    expected = processor(images, return_tensors="pt")["pixel_values"]
    found = backbone.look(backbone.collate(store, np.arange(6))["pixels"])
    assert backbone.look.fit.size == (32, 32) and torch.allclose(found, expected, atol=1e-5)


def test_training_pictures_have_the_networks_order_of_colours(tmp_path, pictures):
    """MobileViT takes blue, green, red: of pictures that chance varies as well as of those of dev and test."""
    config = transformers.MobileViTConfig(
        image_size=64, hidden_sizes=[16, 16, 16], neck_hidden_sizes=[8, 8, 8, 8, 8, 8, 16], num_attention_heads=2,
        num_labels=5,
    )  # fmt: skip
    transformers.MobileViTForImageClassification(config).save_pretrained(tmp_path)
    processor = transformers.MobileViTImageProcessor(
        size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}
    )
    processor.save_pretrained(tmp_path)
    backbone = load(tmp_path)
    store = backbone.preprocess(pictures, max_length=1, truncation="tail")
    plain, varied = (
        backbone.look(backbone.collate(each, np.arange(6))["pixels"]).mean(dim=(2, 3))
        for each in (store, store.augmented(Augmentation(min_area=1, flip=1)))
    )
    assert (plain[5, 2] - plain[5, 1]).abs() > 0.5  # the last picture is mostly red
    torch.testing.assert_close(varied, plain, atol=0.05, rtol=0)
    expected = processor(np.array(Image.open(pictures[5])), return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(plain[5], expected.mean(dim=(1, 2)), atol=1e-3, rtol=0)


def test_code_of_a_folder_is_neither_run_nor_asked_about(folder, tmp_path, monkeypatch):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "own.py").write_text("raise SystemExit('code of the folder runs')\n")
    entries = {"image_processor_type": "Own", "auto_map": {"AutoImageProcessor": "own.Own"}}
    for name in ("preprocessor_config.json", "processor_config.json"):
        (copy / name).write_text(json.dumps(entries))
    monkeypatch.setattr("builtins.input", lambda *args: "y")
    with pytest.raises(BackboneError):
        load(copy)


def test_layers_are_split_and_cached(folder, pictures):
    backbone = load(folder)
    store = backbone.preprocess(pictures, max_length=1, truncation="tail")
    assert backbone.split_points() == (1, 2, 3) and backbone.linear and len(backbone.layers.head()) == 2
    feeds, _ = Prefix(backbone, store, Runtime(torch.device("cpu"), "fp32"), "fp32").compute([1, 2, 3, HEAD])
    with torch.no_grad(), evaluating(backbone.model):
        whole = backbone.forward(backbone.collate(store, np.arange(6)))
        for feed in feeds.values():
            assert torch.allclose(feed(np.arange(6))[0], whole, atol=1e-5)


def test_transformers_alone_read_what_is_saved(folder, pictures, tmp_path):
    backbone = load(folder)
    store = backbone.preprocess(pictures, max_length=1, truncation="tail")
    backbone.save(tmp_path / "saved")
    model = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "saved").eval()
    assert model.config.id2label == {0: "ant", 1: "bee", 2: "cat"}
    assert not list((tmp_path / "saved").glob("*.bin"))
    with torch.no_grad(), evaluating(backbone.model):
        numbers = backbone.look(backbone.collate(store, np.arange(6))["pixels"])
        expected = backbone.forward(backbone.collate(store, np.arange(6)))
        assert torch.allclose(model(pixel_values=numbers).logits, expected, atol=1e-5)
    again = load(tmp_path / "saved", options={})
    with torch.no_grad(), evaluating(again.model):
        assert torch.equal(again.forward(again.collate(store, np.arange(6))), expected)


def test_another_size_is_refused(folder):
    with pytest.raises(BackboneError, match="timm's networks only"):
        load(folder, size=64)
