"""The feature store's disk: its budget, other processes, killed ones, and disks that are full or closed."""

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import time
import traceback
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch

from foretune.backbones import feature_budget, feature_drafts, feature_files, feature_layout
from foretune.backbones import feature_store as fs
from foretune.errors import ConfigError

Usage = namedtuple("Usage", "total used free")
LAYOUT = fs.Layout(np.array([100, 50, 0, 106]), (4,), "fp32")  # 4,096 bytes


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FORETUNE_CACHE", str(tmp_path))
    monkeypatch.setenv("FORETUNE_CACHE_BYTES", "1GB")
    return tmp_path / "features"


@pytest.fixture
def small_disk(tmp_path, monkeypatch):
    """A cache on a file system of 4 MB in memory, which only root can mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    monkeypatch.setenv("FORETUNE_CACHE", str(folder))
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def put(writer, value=1.0, examples=(3, 0, 2, 1)):
    lengths = writer.layout.lengths[list(examples)]
    writer.write(np.array(examples), torch.full((int(lengths.sum()), *writer.layout.tail), value))
    return writer


def make(key, value=1.0, layout=LAYOUT):
    return put(fs.create(key, layout), value, range(len(layout.lengths))).finish()


def big(megabytes, examples=4):
    return fs.Layout(np.full(examples, round(megabytes * 2**20 / 16 / examples)), (4,), "fp32")


def value(store):
    """Return the one number that the store holds everywhere."""
    (found,) = store.rows(np.arange(len(store))).unique().tolist()
    return found


def names(cache):
    return sorted(path.name.rpartition("-")[0] for path in cache.iterdir())


def in_memory(cache, store):
    return (
        not any(isinstance(array.base, np.memmap) for array in store._arrays) and list(cache.iterdir()) == []
    )


def child(work):
    """Do `work` in a process of its own and return its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# --- other processes


def test_a_writer_killed_in_the_middle_leaves_no_store_and_no_draft(cache):
    ready, tell = os.pipe()

    def work():
        put(fs.create("key", LAYOUT), examples=[3, 0])
        os.write(tell, b"x")
        time.sleep(60)

    pid = child(work)
    os.read(ready, 1)
    (draft,) = cache.iterdir()
    assert fs.load("key") is None and draft.exists()  # its writer lives
    os.kill(pid, signal.SIGKILL)
    assert ended(pid) == -signal.SIGKILL
    assert fs.load("key") is None and list(cache.iterdir()) == []
    assert value(make("key")) == 1.0


@pytest.mark.parametrize("moment", ["write_about", "publish"])
def test_a_writer_killed_while_it_finishes(cache, monkeypatch, moment):
    original = getattr(feature_files, moment)

    def die(*args):
        if moment == "write_about":
            original(*args)
        os.kill(os.getpid(), signal.SIGKILL)

    def work():
        monkeypatch.setattr(feature_files, moment, die)
        make("key")

    assert ended(child(work)) == -signal.SIGKILL
    assert len(list(cache.iterdir())) == 1
    assert fs.load("key") is None and list(cache.iterdir()) == []


def test_a_store_is_there_for_other_processes(cache):
    make("key", 3.0)
    assert ended(child(lambda: value(fs.load("key")) == 3.0 or os._exit(2))) == 0


def test_two_processes_write_the_same_key_at_once(cache, tmp_path):
    for turn in range(4):
        pipes = [os.pipe() for _ in range(4)]  # two to tell, two to start

        def work(number, turn=turn, pipes=pipes):
            writer = put(fs.create(f"key{turn}", LAYOUT), float(number))
            os.write(pipes[number][1], b"x")
            os.read(pipes[2 + number][0], 1)
            (tmp_path / f"{turn}-{number}").write_text(str(value(writer.finish())))

        pids = [child(lambda number=number: work(number)) for number in (0, 1)]
        for read, _ in pipes[:2]:
            os.read(read, 1)
        for _, start in pipes[2:]:
            os.write(start, b"x")
        assert [ended(pid) for pid in pids] == [0, 0]
        for ends in pipes:
            os.close(ends[0])
            os.close(ends[1])
        stored = value(fs.load(f"key{turn}"))
        told = {(tmp_path / f"{turn}-{number}").read_text() for number in (0, 1)}
        assert str(stored) in told <= {"0.0", "1.0"}
    assert names(cache) == ["key0", "key1", "key2", "key3"]


def test_the_first_to_finish_wins(cache):
    first, second = put(fs.create("key", LAYOUT), 1.0), put(fs.create("key", LAYOUT), 2.0)
    assert value(second.finish()) == 2.0
    assert value(first.finish()) == 2.0 == value(fs.load("key"))
    assert names(cache) == ["key"]


