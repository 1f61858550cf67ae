"""Detection from table to artefact: training, boxes in the original's pixels, resuming, hub models, errors."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import foretune
from foretune.errors import BackboneError, ConfigError, DataError
from foretune.evaluation.detection import NOTHING
from foretune.tasks.detection import surest


@pytest.fixture(scope="module")
def fitted(boxes_table, network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("detector") / "run"
    return foretune.fit(
        boxes_table, output=folder, backbone=network(), epochs=6, lr=5e-3, batch_tokens=4, device="cpu",
        offline=True, precision="fp32", layer_decay=1.0, dev_fraction=0.2, test_fraction=0.2, patience=0,
    )  # fmt: skip


def test_it_learns_and_is_scored(fitted, boxes_table):
    lines = map(json.loads, (fitted.path / "events.jsonl").read_text().splitlines())
    losses = [line["loss"] for line in lines if line["event"] == "step"]
    assert np.mean(losses[-3:]) < 0.85 * np.mean(losses[:3])
    scores, baselines = fitted.record["metrics"]["test"], fitted.record["baselines"]
    assert set(scores) == {"map", "map50", "map75"} and set(baselines) == {"usual_boxes"}
    assert scores["map50"]["low"] <= scores["map50"]["value"] <= scores["map50"]["high"]
    assert [c["support"] for c in fitted.evaluate(boxes_table)["classes"]] == [18, 18]


def test_boxes_are_in_the_pixels_of_the_original(fitted, boxes_table, monkeypatch):
    picture = np.asarray(Image.open(boxes_table["path"][0]))
    wide = np.kron(picture, np.ones((2, 3, 1), dtype=np.uint8))  # 96 x 240, read at 26 x 64
    monkeypatch.setattr(fitted.task, "side", 64)
    outputs, _ = fitted.outputs(fitted.task.from_inputs([wide, picture]))
    for output, (height, width) in zip(outputs, ((96, 240), (48, 80)), strict=True):
        found = output[output[:, 0] != NOTHING]
        assert len(found) and (np.diff(found[:, 1]) <= 0).all() and (found[:, 2:] >= 0).all()
        right, below = found[:, 2] + found[:, 4], found[:, 3] + found[:, 5]
        assert 0.5 * width < right.max() <= width + 0.01 and 0.5 * height < below.max() <= height + 0.01


def test_predictions_name_labels_and_are_the_surest(fitted):
    row = np.full((3, 6), NOTHING, dtype=np.float32)
    row[:2] = [[1, 0.75, 1, 2, 3, 4], [0, 0.25, 1, 2, 3, 4]]
    (found,) = fitted.task.decode([row], None, None)
    assert found == {"boxes": [{"label": "bar", "score": 0.75, "box": [1, 2, 3, 4]}]}


def test_a_saved_model_is_the_same(fitted, boxes_table):
    again, paths = foretune.load(fitted.path), boxes_table["path"].tolist()[:4]
    assert again.predict(paths) == fitted.predict(paths) and again.labels == ("disc", "bar")


def test_the_report_shows_boxes(fitted):
    page = (fitted.path / "report.html").read_text()
    assert "Average precision of each class" in page and "Pictures and boxes" in page
    assert "data:image/jpeg" in page and "mAP@[.5:.95]" in page


@pytest.mark.slow
def test_the_cards_snippet_runs_without_foretune(fitted, boxes_table, tmp_path):
    card = (fitted.path / "README.md").read_text()
    code = card.split("in this folder:")[1].split("```python")[1].split("```")[0]
    for name in ("config.json", "model.safetensors", "foretune.json"):
        (tmp_path / name).write_bytes((fitted.path / name).read_bytes())
    picture = np.kron(np.asarray(Image.open(boxes_table["path"][0])), np.ones((10, 10, 1), np.uint8))
    Image.fromarray(picture).save(tmp_path / "picture.png")  # larger than pictures are read at
    code = "import sys\nsys.modules['foretune'] = None\n" + code.replace("picture.jpg", "picture.png")
    code += "import numpy\nnumpy.save('found.npy', torch.cat([boxes, scores[:, None]], 1)[kept].detach().numpy())\n"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, timeout=120)
    plain = np.load(tmp_path / "found.npy")
    outputs, _ = fitted.outputs(fitted.task.from_inputs([picture]))
    own = outputs[0][outputs[0][:, 0] != NOTHING]
    best = own[:5]
    np.testing.assert_allclose(plain[: len(best), 4], best[:, 1], atol=1e-4)
    corners = np.c_[best[:, 2:4], best[:, 2:4] + best[:, 4:]]
    np.testing.assert_allclose(plain[: len(best), :4], corners, atol=1e-1)
    assert len(best) == 5 and corners.max() > 80  # in pixels of the original


@pytest.mark.slow  # as in segmentation, whose store it shares
def test_a_stopped_run_ends_bit_for_bit_the_same(
    boxes_table, network, options, stopped_and_resumed, tmp_path
):
    given = options | {"backbone": network(), "seed": 1}
    foretune.fit(boxes_table, output=tmp_path / "whole", **given)
    stopped_and_resumed(boxes_table, tmp_path / "parts", **given)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("kind", [pytest.param("yolos", marks=pytest.mark.slow), "detr"])
def test_models_of_transformers_with_their_own_loss(kind, boxes_table, hub, options, tmp_path):
    """Fine-tuned here, then loaded by plain transformers, which finds the same."""
    model = foretune.fit(boxes_table, output=tmp_path / "run", backbone=hub(kind), **options)
    import torch
    from transformers import AutoModelForObjectDetection

    plain = AutoModelForObjectDetection.from_pretrained(tmp_path / "run").eval()
    assert plain.config.id2label == {0: "disc", 1: "bar"}
    numbers = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        own, other = model.backbone.model(pixel_values=numbers), plain(pixel_values=numbers)
    torch.testing.assert_close(own.pred_boxes, other.pred_boxes)
    losses = [row["loss"] for row in model.record.get("losses", [])] or [0.0]
    assert np.isfinite(losses).all() and foretune.load(tmp_path / "run").labels == ("disc", "bar")


def test_a_decoder_of_detrs_kind_on_any_network_of_timm(boxes_table, network, options, tmp_path):
    """Fine-tuned here, then loaded by plain transformers; the trunk's weights are the pretrained ones."""
    given = options | {"backbone": network(), "options": {"head": "detr"}, "lr": 1e-12}
    model = foretune.fit(boxes_table, output=tmp_path / "run", **given)
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForObjectDetection

    plain = AutoModelForObjectDetection.from_pretrained(tmp_path / "run").eval()
    assert plain.config.model_type == "rt_detr" and plain.config.id2label == {0: "disc", 1: "bar"}
    known = load_file(f"{network()}/model.safetensors")["conv1.0.weight"]
    (kept,) = [
        w for name, w in plain.state_dict().items() if name.endswith("conv1.0.weight") and "_backbone" in name
    ]
    torch.testing.assert_close(kept, known)
    numbers = torch.randn(1, 3, 128, 96)
    with torch.no_grad():
        own, other = model.backbone.model(pixel_values=numbers), plain(pixel_values=numbers)
    torch.testing.assert_close(own.pred_boxes, other.pred_boxes)
    paths = boxes_table["path"].tolist()[:3]
    assert foretune.load(tmp_path / "run").predict(paths) == model.predict(paths)


