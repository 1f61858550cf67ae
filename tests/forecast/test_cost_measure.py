"""The instruments of the cost model: memory that grows, what autograd keeps, what surrounds training."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from foretune.data import store as stores
from foretune.forecast import remembered, startup
from foretune.forecast import surroundings as around
from foretune.forecast.machine_profile import MachineProfile
from foretune.forecast.meter import MemoryMeter, SavedBytes, nbytes
from foretune.forecast.standin import RandomFeatures, cached_feed
from foretune.training import memory
from foretune.training.feed import HEAD, HeadFeed, HiddenFeed

CPU = torch.device("cpu")
MB = 1 << 20


def test_bytes_of_tensors_count_once():
    a, b = torch.zeros(10), torch.zeros(3, dtype=torch.float64)
    assert nbytes([a, b]) == 64 and nbytes([a, b, a]) == 64 and nbytes([]) == 0


def test_what_autograd_keeps_by_hand():
    """x @ w keeps x (the weight is the model's own), exp keeps its result, the sum nothing."""
    x, w = torch.randn(100, 50), torch.randn(50, 20, requires_grad=True)
    with SavedBytes([w]) as counter:
        (x @ w).exp().sum().backward()
    assert counter.most == 4 * (100 * 50 + 100 * 20)
    x.requires_grad_()
    with SavedBytes([]) as counter:  # now the weight counts too
        (x @ w).exp().sum().backward()
    assert counter.most == 4 * (100 * 50 + 50 * 20 + 100 * 20)


def test_what_is_let_go_does_not_count():
    w = torch.randn(64, 64, requires_grad=True)
    with SavedBytes([w]) as counter:
        for _ in range(5):
            (torch.randn(64, 64) @ w).exp().sum().backward()
    assert counter.most == 2 * 4 * 64 * 64  # of one turn, not of five
    with SavedBytes([w]) as counter, torch.no_grad():
        (torch.randn(64, 64) @ w).exp()
    assert counter.most == 0


def test_memory_shared_by_several_counts_once():
    x = torch.randn(1000, requires_grad=True)
    with SavedBytes([]) as counter:
        y = (x * x) + (x * x)
        y.sum().backward()
    assert counter.most == 4000


def test_gradients_are_what_they_are_without_the_counter():
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(8, 8), torch.randn(4, 8)
    layer(x).tanh().sum().backward()
    expected = layer.weight.grad.clone()
    layer.zero_grad()
    with SavedBytes(layer.parameters()):
        layer(x).tanh().sum().backward()
    assert torch.equal(layer.weight.grad, expected)


@pytest.mark.skipif(not memory.reset_peak(), reason="needs Linux's /proc")
def test_the_meter_sees_what_is_held_for_a_moment():
    meter = MemoryMeter(CPU)
    meter.start()
    block = torch.ones(40 * MB)  # 160 MB
    del block
    assert 150 * MB < meter.growth() < 200 * MB
    meter.start()
    assert meter.growth() < 20 * MB


def test_the_meter_says_where_it_cannot(monkeypatch):
    monkeypatch.setattr(memory, "reset_peak", lambda: False)
    meter = MemoryMeter(CPU)
    assert meter.growth() is None
    meter.start()
    assert meter.growth() is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_meter_on_a_gpu():
    meter = MemoryMeter(torch.device("cuda"))
    kept = torch.ones(MB, device="cuda")
    meter.start()
    block = torch.ones(10 * MB, device="cuda")
    del block
    assert meter.growth() == 40 * MB and len(kept) == MB


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_stand_ins_look_like_a_store(dtype):
    lengths = np.array([3, 1, 5, 2])
    features = RandomFeatures.like(lengths, (7,), dtype)
    chosen = np.array([2, 1])
    rows, padded = features.rows(chosen), features.padded(chosen)
    assert rows.shape == (6, 7) and padded.shape == (2, 5, 7) and rows.dtype == padded.dtype == torch.float32
    assert (
        torch.equal(padded[0], rows[:5]) and torch.equal(padded[1, :1], rows[5:]) and not padded[1, 1:].any()
    )
    assert features.values.element_size() == (2 if dtype == "bf16" else 4)


def test_stand_ins_draw_nothing_from_the_process():
    before = torch.get_rng_state()
    RandomFeatures.like(np.array([4]), (3,), "bf16")
    assert torch.equal(torch.get_rng_state(), before)


def test_cached_feeds_start_where_they_say(assembled):
    job, _ = assembled(strategy="top-layers")
    rows = np.arange(5)
    feed = cached_feed(job, 2, (32,))
    outputs, batch = feed(rows)
    assert (
        isinstance(feed, HiddenFeed) and feed.start == 2 and outputs.shape == (5, 2) and "input_ids" in batch
    )
    job, _ = assembled(strategy="linear-probe")
    feed = cached_feed(job, HEAD, (32,))
    assert isinstance(feed, HeadFeed) and feed(rows)[0].shape == (5, 2)


def test_power_laws_are_extended():
    assert around.extended([100], [2.0], 50) == 2.0 and around.extended([100], [2.0], 300) == 6.0
    assert around.extended([100, 400], [1.0, 8.0], 1600) == pytest.approx(64.0)
    assert around.extended([100, 400], [1.0, 800.0], 1600) == pytest.approx(800 * 4 ** around.EXPONENTS[1])
    assert around.extended([100, 400], [1.0, 0.9], 1600) == pytest.approx(0.9 * 4 ** around.EXPONENTS[0])
    assert (
        around.extended([100, 400], [1.0, 8.0], 400) == 8.0
        and around.extended([100, 400], [0.0, 0.0], 900) == 0
    )


def test_baselines_are_measured_once_and_on_growing_samples(assembled, rows, monkeypatch):
    job, prepared = assembled(rows(400))
    sizes = []

    def fake(train, held_out, seed):
        sizes.append((len(train), len(held_out)))
        return {}

    monkeypatch.setattr(job.task, "baselines", fake)
    monkeypatch.setattr(around, "FIRST_ROWS", 40)
    monkeypatch.setattr(around, "_BASELINES", {})
    found = around.baselines(job, prepared, 100.0)
    n = len(prepared.train)
    held = len(prepared.test)
    assert [size for size, _ in sizes] == [40, 40, 120, n] and sizes[-1] == (n, held)
    assert [h for _, h in sizes] == [held * 40 // n, held * 40 // n, held * 120 // n, held]
    assert found.seconds >= 0 and around.baselines(job, prepared, 100.0) is found and len(sizes) == 4
    monkeypatch.setattr(around, "_BASELINES", {})
    around.baselines(job, prepared, 0.0)
    assert [size for size, _ in sizes[4:]] == [40, 40]


def test_slow_baselines_are_not_repeated(assembled, rows, monkeypatch):
    job, prepared = assembled(rows(400))
    now, sizes = [0.0], []

    def slow(train, held_out, seed):
        sizes.append(len(train))
        now[0] += 60.0
        return {}

    monkeypatch.setattr(job.task, "baselines", slow)
    monkeypatch.setattr(around, "_BASELINES", {})
    monkeypatch.setattr(around.time, "perf_counter", lambda: now[0])
    found = around.baselines(job, prepared, 1.0)
    assert (
        sizes == [len(prepared.train)] and len(prepared.train) < around.FIRST_ROWS and found.seconds == 60.0
    )


def test_few_training_rows_do_not_score_many_others(assembled, rows, monkeypatch):
    job, prepared = assembled(rows(400))
    sizes = []
    monkeypatch.setattr(
        job.task, "baselines", lambda train, other, seed: sizes.append((len(train), len(other)))
    )
    monkeypatch.setattr(around, "_BASELINES", {})
    around.baselines(job, replace(prepared, train=prepared.train.take(np.arange(20))), 0.0)
    assert set(sizes) == {(20, 20)} and len(prepared.test) > 20


def test_real_baselines_take_time(assembled, monkeypatch):
    monkeypatch.setattr(around, "_BASELINES", {})
    job, prepared = assembled()
    assert 0 < around.baselines(job, prepared, 1.0).seconds < 60
    nothing_held = assembled(dev_fraction=0.0, test_fraction=0.0)
    assert around.baselines(*nothing_held, 1.0) == around.Baselines()


def test_rows_of_all_classes_are_drawn_from_sorted_data(assembled, rows):
    _, prepared = assembled(sorted(rows(200), key=lambda row: row["label"]))
    drawn = around._drawn(prepared.train, 30)
    assert len(drawn) == 30 and set(drawn.targets) == {0, 1}
    assert list(drawn.rows) == list(around._drawn(prepared.train, 30).rows)


def test_scoring_is_timed_on_as_many_as_there_are(assembled, monkeypatch):
    job, prepared = assembled()
    seen = []
    scores = job.task.scores(prepared.dev, job.dev_set)

    class Spy:
        def update(self, outputs, targets, rows):
            seen.append((outputs.shape, targets.shape))
            scores.update(outputs, targets, rows)

        point, result = scores.point, scores.result

    monkeypatch.setattr(job.task, "scores", lambda examples, encoded: Spy())
    outputs = {3: np.array([0.2, 0.8], np.float32), 0: np.array([0.9, 0.1], np.float32)}
    full, quick = around.scoring(job, outputs, prepared.dev, 500)
    assert seen == [((500, 2), (500,))] and 0 < quick < full
    assert around.scoring(job, {}, prepared.dev, 500) == (0.0, 0.0)
    around.scoring(job, outputs, prepared.dev, 900)
    assert [shape[0][0] for shape in seen[1:]] == [500, 900]  # quick enough for all
    monkeypatch.setattr(around, "SCORING_SECONDS", 0.0)
    full, _ = around.scoring(job, outputs, prepared.dev, 900)
    assert seen[-1] == ((500, 2), (500,)) and len(seen) == 4 and full > 0
    monkeypatch.setattr(around, "FEW_SCORED", 100)
    around.scoring(job, outputs, prepared.dev, 500)
    assert seen[-1] == ((100, 2), (100,))


def test_tokenising_counts_every_text(assembled, rows, monkeypatch):
    job, prepared = assembled(rows(900))
    asked = []
    real = job.backbone.preprocess

    def spy(inputs, **options):
        asked.append(len(inputs))
        return real(inputs, **options)

    monkeypatch.setattr(job.backbone, "preprocess", spy)
    seconds, lengths = around.tokenising(job, prepared)
    assert len(prepared.train) > 500 and isinstance(job.train_store.flat, np.memmap)
    assert asked == [
        len(prepared.train),
        len(prepared.dev),
        len(prepared.test),
    ]  # train is read from the cache
    assert set(seconds) == {"train", "dev", "test"} and min(seconds.values()) > 0
    assert np.array_equal(lengths, real(prepared.test.inputs, max_length=64, truncation="head").lengths)
    monkeypatch.setattr(around, "SAMPLE", 10)
    asked.clear()
    around.tokenising(job, prepared)
    assert asked == [len(prepared.train), 10, 10]


def test_loading_and_saving_are_measured_once_and_leave_nothing(assembled, tmp_path, monkeypatch):
    monkeypatch.setattr(around, "_LOADS", {})
    job, prepared = assembled()
    (tmp_path / "disk").mkdir()
    found = around.load_again(job, prepared, tmp_path / "disk")
    assert not any((tmp_path / "disk").iterdir())
    assert found.seconds > 0 and found.save_seconds > 0 and found.layers == 4
    from foretune.assemble import load_backbone

    load_backbone(job.recipe, prepared).save(tmp_path / "saved")
    saved = sum(path.stat().st_size for path in (tmp_path / "saved").iterdir())
    assert found.saved_bytes == pytest.approx(saved, abs=2000)  # and its checksums
    assert around.load_again(job, prepared, tmp_path / "nowhere") is found


def test_a_disk_that_cannot_be_written(assembled, tmp_path, monkeypatch):
    from foretune.errors import ResourceError

    monkeypatch.setattr(around, "_LOADS", {})
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="could not be written"):
        around.load_again(*assembled(), tmp_path / "file")
    assert not around._LOADS


def test_texts_count_twice(assembled, rows):
    import sys

    _, prepared = assembled()
    expected = sum(sys.getsizeof(text) for part in prepared.parts.values() for text in part.inputs)
    assert around.data_bytes(prepared) == pytest.approx(2 * expected, rel=0.01)


def profile():
    return MachineProfile(
        cpu="x", cores=1, threads=1, torch="1", device="cpu", device_name="x", gemm_flops={"fp32": 1.0},
        memory_bandwidth=1.0, total_memory_bytes=1, device_memory_bytes=None, free_memory_bytes=1, free_disk_bytes=1,
    )  # fmt: skip


@pytest.fixture
def private(tmp_path, monkeypatch):
    monkeypatch.setenv("FORETUNE_CACHE", str(tmp_path))
    return tmp_path


def test_starting_is_measured_once(private, monkeypatch):
    taken = []
    monkeypatch.setattr(
        startup, "measure_start_up", lambda device: taken.append(device) or startup.StartUp(3.0, 400)
    )
    assert startup.start_up(profile()) == startup.start_up(profile()) == startup.StartUp(3.0, 400)
    assert taken == ["cpu"]
    startup.start_up(profile(), again=True)
    monkeypatch.setattr("transformers.__version__", "0.0")
    startup.start_up(profile())
    assert len(taken) == 3
    for wrong in ("{}", '"x"', '{"seconds": -1, "memory_bytes": 4}', '{"seconds": "x", "memory_bytes": 4}'):
        content = json.loads((private / remembered.FILE).read_text())
        (private / remembered.FILE).write_text(json.dumps(dict.fromkeys(content, json.loads(wrong))))
        before = len(taken)
        startup.start_up(profile())
        assert len(taken) == before + 1


def test_a_start_that_fails_is_not_kept(private, monkeypatch):
    monkeypatch.setattr(startup, "measure_start_up", lambda device: None)
    assert startup.start_up(profile()) is None and not (private / remembered.FILE).exists()


@pytest.mark.parametrize(
    ("code", "held", "cpu", "seconds"),
    [(0, 5, 1.5, 1.5), (0, 5, 2.9, 1.5), (0, 5, 0.5, 0.55), (1, 5, 1.5, None), (0, 0, 1.5, None)],
    ids=["good", "several threads", "a busy machine", "failed", "unknown memory"],
)
def test_only_a_whole_measurement_counts(monkeypatch, code, held, cpu, seconds):
    asked = []

    def fake(arguments, folder, environment):
        asked.append((arguments, environment, sorted(path.name for path in folder.iterdir())))
        (folder / "run").mkdir()
        lines = [{"event": "note", "time": 1.0}, {"event": "trained", "time": time.time() - 0.3}]
        (folder / "run" / "events.jsonl").write_text("\n".join(map(json.dumps, lines)))
        return startup.Measured(1.5, cpu, held, code, b"", b"")

    monkeypatch.setattr(startup, "run_measured", fake)
    found = startup.measure_start_up("cpu")
    assert (found is None) == (seconds is None)
    if found is not None:
        assert found.seconds == pytest.approx(seconds) and found.memory_bytes == 5
        assert 0.3 * seconds / 1.5 <= found.closing <= seconds / 2
    arguments, environment, files = asked[0]
    assert arguments[0] == "fit" and "--offline" in arguments and files == ["backbone", "rows.csv"]
    assert environment["FORETUNE_LEDGER"] == "off" and "foretune-start" in environment["FORETUNE_CACHE"]


def test_a_fit_that_left_nothing_is_not_measured(monkeypatch):
    monkeypatch.setattr(startup, "run_measured", lambda *given: startup.Measured(1.5, 1.5, 5, 0, b"", b""))
    assert startup.measure_start_up("cpu") is None


def test_a_system_that_cannot_start_processes(monkeypatch):
    def fail(*given, **options):
        raise OSError("no more processes")

    monkeypatch.setattr(startup.subprocess, "run", fail)
    assert startup.measure_start_up("cpu") is None


def test_a_command_is_measured_in_its_own_process(tmp_path):
    held = torch.ones(60 * MB)  # 240 MB of this process, which are none of the child's
    done = startup.run_measured(["--version"], tmp_path)
    assert done.code == 0 and done.output.startswith(b"foretune ") and 0 < done.seconds < 120
    assert 5 * MB < done.memory_bytes < 200 * MB and len(held)
    failed = startup.run_measured(["nonsense"], tmp_path)
    assert failed.code == 2 and b"nonsense" in failed.errors


def test_the_made_up_backbone_is_a_backbone(tmp_path):
    from foretune.backbones.text import load_text_backbone

    before = torch.get_rng_state()
    startup.make_backbone(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    backbone = load_text_backbone(
        str(tmp_path), auto_class="AutoModelForSequenceClassification", options={}, offline=True
    )
    store = backbone.preprocess(["the room was good", "bad"], max_length=16, truncation="head")
    assert backbone.forward(backbone.collate(store, np.arange(2))).shape == (2, 2)
    assert nbytes(backbone.model.parameters()) < 40_000


@pytest.mark.slow
def test_the_smallest_fit_really_runs():
    found = startup.measure_start_up("cpu")
    assert 0.5 < found.seconds < startup.TIMEOUT and 200 * MB < found.memory_bytes < 4000 * MB
    assert 0 < found.closing < found.seconds


def test_token_caches_are_memory_mapped():
    """What `tokenising` takes as the sign of a cached part."""
    whole = stores.build([np.arange(3)], stores.CutReport())
    assert not isinstance(whole.flat, np.memmap)
    assert isinstance(stores.save("test-cost-measure", whole).flat, np.memmap)
