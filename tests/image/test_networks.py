"""Image networks behind the Backbone's face: split, cached, saved, loaded by timm alone."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from foretune.backbones.image_layers import channels_last, places_mean, stacked
from foretune.backbones.image_load import image_source, load_image_backbone
from foretune.backbones.split import evaluating
from foretune.data.image_augment import Augmentation
from foretune.errors import BackboneError
from foretune.training.feed import HEAD
from foretune.training.inference import Runtime, run_all
from foretune.training.prefix import MEANS, Prefix

pytest.importorskip("timm")
NETWORKS = ("test_resnet", "test_vit", "test_efficientnet", "test_convnext")
CPU = Runtime(torch.device("cpu"), "fp32")
LABELS = {"num_labels": 3, "id2label": {0: "ant", 1: "bee", 2: "Käfer"}}


def load(folder, options=LABELS, **more):
    return load_image_backbone(str(folder), options=options, offline=True, **more)


def store_of(backbone, pictures):
    return backbone.preprocess(pictures, max_length=1, truncation="tail")


def outputs(backbone, store, run):
    found = np.zeros((len(store), 3), dtype=np.float32)
    for rows, values in run_all(backbone, store, CPU, run, 4):
        found[rows] = values.numpy()
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_split_everywhere_and_the_cache_changes_nothing(network, pictures, name):
    backbone = load(network(name))
    store, points = store_of(backbone, pictures), backbone.split_points()
    assert points == tuple(range(1, backbone.layers.count + 1)) and len(points) >= 3 and backbone.linear
    whole = outputs(backbone, store, lambda rows: backbone.forward(backbone.collate(store, rows)))
    assert np.ptp(whole) > 0.01
    feeds, _ = Prefix(backbone, store, CPU, "fp32").compute([*points, HEAD])
    for point, feed in feeds.items():
        cached = outputs(backbone, store, lambda rows, feed=feed: feed(rows)[0])
        assert np.abs(cached - whole).max() < 1e-4 * np.abs(whole).max(), point
    assert set(feeds) == {*points, HEAD}


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_training_behind_the_cache_gives_the_same_gradients(network, pictures, name):
    backbone = load(network(name))
    store, k = store_of(backbone, pictures), backbone.layers.count - 1
    rows = np.arange(4)
    (feed,) = Prefix(backbone, store, CPU, "fp32").compute([k])[0].values()
    with evaluating(backbone.model):
        gradients = []
        for run in (lambda: feed(rows)[0], lambda: backbone.forward(backbone.collate(store, rows))):
            backbone.model.zero_grad()
            run().square().sum().backward()
            gradients.append(
                {n: p.grad.clone() for n, p in backbone.model.named_parameters() if p.grad is not None}
            )
    cached, whole = gradients
    above = {n for n, depth in backbone.layers.depth.items() if depth > k and n in whole}
    assert above <= set(cached) and len(above) > 3
    assert all(torch.allclose(cached[n], whole[n], atol=1e-5, rtol=1e-3) for n in above)


def test_the_context_of_cached_layers_decodes_nothing(network, tmp_path):
    backbone = load(network("test_resnet"))
    store = store_of(backbone, [str(tmp_path / "not_there.png")])
    assert backbone.context(store, np.array([0])) == {}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_has_a_depth(network, name):
    backbone = load(network(name))
    depth, count = backbone.layers.depth, backbone.layers.count
    assert set(depth.values()) == set(range(count + 2)) and len(backbone.layers.head()) == 2
    assert set(depth) == {n for n, _ in backbone.model.named_parameters()}
    order = [d for n, d in depth.items()]
    assert order == sorted(order)


def test_the_mean_of_every_layer(network, pictures):
    backbone = load(network("test_resnet"))
    store = store_of(backbone, pictures)
    with torch.inference_mode(), evaluating(backbone.model):
        means = backbone.layer_means(backbone.collate(store, np.arange(6)))
        last = backbone.hidden(backbone.collate(store, np.arange(6)), [backbone.layers.count])[0]
    assert means.shape[:2] == (6, backbone.layers.count + 1)
    channels = last.shape[2]
    assert torch.allclose(means[:, -1, :channels], last[:, 0].mean(dim=(2, 3)), atol=1e-6)
    assert means.shape[2] > channels and not means[:, -1, channels:].any() and means[:, -1, :channels].any()
    ((features, _),) = Prefix(backbone, store, CPU, "fp32").stores([MEANS]).values()
    assert torch.allclose(features.rows(np.arange(6)), means, atol=1e-5)


def test_means_over_places_of_every_form():
    maps = torch.arange(2 * 3 * 4 * 4.0).reshape(2, 3, 4, 4)
    assert torch.equal(places_mean(maps), maps.mean(dim=(2, 3)))
    assert torch.equal(places_mean(maps.permute(0, 2, 3, 1)), maps.mean(dim=(2, 3)))
    tokens = maps.flatten(2).transpose(1, 2)
    assert torch.equal(places_mean(tokens), maps.mean(dim=(2, 3)))
    assert stacked([torch.ones(2, 1), torch.ones(2, 3)]).tolist() == [[[1, 0, 0], [1, 1, 1]]] * 2


def test_only_maps_are_laid_out_by_channel():
    maps = torch.randn(2, 3, 4, 4)
    assert channels_last(maps).stride() == (48, 1, 12, 3) and torch.equal(channels_last(maps), maps)
    for other in (torch.randn(2, 5, 3), torch.randn(2, 4, 4, 3)):
        assert channels_last(other) is other


def norms(backbone):
    return {n: m for n, m in backbone.model.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}


def test_batch_norms_of_frozen_layers_stay_in_evaluation_mode(network, pictures):
    backbone = load(network("test_resnet"))
    k, depth = backbone.layers.count - 1, backbone.layers.depth
    for name, parameter in backbone.model.named_parameters():
        parameter.requires_grad_(depth[name] > k)
    backbone.train_above(k)
    training = {n for n, norm in norms(backbone).items() if norm.training}
    assert training == {n for n in norms(backbone) if depth[f"{n}.weight"] > k} and training
    before = {n: norm.running_mean.clone() for n, norm in norms(backbone).items()}
    backbone.forward(backbone.collate(store_of(backbone, pictures), np.arange(6)))
    moved = {n for n, norm in norms(backbone).items() if not torch.equal(before[n], norm.running_mean)}
    assert moved == training


def test_everything_trains_above_layer_0_but_what_is_frozen(network):
    backbone = load(network("test_resnet"))
    backbone.train_above(0)
    assert all(norm.training for norm in norms(backbone).values())
    for name, parameter in backbone.model.named_parameters():
        parameter.requires_grad_(name in backbone.layers.head())
    backbone.train_above(0)  # as where nothing is cached
    assert not any(norm.training for norm in norms(backbone).values())


def test_a_last_norm_trains_with_the_top_layer(network):
    backbone = load(network("test_efficientnet"))
    k = backbone.layers.count - 1
    behind = [n for n, m in norms(backbone).items() if not n.startswith("blocks") and n != "bn1"]
    backbone.train_above(k)
    assert behind and all(norms(backbone)[n].training for n in behind) and not norms(backbone)["bn1"].training
    backbone.train_above(k + 1)
    assert not any(norm.training for norm in norms(backbone).values())


def test_mixup_mixes_the_pictures_that_the_batch_says(network, pictures):
    backbone = load(network("test_resnet"))
    plain = store_of(backbone, pictures)
    quiet = Augmentation(min_area=1.0, flip=0.0, mixup=0.5)
    torch.manual_seed(0)
    batch = backbone.collate(plain.augmented(quiet), np.arange(4))
    numbers, share = backbone.look(batch["pixels"]), batch["mix_share"]
    seen = []
    hook = backbone.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    backbone.forward(batch)
    hook.remove()
    assert torch.allclose(seen[0], share * numbers + (1 - share) * numbers[batch["mix_order"]], atol=1e-6)
    assert set(backbone.collate(plain, np.arange(4))) == {"pixels"}


READ_BY_TIMM = """
import json, sys
import timm, torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

