"""Tiny models of sound, and sounds of two kinds: low and high tones of unequal length."""

import os

import numpy as np
import pytest

soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")

RATE = 16_000
PITCH = {"high": 1_800.0, "low": 200.0}


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Runs here use one thread, so that results can be compared bit by bit."""
    import torch

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)


def tone(kind, seconds, seed=0, rate=RATE):
    """Return a noisy tone: (samples,) float32."""
    draw = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * PITCH[kind] * time) + 0.01 * draw.standard_normal(len(time))).astype(
        np.float32
    )


@pytest.fixture(scope="session")
def make_tone():
    return tone


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Return a folder per class with ten sounds each, at two rates, in two formats."""
    root = tmp_path_factory.mktemp("tones")
    for label in PITCH:
        (root / label).mkdir()
        for i in range(10):
            rate, suffix = (RATE, "wav") if i % 2 else (8_000, "flac")
            data = tone(label, 0.25 + 0.05 * i, i, rate)
            soundfile.write(root / label / f"{i}.{suffix}", data, rate)
    return root


def _whisper_config():
    from transformers import WhisperConfig

    return WhisperConfig(
        vocab_size=30, d_model=16, encoder_layers=3, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, num_mel_bins=20, max_source_positions=150,
        max_target_positions=48, pad_token_id=27, bos_token_id=27, eos_token_id=27, decoder_start_token_id=28,
        suppress_tokens=None, begin_suppress_tokens=None, init_std=0.3,
    )  # fmt: skip


def _wav2vec2_config(**changes):
    from transformers import Wav2Vec2Config

    options = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
        "conv_dim": (16, 16, 16), "conv_kernel": (10, 8, 4), "conv_stride": (5, 8, 8),
        "num_feat_extract_layers": 3, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
        "feat_extract_norm": "layer", "do_stable_layer_norm": True, "vocab_size": 8,
    }  # fmt: skip
    return Wav2Vec2Config(**options | changes)


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Return a function: "whisper", "wav2vec2" (masked), "base" (unmasked) or "ast" -> folder with a tiny one."""
    import torch
    import transformers

    base, made = tmp_path_factory.mktemp("models"), {}

    def make(kind):
        if kind in made:
            return made[kind]
        torch.manual_seed(1)
        place = base / kind
        if kind == "whisper":
            model = transformers.WhisperForConditionalGeneration(_whisper_config())
            extractor = transformers.WhisperFeatureExtractor(feature_size=20, chunk_length=3)
        elif kind == "wav2vec2":
            model = transformers.Wav2Vec2Model(_wav2vec2_config())
            extractor = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True)
        elif kind == "ast":
            config = transformers.ASTConfig(
                hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, patch_size=16,
                num_mel_bins=32, max_length=96,
            )  # fmt: skip
            model = transformers.ASTModel(config)
            extractor = transformers.ASTFeatureExtractor(num_mel_bins=32, max_length=96)
        else:
            model = transformers.Wav2Vec2Model(
                _wav2vec2_config(feat_extract_norm="group", do_stable_layer_norm=False)
            )
            extractor = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=False)
        model.save_pretrained(place)
        extractor.save_pretrained(place)
        made[kind] = str(place)
        return made[kind]

    return make


@pytest.fixture
def fast(monkeypatch):
    """Leave out what is slow and not under test: the peak's measurement and the counting of operations."""
    from foretune.training import loop, machine
    from foretune.training.flops import FlopModel

    monkeypatch.setattr(machine, "gemm_peak", lambda *args, **options: 1e9)
    monkeypatch.setattr(loop, "fit_flops", lambda *args: FlopModel(1.0, 0.0, 0.0))


@pytest.fixture
def bare(fast, monkeypatch):
    """Leave out baselines and report as well."""
    from foretune import outcome
    from foretune.tasks.audio_classification import AudioClassification
    from foretune.tasks.speech_recognition import SpeechRecognition

    for task in (AudioClassification, SpeechRecognition):
        monkeypatch.setattr(task, "baselines", lambda *args, **options: {})
    monkeypatch.setattr(outcome, "untuned", lambda *args, **options: {})
    monkeypatch.setattr(outcome, "write_report", lambda path, data: path.write_text("report"))


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


@pytest.fixture
def stop_at():
    return StopAt