@pytest.mark.slow
def test_a_detr_learns_and_resumes(boxes_table, network, options, stopped_and_resumed, tmp_path):
    given = options | {"backbone": network(), "options": {"head": "detr"}, "epochs": 3}
    whole = foretune.fit(boxes_table, output=tmp_path / "whole", **given)
    lines = map(json.loads, (whole.path / "events.jsonl").read_text().splitlines())
    losses = [line["loss"] for line in lines if line["event"] == "step"]
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])
    stopped_and_resumed(boxes_table, tmp_path / "parts", **given)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("backbone", "head", "words"),
    [
        ("test_vit", "detr", "reads those at 8, 16 and 32"),
        ("", "DETR", "Option head is 'DETR'; expected auto or fcos or detr. Did you mean 'detr'"),
    ],
)
def test_a_head_that_does_not_fit_is_refused(backbone, head, words, boxes_table, network, options, tmp_path):
    given = options | {"backbone": network(backbone) if backbone else network(), "options": {"head": head}}
    with pytest.raises((BackboneError, ConfigError), match=words):
        foretune.fit(boxes_table, output=tmp_path / "run", **given)


def test_models_of_transformers_keep_their_head(boxes_table, hub, options, tmp_path):
    given = options | {"backbone": hub("detr"), "options": {"head": "fcos"}}
    with pytest.raises(ConfigError, match="keeps its own head"):
        foretune.fit(boxes_table, output=tmp_path / "run", **given)


@pytest.mark.slow
def test_plain_vision_transformers_get_a_pyramid(boxes_table, network, options, tmp_path):
    model = foretune.fit(boxes_table, output=tmp_path / "run", backbone=network("test_vit"), **options)
    assert isinstance(model.predict([np.zeros((70, 41, 3), np.uint8)])[0], list)


