"""Models of sound behind the Backbone's face: Whisper's window, masks, layers, splits, heads."""

import numpy as np
import pytest
import torch

from foretune.backbones.audio_layers import map_audio_layers
from foretune.backbones.audio_load import load_audio_backbone
from foretune.data.sound_augment import SoundAugmentation
from foretune.data.sound_store import Wave
from foretune.errors import BackboneError, ConfigError

OPTIONS = {
    "num_labels": 3,
    "id2label": dict(enumerate("abc")),
    "label2id": {n: i for i, n in enumerate("abc")},
}
RATE = 16_000


@pytest.fixture
def load(models):
    def make(kind, seconds=0.9, options=OPTIONS):
        found = load_audio_backbone(
            models(kind),
            auto_class="AutoModelForAudioClassification",
            options=options,
            offline=True,
            seconds=seconds,
        )
        found.model.eval()
        return found

    return make


@pytest.fixture
def sounds(make_tone):
    return [Wave(make_tone("low", seconds, i), RATE) for i, seconds in enumerate((0.3, 0.8, 0.5))]


def batch_of(backbone, sounds, rows=(0, 1, 2)):
    store = backbone.preprocess(sounds, max_length=backbone.max_length, truncation="head")
    return store, backbone.collate(store, np.array(rows))


def test_whisper_reads_no_more_than_the_data(load, sounds):
    backbone = load("whisper", seconds=0.9)
    assert backbone.model.config.max_source_positions == backbone.max_length == 50
    assert backbone.extractor.chunk_length == 1 and backbone.window == RATE and backbone.frame == 0.02
    store, batch = batch_of(backbone, sounds)
    assert batch["input_features"].shape == (3, 20, 100)
    assert store.lengths.tolist() == [50, 50, 50]  # all cost the same
    whole = load("whisper", seconds=None)
    assert whole.max_length == 150 and batch_of(whole, sounds)[1]["input_features"].shape == (3, 20, 300)
    assert load("whisper", seconds=99.0).max_length == 150


def test_positions_of_the_cut_window_are_the_first_of_the_whole(load):
    cut, whole = (load("whisper", seconds=s).model.encoder.embed_positions.weight for s in (1.2, None))
    assert torch.equal(cut, whole[:100]) and not cut.requires_grad


def test_long_sounds_are_cut_to_the_window(load, make_tone):
    backbone = load("whisper", seconds=0.9)
    store, _ = batch_of(backbone, [Wave(make_tone("low", 2.0), RATE)], [0])
    assert "longer than 1.0 s" in store.cuts.sentence(50)
    with pytest.raises(ConfigError, match="at most 50 frames of 20 ms"):
        backbone.preprocess([], max_length=51, truncation="head")


@pytest.mark.parametrize("kind", ["wav2vec2", "base"])
def test_frames_are_those_of_the_model(load, sounds, kind):
    backbone = load(kind)
    for row in range(3):
        store, batch = batch_of(backbone, sounds, [row])
        hidden = backbone.hidden(batch, [0])[0]
        assert hidden.shape[1] == store.lengths[row]
        least = backbone.samples_of(int(store.lengths[row]))
        assert backbone.frames(np.array([least - 1, least])).tolist() == [
            store.lengths[row] - 1,
            store.lengths[row],
        ]


def test_masked_models_do_not_hear_the_padding(load, sounds):
    backbone = load("wav2vec2")
    together = backbone.forward(batch_of(backbone, sounds)[1])
    alone = torch.cat([backbone.forward(batch_of(backbone, sounds, [row])[1]) for row in range(3)])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("kind", ["whisper", "wav2vec2", "ast"])
def test_split_anywhere_gives_the_same(load, sounds, kind):
    backbone = load(kind)
    store, batch = batch_of(backbone, sounds)
    points = backbone.split_points()
    assert points == tuple(range(1, backbone.layers.count + 1)) and len(points) >= 2
    expected = backbone.forward(batch)
    for k, hidden in zip(points, backbone.hidden(batch, points), strict=True):
        assert hidden.shape[:2] == (3, store.lengths.max())
        mask = torch.from_numpy(np.arange(hidden.shape[1]) < store.lengths[:, None])
        stored = torch.where(mask[..., None], hidden, 0)  # as the feature store gives it back
        assert torch.allclose(backbone.forward_from(k, stored, batch), expected, atol=1e-5)


def test_nothing_is_split_where_padding_is_heard(load):
    assert load("base").split_points() == ()