@pytest.mark.parametrize("harm", ["damage", "another layout"])
def test_a_winner_that_is_of_no_use_is_replaced(cache, harm):
    first = put(fs.create("key", LAYOUT), 1.0)
    make("key", 2.0, LAYOUT if harm == "damage" else fs.Layout(np.array([7]), (4,), "fp32"))
    if harm == "damage":
        (chunk,) = cache.glob("key-*/chunk-00000.bin")
        chunk.write_bytes(b"\1" * LAYOUT.bytes)
    assert value(first.finish()) == 1.0 == value(fs.load("key"))
    assert names(cache) == ["key"]


def test_of_two_that_finished_in_the_same_instant_one_stays(cache):
    make("key", 2.0)
    (folder,) = cache.iterdir()
    shutil.copytree(folder, cache / "key-00000000")
    assert value(fs.load("key")) == 2.0
    assert [path.name for path in cache.iterdir()] == ["key-00000000"]


def test_a_deleted_store_stays_readable_where_it_is_open(cache):
    store = make("key", 5.0)
    loaded = fs.load("key")
    assert fs.clear() > LAYOUT.bytes
    assert list(cache.iterdir()) == [] and value(store) == value(loaded) == 5.0


# --- drafts


def draft(cache, pid, host=None, born=None, changed=None):
    host = feature_files._host() if host is None else host
    folder = cache / f".draft-{pid}-{host}-{int(time.time() if born is None else born)}-0123abcd"
    folder.mkdir(parents=True)
    (folder / "chunk-00000.bin").write_bytes(b"x" * 100)
    if changed is not None:
        for path in (folder / "chunk-00000.bin", folder):
            os.utime(path, (changed, changed))
    return folder


def dead_pid():
    pid = child(lambda: None)
    ended(pid)
    return pid


def test_drafts_of_dead_processes_go_and_those_of_living_ones_stay(cache):
    now, day = time.time(), 86400
    foreign = hashlib.sha256(b"another host").hexdigest()[:8]
    gone = [
        draft(cache, dead_pid()),
        draft(cache, os.getpid(), born=now - 9 * day),  # this number was another process then
        draft(cache, 1 << 21, host=foreign, changed=now - 2 * day),
    ]
    stay = [
        draft(cache, os.getpid()),
        draft(cache, os.getppid(), changed=now - 9 * day),
        draft(cache, 1 << 21, host=foreign, born=now - 9 * day, changed=now - day / 2),
        cache / "notes",
        cache / ".draft-mine",
    ]
    for folder in stay[-2:]:
        folder.mkdir()
    (cache / "file").write_text("x")
    assert fs.load("key") is None
    assert not any(path.exists() for path in gone) and all(path.exists() for path in stay)
    fs.clear()
    assert all(path.exists() for path in [*stay, cache / "file"])


def test_a_process_that_ended_but_was_not_waited_for_is_dead(cache):
    pid = child(lambda: None)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now
    folder = draft(cache, pid)
    fs.load("key")
    assert not folder.exists() and ended(pid) == 0


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_no_draft(cache, error):
    with pytest.raises(error), fs.create("key", LAYOUT) as writer:
        put(writer, examples=[0, 1])
        raise error
    assert list(cache.iterdir()) == []
    with fs.create("key", LAYOUT) as writer:
        put(writer, examples=[0, 1])
    assert list(cache.iterdir()) == []


