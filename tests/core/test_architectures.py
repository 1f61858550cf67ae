"""Every kind of model: full fine-tuning, layer map, probe, save, and plain transformers reads it."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from foretune import artifact
from foretune.backbones.layers import map_layers
from foretune.backbones.text import load_text_backbone, set_dropout

KINDS = ["bert", "roberta", "roformer", "distilbert", "modernbert", "gpt2", "llama"]
POOLED = {"bert", "roberta", "roformer"}  # their layers take the mean-pooling layer

PLAIN = """
import json, sys
sys.modules["foretune"] = None  # importing it raises
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

torch.set_num_threads(1)
for line in sys.stdin:
    folder, texts = json.loads(line)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    rows = []
    for text in texts:
        with torch.no_grad():
            ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=60)["input_ids"]
            rows.append(model(input_ids=ids).logits.softmax(-1)[0].tolist())
    names = [model.config.id2label[n] for n in range(len(rows[0]))]
    print(json.dumps([names, rows, "foretune" in str(vars(model.config))]), flush=True)
"""


@pytest.fixture(scope="module")
def plain():
    """Return a function: folder, texts -> (label names, probabilities) by transformers alone."""
    server = subprocess.Popen([sys.executable, "-c", PLAIN], stdin=-1, stdout=-1, stderr=-3, text=True)

    def ask(folder, texts):
        server.stdin.write(json.dumps([str(folder), texts]) + "\n")
        server.stdin.flush()
        return json.loads(server.stdout.readline())

    yield ask
    server.stdin.close()
    server.wait(timeout=30)
    server.stdout.close()


def load_tiny(folder, labels=2):
    return load_text_backbone(
        folder, auto_class="AutoModelForSequenceClassification", options={"num_labels": labels}, offline=True
    )


@pytest.mark.parametrize("strategy", ["full", "linear-probe"])
@pytest.mark.parametrize("kind", KINDS)
def test_trained_saved_and_read_by_plain_transformers(
    fit, backbone_folder, rows, plain, tmp_path, kind, strategy
):
    texts = [row["text"] for row in rows(6, seed=9)]
    changes = {"backbone": backbone_folder(kind), "strategy": strategy, "epochs": 2.0, "lr": ...}
    changes["options"] = {"pooling": "cls"} if strategy == "full" else {}
    model = fit(tmp_path / "run", checkpoint_seconds=1e6, micro_tokens=..., max_tokens=60, **changes)
    expected = model.predict_proba(texts)
    np.testing.assert_allclose(artifact.load(tmp_path / "run").predict_proba(texts), expected, atol=1e-6)
    names, found, traces = plain(tmp_path / "run", texts)
    assert names == list(model.labels) == ["neg", "pos"]
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert not traces
    layers = 2 + (strategy == "linear-probe" and kind in POOLED)
    assert model.backbone.layers.count == layers == model.backbone.model.config.num_hidden_layers
    before = load_tiny(backbone_folder(kind)).model.base_model.state_dict()
    after = model.backbone.model.base_model.state_dict()
    same = {n: torch.equal(t, after[n]) for n, t in before.items() if "pool" not in n and t.ndim > 1}
    assert all(same.values()) == (strategy == "linear-probe")


@pytest.mark.parametrize("kind", KINDS)
def test_depths_rise_from_embeddings_to_head(backbone_folder, kind):
    model = load_tiny(backbone_folder(kind)).model
    found = map_layers(model)
    assert found.count == 2 and set(found.depth.values()) == {0, 1, 2, 3}
    assert found.depth.keys() == dict(model.named_parameters()).keys()
    for number, layer in enumerate(found.layers, 1):
        inside = {id(p) for p in layer.parameters()}
        assert {n for n, p in model.named_parameters() if id(p) in inside} <= {
            n for n, depth in found.depth.items() if depth == number
        }
    table = model.get_input_embeddings().weight
    assert [found.depth[n] for n, p in model.named_parameters() if p is table] == [0]
    heads = found.head()
    assert heads and not any(n.startswith(f"{model.base_model_prefix}.") and "pooler" not in n for n in heads)


@pytest.mark.parametrize("kind", KINDS)
def test_the_longest_input_runs_and_a_longer_one_is_refused(backbone_folder, kind):
    from foretune.errors import ConfigError

    backbone = load_tiny(backbone_folder(kind))
    assert backbone.max_length in (63, 64)
    store = backbone.preprocess(["good " * 100, "bad"], max_length=backbone.max_length, truncation="head")
    assert store.lengths[0] == backbone.max_length
    batch = backbone.collate(store, np.array([0, 1]))
    assert torch.isfinite(backbone.forward(batch)).all()
    with pytest.raises(ConfigError, match="takes at most"):
        backbone.preprocess(["good"], max_length=backbone.max_length + 1, truncation="head")


@pytest.mark.parametrize("kind", KINDS)
def test_padding_does_not_change_the_output(backbone_folder, kind):
    backbone = load_tiny(backbone_folder(kind))
    backbone.model.eval()
    store = backbone.preprocess(["good film", "bad plot " * 20], max_length=60, truncation="head")
    alone = backbone.forward(backbone.collate(store, np.array([0])))
    padded = backbone.forward(backbone.collate(store, np.array([0, 1])))
    torch.testing.assert_close(padded[:1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_is_set_everywhere(backbone_folder, kind):
    backbone = load_tiny(backbone_folder(kind))
    store = backbone.preprocess(["good film was warm and clean"], max_length=60, truncation="head")
    batch = backbone.collate(store, np.array([0]))
    backbone.model.train()
    set_dropout(backbone.model, 0.0)
    assert torch.equal(backbone.forward(batch), backbone.forward(batch))
    if kind != "modernbert":  # has Identity where its configuration says 0
        set_dropout(backbone.model, 0.5)
        assert not torch.equal(backbone.forward(batch), backbone.forward(batch))


def test_dropout_given_as_a_number_is_set_too():
    """As BART's layers and those like it have it."""
    module = torch.nn.Module()
    module.dropout, module.activation_dropout, module.layerdrop = 0.1, 0.2, 0.3
    set_dropout(module, 0.0)
    assert (module.dropout, module.activation_dropout, module.layerdrop) == (0.0, 0.0, 0.3)


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_bf16_leaves_no_trace_in_the_artefact(fit, backbone_folder, rows, plain, tmp_path, kind):
    texts = [row["text"] for row in rows(3, seed=9)]
    changes = {"backbone": backbone_folder(kind), "precision": "bf16", "epochs": 1.0}
    model = fit(tmp_path / "run", checkpoint_seconds=1e6, **changes)
    assert model.backbone.model.dtype == torch.float32
    _, found, traces = plain(tmp_path / "run", texts)
    assert not traces
    np.testing.assert_allclose(found, model.predict_proba(texts), atol=0.02)


def test_a_fine_tuned_model_is_a_backbone_for_other_labels(fit, rows, tmp_path):
    fit(tmp_path / "first", checkpoint_seconds=1e6, epochs=1.0)
    data = [row | {"label": f"{row['label']}{number % 2}"} for number, row in enumerate(rows())]
    model = fit(
        tmp_path / "second", data, backbone=str(tmp_path / "first"), checkpoint_seconds=1e6, epochs=1.0
    )
    assert len(model.labels) == 4 and model.predict_proba("good").shape == (1, 4)
    again = artifact.load(tmp_path / "second")
    np.testing.assert_allclose(again.predict_proba("good"), model.predict_proba("good"), atol=1e-6)


def test_missing_pretrained_weights_are_not_made_up(tiny, tmp_path):
    from safetensors.torch import load_file, save_file

    from foretune.errors import BackboneError

    shutil.copytree(tiny, tmp_path / "model")
    weights = load_file(tmp_path / "model/model.safetensors")
    gone = next(name for name in weights if "layer.1.attention" in name)
    del weights[gone]
    save_file(weights, tmp_path / "model/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackboneError, match="lacks 1 of its weights"):
        load_tiny(str(tmp_path / "model"))
