"""Training from the frozen-prefix cache is the same training; splitting a model changes nothing it computes."""

import numpy as np
import pytest
import torch

from foretune.backbones import feature_store
from foretune.backbones.split import Layers, find_layers
from foretune.strategies.base import ParameterGroup, Phase
from foretune.training.feed import HEAD, HeadFeed, HiddenFeed
from foretune.training.inference import Runtime
from foretune.training.prefix import MEANS, Prefix, start_of, starts, unsplit

QUICK = {"checkpoint_seconds": 1e6, "dropout": 0.0}
RUNTIME = Runtime(torch.device("cpu"), "fp32")
TEXTS = [
    "good film",
    "a bad and very long old film here",
    "the",
    "room was clean but staff slow",
    "love it",
] * 3


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FORETUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


def load(folder, labels=3):
    from foretune.backbones.text import load_text_backbone

    options = {"num_labels": labels}
    backbone = load_text_backbone(
        str(folder), auto_class="AutoModelForSequenceClassification", options=options, offline=True
    )
    backbone.model.eval()
    return backbone


def stored(backbone, texts=TEXTS):
    return backbone.preprocess(texts, max_length=64, truncation="head")


# --- the split ---------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bert", "roberta", "roformer", "distilbert", "modernbert", "gpt2", "llama"])
@torch.no_grad()
def test_every_layer_of_encoders_and_decoders_is_a_split_point(backbone_folder, kind):
    backbone = load(backbone_folder(kind))
    assert backbone.split_points() == (1, 2)
    store = stored(backbone)
    batch = backbone.collate(store, np.arange(5))
    whole = backbone.forward(batch)
    for k, hidden in zip((1, 2), backbone.hidden(batch, (1, 2)), strict=True):
        mask = batch["attention_mask"].bool()
        unpadded = torch.zeros_like(hidden)
        unpadded[mask] = hidden[mask]  # what a store gives back: zeros where padding was
        torch.testing.assert_close(backbone.forward_from(k, unpadded, batch), whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(backbone.forward(batch), whole, rtol=0, atol=0)  # all layers are back in place


@torch.no_grad()
def test_layer_means_leave_padding_out(tiny):
    backbone = load(tiny)
    store = stored(backbone)
    together = backbone.layer_means(backbone.collate(store, np.arange(5)))
    assert together.shape == (5, 3, 32)
    for row in range(5):
        alone = backbone.layer_means(backbone.collate(store, np.array([row])))
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-5)


def test_gradients_reach_the_layers_above_and_no_other(tiny):
    backbone = load(tiny)
    batch = backbone.collate(stored(backbone), np.arange(5))
    with torch.no_grad():
        (hidden,) = backbone.hidden(batch, [1])
    backbone.forward_from(1, hidden, batch).sum().backward()
    depth = backbone.layers.depth
    for name, parameter in backbone.model.named_parameters():
        if "pooler" not in name:
            assert (parameter.grad is not None) == (depth[name] >= 2), name


def test_layers_come_back_after_an_error(tiny):
    backbone = load(tiny)
    before = [id(module) for module in backbone.layers.layers]
    batch = backbone.collate(stored(backbone), np.arange(2))
    with pytest.raises(RuntimeError):
        backbone.forward_from(2, torch.zeros(2, 3, 7), batch)  # another width
    backbone.layers_changed()
    assert [id(module) for module in backbone.layers.layers] == before


class Stages(torch.nn.Module):
    """Numbered siblings, as ResNet has them, each with layers of its own."""

    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Linear(4, 8)
        for number in range(1, 4):
            blocks = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8))
            setattr(self, f"layer{number}", blocks)
        self.head = torch.nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.layer3(self.layer2(self.layer1(self.stem(x)))))


def test_stages_with_numbered_names_are_layers():
    model, x = Stages(), torch.randn(5, 4)
    layers = find_layers(model)
    assert [slot.name for slot in layers.slots] == ["layer1", "layer2", "layer3"]
    assert layers.points(lambda: model(x)) == (1, 2, 3)


def test_a_model_that_looks_inside_its_layers_is_not_split():
    class Peeks(Stages):
        def forward(self, x):  # reads a weight of a layer, which a stand-in does not give
            return super().forward(x) * self.layer1[0].weight.sum()

    model, x = Peeks(), torch.randn(5, 4)
    assert find_layers(model).points(lambda: model(x)) == ()
    assert model(x).shape == (5, 2)  # and is whole again