@pytest.mark.parametrize("kind", ["whisper", "wav2vec2", "ast"])
def test_linear_head_reads_the_mean_of_the_encoder(load, sounds, kind):
    backbone = load(kind)
    assert not backbone.linear  # the projection trains too, as long as nobody freezes it
    parameters, gain = backbone.linear_head()
    assert gain == 1.0 and [tuple(p.shape) for p in parameters] == [(3, parameters[0].shape[1]), (3,)]
    assert backbone.linear
    _, batch = batch_of(backbone, sounds)
    features = backbone.features(batch)
    assert torch.allclose(backbone.head(features), backbone.forward(batch), atol=1e-5)
    if kind == "whisper":
        mean = backbone.model.encoder(batch["input_features"]).last_hidden_state.mean(dim=1)
        assert torch.allclose(features, mean, atol=1e-5)


@pytest.mark.parametrize("kind", ["whisper", "wav2vec2"])
def test_layer_means(load, sounds, kind):
    backbone = load(kind)
    _, batch = batch_of(backbone, sounds)
    together = backbone.layer_means(batch)
    assert together.shape[:2] == (3, backbone.layers.count + 1)
    alone = torch.cat([backbone.layer_means(batch_of(backbone, sounds, [row])[1]) for row in range(3)])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "stem"), [("whisper", "encoder.conv1"), ("wav2vec2", "wav2vec2.feature_extractor")]
)
def test_depths(load, kind, stem):
    found = load(kind).layers
    assert {depth for name, depth in found.depth.items() if name.startswith(stem)} == {0}
    assert set(found.head()) == {"projector.weight", "projector.bias", "classifier.weight", "classifier.bias"}
    assert {depth for name, depth in found.depth.items() if ".layers.1." in name} == {2}


def test_depths_of_encoder_and_decoder(models):
    from transformers import WhisperForConditionalGeneration

    found = map_audio_layers(WhisperForConditionalGeneration.from_pretrained(models("whisper")))
    depth = found.depth
    assert found.count == 5 and found.path == "model.encoder.layers" and not found.head()
    assert depth["model.encoder.conv1.weight"] == depth["model.encoder.embed_positions.weight"] == 0
    assert {d for n, d in depth.items() if n.startswith("model.decoder.layers.1.")} == {5}
    assert depth["model.encoder.layer_norm.weight"] == depth["model.decoder.embed_tokens.weight"] == 3
    assert depth["model.decoder.layer_norm.weight"] == 5


def test_train_above(load):
    backbone = load("whisper")
    backbone.train_above(2)
    model = backbone.model
    assert [layer.training for layer in model.encoder.layers] == [False, False, True]
    assert model.classifier.training and not model.encoder.conv1.training
    backbone.train_above(0)
    assert model.encoder.conv1.training


def test_layers_drop_out_only_where_told(load):
    config = load("wav2vec2").model.config
    assert config.layerdrop == 0 and not config.apply_spec_augment


def test_bands_of_spectrograms_are_blanked(load, sounds):
    backbone = load("whisper")
    store = backbone.preprocess(sounds, max_length=50, truncation="head")
    varied = store.augmented(SoundAugmentation(frequency_masks=3))
    torch.manual_seed(0)
    found = backbone.collate(varied, np.arange(3))["input_features"]
    plain = backbone.collate(store, np.arange(3))["input_features"]
    changed = (found != plain).any(dim=2)
    assert changed.any() and not changed.all()


def test_the_key_of_frozen_layers_tells_the_window(load, models):
    assert load("whisper", seconds=0.9).state_key() != load("whisper", seconds=1.9).state_key()
    assert load("whisper", seconds=0.9).fingerprint() == load("whisper", seconds=1.9).fingerprint()


def test_incomplete_weights_are_refused(models, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    place = tmp_path / "broken"
    shutil.copytree(models("whisper"), place)
    weights = load_file(place / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "encoder.layers.1" not in k}, place / "model.safetensors",
              metadata={"format": "pt"})  # fmt: skip
    with pytest.raises(BackboneError, match="lacks 15 of its weights"):
        load_audio_backbone(
            str(place), auto_class="AutoModelForAudioClassification", options=OPTIONS, offline=True
        )


def test_folders_of_other_things_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no model")
    with pytest.raises(BackboneError, match=r"cannot be loaded.*notes.txt"):
        load_audio_backbone(
            str(tmp_path), auto_class="AutoModelForAudioClassification", options=OPTIONS, offline=True
        )
