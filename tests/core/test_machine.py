"""What the machine has, what the optimizer does with it, and the seams' small parts."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from foretune import errors
from foretune.backbones.text import load_text_backbone
from foretune.errors import ConfigError, ForetuneError, did_you_mean
from foretune.registry import Registry
from foretune.strategies.base import STRATEGIES, ParameterGroup, Phase, Settings, layerwise_groups
from foretune.training import machine, optim, randomness, signals


def quota(root, **files):
    for name, text in files.items():
        path = root / {"v2": "cpu.max", "v1": "cpu/cpu.cfs_quota_us", "period": "cpu/cpu.cfs_period_us"}[name]
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return machine.cgroup_quota(root)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"v2": "150000 100000\n"}, 1.5), ({"v2": "max 100000\n"}, None), ({"v2": "50000 100000"}, 0.5),
        ({"v1": "200000\n", "period": "100000\n"}, 2.0), ({"v1": "-1", "period": "100000"}, None), ({}, None),
        ({"v2": "nonsense", "v1": "300000", "period": "100000"}, 3.0), ({"v2": "a b"}, None),
    ],
)  # fmt: skip
def test_cpu_quota(tmp_path, files, cores):
    assert quota(tmp_path, **files) == cores


@pytest.mark.parametrize(("found", "cores"), [(1.5, 2), (0.2, 1), (64.0, 4), (None, 4)])
def test_usable_cores(monkeypatch, found, cores):
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(machine, "cgroup_quota", lambda: found)
    assert machine.usable_cores() == cores


def test_threads_follow_the_environment(monkeypatch):
    set_to = []
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    monkeypatch.setattr(machine, "usable_cores", lambda: 7)
    machine.set_threads()
    assert set_to == []  # OMP_NUM_THREADS is set in these tests
    monkeypatch.delenv("OMP_NUM_THREADS")
    machine.set_threads()
    assert set_to == [7]


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert machine.pick_device("auto").type == machine.pick_device("cpu").type == "cpu"
    for wanted in ("cuda", "mps"):
        with pytest.raises(ConfigError, match=f"device is '{wanted}'.*this machine has none"):
            machine.pick_device(wanted)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert machine.pick_device("auto").type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert machine.pick_device("auto").type == "cuda" and machine.pick_device("mps").type == "mps"


@pytest.mark.parametrize(
    ("bf16", "chosen"), [(0.2, "fp32"), (1.0, "fp32"), (1.49, "fp32"), (1.5, "bf16"), (8.0, "bf16")]
)
def test_precision_follows_the_measured_peaks(monkeypatch, bf16, chosen):
    def peak(device, precision, *args, **options):
        return {"fp32": 1e11, "bf16": bf16 * 1e11}[precision]

    monkeypatch.setattr(machine, "gemm_peak", peak)
    monkeypatch.setattr(machine, "measure_peak", peak, raising=False)
    device = torch.device("cpu")
    assert machine.pick_precision("auto", device) == chosen
    assert [machine.pick_precision(given, device) for given in ("fp32", "bf16")] == ["fp32", "bf16"]
    assert machine.pick_precision("auto", torch.device("mps")) == "fp32"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16 > 1)
    assert machine.pick_precision("auto", torch.device("cuda")) == ("bf16" if bf16 > 1 else "fp32")


def test_the_measured_peak_is_plausible():
    peak = machine.gemm_peak("cpu", "fp32")
    assert 1e8 < peak < 1e14 and machine.gemm_peak("cpu", "fp32") == peak
    used = machine.peak_memory_bytes(torch.device("cpu"))
    assert 50e6 < used < 64e9
    assert machine.environment()["torch"] == torch.__version__


@pytest.fixture(scope="module")
def load_tiny(backbone_folder):
    def load(kind="bert"):
        return load_text_backbone(
            backbone_folder(kind), auto_class="AutoModelForSequenceClassification", options={}, offline=True
        )

    return load


def rates(groups):
    return {name: (group.lr, group.weight_decay) for group in groups for name in group.names}


@pytest.mark.parametrize("kind", ["bert", "modernbert", "llama"])
def test_the_rate_of_every_layer(load_tiny, kind):
    backbone = load_tiny(kind)
    found = rates(layerwise_groups(backbone, Settings(1e-3, 1, 1, layer_decay=0.5), 0.1))
    assert found.keys() == dict(backbone.model.named_parameters()).keys()
    expected = {0: 0.25e-3, 1: 0.5e-3, 2: 1e-3, 3: 1e-3}  # embeddings, two layers, head
    for name, (lr, _) in found.items():
        assert lr == pytest.approx(expected[backbone.layers.depth[name]], rel=1e-12), name


NO_DECAY = (torch.nn.LayerNorm, torch.nn.Embedding)


@pytest.mark.parametrize(
    "kind",
    ["bert", "roformer", "distilbert", "modernbert", "llama",
     "gpt2"],
)  # fmt: skip
def test_no_decay_for_biases_norms_and_embeddings(load_tiny, kind):
    model = load_tiny(kind).model
    found = rates(layerwise_groups(load_tiny(kind), Settings(1e-3, 1, 1), 0.1))
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            matrix = parameter.ndim > 1 and not isinstance(module, NO_DECAY)
            assert found[f"{path}.{name}"][1] == (0.1 if matrix else 0.0), f"{path}.{name}"


def test_everything_outside_the_phase_is_frozen():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    groups = (ParameterGroup(("1.weight",), 0.3, 0.1), ParameterGroup(("1.bias",), 0.1, 0.0))
    optimizer = optim.make_optimizer(model, Phase("p", 1.0, groups))
    assert [n for n, p in model.named_parameters() if p.requires_grad] == ["1.weight", "1.bias"]
    optim.set_rates(optimizer, 0.5)
    assert [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [(0.15, 0.1), (0.05, 0.0)]
    optim.set_rates(optimizer, 1.0)
    assert [g["lr"] for g in optimizer.param_groups] == [0.3, 0.1]


@pytest.mark.parametrize(("total", "warmup"), [(1, 0.1), (2, 0.5), (10, 0.0), (100, 0.1), (7, 0.95)])
def test_the_schedule_rises_then_falls_to_nothing(total, warmup):
    values = [optim.schedule(step, total, warmup) for step in range(total)]
    top = int(np.argmax(values))
    assert max(values) == 1.0 and min(values) > 0
    assert values[: top + 1] == sorted(values[: top + 1]) and values[top:] == sorted(
        values[top:], reverse=True
    )
    assert top <= max(int(total * warmup), 1) and optim.schedule(total, total, warmup) == 0


def test_the_schedule_by_hand():
    values = [optim.schedule(step, 10, 0.2) for step in range(10)]
    assert values == pytest.approx([0.5, 1.0, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])


def test_every_random_state_comes_back():
    randomness.seed_everything(5)
    np.random.standard_normal()  # leaves a cached second value
    tensors, values = randomness.capture()
    draw = lambda: (random.random(), np.random.standard_normal(), float(torch.rand(1)))  # noqa: E731
    first = [draw() for _ in range(3)]
    import json

    randomness.restore(tensors, json.loads(json.dumps(values)))
    assert [draw() for _ in range(3)] == first


def test_a_second_signal_interrupts_at_once():
    import signal

    before = signal.getsignal(signal.SIGINT)
    with signals.stop_on_signals() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_signals_stay_as_they_are_in_other_threads():
    import threading

    found = []

    def run():
        with signals.stop_on_signals() as stop:
            found.append(stop.requested)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [False]


def test_the_registry():
    registry = Registry("thing")
    assert registry.register("b")(int) is int and registry.register("a")(str) is str
    assert list(registry) == ["a", "b"] and registry["a"] is str and "a" in registry and "c" not in registry
    with pytest.raises(ValueError, match="thing 'a' is registered twice"):
        registry.register("a")(float)
    with pytest.raises(ConfigError, match=r"Unknown thing 'aa'. Did you mean 'a'\? Known: a, b."):
        registry["aa"]


def test_strategies_name_themselves_and_refuse_unknown_options():
    from foretune.api import import_strategies

    import_strategies()
    for name in STRATEGIES:
        assert STRATEGIES[name].name == name and STRATEGIES[name].about
    with pytest.raises(ConfigError, match=r"no option 'poolin'.*Did you mean 'pooling'"):
        STRATEGIES["full"]({"poolin": "mean"})


def test_every_error_is_of_the_family_and_has_a_code():
    family = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, ForetuneError)]
    assert len(family) >= 9
    codes = {e.__name__: e.exit_code for e in family}
    assert codes["ConfigError"] == 2 and codes["Interrupted"] == 130 and codes["DataError"] == 1
    assert did_you_mean("acuracy", ["accuracy", "f1"]) == " Did you mean 'accuracy'?"
    assert did_you_mean("zzz", ["accuracy"]) == ""


def test_errors_are_raised_as_documented_in_the_api(fit, tmp_path):
    with pytest.raises(ConfigError, match=r"Unknown strategy 'ful'\. Did you mean 'full'"):
        fit(tmp_path / "run", strategy="ful")
    with pytest.raises(ConfigError, match="Unknown task"):
        fit(tmp_path / "run", task="nothing")
    with pytest.raises(ConfigError, match="needs --output"):
        fit(None, resume=True)
    assert not Path(tmp_path / "run").exists()


def test_freed_memory_is_kept_where_the_c_library_can(monkeypatch):
    import ctypes

    asked = []
    library = type("Library", (), {"mallopt": staticmethod(lambda *given: asked.append(given) or 1)})
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    assert machine.keep_freed_memory() and [name for name, _ in asked] == [-3, -1]

    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert not machine.keep_freed_memory()


def test_waiting_threads_sleep_unless_the_user_says_otherwise(monkeypatch):
    import os

    import foretune

    for given, expected in (
        ({}, "1000"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, None),
    ):
        for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
            monkeypatch.delenv(name, raising=False)
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        foretune.let_threads_sleep()
        assert os.environ.get("GOMP_SPINCOUNT") == expected
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