def test_a_model_whose_layers_see_more_than_hidden_states_is_not_split_there():
    class Leaks(Stages):
        def forward(self, x):  # the output of layer 1 goes past layer 2
            first = self.layer1(self.stem(x))
            return self.head(self.layer3(self.layer2(first)) + first)

    model, x = Leaks(), torch.randn(5, 4)
    assert find_layers(model).points(lambda: model(x)) == (1,)


def test_models_without_a_list_of_layers():
    assert find_layers(torch.nn.Linear(3, 3)).slots == ()
    assert Layers(()).points(lambda: torch.zeros(1)) == ()


@pytest.mark.parametrize(
    "name", ["resnet18", "vit_tiny_patch16_224", "convnext_atto", "efficientnet_b0", "mobilenetv3_small_050"]
)
def test_image_networks_are_split_by_block_or_stage(name):
    timm = pytest.importorskip("timm")
    model = timm.create_model(name, pretrained=False, num_classes=5).eval()
    x = torch.randn(2, 3, 224 if "vit" in name else 64, 224 if "vit" in name else 64)
    layers = find_layers(model)
    assert layers.points(lambda: model(x)) == tuple(range(1, layers.count + 1))
    assert layers.count >= 4


def test_speech_encoders_are_split():
    import transformers

    small = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
    wave = transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(
        **small, conv_dim=(16, 16), conv_stride=(5, 2), conv_kernel=(10, 3), num_feat_extract_layers=2,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
    )).eval()  # fmt: skip
    sound = torch.randn(2, 2000)
    assert find_layers(wave).points(lambda: wave(sound).last_hidden_state) == (1, 2, 3)
    whisper = transformers.WhisperModel(transformers.WhisperConfig(
        d_model=32, encoder_layers=3, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=64, decoder_ffn_dim=64, vocab_size=100, max_source_positions=50, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )).encoder.eval()  # fmt: skip
    mel = torch.randn(2, 80, 100)
    assert find_layers(whisper).points(lambda: whisper(mel).last_hidden_state) == (1, 2, 3)


# --- where a phase starts ------------------------------------------------------


def phase(backbone, lowest):
    depth = backbone.layers.depth
    return Phase("p", 3.0, (ParameterGroup(tuple(n for n in depth if depth[n] >= lowest), 1e-3, 0.0),))


def test_a_phase_starts_behind_what_is_frozen(tiny):
    backbone = load(tiny)
    assert [start_of(phase(backbone, lowest), backbone, set()) for lowest in (0, 1, 2, 3)] == [0, 0, 1, 2]
    backbone.use_mean_pooling()
    backbone.linear_head()
    assert start_of(phase(backbone, backbone.layers.count + 1), backbone, set()) == HEAD


def test_a_prefix_that_was_trained_before_is_not_cached(tiny):
    backbone = load(tiny)
    down = [phase(backbone, lowest) for lowest in (3, 2, 0)]
    assert starts(down, backbone) == [2, 1, 0]
    assert starts([phase(backbone, 1), phase(backbone, 2)], backbone) == [0, 0]


# --- the cache -----------------------------------------------------------------


