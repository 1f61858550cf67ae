"""What trains under each strategy, in which phases, and what is left of it in the artefact."""

from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file

from foretune.api import import_strategies
from foretune.errors import ConfigError
from foretune.recipe import Recipe
from foretune.strategies.base import STRATEGIES, Workload

import_strategies()
QUICK = {"checkpoint_seconds": 1e6, "dropout": 0.0}
ALL = ("full", "gradual-unfreezing", "linear-probe", "lora", "lp-ft", "top-layers")


def load(folder):
    from foretune.backbones.text import load_text_backbone

    return load_text_backbone(
        str(folder), auto_class="AutoModelForSequenceClassification", options={"num_labels": 3}, offline=True
    )


TRAINED = ("full", "gradual-unfreezing", "lora", "lp-ft", "top-layers")


@pytest.mark.parametrize("name", TRAINED)
def test_small_sets_of_texts_take_enough_steps(name):
    def settings(tokens, unit="tokens"):
        return STRATEGIES[name]().defaults(Workload(100, tokens, 3, unit))

    usual = settings(4400)
    assert usual.batch_tokens == 512 and usual.epochs == settings(10**5).epochs >= 5
    before = usual
    for tokens in (4000, 3000, 2000, 1200, 100):
        found = settings(tokens)
        assert found.lr == pytest.approx(usual.lr, rel=0.02)
        assert 128 <= found.batch_tokens <= before.batch_tokens and found.epochs >= before.epochs
        before = found
    few = settings(1400)
    assert few.batch_tokens == 175 and few.epochs == 2 * usual.epochs
    assert settings(200, "images").epochs == usual.epochs and settings(200, "images").batch_tokens == 512


def prepared(folder, name, **options):
    backbone, strategy = load(folder), STRATEGIES[name](options)
    strategy.prepare(backbone)
    settings = strategy.defaults(Workload(400, 10_000, 3))
    return backbone, strategy.phases(backbone, settings, Recipe()), settings


def trained(phase):
    return {name for group in phase.groups for name in group.names}


def depths(backbone, phase):
    return {backbone.layers.depth[name] for name in trained(phase)}


def test_all_strategies_are_there_and_describe_themselves():
    assert tuple(STRATEGIES) == (*ALL, "zero-shot")  # which trains nothing: tests/tasks/test_zero_shot.py
    assert all(len(STRATEGIES[name].about) > 30 for name in STRATEGIES)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", ["bert", "distilbert", "gpt2"])
def test_every_strategy_works_on_every_kind_of_backbone(fit, backbone_folder, tmp_path, name, kind):
    options = {"layers": 1} if name == "top-layers" else {}
    model = fit(
        tmp_path / "run",
        backbone=str(backbone_folder(kind)),
        strategy=name,
        options=options,
        epochs=1.0,
        **QUICK,
    )
    assert model.record["strategy"] == name and model.record["train"]["steps"] > 0


def test_top_layers_trains_the_top_and_the_head(tiny):
    backbone, (phase,), _ = prepared(tiny, "top-layers", layers=1)
    count = backbone.layers.count  # two layers and the pooling layer
    assert count == 3 and depths(backbone, phase) == {2, count + 1}
    backbone, (phase,), _ = prepared(tiny, "top-layers", layers=1, pooling="cls")
    assert depths(backbone, phase) == {2, 3}


@pytest.mark.parametrize("layers", [0, -1, 1.5, True, "two"])
def test_top_layers_takes_a_whole_number_of_layers(layers):
    with pytest.raises(ConfigError, match="layers is"):
        STRATEGIES["top-layers"]({"layers": layers})


def test_top_layers_says_how_many_layers_there_are(tiny):
    with pytest.raises(ConfigError, match=r"has 2 layers, but --trainable-layers is 5.*strategy full"):
        prepared(tiny, "top-layers", layers=5)


def test_lp_ft_fits_the_head_first(tiny):
    backbone, (probe, full), settings = prepared(tiny, "lp-ft", probe_epochs=7.0)
    assert probe.epochs == 7.0 and full.epochs == settings.epochs
    assert depths(backbone, probe) == {backbone.layers.count + 1} and trained(probe) < trained(full)


