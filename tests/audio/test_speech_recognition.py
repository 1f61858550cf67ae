"""Speech recognition: CTC over letters of the transcripts, decoders that write; error rates; plain transformers."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

import foretune
from foretune.backbones.speech import load_speech_backbone
from foretune.backbones.transcriber import CTC, Transcriber, character_tokenizer, characters_of
from foretune.data.columns import Columns
from foretune.data.sound_store import Wave
from foretune.errors import BackboneError, ConfigError, DataError
from foretune.tasks.base import Examples
from foretune.tasks.speech_recognition import SpeechOptions, SpeechRecognition

SETTINGS = {
    "device": "cpu", "precision": "fp32", "offline": True, "epochs": 2.0, "lr": 1e-3, "batch_tokens": 400, "seed": 1,
    "dev_fraction": 0.2, "test_fraction": 0.2, "strategy": "full",
}  # fmt: skip


@pytest.fixture(scope="module")
def manifest(tmp_path_factory, make_tone):
    """A csv of sounds in which tones follow each other, and their names."""
    root = tmp_path_factory.mktemp("said")
    draw = np.random.default_rng(0)
    rows = ["path,text"]
    for i in range(20):
        kinds = draw.choice(["high", "low"], size=2 + i % 2)
        pauses = [make_tone(kind, 0.25, i) for kind in kinds]
        soundfile.write(root / f"{i}.wav", np.concatenate(pauses), 16_000)
        rows.append(f"{i}.wav,{' '.join({'high': 'hi', 'low': 'lo'}[kind] for kind in kinds)}")
    (root / "list.csv").write_text("\n".join(rows) + "\n")
    return root / "list.csv"


@pytest.fixture(scope="module")
def writer_folder(models, tmp_path_factory):
    """A tiny Whisper with a tokenizer of letters; the token against time stamps is the last, as it must be."""
    from transformers import (
        GenerationConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperTokenizer,
    )

    place = tmp_path_factory.mktemp("writer")
    model = WhisperForConditionalGeneration.from_pretrained(models("whisper"))
    model.generation_config = GenerationConfig(  # the one that is made from the model's would lose the marks
        decoder_start_token_id=28, eos_token_id=27, pad_token_id=27, bos_token_id=27, no_timestamps_token_id=29,
        is_multilingual=False, return_timestamps=False, max_length=48,
    )  # fmt: skip
    model.save_pretrained(place)
    WhisperFeatureExtractor.from_pretrained(models("whisper")).save_pretrained(place)
    marks = ["<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"]
    names = ["Ġ", *"abcdefghijklmnopqrstuvwxyz", *marks]
    WhisperTokenizer(
        vocab={name: i for i, name in enumerate(names)}, merges=[], pad_token=marks[0],
        extra_special_tokens=marks[1:],
    ).save_pretrained(place)  # fmt: skip
    return str(place)


@pytest.fixture
def fit(fast, models, manifest):
    def run(output, **options):
        return foretune.fit(
            manifest, output=output, **{"backbone": models("wav2vec2"), **SETTINGS, **options}
        )

    return run


@pytest.fixture(scope="module")
def letters():
    return Transcriber(character_tokenizer("adhilo"), CTC, 0)


def test_letters_there_and_back(letters):
    ids = letters.ids(["hi  lo", "all"])
    assert ids[0].tolist() == [5, 6, 2, 7, 8] and ids[1].tolist() == [3, 7, 7]
    # frames: h h blank i | l blank l o  -> doubled letters stay only where a blank parts them
    assert letters.text(np.array([5, 5, 0, 6, 2, 2, 7, 0, 7, 8, 0])) == "hi llo"
    assert letters.text(np.zeros(4)) == ""
    assert letters.ids(["HI"])[0].tolist() == [5, 6]  # in the case that the vocabulary has


def test_characters_of_transcripts():
    assert characters_of(["hi lo", "on\nhi"]) == "hilno"
    assert characters_of(["你好 你"]) == "你好"
    with pytest.raises(ConfigError, match="stands for the blank"):
        characters_of(["a|b"])


def encoded(models, texts, seconds):
    columns = Columns("path", "text", "")
    task = SpeechRecognition(columns, characters_of(texts), max(seconds), SpeechOptions())
    backbone = load_speech_backbone(models("wav2vec2"), characters=task.characters, offline=True)
    backbone.model.eval()
    draw = np.random.default_rng(0)
    sounds = [Wave(draw.standard_normal(round(s * 16_000)).astype(np.float32), 16_000) for s in seconds]
    examples = Examples(sounds, np.array(texts, dtype=object), np.arange(1, len(texts) + 1))
    return task, backbone, examples, task.encode(backbone, examples, max_length=1000, truncation="head")


def test_ctc_loss_is_the_models_own(models):
    """Compared with what transformers computes from the same logits; padded frames do not count."""
    texts, seconds = ["hi lo", "hill"], [0.9, 0.4]
    task, backbone, _, found = encoded(models, texts, seconds)
    batch = backbone.collate(found.store, np.arange(2))
    own = task.loss(backbone.forward(batch), torch.from_numpy(found.targets[np.arange(2)]), batch)
    backbone.model.config.ctc_loss_reduction = "sum"
    given = {name: batch[name] for name in ("input_values", "attention_mask", "labels")}
    theirs = backbone.model(**given).loss
    assert float(own.detach()) == pytest.approx(float(theirs.detach()), rel=1e-4)
    assert task.normaliser(found.targets[np.arange(2)]) == 9


def test_greedy_letters_do_not_hear_the_padding(models):
    task, backbone, _, found = encoded(models, ["hi lo", "hill"], [0.9, 0.4])
    together = task.infer(backbone, backbone.collate(found.store, np.arange(2)))[1, 2:].detach().numpy()
    alone = task.infer(backbone, backbone.collate(found.store, np.array([1])))[0, 2:].detach().numpy()
    assert np.array_equal(together[: len(alone)], alone) and not together[len(alone) :].any()


def test_transcripts_that_no_frames_can_hold_are_named(models):
    task, *given = encoded(models, ["hi", "hello " * 20], [0.9, 0.3])
    with pytest.raises(DataError, match=r"1 of 2 transcripts are too long.*one letter per frame.*row 2"):
        task.check_learnable(*given)


def test_transcripts_of_another_language_are_named(models):
    task, backbone, examples, found = encoded(models, ["hi lo", "low hill"], [0.9, 0.9])
    task.check_learnable(backbone, examples, found)
    other = Examples(examples.inputs, np.array(["你好 hi", "你们都好"], dtype=object), examples.rows)
    with pytest.raises(DataError, match=r"67% of the letters .* not in the vocabulary of wav2vec2"):
        task.check_learnable(backbone, other, found)


@pytest.mark.parametrize("strategy", ["full", "linear-probe"])
def test_what_cannot_be_learnt_ends_a_run_before_training(fast, models, strategy, tmp_path, make_tone):
    rows = ["path,text"]
    for i in range(12):
        soundfile.write(tmp_path / f"{i}.wav", make_tone("high", 0.4, i), 16_000)
        rows.append(f"{i}.wav,{'hi ' * (80 if i < 10 else 1)}")
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    with pytest.raises(DataError, match="too long for how short their sounds are"):
        foretune.fit(
            tmp_path / "list.csv",
            output=tmp_path / "run",
            backbone=models("wav2vec2"),
            task="speech-recognition",
            **SETTINGS | {"strategy": strategy},
        )
    assert not (tmp_path / "run").exists()


def test_transcripts_that_cannot_be_learnt_are_scored_all_the_same(models, writer_folder):
    """What is held out is encoded after training: nothing there may end a run."""
    task, backbone, examples, found = encoded(models, ["hi", "hello " * 20], [0.9, 0.3])
    scores = task.scores(examples, found)
    batch = backbone.collate(found.store, np.arange(2))
    scores.update(task.infer(backbone, batch).detach().numpy(), found.targets[np.arange(2)], np.arange(2))
    assert scores.point()["cer"] > 0
    writer = load_speech_backbone(writer_folder, characters="", offline=True)
    assert writer.labels(["ab " * 60], cut=True).lengths.tolist() == [writer.longest_written]
    assert writer.labels(["ab " * 60]).lengths[0] > writer.longest_written


def test_characters_beyond_the_vocabulary_are_not_written(letters):
    """A pretrained vocabulary may lack the comma: what is learnt in its place is no part of a word."""
    ids = letters.ids(["hi, lo"])[0]
    assert letters.text(ids) == "hi lo" and letters.tokenizer.unk_token_id in ids


def test_ctc_from_the_file_to_the_report(fit, manifest, tmp_path):
    model = fit(tmp_path / "run", epochs=3.0)
    record = model.record
    assert model.task.name == "speech-recognition" and model.task.characters == "hilo"
    assert set(record["metrics"]["test"]) == {"wer", "cer"} and set(record["baselines"]) == {"most_frequent"}
    assert "Sounds that were heard worst" in (tmp_path / "run" / "report.html").read_text()
    again = foretune.load(tmp_path / "run", device="cpu")
    paths = [str(manifest.parent / f"{i}.wav") for i in range(3)]
    assert again.predict(paths) == model.predict(paths)
    assert again.evaluate(manifest)["wer"] == model.evaluate(manifest)["wer"]
    assert list(again.predictions(paths[0])) == [{"text": again.predict(paths[0])[0]}]


@pytest.mark.slow
def test_ctc_learns(fit, tmp_path):
    """Two tones are soon told apart, letter by letter."""
    model = fit(tmp_path / "run", epochs=150.0, lr=5e-3, patience=1000, strategy="full")
    assert model.record["metrics"]["dev"]["cer"]["value"] < 0.5


@pytest.mark.parametrize("way", ["ctc", pytest.param("seq2seq", marks=pytest.mark.slow)])
def test_resumed_run_ends_bit_identical(bare, fit, writer_folder, models, tmp_path, stop_at, way):
    settings = {"backbone": writer_folder if way == "seq2seq" else models("wav2vec2"), "checkpoint_seconds": 0.0,
                "batch_tokens": 400, "micro_tokens": 200, "dropout": 0.1, "epochs": 1.0, "test_fraction": 0.0,
                "options": {"gain": 3.0}}  # fmt: skip
    fit(tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "parts", **settings, listeners=[stop_at("checkpoint", 3)])
    fit(tmp_path / "parts", **settings, resume=True)
    whole, parts = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert whole == parts


def test_decoder_from_the_file_to_the_report(fit, writer_folder, manifest, tmp_path):
    model = fit(tmp_path / "run", backbone=writer_folder, options={"num_beams": 2})
    record = model.record
    assert set(record["metrics"]["test"]) == {"wer", "cer", "perplexity"}
    assert set(record["baselines"]) == {"most_frequent", "untuned"}
    assert model.backbone.window == 16_000  # the sounds last 0.75 s at most
    again = foretune.load(tmp_path / "run", device="cpu")
    path = str(manifest.parent / "3.wav")
    assert again.predict(path) == model.predict(path) and again.task.options.num_beams == 2


def test_labels_are_read_one_behind(writer_folder):
    backbone = load_speech_backbone(writer_folder, characters="", offline=True, seconds=1.0)
    store = backbone.labels(["hi", "lo hi"])
    assert store[0].tolist() == [29, 8, 9, 27]  # without the token that the decoder is given first
    labels = torch.from_numpy(store.padded(np.arange(2), -100)[0])
    shifted = backbone._shifted(labels)
    assert shifted[:, 0].tolist() == [28, 28] and shifted[0].tolist()[1:4] == [29, 8, 9]
    assert (shifted >= 0).all() and shifted.shape == labels.shape


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["top-layers", "lora"])
def test_parts_of_a_decoder_train(bare, fit, writer_folder, tmp_path, strategy):
    model = fit(tmp_path / "run", backbone=writer_folder, strategy=strategy, epochs=1.0)
    assert model.record["train"]["steps"] >= 1


def test_a_decoder_has_no_head_to_probe(fit, writer_folder, tmp_path):
    with pytest.raises(ConfigError, match="no head to train alone"):
        fit(tmp_path / "run", backbone=writer_folder, strategy="linear-probe")


def test_multilingual_models_ask_for_the_language(writer_folder, tmp_path):
    import shutil

    place = tmp_path / "many"
    shutil.copytree(writer_folder, place)
    file = place / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"is_multilingual": True}))
    with pytest.raises(BackboneError, match="--option language="):
        load_speech_backbone(str(place), characters="", offline=True)


PLAIN = """
import json, sys
import soundfile
from transformers import pipeline
folder, path = sys.argv[1:]
data, rate = soundfile.read(path, dtype="float32")
speech = pipeline("automatic-speech-recognition", folder)
written = {"generate_kwargs": {"num_beams": 1}} if speech.type != "ctc" else {}  # five beams without being asked
found = speech({"raw": data, "sampling_rate": rate}, **written)
assert "foretune" not in sys.modules
print(json.dumps(found["text"]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["ctc", "seq2seq"])
def test_plain_transformers_runs_it(bare, fit, writer_folder, models, manifest, tmp_path, way):
    backbone = writer_folder if way == "seq2seq" else models("wav2vec2")
    model = fit(tmp_path / "run", backbone=backbone, epochs=8.0, lr=5e-3)
    path = str(manifest.parent / "5.wav")
    out = subprocess.run(
        [sys.executable, "-c", PLAIN, str(model.path), path], capture_output=True, text=True, check=False
    )
    assert out.returncode == 0, out.stderr[-2000:]
    ours = model.predict(path)[0]
    theirs = json.loads(out.stdout.splitlines()[-1]).strip()
    assert theirs.startswith(ours) if way == "seq2seq" else theirs == ours


def test_empty_transcripts_are_named(folder):
    paths = sorted(str(p) for p in (folder / "low").iterdir())[:3]
    table = pd.DataFrame({"path": paths, "text": ["hi", " ", "lo"]})
    with pytest.raises(DataError, match=r"dev: .*Row 2.*transcript is empty"):
        SpeechRecognition.audit(table, Columns("path", "text", ""), where="dev")


def test_chinese_is_scored_by_characters(folder):
    from foretune.recipe import Recipe

    paths = sorted(str(p) for p in (folder / "low").iterdir())[:2]
    table = pd.DataFrame({"path": paths, "text": ["你好吗", "再见了"]})
    task = SpeechRecognition.from_table(table, Columns("path", "text", ""), Recipe())
    assert task.default_metric == "cer" and SpeechRecognition.default_metric == "wer"


@pytest.mark.parametrize("options", [{"num_beams": 0}, {"num_beams": True}, {"language": 3}, {"shift": -1}])
def test_impossible_options(options):
    with pytest.raises(ConfigError, match=f"Option {next(iter(options))}"):
        SpeechOptions(**options)


@pytest.mark.parametrize("kind", ["letters", pytest.param("words", marks=pytest.mark.slow)])
def test_nothing_stays_behind_on_the_cpu(kind, fit, writer_folder, elsewhere, tmp_path):
    """Neither with a head of letters (CTC) nor with a decoder that writes."""
    own = {} if kind == "letters" else {"backbone": writer_folder, "options": {"num_beams": 2}}
    model = fit(tmp_path / "run", device="auto", epochs=1.0, **own)
    assert (
        next(model.backbone.model.parameters()).device == elsewhere
        and "wer" in model.record["metrics"]["test"]
    )