found = []
for folder in sys.argv[1].split(","):
    model = timm.create_model("local-dir:" + folder, pretrained=True).eval()
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    pictures = torch.stack([transform(Image.open(path).convert("RGB")) for path in sys.argv[2:]])
    with torch.no_grad():
        logits = model(pictures).tolist()
    found.append({"logits": logits, "labels": model.pretrained_cfg["label_names"]})
assert "foretune" not in sys.modules
print(json.dumps(found))
"""


def test_timm_alone_reads_what_is_saved(network, pictures, tmp_path):
    names = ["test_resnet", "test_vit"]
    backbones = [load(network(name)) for name in names]
    for name, backbone in zip(names, backbones, strict=True):
        with torch.no_grad():
            for parameter in backbone.model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.01)
        backbone.save(tmp_path / name)
        assert sorted(p.name for p in (tmp_path / name).iterdir()) == ["config.json", "model.safetensors"]
    folders = ",".join(str(tmp_path / name) for name in names)
    command = [sys.executable, "-c", READ_BY_TIMM, folders, *pictures]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    for name, backbone, found in zip(names, backbones, told, strict=True):
        own = logits_of(backbone, pictures)
        assert np.abs(np.array(found["logits"]) - own.numpy()).max() < 1e-4
        assert found["labels"] == ["ant", "bee", "Käfer"]
        assert torch.equal(logits_of(load(tmp_path / name, options={}), pictures), own)


def test_label_names_are_written_in_utf_8_whatever_the_locale(network, tmp_path, monkeypatch):
    original, seen = Path.write_text, []

    def write_text(self, data, encoding=None, *args, **options):
        seen.append(encoding)
        return original(self, data, encoding, *args, **options)

    monkeypatch.setattr(Path, "write_text", write_text)
    load(network("test_resnet")).save(tmp_path / "saved")
    assert seen == ["utf-8"]


def logits_of(backbone, pictures):
    store = store_of(backbone, pictures)
    with torch.no_grad(), evaluating(backbone.model):
        return backbone.forward(backbone.collate(store, np.arange(len(store))))


def test_the_seed_decides_the_new_head_alone(network):
    one, same, other = (load(network("test_resnet"), seed=seed) for seed in (0, 0, 1))
    for name, parameter in one.model.named_parameters():
        assert torch.equal(parameter, same.model.get_parameter(name))
        assert torch.equal(parameter, other.model.get_parameter(name)) is (
            name != "fc.weight" and name != "fc.bias"
        )


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_pictures_of_another_size(network, pictures, tmp_path, name):
    backbone = load(network(name), size=48)
    batch = backbone.collate(store_of(backbone, pictures), np.arange(2))
    assert batch["pixels"].shape == (2, 3, 48, 48) and backbone.forward(batch).shape == (2, 3)
    assert store_of(backbone, pictures).key() != store_of(load(network(name)), pictures).key()
    backbone.save(tmp_path / "saved")
    again = load(tmp_path / "saved", options={})
    with torch.no_grad(), evaluating(again.model), evaluating(backbone.model):
        assert torch.allclose(again.forward(batch), backbone.forward(batch), atol=1e-5)
    assert again.look == backbone.look


# --- what cannot be loaded -----------------------------------------------------


@pytest.fixture
def copy(network, tmp_path):
    return shutil.copytree(network("test_resnet"), tmp_path / "copy")


def test_missing_weights_are_not_silently_random(copy):
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    del weights["layer1.0.conv1.weight"]
    save_file(weights, copy / "model.safetensors")
    with pytest.raises(BackboneError, match=r"lacks 1 of its weights: layer1\.0\.conv1\.weight"):
        load(copy)


def test_pickled_weights_are_refused(copy):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(BackboneError, match=r"no safetensors.*refused"):
        load(copy)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"architecture": "resnet_of_tomorrow"}, "resnet_of_tomorrow"),
        ({"architecture": "test_vit"}, "lacks .* of its weights: cls_token"),
        ({"model_args": {"no_such_argument": 1}}, "cannot be loaded"),
    ],
)
def test_unfit_configurations_are_named(copy, change, words):
    config = json.loads((copy / "config.json").read_text()) | change
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(BackboneError, match=words):
        load(copy)


def test_folders_of_other_things_are_refused(copy):
    (copy / "config.json").write_text('{"layers": 3}')
    with pytest.raises(BackboneError, match="architecture"):
        load(copy)
    (copy / "config.json").write_text("{")
    with pytest.raises(BackboneError, match="cannot be loaded"):
        load(copy)


def test_names_of_timm_stand_for_hub_ids():
    expected = "timm/resnet18.a1_in1k"
    names = ("resnet18.a1_in1k", "resnet18", f"hf-hub:{expected}", expected)
    assert {image_source(name).location for name in names} == {expected}
    with pytest.raises(BackboneError, match="Unknown backbone"):
        image_source("resnet_of_tomorrow")
    with pytest.raises(BackboneError, match=r"not in the local hub cache and --offline"):
        load("resnet18")
