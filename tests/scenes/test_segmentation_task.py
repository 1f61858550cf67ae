"""Segmentation from table to artefact: training, masks at full size, resuming, the command line, errors."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import foretune
from foretune.data.mask_classes import MaskClasses
from foretune.data.mask_folders import read_masks
from foretune.errors import BackboneError, ConfigError, DataError
from foretune.tasks.segmentation import cut


@pytest.fixture(scope="module")
def fitted(masks_table, network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("segmenter") / "run"
    return foretune.fit(
        masks_table, output=folder, backbone=network(), epochs=12, lr=5e-3, batch_tokens=4, device="cpu",
        offline=True, precision="fp32", layer_decay=1.0, dev_fraction=0.2, test_fraction=0.2, patience=0,
    )  # fmt: skip


def test_it_learns_and_is_scored(fitted):
    scores, baselines = fitted.record["metrics"]["test"], fitted.record["baselines"]
    assert set(scores) == {"miou", "pixel_accuracy"} and set(baselines) == {"majority", "position_majority"}
    assert scores["miou"]["low"] <= scores["miou"]["value"] <= scores["miou"]["high"]
    assert scores["miou"]["value"] > baselines["majority"]["miou"]["value"]
    details = fitted.record["details"]["test"]
    assert [entry["support"] > 0 for entry in details["per_class"]] == [True] * 3


def test_masks_have_the_pictures_size_and_the_files_ids(fitted, masks_table):
    paths = masks_table["path"].tolist()
    masks = fitted.predict(paths)
    assert [mask.shape for mask in masks] == [np.asarray(Image.open(p)).shape[:2] for p in paths]
    assert all(mask.dtype == np.uint8 and set(np.unique(mask)) <= {0, 2, 4} for mask in masks)
    found = next(iter(fitted.predictions(np.asarray(Image.open(paths[0])))))
    np.testing.assert_array_equal(found["mask"], masks[0])
    assert sum(found["shares"].values()) == pytest.approx(1) and "ground" in found["shares"]


def test_a_saved_model_is_the_same(fitted, masks_table, painted):
    again = foretune.load(fitted.path)
    paths = masks_table["path"].tolist()[:4]
    for own, other in zip(fitted.predict(paths), again.predict(paths), strict=True):
        np.testing.assert_array_equal(own, other)
    assert again.labels == ("ground", "disc", "bar") and again.task.classes == fitted.task.classes
    scored = again.evaluate(masks_table)
    assert scored == fitted.evaluate(masks_table) and scored["n"] == 12


def test_a_folder_whose_ids_mean_other_classes_is_refused(fitted, painted, tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).symlink_to(painted / name)
    swapped = [{"id": 0, "name": "bar"}, {"id": 2, "name": "disc"}, {"id": 4, "name": "ground"}]
    (tmp_path / "classes.json").write_text(json.dumps({"classes": swapped, "ignore_id": 9}))
    with pytest.raises(DataError, match=r"0 is 'bar', not 'ground', 4 is 'ground'"):
        fitted.evaluate(tmp_path)


def test_the_report_shows_pictures_and_classes(fitted):
    page = (fitted.path / "report.html").read_text()
    assert "IoU of each class" in page and "Pictures and masks" in page
    assert page.count("data:image/jpeg") >= 6 and str(fitted.path) not in page
    assert "examples/s" in page and "tokens/s" not in page
    card = (fitted.path / "README.md").read_text()
    assert "Without Foretune, in this folder" in card and "timm.create_model" in card
    assert card.startswith("---\nlibrary_name: timm\n")


@pytest.mark.slow
def test_the_cards_snippet_runs_without_foretune(fitted, tmp_path):
    """In a process that cannot import foretune, timm, torch and torchvision give the same mask."""
    rng = np.random.default_rng(0)  # larger than pictures are read at, and turned by its EXIF tag
    pixels = np.kron(rng.integers(0, 256, (60, 83, 3)), np.ones((10, 10, 1))).astype(np.uint8)
    card = (fitted.path / "README.md").read_text()
    code = card.split("in this folder:")[1].split("```python")[1].split("```")[0]
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "foretune.json"):
        (folder / name).write_bytes((fitted.path / name).read_bytes())
    tag = Image.Exif()
    tag[0x0112] = 3
    Image.fromarray(pixels[::-1, ::-1]).save(folder / "picture.png", exif=tag)
    code = code.replace("picture.jpg", "picture.png")
    ending = "import sys, numpy\nassert 'foretune' not in sys.modules\nnumpy.save('mask.npy', mask.numpy())\n"
    blocked = "import sys\nsys.modules['foretune'] = None\n"
    code = blocked + code + ending.replace("assert 'foretune' not in sys.modules\n", "")
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True, timeout=120)
    expected = next(iter(fitted.predictions(pixels)))["mask"]
    np.testing.assert_array_equal(2 * np.load(folder / "mask.npy"), expected)


def test_a_stopped_run_ends_bit_for_bit_the_same(
    masks_table, network, options, stopped_and_resumed, tmp_path
):
    given = options | {"backbone": network(), "seed": 1}
    whole = foretune.fit(masks_table, output=tmp_path / "whole", **given)
    stopped_and_resumed(masks_table, tmp_path / "parts", **given)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert weights[0] == weights[1] and whole.record["train"]["steps"] > 3


def test_a_frozen_trunk_stays_as_it_was(masks_table, network, options, tmp_path):
    from safetensors.torch import load_file

    model = foretune.fit(
        masks_table, output=tmp_path / "run", backbone=network(), strategy="linear-probe", **options
    )
    before = load_file(f"{network()}/model.safetensors")
    after = load_file(model.path / "model.safetensors")
    pairs = [(key, f"trunk.network.{key}") for key in before if f"trunk.network.{key}" in after]
    assert len(pairs) > 20 and all((before[a] == after[b]).all() for a, b in pairs)


@pytest.mark.parametrize("name", [pytest.param("test_vit", marks=pytest.mark.slow), "test_convnext"])
def test_any_network_of_timm_is_a_trunk(name, masks_table, network, options, tmp_path):
    model = foretune.fit(masks_table, output=tmp_path / "run", backbone=network(name), **options)
    assert [m.shape for m in model.predict([np.zeros((70, 41, 3), np.uint8)])] == [(70, 41)]


def test_models_of_transformers(masks_table, hub, options, tmp_path):
    """Fine-tuned here, then loaded by plain transformers, which gives the same logits."""
    model = foretune.fit(masks_table, output=tmp_path / "run", backbone=hub("segformer"), **options)
    import torch
    from transformers import AutoModelForSemanticSegmentation

    plain = AutoModelForSemanticSegmentation.from_pretrained(tmp_path / "run").eval()
    assert plain.config.id2label == {0: "ground", 1: "disc", 2: "bar"}
    numbers = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(plain(pixel_values=numbers).logits, model.backbone.logits(numbers))
    assert foretune.load(tmp_path / "run").predict([np.zeros((50, 60, 3), np.uint8)])[0].shape == (50, 60)


def test_predict_writes_masks(fitted, painted, tmp_path):
    from foretune.cli_predict import check_output, run

    folder, lines = tmp_path / "masks", (tmp_path / "out.jsonl").open("w+")
    check_output(folder)
    columns = {"text": None, "second": None}
    assert run(fitted, str(painted / "images"), folder, lines, columns, quiet=True) == 12
    lines.seek(0)
    told = [json.loads(line) for line in lines]
    assert [line["row"] for line in told] == list(range(1, 13))
    paths = sorted(str(path) for path in (painted / "images").iterdir())
    assert [line["path"] for line in told] == paths  # broken ones may be left out: the row says too little
    for line, mask in zip(told, fitted.predict(paths), strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(line["mask"])), mask)
    assert sorted(p.name for p in folder.iterdir()) == sorted(f"{n}.png" for n in range(12))
    with pytest.raises(ConfigError, match=r"predicts masks; --output is nothing\. Give a folder"):
        run(fitted, str(painted / "images"), None, lines, columns, quiet=True)
    with pytest.raises(ConfigError, match=r"--output is .*a\.csv\. Give a folder"):
        run(fitted, str(painted / "images"), tmp_path / "a.csv", lines, columns, quiet=True)


def test_what_does_not_fit_is_named(masks_table, network, painted, fitted, options, tmp_path):
    given = options | {"backbone": network(), "output": tmp_path / "run"}
    with pytest.raises(ConfigError, match="not for segmentation"):
        foretune.fit(masks_table, class_weights="auto", **given)
    with pytest.raises(ConfigError, match="Option side is 7; expected pixels from 32"):
        foretune.fit(masks_table, options={"side": 7}, **given)
    with pytest.raises(BackboneError, match="is a fine-tuned segmentation model"):
        foretune.fit(masks_table, **given | {"backbone": str(fitted.path)})
    small = tmp_path / "0.png"
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(small)
    other = masks_table.copy()
    other.attrs = masks_table.attrs
    other.loc[0, "mask"] = str(small)
    with pytest.raises(DataError, match=r"train: 1 mask of 12 of another size.*0\.png is 5 x 5"):
        foretune.fit(other, **given)
    assert not (tmp_path / "run").exists()


def test_wrong_classes_in_test_data(fitted, masks_table, tmp_path):
    mask = np.full((48, 80), 77, np.uint8)
    Image.fromarray(mask).save(tmp_path / "77.png")
    other = masks_table.iloc[:1].copy()
    other["mask"] = [str(tmp_path / "77.png")]
    other.attrs = masks_table.attrs
    with pytest.raises(DataError, match=r"77\.png: ids 77 of no class \(ids: 0, 2, 4\)"):
        fitted.evaluate(other)


def test_filling_is_cut_off():
    output = np.full((5, 6), -1.0)
    output[:3, :4] = 2
    assert cut(output).shape == (3, 4) and cut(output).dtype == np.int64


def test_the_real_set_is_read():

    root = Path(__file__).parents[3] / "shared" / "data" / "segmentation" / "camvid"
    if not root.is_dir():
        pytest.skip("the shared data sets are not on this machine")
    table = read_masks(root, "val")
    assert len(table) == 40 and len(MaskClasses.of(table).labels) == 11


def test_backbones_that_cannot_be_loaded_say_why(masks_table, network, options, tmp_path):
    from safetensors.torch import load_file, save_file

    given = options | {"output": tmp_path / "run"}
    folder = tmp_path / "net"
    folder.mkdir()
    config = json.loads((Path(network()) / "config.json").read_text())
    weights = load_file(f"{network()}/model.safetensors")
    first = next(key for key, values in weights.items() if values.ndim == 4)
    save_file({k: v for k, v in weights.items() if k != first}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BackboneError, match=f"lacks 1 of its weights: {first}"):
        foretune.fit(masks_table, **given, backbone=str(folder))
    (folder / "config.json").write_text(json.dumps(config | {"architecture": "resnet_of_tomorrow"}))
    with pytest.raises(BackboneError, match="'resnet_of_tomorrow', which this timm"):
        foretune.fit(masks_table, **given, backbone=str(folder))
    (folder / "config.json").write_text("{}")
    with pytest.raises(BackboneError, match="names neither timm's `architecture` nor the `model_type`"):
        foretune.fit(masks_table, **given, backbone=str(folder))
    (folder / "model.safetensors").unlink()
    with pytest.raises(BackboneError, match="holds no safetensors"):
        foretune.fit(masks_table, **given, backbone=str(folder))


def test_nothing_stays_behind_on_the_cpu(masks_table, network, options, elsewhere, tmp_path):
    given = options | {"backbone": network(), "epochs": 1, "device": "auto"}
    model = foretune.fit(masks_table, output=tmp_path / "run", **given)
    assert next(model.backbone.model.parameters()).device == elsewhere
    assert model.predict(masks_table["path"].tolist()[:2])
