"""The task from a folder of sounds to a model that plain transformers runs."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import soundfile

import foretune
from foretune.data.columns import Columns
from foretune.errors import DataError
from foretune.evaluation.sound_baselines import sound_baselines
from foretune.evaluation.sound_features import RATE, log_mel, png, sound_features, spectrogram_png
from foretune.tasks.audio_classification import AudioClassification, sounds_of

SETTINGS = {
    "device": "cpu", "precision": "fp32", "offline": True, "epochs": 3.0, "lr": 3e-2, "batch_tokens": 400, "seed": 1,
    "dev_fraction": 0.2, "test_fraction": 0.2,
}  # fmt: skip


@pytest.fixture
def fit(fast, models, folder):
    def run(output, data=None, **options):
        given = {"backbone": models("whisper"), "strategy": "linear-probe", **SETTINGS, **options}
        return foretune.fit(folder if data is None else data, output=output, **given)

    return run


@pytest.fixture(scope="module")
def trained(models, folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("trained") / "run"
    settings = SETTINGS | {"epochs": 60.0, "patience": 1000}
    return foretune.fit(
        folder, output=output, backbone=models("whisper"), strategy="linear-probe", **settings
    )


def test_tones_are_told_apart(trained, folder):
    record = trained.record
    assert trained.task.name == "audio-classification" and trained.labels == ("high", "low")
    assert trained.evaluate(folder)["accuracy"]["value"] >= 0.9
    assert record["baselines"]["mfcc_logreg"]["accuracy"]["value"] == 1.0
    assert record["baselines"]["majority"]["accuracy"]["value"] == 0.5
    assert (record["data"]["sizes"]["train"], record["data"]["sizes"]["test"]) == (12, 4)


def test_what_is_predicted(trained, folder, make_tone):
    sounds = [str(folder / "high" / "1.wav"), {"array": make_tone("low", 0.5), "sampling_rate": 16_000}]
    found = list(trained.predictions(sounds))
    assert [item["label"] for item in found] == ["high", "low"] == trained.predict(sounds)
    assert trained.predict_proba(sounds[0]).shape == (1, 2)


def test_the_saved_model_is_the_same(trained, folder):
    again = foretune.load(trained.path, device="cpu")
    path = str(folder / "low" / "3.wav")
    assert np.array_equal(again.predict_proba(path), trained.predict_proba(path))
    assert again.task.seconds == trained.task.seconds == pytest.approx(0.7)
    assert again.backbone.window == trained.backbone.window == RATE


PLAIN = """
import json, sys
import soundfile
from transformers import AutoFeatureExtractor, WhisperForAudioClassification, pipeline
folder, path = sys.argv[1:]
data, rate = soundfile.read(path, dtype="float32")
model = WhisperForAudioClassification.from_pretrained(folder)
features = AutoFeatureExtractor.from_pretrained(folder)(data, sampling_rate=rate, return_tensors="pt")
chances = model(**features).logits.softmax(-1)[0].tolist()
piped = pipeline("audio-classification", folder)({"raw": data, "sampling_rate": rate})
assert "foretune" not in sys.modules
print(json.dumps([model.config.id2label["0"] if "0" in model.config.id2label else model.config.id2label[0],
                  chances[0], piped]))