def test_several_points_are_captured_in_one_pass_and_kept(tiny, cache):
    backbone = load(tiny)
    backbone.use_mean_pooling()
    backbone.linear_head()
    store, runs = stored(backbone), []
    forward = backbone.model.bert.embeddings.forward
    backbone.model.bert.embeddings.forward = lambda *a, **k: runs.append(1) or forward(*a, **k)
    backbone.split_points()
    prefix = Prefix(backbone, store, RUNTIME, "fp32")
    runs.clear()
    feeds, computed = prefix.compute([1, 2])
    assert computed == [1, 2] and len(runs) == 1  # one batch, one pass
    again, computed = Prefix(backbone, store, RUNTIME, "fp32").compute([1, 2])
    assert computed == [] and len(runs) == 1
    rows = np.array([3, 0, 4])
    whole = prefix.whole()(rows)[0]
    for feed in (feeds[1], feeds[2], again[1], again[2]):
        assert isinstance(feed, HiddenFeed)
        torch.testing.assert_close(feed(rows)[0], whole, rtol=1e-5, atol=1e-5)
    head = prefix.compute([HEAD])[0][HEAD]
    assert isinstance(head, HeadFeed)
    torch.testing.assert_close(head(rows)[0], whole, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_in_fp32_the_same_batch_has_the_same_bits(tiny, cache):
    """Other batches differ by rounding, as products of other shapes are summed in another order."""
    backbone = load(tiny)
    store = stored(backbone)
    prefix = Prefix(backbone, store, RUNTIME, "fp32")
    rows = np.argsort(store.lengths, kind="stable")[
        ::-1
    ].copy()  # as the pass that fills the cache reads them
    whole = prefix.whole()(rows)[0]
    for feed in prefix.compute([1, 2])[0].values():
        torch.testing.assert_close(feed(rows)[0], whole, rtol=0, atol=0)


def test_the_key_tells_weights_tokens_points_and_formats_apart(backbone_folder, tiny, cache):
    backbone, other = load(tiny), load(backbone_folder("roberta"))
    store = stored(backbone)
    prefix = Prefix(backbone, store, RUNTIME, "bf16")
    keys = [
        prefix.key(1), prefix.key(2), Prefix(backbone, store, RUNTIME, "fp32").key(1),
        Prefix(backbone, stored(backbone, TEXTS[:-1]), RUNTIME, "bf16").key(1),
        Prefix(other, store, RUNTIME, "bf16").key(1),
        Prefix(backbone, store, Runtime(torch.device("cpu"), "bf16"), "bf16").key(1),
    ]  # fmt: skip
    assert len(set(keys)) == len(keys)
    assert prefix.key(1) == Prefix(load(tiny), stored(load(tiny)), RUNTIME, "bf16").key(1)


def test_layer_means_are_kept_for_forecasts(tiny, cache):
    backbone = load(tiny)
    store = stored(backbone)
    features, new = Prefix(backbone, store, RUNTIME, "bf16").stores([MEANS])[MEANS]
    assert new and features.rows(np.arange(len(store))).shape == (len(store), 3, 32)


LOSSES = {
    "linear-probe": {},
    "top-layers": {"options": {"layers": 1}},
    "gradual-unfreezing": {"epochs": 4.0},
    "lp-ft": {"options": {"probe_epochs": 2.0}},
}


@pytest.mark.parametrize("strategy", LOSSES)
@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", 2e-5), ("bf16", 2e-2)])
def test_losses_from_the_cache_are_those_of_running_everything(
    fit, events, tmp_path, cache, strategy, dtype, tolerance
):
    given = QUICK | {"strategy": strategy, "dev_fraction": 0.2} | LOSSES[strategy]
    fit(tmp_path / "cached", cache=dtype, **given)
    fit(tmp_path / "whole", cache="off", **given)
    cached, whole = (
        [line["loss"] for line in events(tmp_path / name, "step")] for name in ("cached", "whole")
    )
    assert len(cached) == len(whole) > 5
    np.testing.assert_allclose(cached, whole, rtol=tolerance, atol=tolerance)
    assert any(line["start"] != 0 for line in events(tmp_path / "cached", "phase"))
    assert all(line["start"] == 0 for line in events(tmp_path / "whole", "phase"))


def test_dropout_stays_off_in_the_frozen_part(fit, events, tmp_path, cache):
    """With dropout in the trained part the numbers are drawn alike, whether the frozen part runs or not."""
    given = {"strategy": "top-layers", "options": {"layers": 1}, "dropout": 0.3, "checkpoint_seconds": 1e6}
    fit(tmp_path / "cached", cache="fp32", **given)
    fit(tmp_path / "whole", cache="off", **given)
    cached, whole = (
        [line["loss"] for line in events(tmp_path / name, "step")] for name in ("cached", "whole")
    )
    np.testing.assert_allclose(cached, whole, rtol=1e-4)


def test_a_second_run_takes_what_the_first_computed(fit, events, tmp_path, cache, monkeypatch):
    given = QUICK | {"strategy": "top-layers", "options": {"layers": 1}}
    fit(tmp_path / "a", **given)
    kept = sorted(path.name for path in cache.iterdir())
    monkeypatch.setattr(
        Prefix, "_run", lambda self, points: {} if not points else pytest.fail("computed again")
    )
    fit(tmp_path / "b", **given)
    assert sorted(path.name for path in cache.iterdir()) == kept
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()


def test_a_damaged_store_is_computed_again(fit, tmp_path, cache):
    given = QUICK | {"strategy": "top-layers", "options": {"layers": 1}}
    fit(tmp_path / "a", **given)
    for path in cache.rglob("*"):
        if path.is_file() and path.stat().st_size > 1000:
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 255
            path.write_bytes(content)
    fit(tmp_path / "b", **given)
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()


def test_without_room_the_frozen_layers_run_in_every_step(fit, events, tmp_path, cache, monkeypatch):
    def refuse(key, layout):
        raise feature_store.NoRoom("full")

    monkeypatch.setattr(feature_store, "create", refuse)
    fit(tmp_path / "run", strategy="top-layers", options={"layers": 1}, **QUICK)
    assert any("No room" in line["text"] for line in events(tmp_path / "run", "note"))
    assert [line["start"] for line in events(tmp_path / "run", "phase")] == [0]


def _unsplittable(monkeypatch, points=()):
    from foretune.backbones.text import TextBackbone

    monkeypatch.setattr(TextBackbone, "split_points", lambda self: points)


def _said(events, folder):
    return [line["text"] for line in events(folder, "note") if "cannot be split" in line["text"]]


STUCK = "cannot be split below layer 2: its frozen layers run in every step; what they give is not cached."


@pytest.mark.parametrize("points", [(), (2,)])
def test_a_model_that_cannot_be_split_trains_whole_and_says_so_once(
    fit, events, tmp_path, cache, monkeypatch, points
):
    given = QUICK | {"strategy": "top-layers", "options": {"layers": 1}}
    fit(tmp_path / "whole", cache="off", **given)
    _unsplittable(monkeypatch, points)
    model = fit(tmp_path / "run", **given)
    assert _said(events, tmp_path / "run") == [f"{model.backbone.name} {STUCK}"]
    assert [line["start"] for line in events(tmp_path / "run", "phase")] == [0]
    run, whole = ([line["loss"] for line in events(tmp_path / name, "step")] for name in ("run", "whole"))
    assert run == whole and _said(events, tmp_path / "whole") == []  # there the user wants no cache


@pytest.mark.parametrize(
    ("strategy", "own"), [("full", {}), ("lora", {}), ("linear-probe", {}), ("top-layers", {"layers": 2})]
)
def test_nothing_is_said_where_no_layer_could_be_left_out(
    fit, events, tmp_path, cache, monkeypatch, strategy, own
):
    """The probe starts at the head, the others train from the first layer on."""
    _unsplittable(monkeypatch)
    fit(tmp_path / "run", strategy=strategy, options=own, epochs=2.0)
    assert _said(events, tmp_path / "run") == []


def test_a_model_that_can_be_split_says_nothing(fit, events, tmp_path, cache, monkeypatch):
    def refuse(key, layout):
        raise feature_store.NoRoom("full")

    given = QUICK | {"strategy": "top-layers", "options": {"layers": 1}}
    fit(tmp_path / "run", **given)
    monkeypatch.setattr(feature_store, "create", refuse)
    monkeypatch.setattr(feature_store, "load", lambda key: None)
    fit(tmp_path / "full", **given)  # no room has its own note
    assert _said(events, tmp_path / "run") == _said(events, tmp_path / "full") == []
    assert any("No room" in line["text"] for line in events(tmp_path / "full", "note"))


def test_which_phases_a_model_that_cannot_be_split_holds_up(tiny, monkeypatch):
    backbone = load(tiny)
    _unsplittable(monkeypatch)
    head, top, whole = (phase(backbone, lowest) for lowest in (3, 2, 0))
    found = starts([head, top, whole], backbone)
    assert found == [0, 0, 0]  # with its own pooler the head is not linear
    assert "below its head: " in unsplit([head, top, whole], backbone, found)
    assert "below layer 2: " in unsplit([top, whole], backbone, [0, 0])
    assert unsplit([whole, top], backbone, [0, 0]) is None  # the prefix was trained before
    assert unsplit([], backbone, []) is None
