"""What the machine can do is measured once, kept safely, and what is free is always looked up."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from foretune.forecast import machine_profile as module
from foretune.forecast import remembered
from foretune.forecast.machine_profile import MachineProfile, free_disk, machine_profile
from foretune.training import machine, memory

GB = 10**9


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FORETUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def counted(monkeypatch):
    """Replace the measurements by numbers that say how often they were taken."""
    calls = []

    def peak(device, precision, size=None, again=False):
        calls.append(precision)
        return {"fp32": 2e11, "bf16": 3e11}[precision] + len(calls)

    monkeypatch.setattr(machine, "measure_peak", peak)
    monkeypatch.setattr(machine, "gemm_peak", peak)
    monkeypatch.setattr(machine, "memory_bandwidth", lambda device: calls.append("copy") or 1e10)
    return calls


def test_a_profile_is_plausible_and_survives_json(cache):
    profile = machine_profile("cpu")
    assert 1e8 < profile.gemm_flops["fp32"] < 1e14 and 1e6 < profile.gemm_flops["bf16"] < 1e15
    assert 1e8 < profile.memory_bandwidth < 1e13
    assert profile.cores == machine.usable_cores() and profile.threads == torch.get_num_threads()
    assert 2**28 < profile.free_memory_bytes <= profile.total_memory_bytes < 2**50
    assert 0 < profile.free_disk_bytes < 2**60 and profile.device_memory_bytes is None
    again = MachineProfile.from_json(json.loads(json.dumps(profile.to_json())))
    assert again == profile and again.key == profile.key


def test_it_is_measured_once(cache, counted):
    first = machine_profile("cpu")
    taken = len(counted)
    assert taken >= 4
    second = machine_profile("cpu")
    assert len(counted) == taken and second.gemm_flops == first.gemm_flops
    third = machine_profile("cpu", again=True)
    assert len(counted) == 2 * taken and third.gemm_flops != first.gemm_flops
    assert machine_profile("cpu").gemm_flops == third.gemm_flops


def test_what_is_free_is_never_kept(cache, counted, monkeypatch):
    machine_profile("cpu")
    kept = next(iter(json.loads((cache / "machine.json").read_text()).values()))
    assert not set(module.FREE) & set(kept) and kept["memory_bandwidth"] == 1e10
    monkeypatch.setattr(memory, "free_memory", lambda: 123)
    monkeypatch.setattr(module, "free_disk", lambda folder: 456)
    profile = machine_profile("cpu")
    assert (profile.free_memory_bytes, profile.free_disk_bytes) == (123, 456)


DAMAGE = [
    "", "{", "[]", "null", '{"a": 1}', "\x00\xff", '"text"', "{entry}null", "{entry}{}", "{entry}[]",
    "{entry}without memory_bandwidth", "{entry}memory_bandwidth -1", "{entry}memory_bandwidth null",
    "{entry}memory_bandwidth NaN", '{entry}memory_bandwidth "fast"', "{entry}gemm_flops 3", "{entry}gemm_flops {}",
    '{entry}gemm_flops {"fp32": 0}', "{entry}cores -1", "{entry}cores 7", '{entry}cpu "another"', "{entry}cpu 3",
    '{entry}torch "0.1"', "{entry}total_memory_bytes 1", "{entry}new 3", '{entry}device_memory_bytes "much"',
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_or_foreign_file_is_measured_anew(cache, counted, damage):
    first = machine_profile("cpu")
    taken, path = len(counted), cache / "machine.json"
    content = json.loads(path.read_text())
    assert list(content) == [first.key]
    if damage.startswith("{entry}"):
        name, _, value = damage.removeprefix("{entry}").partition(" ")
        if name == "without":
            del content[first.key][value]
        elif value:
            content[first.key][name] = json.loads(value)
        else:
            content[first.key] = json.loads(name)
        path.write_text(json.dumps(content))
    else:
        path.write_text(damage)
    found = machine_profile("cpu")
    assert len(counted) == 2 * taken
    assert found.key == first.key and found.gemm_flops != first.gemm_flops
    assert machine_profile("cpu").gemm_flops == found.gemm_flops and len(counted) == 2 * taken


@pytest.mark.parametrize(
    "change",
    [
        lambda patch: patch.setattr(machine, "cpu_model", lambda: "another"),
        lambda patch: patch.setattr(machine, "usable_cores", lambda: 77),
        lambda patch: patch.setattr(machine, "set_threads", lambda: 77),
        lambda patch: patch.setattr(torch, "__version__", "99.0"),
    ],
)
def test_every_machine_has_its_own_entry(cache, counted, monkeypatch, change):
    first = machine_profile("cpu")
    taken = len(counted)
    with monkeypatch.context() as patch:
        change(patch)
        other = machine_profile("cpu")
    assert other.key != first.key and len(counted) == 2 * taken
    assert machine_profile("cpu").gemm_flops == first.gemm_flops and len(counted) == 2 * taken
    assert set(json.loads((cache / "machine.json").read_text())) == {first.key, other.key}


def test_a_changed_memory_limit_is_another_machine(cache, counted, monkeypatch):
    machine_profile("cpu")
    taken = len(counted)
    monkeypatch.setattr(memory, "total_memory", lambda: 5 * GB)
    assert machine_profile("cpu").total_memory_bytes == 5 * GB and len(counted) == 2 * taken


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, counted, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FORETUNE_CACHE", str(tmp_path / "file"))
    assert machine_profile("cpu").memory_bandwidth == 1e10
    assert not remembered.keep("a", {"b": 1}) and remembered.recall("a") is None
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_an_emulated_precision_is_measured_with_small_products_only(monkeypatch):
    sizes = []

    def peak(device, precision, size=None):
        sizes.append((precision, size))
        return {"fp32": 1e11, "bf16": 1e8}[precision]

    monkeypatch.setattr(machine, "measure_peak", peak)
    monkeypatch.setattr(
        machine, "gemm_peak", lambda *given: pytest.fail("a full product in bf16 takes seconds")
    )
    assert module._peak("cpu", "bf16") == 1e8
    assert {size for _, size in sizes} == {machine.SMALL}


def test_many_writers_leave_a_whole_file(cache):
    """Processes and threads that write at once: at any time the file is valid, and no draft is left."""
    code = (
        "import sys\nfrom foretune.forecast import remembered\n"
        "for i in range(25): remembered.keep(f'{sys.argv[1]}-{i % 5}', {'value': i, 'text': 'x' * 2000})\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(remembered.__file__).parents[2])}
    running = [subprocess.Popen([sys.executable, "-c", code, str(n)], env=environment) for n in range(3)]
    seen = 0
    while any(child.poll() is None for child in running):
        if (cache / "machine.json").exists():
            entries = json.loads((cache / "machine.json").read_text())
            assert all(len(entry["text"]) == 2000 for entry in entries.values())
            seen += 1
    assert [child.returncode for child in running] == [0, 0, 0] and seen > 0
    assert [path.name for path in cache.iterdir()] == ["machine.json"]
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda n: remembered.keep(f"t-{n}", {"n": n}), range(20)))
    assert any(remembered.recall(f"t-{n}") is not None for n in range(20))  # one may replace another's


def test_the_file_does_not_grow_for_ever(cache):
    for number in range(remembered.ENTRIES + 10):
        remembered.keep(str(number), {"n": number})
    assert len(json.loads((cache / "machine.json").read_text())) == remembered.ENTRIES
    assert remembered.recall("3") is None and remembered.recall(str(remembered.ENTRIES + 9)) is not None


def test_keys_tell_everything_apart():
    keys = {remembered.machine_key(a="x", b=n) for n in (1, 2, "1", None)} | {remembered.machine_key(a="x")}
    assert len(keys) == 5 and remembered.machine_key(a=1, b=2) == remembered.machine_key(b=2, a=1)


def test_unknown_entries_are_refused():
    for values in (None, 3, {}, {"cpu": "x"}):
        with pytest.raises(ValueError, match="A machine profile has the entries"):
            MachineProfile.from_json(values)


def test_free_disk_of_a_folder_to_come(tmp_path, monkeypatch):
    asked = []
    usage = type("Usage", (), {"free": 7})
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: asked.append(Path(path)) or usage)
    assert free_disk(tmp_path / "not" / "yet" / "there") == 7 and asked == [tmp_path]
    monkeypatch.chdir(tmp_path)
    assert free_disk(Path("below")) == 7 and asked[-1] == tmp_path.resolve()


def test_bandwidth_counts_reading_and_writing(monkeypatch):
    monkeypatch.setattr(machine, "COPIED", 1 << 20)
    monkeypatch.setattr(machine, "MEASURE_SECONDS", 0.0)
    monkeypatch.setattr(machine, "_timed", lambda work, device: work() is None or 0.001)
    assert machine.memory_bandwidth("cpu") == pytest.approx(2 * (1 << 20) / 0.001)


def test_the_processor_is_named(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor : 0\nmodel name\t: Fast One 9000\nmodel name : Second\n")
    assert machine.cpu_model(tmp_path / "cpuinfo") == "Fast One 9000"
    assert machine.cpu_model(tmp_path / "none") and machine.cpu_model()


def group(folder, limit, used, droppable=0, v1=False):
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if v1 else ("memory.max", "memory.current")
    for name, value in zip(names, (limit, used), strict=True):
        (folder / name).write_text(f"{value}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {droppable}\nactive_file 99\n")


def test_memory_groups(tmp_path):
    own = tmp_path / "own"
    own.write_text("0::/a/b\n")
    root = tmp_path / "cgroup"
    root.mkdir()
    assert memory.cgroup_memory(root, own) == (None, 0)
    group(root / "a" / "b", "max", 3 * GB)
    assert memory.cgroup_memory(root, own) == (None, 0)
    group(root / "a" / "b", 8 * GB, 3 * GB, GB)
    assert memory.cgroup_memory(root, own) == (8 * GB, 2 * GB)
    group(root / "a", 7 * GB, 5 * GB)  # the parent leaves 2 GB, the child 6
    assert memory.cgroup_memory(root, own) == (7 * GB, 5 * GB)
    group(root, 4 * GB, 3 * GB)  # a container sees its own group as the root
    assert memory.cgroup_memory(root, tmp_path / "none") == (4 * GB, 3 * GB)


def test_memory_groups_of_version_1(tmp_path):
    own = tmp_path / "own"
    own.write_text("5:memory:/docker/x\n4:cpu:/\n")
    group(tmp_path / "cgroup" / "memory", 9223372036854771712, GB, v1=True)
    assert memory.cgroup_memory(tmp_path / "cgroup", own) == (None, 0)
    group(tmp_path / "cgroup" / "memory", 2 * GB, 3 * GB, 2 * GB, v1=True)
    assert memory.cgroup_memory(tmp_path / "cgroup", own) == (2 * GB, GB)


@pytest.mark.parametrize(
    ("limit", "used", "total", "free"),
    [(None, 0, 16, 10), (8, 3, 8, 5), (32, 1, 16, 10), (8, 9, 8, 0), (12, 1, 12, 10)],
)
def test_memory_is_cut_by_the_container(monkeypatch, limit, used, total, free):
    monkeypatch.setattr(memory, "_memory_info", lambda: {"MemTotal": 16 * GB, "MemAvailable": 10 * GB})
    monkeypatch.setattr(memory, "cgroup_memory", lambda: (None if limit is None else limit * GB, used * GB))
    assert (memory.total_memory(), memory.free_memory()) == (total * GB, free * GB)


def test_memory_without_linux(monkeypatch, tmp_path):
    assert memory._memory_info(tmp_path / "none") == {}
    real = memory.total_memory()
    monkeypatch.setattr(memory, "_memory_info", dict)
    monkeypatch.setattr(memory, "cgroup_memory", lambda: (None, 0))
    assert memory.total_memory() == pytest.approx(real, rel=0.1) or real < memory.total_memory()
    assert 0 < memory.free_memory() <= memory.total_memory()


def test_meminfo(tmp_path):
    (tmp_path / "info").write_text("MemTotal:       25276514 kB\nHugePages_Total:       0\n")
    assert memory._memory_info(tmp_path / "info") == {"MemTotal": 25276514 * 1024, "HugePages_Total": 0}
    (tmp_path / "info").write_text("nonsense\n")
    assert memory._memory_info(tmp_path / "info") == {}


linux = pytest.mark.skipif(not memory.reset_peak(), reason="needs Linux's /proc")


@linux
def test_the_peak_follows_what_is_held():
    memory.release_freed()
    assert memory.reset_peak()
    before = memory.resident()
    block = bytearray(os.urandom(1 << 20)) * 80  # 80 MB, every page written
    assert memory.resident() - before > 70 << 20
    del block
    memory.release_freed()
    assert memory.peak_resident() - before > 70 << 20 and memory.resident() - before < 20 << 20
    assert memory.reset_peak() and memory.peak_resident() - before < 20 << 20


@linux
def test_a_fit_does_not_count_its_parents_memory(monkeypatch):
    """What getrusage tells of a child is at least what the parent held when it started it."""
    held = bytearray(os.urandom(1 << 20)) * 400
    code = (
        "import resource; from foretune.training import memory;"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, memory.peak_resident())"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(memory.__file__).parents[2])}
    told = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, check=True
    ).stdout
    told_by_system, own = map(int, told.split())
    assert own < 200 << 20 < len(held)
    assert own <= told_by_system
    assert machine.peak_memory_bytes(torch.device("cpu")) == memory.peak_resident()
    monkeypatch.setattr(memory, "peak_resident", lambda: None)
    assert 50e6 < machine.peak_memory_bytes(torch.device("cpu")) < 64e9


def test_a_system_that_tells_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "STATUS", tmp_path / "none")
    monkeypatch.setattr(memory, "CLEAR", tmp_path / "no" / "folder")
    assert memory.resident() is None and memory.peak_resident() is None and not memory.reset_peak()
    import ctypes

    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert not memory.release_freed()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_has_its_own_memory(cache):
    profile = machine_profile("cuda")
    assert profile.device_memory_bytes == torch.cuda.get_device_properties(0).total_memory
    assert 0 < profile.free_memory_bytes <= profile.device_memory_bytes
    assert profile.device_name == torch.cuda.get_device_name() and profile.key != machine_profile("cpu").key