"""


def test_plain_transformers_runs_it(trained, folder):
    path = str(folder / "high" / "5.wav")
    out = subprocess.run(
        [sys.executable, "-c", PLAIN, str(trained.path), path], capture_output=True, text=True, check=False
    )
    assert out.returncode == 0, out.stderr[-2000:]
    name, chance, piped = json.loads(out.stdout.splitlines()[-1])
    own = trained.predict_proba(path)[0]
    assert name == "high" and chance == pytest.approx(float(own[0]), abs=1e-5)
    assert {each["label"]: each["score"] for each in piped}["high"] == pytest.approx(float(own[0]), abs=1e-5)
    assert 'pipeline("audio-classification", ".")' in (trained.path / "README.md").read_text()


def test_mistakes_are_drawn(fit, folder, tmp_path):
    """Labels that no one could learn make mistakes, which the report shows with their spectrograms."""
    table = pd.DataFrame(
        {
            "path": [str(p) for p in sorted(folder.rglob("*.*"))],
            "label": np.random.default_rng(0).permutation(["<b>one</b>", "two"] * 10).tolist(),
        }
    )
    model = fit(tmp_path / "run", table, epochs=1.0, test_fraction=0.4)
    report = (tmp_path / "run" / "report.html").read_text()
    assert model.record["metrics"]["test"]["accuracy"]["value"] < 1
    assert "Sounds of the most confident mistakes" in report and "data:image/png;base64," in report
    assert "<b>one</b>" not in report and "&lt;b&gt;one&lt;/b&gt;" in report


@pytest.mark.parametrize(
    ("kind", "strategy"),
    [
        ("wav2vec2", "linear-probe"),
        pytest.param("wav2vec2", "full", marks=pytest.mark.slow),
        pytest.param("base", "full", marks=pytest.mark.slow),
        pytest.param("whisper", "lora", marks=pytest.mark.slow),
        pytest.param("whisper", "gradual-unfreezing", marks=pytest.mark.slow),
    ],
)
def test_every_strategy_trains(bare, fit, models, tmp_path, kind, strategy):
    model = fit(tmp_path / "run", backbone=models(kind), strategy=strategy, epochs=1.0, lr=1e-3)
    assert model.record["train"]["steps"] >= 1 and (tmp_path / "run" / "foretune.json").exists()


def test_options_that_do_nothing_are_named(bare, fit, tmp_path):
    """What chance does to training sounds would spoil the cache of frozen layers."""
    given = {"options": {"shift": 0.1, "gain": 3.0}}
    frozen = fit(tmp_path / "frozen", epochs=1.0, **given).record["warnings"]
    assert any(text.startswith("Option gain, shift does nothing: --strategy linear-probe") for text in frozen)
    varied = fit(tmp_path / "varied", epochs=1.0, strategy="full", **given).record["warnings"]
    assert not any("does nothing" in text for text in varied)


def test_resumed_run_ends_bit_identical(bare, fit, tmp_path, stop_at):
    """With everything that chance decides: dropout, and how the sounds are varied."""
    settings = {
        "strategy": "full", "lr": 1e-3, "dropout": 0.1, "checkpoint_seconds": 0.0, "epochs": 2.0,
        "options": {"shift": 0.05, "gain": 3.0, "time_masks": 1, "frequency_masks": 1},
        "batch_tokens": 300, "micro_tokens": 150, "test_fraction": 0.0,
    }  # fmt: skip
    fit(tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "parts", **settings, listeners=[stop_at("checkpoint", 3)])
    fit(tmp_path / "parts", **settings, resume=True)
    whole, parts = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert whole == parts


def test_frozen_layers_from_the_cache_give_the_same(bare, fit, tmp_path):
    settings = {
        "strategy": "top-layers",
        "lr": 1e-3,
        "epochs": 2.0,
        "cache": "fp32",
        "options": {"layers": 1},
    }
    cached = fit(tmp_path / "cached", **settings)
    live = fit(tmp_path / "live", **settings | {"cache": "off"})
    pairs = zip(cached.backbone.model.parameters(), live.backbone.model.parameters(), strict=True)
    assert max(float((a - b).detach().abs().max()) for a, b in pairs) < 1e-5


def test_broken_files_are_named(fit, folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "low" / "3.wav").write_bytes(b"RIFF no sound")
    with pytest.raises(DataError, match=r"low/3\.wav"):
        fit(tmp_path / "run", copy)
    assert not (tmp_path / "run").exists()


def test_audit_and_overlap(tmp_path, make_tone):
    for name, seed in (("a", 0), ("b", 0), ("c", 1), ("d", 2)):
        soundfile.write(tmp_path / f"{name}.wav", make_tone("low", 0.1, seed), 16_000)
    table = pd.DataFrame(
        {"path": [str(tmp_path / f"{n}.wav") for n in "abcd"], "label": ["x", "y", "x", "y"]}
    )
    columns = Columns("path", "label", "")
    found = " ".join(AudioClassification.audit(table, columns, where="train"))
    assert "1 sound of 4 the same as an earlier one (row 2)" in found.replace("is the same", "the same")
    assert "with different labels in different rows (rows 1, 2" in found.replace("1 and 2", "1, 2")
    warned = AudioClassification.overlap(table.iloc[:1], table.iloc[1:], columns, "test")
    assert len(warned) == 1 and "also in the training data" in warned[0]
    assert AudioClassification.overlap(table.iloc[:1], table.iloc[2:], columns, "test") == []


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (np.zeros(8, np.float32), "rate is unknown"),
        ([3], "Row 1 holds int; expected the path of a sound"),
        (pd.DataFrame({"path": ["a.wav"]}), "Found a table"),
        ([{"array": [1, 2], "sampling_rate": 8000}], "expected a sound as"),
    ],
)
def test_inputs_that_are_no_sounds(inputs, said):
    with pytest.raises(DataError, match=said):
        sounds_of(inputs)


def test_command_line(trained, folder, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from foretune.cli import app

    (tmp_path / "list.csv").write_text("path\nhigh/1.wav\nlow/1.wav\n")
    for label in ("high", "low"):
        shutil.copytree(folder / label, tmp_path / label)
    monkeypatch.chdir("/")  # paths count from the csv, not from here
    done = CliRunner().invoke(app, ["predict", str(trained.path), str(tmp_path / "list.csv"), "--quiet"])
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [line["label"] for line in lines] == ["high", "low"]
    done = CliRunner().invoke(app, ["evaluate", str(trained.path), str(folder), "--json", "--quiet"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout.splitlines()[-1])["metrics"]["accuracy"]["value"] >= 0.9


def test_log_mel_of_a_tone(make_tone):
    found = log_mel(make_tone("low", 0.5))
    assert found.shape == (40, 48)
    low, high = int(found.mean(axis=1).argmax()), int(log_mel(make_tone("high", 0.5)).mean(axis=1).argmax())
    assert low < 6 < 18 < high
    assert sound_features(make_tone("low", 0.5)).shape == (81,)
    assert np.isfinite(sound_features(np.zeros(3, np.float32))).all()


def test_png_is_one(make_tone):
    import io

    from PIL import Image

    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png(grey)))), grey)
    picture = np.asarray(Image.open(io.BytesIO(spectrogram_png(make_tone("low", 0.4)))))
    assert (
        picture.shape == (64, 160) and int(picture.mean(axis=1).argmin()) > 50
    )  # dark where the tone is: below


def test_baselines_of_sounds_that_do_not_fit(folder):
    with pytest.raises(DataError, match="one each"):
        sound_baselines([str(folder / "low" / "1.wav")], np.array([0, 1]), [], np.array([]), 2)


@pytest.mark.parametrize("strategy", ["linear-probe", "full"])
def test_nothing_stays_behind_on_the_cpu(strategy, fit, elsewhere, tmp_path):
    model = fit(tmp_path / "run", strategy=strategy, device="auto", epochs=1.0)
    assert next(model.backbone.model.parameters()).device == elsewhere
