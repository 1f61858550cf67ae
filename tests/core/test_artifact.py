"""What a run leaves behind: checked on writing and on reading."""

import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from foretune import api, artifact
from foretune.errors import ArtifactError, ConfigError

TEXTS = ["good film", "bad room , very bad", "love", "大 坏"]


@pytest.fixture(scope="module")
def saved(tiny, rows, tmp_path_factory):
    """A finished run; copy it before changing it."""
    from foretune.training import machine

    patch = pytest.MonkeyPatch()
    patch.setattr(machine, "gemm_peak", lambda *args, **options: 1e9)
    folder = tmp_path_factory.mktemp("saved") / "run"
    options = {"backbone": tiny, "device": "cpu", "precision": "fp32", "offline": True}
    names = {"neg": 'schlecht, "übel"', "pos": "好"}
    data = [row | {"label": names[row["label"]]} for row in rows(80)]
    model = api.fit(data, output=folder, epochs=3.0, lr=3e-3, **options)
    patch.undo()
    return model


@pytest.fixture
def copied(saved, tmp_path):
    shutil.copytree(saved.path, tmp_path / "copy")
    return tmp_path / "copy"


def test_every_part_is_there(saved):
    names = {path.name for path in saved.path.iterdir()}
    assert {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "foretune.json",
        "recipe.toml",
        "README.md",
    } <= names
    assert {"report.html", "events.jsonl"} <= names and "checkpoints" not in names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl", ".joblib"))]
    record = json.loads((saved.path / "foretune.json").read_text())
    assert set(record["metrics"]) == {"dev", "test"} and set(record["data"]["fingerprints"]) == {
        "train",
        "dev",
        "test",
    }
    assert record["metrics"]["test"]["accuracy"].keys() >= {"value", "low", "high"}
    assert record["baselines"] and record["environment"]["torch"] == torch.__version__


def test_the_loaded_model_is_the_same(saved):
    again = artifact.load(saved.path)
    np.testing.assert_allclose(again.predict_proba(TEXTS), saved.predict_proba(TEXTS), atol=1e-6)
    assert again.labels == saved.labels == ('schlecht, "übel"', "好")
    assert again.recipe == saved.recipe and again.recipe.max_tokens == saved.max_length
    config = json.loads((saved.path / "config.json").read_text())
    assert config["id2label"] == {"0": 'schlecht, "übel"', "1": "好"}


def test_the_recipe_of_the_artefact_gives_the_model_again(saved, rows, tmp_path):
    """It holds every choice, so a second fit with it alone is the same fit."""
    from foretune.recipe import Recipe

    recipe = Recipe.read(saved.path / "recipe.toml")
    assert None not in (recipe.lr, recipe.epochs, recipe.batch_tokens, recipe.max_tokens, recipe.metric)
    names = dict(zip(("neg", "pos"), saved.labels, strict=True))
    data = [row | {"label": names[row["label"]]} for row in rows(80)]
    api.fit(data, output=tmp_path / "again", recipe=recipe)
    one, two = (folder / "model.safetensors" for folder in (saved.path, tmp_path / "again"))
    assert one.read_bytes() == two.read_bytes()


def test_saving_again_elsewhere_and_over_an_older_one(saved, tmp_path):
    before = saved.path
    try:
        saved.save(tmp_path / "a")
        saved.save(tmp_path / "a")
    finally:
        saved.path = before
    np.testing.assert_allclose(
        artifact.load(tmp_path / "a").predict_proba(TEXTS), saved.predict_proba(TEXTS), atol=1e-6
    )


def test_other_files_are_not_written_over(saved, tmp_path, monkeypatch):
    (tmp_path / "project").mkdir()
    (tmp_path / "project/README.md").write_text("mine")
    with pytest.raises(ConfigError, match="holds files, but no model"):
        saved.save(tmp_path / "project")
    assert (tmp_path / "project/README.md").read_text() == "mine"
    monkeypatch.setenv("HOME", str(tmp_path))
    before = saved.path
    try:
        assert saved.save("~/mine") == tmp_path / "mine"
    finally:
        saved.path = before


def test_the_card_takes_odd_labels_and_a_run_without_scores(saved, tmp_path):
    task = SimpleNamespace(
        name="text-classification", labels=("a`b", "two\nlines"), pipeline=None, example='"text"'
    )
    card = artifact.model_card({"metrics": {}, "baselines": {}}, task)
    assert "`` a`b ``, `two lines`" in card
    assert "Nothing was held out, so nothing was scored." in card and "|---" not in card
    assert "Nothing was held out" not in (saved.path / "README.md").read_text()