def test_an_interrupt_while_finishing_leaves_no_draft(cache, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(feature_files, "publish", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make("key")
    assert list(cache.iterdir()) == []


# --- budget


def test_the_store_unused_for_longest_goes_first(cache, monkeypatch):
    for age, key in enumerate(["a", "b", "c"]):
        make(key, float(age), big(0.05))
        (folder,) = cache.glob(f"{key}-*")
        os.utime(folder, (1000 + age, 1000 + age))
    assert value(fs.load("a")) == 0.0  # used now
    monkeypatch.setenv("FORETUNE_CACHE_BYTES", str(feature_files.held_bytes() + 60_000))
    make("d", layout=big(0.03))
    assert names(cache) == ["a", "b", "c", "d"]
    make("e", layout=big(0.05))
    assert names(cache) == ["a", "c", "d", "e"]
    make("f", layout=big(0.09))
    assert names(cache) == ["d", "e", "f"]
    assert feature_files.held_bytes() <= fs.size_limit()


def test_a_draft_counts_but_is_never_evicted(cache, monkeypatch):
    monkeypatch.setenv("FORETUNE_CACHE_BYTES", "100KB")
    writer = put(fs.create("a", big(0.05)), 1.0, range(4))
    other = make("b", 2.0, big(0.05))
    assert value(other) == 2.0 and fs.load("b") is None  # it lives in memory
    assert value(writer.finish()) == 1.0
    assert value(make("c", layout=big(0.05))) == 1.0
    assert names(cache) == ["c"]


def test_a_store_larger_than_the_limit_stays_in_memory_and_evicts_nothing(cache, monkeypatch):
    make("old")
    monkeypatch.setenv("FORETUNE_CACHE_BYTES", "50KB")
    store = make("key", 4.0, big(0.1))
    assert value(store) == 4.0 and fs.load("key") is None
    assert store.padded(np.array([1, 3])).shape == (2, 1638, 4)
    assert names(cache) == ["old"]


def test_no_room_anywhere(cache, monkeypatch):
    monkeypatch.setenv("FORETUNE_CACHE_BYTES", "0")
    monkeypatch.setattr(fs, "memory_limit", lambda: 10**5)
    with pytest.raises(
        fs.NoRoom, match=r"take 0\.5 MB\. The disk does not .* in memory they may take 0\.1 MB"
    ):
        fs.create("key", big(0.5))
    assert list(cache.iterdir()) == []
    monkeypatch.setattr(fs, "memory_limit", lambda: big(0.5).bytes)
    assert in_memory(cache, make("key", 6.0, big(0.5)))


@pytest.mark.parametrize(
    ("text", "size"),
    [("12345", 12345), ("8GB", 8 * 10**9), (" 500 mb ", 5 * 10**8), ("1.5GiB", 3 << 29), ("2k", 2000), ("1T", 10**12),
     ("0", 0), (".5GB", 5 * 10**8), ("7b", 7), ("1Kib", 1024)],
)  # fmt: skip
def test_the_limit_is_given_as_bytes_or_with_a_unit(monkeypatch, text, size):
    monkeypatch.setenv("FORETUNE_CACHE_BYTES", text)
    assert fs.size_limit() == size


@pytest.mark.parametrize("text", ["much", "-1", "8XB", "1e9", "nan", "8iB", "GB", "1 2", "٣", "5GBB"])
def test_a_limit_that_is_no_size_is_refused(cache, monkeypatch, text):
    monkeypatch.setenv("FORETUNE_CACHE_BYTES", text)
    with pytest.raises(ConfigError, match=r"FORETUNE_CACHE_BYTES is .* Give bytes, or a number with a unit"):
        fs.create("key", LAYOUT)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(("free", "limit"), [(10**9, 2 * 10**8), (10**12, 20 * 10**9)])
def test_the_limit_is_a_share_of_the_disk(cache, monkeypatch, free, limit):
    monkeypatch.setenv("FORETUNE_CACHE_BYTES", "")
    held = [0]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2 * free, 0, free - held[0]))
    assert not cache.exists() and fs.size_limit() == limit
    make("key")
    held[0] = feature_files.held_bytes()
    assert held[0] > LAYOUT.bytes and fs.size_limit() == limit  # what it holds does not change it


def test_a_full_disk_makes_room_within_the_limit(cache, monkeypatch):
    make("old", layout=big(0.1))
    held = feature_files.held_bytes()
    usage = Usage(10**9, 10**9, 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    feature_budget.make_room(held)
    assert list(cache.iterdir()) == []
    with pytest.raises(OSError, match="do not fit"):
        feature_budget.make_room(1)


def test_memory_is_that_of_the_container(tmp_path, monkeypatch):
    import psutil

    monkeypatch.setattr(psutil, "virtual_memory", lambda: namedtuple("M", "available")(8000))
    assert feature_budget.memory_limit(tmp_path) == 2000
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("500\n")
    assert feature_budget.memory_limit(tmp_path) == 2000
    (tmp_path / "memory.max").write_text("4500\n")
    assert feature_budget.memory_limit(tmp_path) == 1000
    (tmp_path / "memory.max").write_text("400\n")
    assert feature_budget.memory_limit(tmp_path) == 0
    (tmp_path / "memory.max").unlink()
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/memory.limit_in_bytes").write_text("2000\n")
    (tmp_path / "memory/memory.usage_in_bytes").write_text("400\n")
    assert feature_budget.memory_limit(tmp_path) == 400


def test_report_and_clear(cache):
    assert fs.report() == {"folder": str(cache), "limit": 10**9, "bytes": 0, "stores": []}
    assert fs.clear() == 0 and not cache.exists()
    make("a")
    make("b", layout=big(0.01))
    (folder,) = cache.glob("b-*")
    os.utime(folder, (1000, 1000))
    writer = fs.create("c", LAYOUT)
    found = fs.report()
    assert [(store["key"], store["last_used"] > 1000) for store in found["stores"]] == [
        ("a", True),
        ("b", False),
    ]
    on_disk = sum(path.stat().st_size for path in folder.iterdir())
    assert found["stores"][1]["bytes"] == on_disk > big(0.01).bytes
    everything = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
    assert found["bytes"] == everything
    assert fs.clear() == sum(store["bytes"] for store in found["stores"])
    assert fs.load("a") is None and value(put(writer).finish()) == 1.0  # what is being written stays


# --- disks that fail


def fill(path):
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:
            pass


def test_a_disk_too_small(small_disk):
    assert value(make("small", 1.0, big(1))) == 1.0
    assert in_memory_beside(small_disk, make("large", 2.0, big(5)), ["small"])
    assert value(make("medium", 3.0, big(3.5))) == 3.0  # the older one had to go
    assert names(small_disk / "features") == ["medium"] and value(fs.load("medium")) == 3.0


def in_memory_beside(disk, store, others):
    return value(store) == 2.0 and names(disk / "features") == others


def test_a_disk_with_less_room_than_it_says(small_disk, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 0, 10**9))
    store = make("key", 2.0, big(5))  # taking the space fails
    assert value(store) == 2.0 and list((small_disk / "features").iterdir()) == []