def test_doubles_are_dropped_and_scaled_back():
    import torch

    places = torch.tensor(
        [
            [0.9, 0.0, 10, 10, 30, 30],
            [0.8, 0.0, 11, 11, 31, 31],  # a double
            [0.0, 0.7, 10, 10, 30, 30],  # another class
            [0.6, 0.0, 50, 50, 90, 90],  # reaches beyond the picture
            [0.01, 0.02, 0, 0, 5, 5],  # not sure at all
        ]
    )
    found = surest(places, (64, 64, 128, 64), overlap=0.6)
    assert found[:, 0].tolist() == [0, 1, 0]
    np.testing.assert_allclose(found[:, 1], [0.9, 0.7, 0.6])
    np.testing.assert_allclose(found[:, 2:], [[10, 20, 20, 40], [10, 20, 20, 40], [50, 100, 14, 28]])
    assert len(surest(places, (64, 64, 64, 64), overlap=1.0)) == 4


def test_what_does_not_fit_is_named(boxes_table, network, fitted, options, tmp_path):
    given = options | {"backbone": network(), "output": tmp_path / "run"}

    def changed(**columns):
        other = boxes_table.assign(**columns)
        other.attrs = boxes_table.attrs
        return other

    empty = [[] for _ in range(len(boxes_table))]
    with pytest.raises(DataError, match=r"rows 1, 2.* another number of labels than of boxes"):
        foretune.fit(changed(labels=empty), **given)
    with pytest.raises(DataError, match="training pictures hold no boxes"):
        foretune.fit(changed(labels=empty, boxes=empty), **given)
    with pytest.raises(
        DataError, match=r"the label 'bars' does not occur in the training data\. Did you mean 'bar'"
    ):
        fitted.evaluate(changed(labels=[["bars"] * len(row) for row in boxes_table["labels"]]))
    with pytest.raises(DataError, match="12 pictures of another size than their boxes are made for"):
        foretune.fit(changed(width=7), **given)
    with pytest.raises(BackboneError, match="is a fine-tuned detection model"):
        foretune.fit(boxes_table, **given | {"backbone": str(fitted.path)})


def test_boxes_in_columns_train_too(boxes_table, network, tmp_path):
    """A table of lists, with a box beyond the edge and one without area, as nobody's json has checked them."""
    table = boxes_table[["path", "boxes", "labels"]].copy()
    table["boxes"] = [[*row, (60, 40, 90, 4), (5, 5, 0, 3)] for row in table["boxes"]]
    table["labels"] = [[*row, "bar", "bar"] for row in table["labels"]]
    table.attrs = {}
    model = foretune.fit(
        table, output=tmp_path / "run", backbone=network(), epochs=0.5, batch_tokens=4, device="cpu", offline=True,
        precision="fp32", dev_fraction=0.2, test_fraction=0.2,
    )  # fmt: skip
    assert model.labels == ("bar", "disc")
    said = model.record["warnings"]
    assert any("12 boxes cut off at the edge" in text for text in said), said
    assert any("12 boxes without area left out" in text for text in said)
    assert sum(c["support"] for c in model.evaluate(table)["classes"]) == 36 + 12


@pytest.mark.parametrize("head", ["fcos", pytest.param("detr", marks=pytest.mark.slow)])
def test_nothing_stays_behind_on_the_cpu(head, boxes_table, network, options, elsewhere, tmp_path):
    given = options | {"backbone": network(), "options": {"head": head}, "epochs": 1, "device": "auto"}
    model = foretune.fit(boxes_table, output=tmp_path / "run", **given)
    assert next(model.backbone.model.parameters()).device == elsewhere
    assert model.predict(boxes_table["path"].tolist()[:2])


def test_missing_pictures_are_named_or_skipped(painted, network, tmp_path):
    content = json.loads((painted / "annotations.json").read_text())
    content["images"] = [
        {**image, "file_name": "gone.png"} if number == 3 else image
        for number, image in enumerate(content["images"])
    ]
    file = painted / "some_missing.json"
    file.write_text(json.dumps(content))
    given = {"backbone": network(), "epochs": 1, "batch_tokens": 8, "device": "cpu", "offline": True}
    try:
        with pytest.raises(DataError, match=r"1 picture of \d+ not found: gone\.png .* --skip-broken"):
            foretune.fit(file, output=tmp_path / "run", **given)
        model = foretune.fit(file, output=tmp_path / "run", skip_broken=True, **given)
        with pytest.raises(DataError, match="--skip-broken"):
            model.evaluate(file)
        assert model.evaluate(file, skip_broken=True)["map"]["value"] >= 0
    finally:
        file.unlink()
    assert sum(model.record["data"]["sizes"].values()) == len(content["images"]) - 1
    assert any("1 picture of" in text and "left out" in text for text in model.record["warnings"])
