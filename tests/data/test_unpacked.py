"""Unpacked media stay within their budget; what a living process uses is never deleted."""

import os
import signal
import subprocess
import sys
import time
from collections import namedtuple

import pytest

from foretune.data import unpacked as module
from foretune.data.unpacked import make_room, unpacked, unpacked_folder
from foretune.errors import ConfigError, ResourceError

OTHER = """
import sys, time
from foretune.data.unpacked import unpacked
unpacked(sys.argv[1], 10, lambda folder: None, "other")
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FORETUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FORETUNE_CACHE_BYTES", "100")
    yield tmp_path / "cache" / "unpacked"
    release()


def release():
    """Forget what this process uses, as its end would."""
    for handle in module._HELD.values():
        os.close(handle)
    module._HELD.clear()


def put(key, size=40, age=0):
    """Write a folder of `size` bytes that was last used `age` seconds ago."""
    folder = unpacked(key, size, lambda draft: (draft / "a.bin").write_bytes(bytes(size)), key)
    os.utime(folder, (time.time() - age,) * 2)
    return folder


def names(cache):
    return sorted(path.name for path in cache.iterdir())


def test_the_folder_unused_for_longest_goes_first(cache):
    for age, key in ((30, "a"), (20, "b")):
        put(key, age=age)
        release()
    unpacked("a", 40, pytest.fail, "a")  # used now, and written only once
    release()
    put("c")
    assert names(cache) == ["a", "c"]


def test_what_this_process_uses_stays(cache):
    for key in "abc":
        put(key)
    assert names(cache) == ["a", "b", "c"]  # beyond the limit, but all are needed
    release()
    make_room(0)
    assert names(cache) == ["b", "c"]


def test_what_another_process_uses_stays(cache):
    with subprocess.Popen([sys.executable, "-c", OTHER, "theirs"], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        os.utime(cache / "theirs", (0, 0))
        put("ours", 90)
        release()
        make_room(100)
        assert names(cache) == ["theirs"]
        other.send_signal(signal.SIGKILL)
        other.wait()
    (cache / "theirs" / "a.bin").write_bytes(bytes(10))
    make_room(100)
    assert names(cache) == []


def test_a_folder_deleted_by_hand_is_written_anew(cache):
    first = put("a")
    (first / "a.bin").unlink()
    first.rmdir()
    assert (put("a") / "a.bin").stat().st_size == 40


def test_drafts_of_killed_processes_are_swept(cache):
    for name, age in ((".tmp-old", 100_000), (".tmp-new", 10)):
        (cache / name).mkdir(parents=True)
        os.utime(cache / name, (time.time() - age,) * 2)
    put("a")
    assert names(cache) == [".tmp-new", "a"]


def test_a_failure_leaves_nothing(cache):
    def fail(folder):
        (folder / "half").write_bytes(b"x")
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        unpacked("a", 10, fail, "a")
    assert names(cache) == []


def test_a_full_disk(cache, monkeypatch):
    """Others make room as far as they can; then it is an error, before anything is written."""
    put("a", 20)
    release()
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage(10, 10, 5))
    with pytest.raises(ResourceError, match=r"set\.zip unpacks to 0\.0 GB.*FORETUNE_CACHE"):
        unpacked("b", 10, pytest.fail, "set.zip")
    assert names(cache) == []


def test_a_limit_that_is_no_size(monkeypatch):
    monkeypatch.setenv("FORETUNE_CACHE_BYTES", "much")
    with pytest.raises(ConfigError, match="FORETUNE_CACHE_BYTES"):
        put("a")


def test_without_locks_the_own_folders_stay(cache, monkeypatch):
    monkeypatch.setattr(module, "fcntl", None)
    put("a")
    module._HELD.pop(cache / "a")
    put("b", 90)
    assert names(cache) == ["b"]
    make_room(100)
    assert names(cache) == ["b"] and unpacked_folder() == cache
    module._HELD.clear()