def test_a_disk_that_fills_up_while_writing(small_disk):
    writer = fs.create("key", big(2))
    fill(small_disk / "ballast")
    put(writer, examples=range(4))  # its space was taken before
    with pytest.raises(fs.NoRoom, match="No space left"):
        writer.finish()
    assert list((small_disk / "features").iterdir()) == []
    (small_disk / "ballast").unlink()
    assert value(make("key", 1.0, big(2))) == 1.0


def test_a_disk_that_is_read_only(small_disk):
    make("there", 7.0)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    try:
        assert value(fs.load("there")) == 7.0
        assert value(make("new", 2.0)) == 2.0 and fs.load("new") is None
        assert names(small_disk / "features") == ["there"] and fs.clear() == 0
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)


def test_a_folder_without_permission(cache):
    cache.mkdir()
    cache.chmod(0o500)
    cache.parent.chmod(0o700)

    def work():
        if os.getuid() == 0:
            os.setuid(65534)
        assert value(make("key", 2.0)) == 2.0
        assert fs.load("key") is None and fs.report()["stores"] == []

    try:
        assert ended(child(work)) == 0
        assert list(cache.iterdir()) == []
    finally:
        cache.chmod(0o700)


def test_a_file_in_the_way(cache):
    cache.write_text("mine")
    assert value(make("key", 2.0)) == 2.0
    assert fs.load("key") is None and fs.report()["bytes"] == 0
    assert cache.read_text() == "mine"


def test_a_write_that_fails(cache, monkeypatch):
    original, calls = os.pwrite, []

    def fail(handle, data, offset):
        calls.append(offset)
        if len(calls) == 3:
            raise OSError(errno.EIO, "Input/output error")
        return original(handle, data, offset)

    writer = fs.create("key", LAYOUT)
    monkeypatch.setattr(os, "pwrite", fail)
    put(writer, examples=[0])
    with pytest.raises(fs.NoRoom, match="Input/output error"):
        put(writer, examples=[3, 1])
    assert list(cache.iterdir()) == []
    with pytest.raises(ValueError, match="finished or abandoned"):
        writer.finish()


def test_writes_that_take_only_a_part(cache, monkeypatch):
    original = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda handle, data, offset: original(handle, data[:100], offset))
    assert value(make("key", 1.5)) == 1.5 == value(fs.load("key"))


@pytest.mark.parametrize("kind", ["missing", "not supported"])
def test_systems_that_cannot_take_space_beforehand(cache, monkeypatch, kind):
    def refuse(*args):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    if kind == "missing":
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    else:
        monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    assert value(make("key", 1.5)) == 1.5 == value(fs.load("key"))


def test_few_files_are_open(cache, monkeypatch):
    monkeypatch.setattr(feature_layout, "CHUNK_BYTES", 100)
    monkeypatch.setattr(feature_drafts, "OPEN_FILES", 3)
    layout = fs.Layout(np.full(30, 5), (4,), "fp32")
    before = set(Path("/dev/fd").iterdir()) if Path("/dev/fd").exists() else set()
    writer = fs.create("key", layout)
    for example in np.random.default_rng(0).permutation(30):
        put(writer, 2.5, [example])
        assert len(writer._draft._files) <= 3
    assert value(writer.finish()) == 2.5 and len(layout.borders) == 31
    after = set(Path("/dev/fd").iterdir()) if before else set()
    assert len(after) <= len(before)


def test_what_is_published_was_forced_to_the_disk(cache, monkeypatch):
    synced, original = [], feature_files._sync
    monkeypatch.setattr(feature_files, "_sync", lambda path: synced.append(path.name) or original(path))
    make("key")
    (folder,) = cache.iterdir()
    everything = sorted(path.name for path in folder.iterdir())
    assert sorted(synced[: len(everything)]) == everything == ["about.json", "chunk-00000.bin", "lengths.npy"]
    assert synced[-2].startswith(".draft-") and synced[-1] == "features"