def test_a_crash_while_an_older_model_is_replaced_is_noticed(saved, tmp_path, monkeypatch):
    before = saved.path
    try:
        saved.save(tmp_path / "a")
        calls = []
        real = os.replace

        def replace(source, target):
            calls.append(target)
            if len(calls) == 3:
                raise KeyboardInterrupt
            real(source, target)

        monkeypatch.setattr("os.replace", replace)
        with pytest.raises(KeyboardInterrupt):
            saved.save(tmp_path / "a")
    finally:
        saved.path = before
    with pytest.raises(ArtifactError, match=r"holds no foretune.json"):
        artifact.load(tmp_path / "a")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "recipe.toml"])
def test_a_missing_or_damaged_file(copied, name):
    content = bytearray((copied / name).read_bytes())
    content[len(content) // 2] ^= 4
    (copied / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=f"{name} is damaged"):
        artifact.load(copied)
    (copied / name).unlink()
    with pytest.raises(ArtifactError, match=f"{name} is missing"):
        artifact.load(copied)


def test_the_model_card_may_be_edited(copied):
    (copied / "README.md").write_text("mine")
    assert artifact.load(copied).labels


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"format": 2}', '{"format": 1}'])
def test_a_record_of_another_kind(copied, content):
    (copied / "foretune.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"cannot be read|has format|is incomplete"):
        artifact.load(copied)


def test_no_model_there(tmp_path):
    with pytest.raises(ArtifactError, match="There is no model folder"):
        artifact.load(tmp_path / "nothing")
    with pytest.raises(ArtifactError, match=r"Was it made by"):
        artifact.load(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ArtifactError, match="not finished: go on with --resume"):
        artifact.load(tmp_path)


def test_saved_weights_that_differ_are_noticed(saved, tmp_path, monkeypatch):
    original = type(saved.backbone).save

    def save(self, folder):
        weight = self.model.classifier.weight
        kept = weight.data.clone()
        weight.data.flip(0).add_(1)
        weight.data.copy_(kept.flip(0))
        original(self, folder)
        weight.data.copy_(kept)

    monkeypatch.setattr(type(saved.backbone), "save", save)
    with pytest.raises(ArtifactError, match="does not predict what the trained one does"):
        saved.save(tmp_path / "a")
    assert list((tmp_path / "a").iterdir()) == []


def test_both_models_attend_in_the_same_way(saved, tmp_path, monkeypatch):
    """bf16 on a CPU trains with an attention of its own, and a model that is read back does not have it."""
    from foretune.training.inference import Runtime

    original, seen = artifact._difference, []

    def difference(model, again, probes):
        seen.extend(each.backbone.model.config._attn_implementation for each in (model, again))
        return original(model, again, probes)

    monkeypatch.setattr(artifact, "_difference", difference)
    monkeypatch.setattr(saved, "runtime", Runtime(saved.runtime.device, "bf16"))
    saved.save(tmp_path / "a")
    assert len(seen) == 2 and seen[0] == seen[1] == "foretune_matmul"


def test_labels_that_differ_are_noticed(saved, tmp_path, monkeypatch):
    original = artifact.load

    def load(*args, **options):
        model = original(*args, **options)
        model.task.names = model.task.names[::-1]
        return model

    monkeypatch.setattr(artifact, "load", load)
    with pytest.raises(ArtifactError):
        saved.save(tmp_path / "a")


def test_not_a_number_is_no_agreement(saved, tmp_path, monkeypatch):
    few = [np.array([0.1, 0.9]), np.array([np.nan, 0.5]), np.array([0.2, 0.8])]
    monkeypatch.setattr(type(saved), "outputs", lambda self, examples: (few, None))
    with pytest.raises(ArtifactError):
        saved.save(tmp_path / "a")


@pytest.mark.parametrize(("size", "same"), [(1.0, False), (300_000.0, True)])
def test_large_outputs_may_differ_in_the_last_digits_of_a_float32(saved, tmp_path, monkeypatch, size, same):
    """A price of 300,000 has steps of 0.03: two ways to compute attention do not agree on it more closely."""
    answers = iter(([np.array([size])], [np.array([size + 0.03])]))
    monkeypatch.setattr(type(saved), "outputs", lambda self, examples: (next(answers), None))
    if same:
        assert (saved.save(tmp_path / "a") / "foretune.json").exists()
        return
    with pytest.raises(ArtifactError, match=r"allowed 0\.0001"):
        saved.save(tmp_path / "a")


def test_predictions_come_batch_by_batch(saved, monkeypatch):
    """The outputs of one chunk only are held: the first prediction comes before the last text is read."""
    from foretune import model as model_module

    monkeypatch.setattr(model_module, "CHUNK", 4)
    done = []
    original = type(saved.backbone).forward
    monkeypatch.setattr(
        type(saved.backbone),
        "forward",
        lambda self, batch: done.append(len(batch["input_ids"])) or original(self, batch),
    )
    found = saved.predictions([f"good film {number}" for number in range(12)])
    first = next(found)
    assert first.keys() == {"label", "probability"} and sum(done) == 4
    assert len(list(found)) == 11 and sum(done) == 12