def test_gradual_unfreezing_goes_down_from_the_top(tiny):
    backbone, phases, settings = prepared(tiny, "gradual-unfreezing", stages=3, unfreezing=0.6)
    lowest = [min(depths(backbone, phase)) for phase in phases]
    assert (
        lowest == sorted(lowest, reverse=True) and lowest[0] == backbone.layers.count + 1 and lowest[-1] == 0
    )
    assert all(trained(a) <= trained(b) for a, b in pairwise(phases))
    assert sum(phase.epochs for phase in phases) == pytest.approx(settings.epochs)
    assert sum(phase.epochs for phase in phases[:-1]) == pytest.approx(0.6 * settings.epochs)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gradual-unfreezing", {"stages": 0}, "stages is 0"),
        ("gradual-unfreezing", {"unfreezing": 1.0}, "unfreezing is 1.0"),
        ("lp-ft", {"probe_epochs": 0}, "probe_epochs is 0"),
        ("lora", {"rank": 0}, "rank is 0"),
        ("lora", {"alpha": -1.0}, "alpha is -1.0"),
        ("lora", {"lora_dropout": 1.0}, "lora_dropout is 1.0"),
        ("lora", {"layers": -1}, "layers is -1"),
        ("lora", {"rnk": 4}, "Did you mean"),
        ("full", {"pooling": "max"}, "expected mean or cls"),
    ],
)
def test_impossible_options_are_named(name, options, message):
    with pytest.raises(ConfigError, match=message):
        STRATEGIES[name](options)


def test_lora_trains_small_matrices_and_the_head(tiny):
    backbone, (phase,), _ = prepared(tiny, "lora", rank=2)
    head = set(backbone.layers.head())
    assert all("lora_" in name or name in head for name in trained(phase)) and head <= trained(phase)
    adapters = [name for name in trained(phase) if "lora_A" in name]
    assert len(adapters) == 2 * 6  # two layers of query, key, value, output, up, down
    small = sum(p.numel() for n, p in backbone.model.named_parameters() if "lora_" in n)
    assert small < 0.2 * sum(p.numel() for p in backbone.model.parameters())


def test_lora_on_the_top_layer_alone(tiny):
    backbone, (phase,), _ = prepared(tiny, "lora", layers=1)
    assert depths(backbone, phase) == {2, backbone.layers.count + 1}


def test_merged_lora_computes_what_the_adapters_did(tiny):
    backbone, _, _ = prepared(tiny, "lora")
    with torch.no_grad():
        for name, parameter in backbone.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    backbone.model.eval()
    batch = {"input_ids": torch.arange(10, 22).reshape(2, 6)}
    with torch.no_grad():
        before = backbone.forward(batch)
        STRATEGIES["lora"]({}).finish(backbone)
        torch.testing.assert_close(backbone.forward(batch), before, rtol=1e-4, atol=1e-5)
    assert not any("lora" in name or "base_layer" in name for name in backbone.model.state_dict())


def test_the_artefact_of_lora_is_an_ordinary_model(fit, tiny, tmp_path):
    from transformers import AutoModelForSequenceClassification

    model = fit(tmp_path / "run", strategy="lora", epochs=2.0, lr=0.01, **QUICK)
    saved = load_file(tmp_path / "run/model.safetensors")
    assert not any("lora" in name or "base_layer" in name for name in saved)
    assert not (tmp_path / "run/adapter_config.json").exists()
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run")
    fresh = load(tiny)
    name = "bert.encoder.layer.1.output.dense.weight"
    assert not torch.equal(plain.state_dict()[name], fresh.model.state_dict()[name])  # the update is in it
    head = "classifier.weight"
    torch.testing.assert_close(plain.state_dict()[head], model.backbone.model.state_dict()[head])


@pytest.mark.parametrize("name", ["top-layers", "linear-probe"])
def test_what_is_frozen_does_not_change(fit, tiny, tmp_path, name):
    options = {"layers": 1} if name == "top-layers" else {}
    fit(tmp_path / "run", strategy=name, options=options, lr=0.01, **QUICK)
    saved, before = load_file(tmp_path / "run/model.safetensors"), load(tiny).model.state_dict()
    below = [key for key in before if "embeddings" in key or "layer.0." in key]
    assert below and all(torch.equal(saved[key], before[key]) for key in below if key in saved)


def test_patience_ends_the_last_phase_alone(fit, events, tmp_path):
    fit(
        tmp_path / "run",
        strategy="lp-ft",
        options={"probe_epochs": 12.0},
        lr=1e-9,
        patience=1,
        epochs=4.0,
        **QUICK,
    )
    phases = events(tmp_path / "run", "phase")
    assert [line["name"] for line in phases] == ["probe", "full"]
