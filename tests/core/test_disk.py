"""A full or read-only disk: a clear error, nothing half-written, and the run goes on once there is room."""

import json
import shutil
import subprocess
from collections import namedtuple

import pytest

from foretune import api, assemble, outcome
from foretune.errors import ConfigError, ResourceError
from foretune.training import files
from foretune.training.checkpoint import Checkpoints
from foretune.training.events import JsonLines
from foretune.training.files import check_space, damage

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB in memory, which only root can mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


class FillUp:
    """Fills the disk at the n-th event of a kind."""

    def __init__(self, disk, kind, number):
        self.ballast, self.kind, self.left = disk / "ballast", kind, number

    def on(self, kind, values):
        self.left -= kind == self.kind
        if kind == self.kind and self.left == 0:
            fill(self.ballast)

    def close(self):
        pass


def fill(path):
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:
            pass


def no_drafts(folder):
    return [path for path in folder.rglob("*") if path.name.startswith(".")] == []


@pytest.mark.parametrize(("kind", "number"), [("checkpoint", 5), ("evaluation", 1)])
def test_a_disk_that_fills_up(fit, small_disk, tmp_path, monkeypatch, events, kind, number):
    monkeypatch.setattr(assemble, "EXTRA_SPACE", 0)
    folder = small_disk / "run"
    with pytest.raises(ResourceError, match=r"disk is full .*Free some space"):
        fit(folder, listeners=[FillUp(small_disk, kind, number)])
    assert no_drafts(folder) and not (folder / "model.safetensors").exists()
    kept = sorted((folder / "checkpoints").glob("step-*"))
    assert kept and all(damage(path) is None for path in kept)
    (small_disk / "ballast").unlink()
    fit(folder, resume=True)
    fit(tmp_path / "whole")
    assert (folder / "model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()
    told = [line["step"] for line in events(folder, "step")]
    assert told == list(range(1, told[-1] + 1))


def test_a_disk_that_is_full_when_the_model_is_saved(fit, small_disk, monkeypatch):
    monkeypatch.setattr(assemble, "EXTRA_SPACE", 0)
    folder, original = small_disk / "run", api._finish

    monkeypatch.setattr(outcome, "write_report", lambda path, data: None)  # it comes before the model

    def finish(job, *rest):
        fill(small_disk / "ballast")
        return original(job, *rest)

    monkeypatch.setattr(api, "_finish", finish)
    with pytest.raises(ResourceError, match="disk is full"):
        fit(folder)
    assert no_drafts(folder)
    assert not [path.name for path in folder.iterdir() if path.name not in ("checkpoints", "events.jsonl")]
    monkeypatch.setattr(api, "_finish", original)
    (small_disk / "ballast").unlink()
    assert fit(folder, resume=True).path == folder
    assert not (folder / "checkpoints").exists()


def test_a_disk_that_turns_read_only(fit, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(ResourceError, match="Read-only file system"):
        fit(small_disk / "run")


def test_too_little_room_is_found_before_the_first_step(fit, tmp_path, monkeypatch):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - 10**6, 10**6))
    with pytest.raises(ResourceError, match=r"needs about \d+ MB .* only 1 MB are free"):
        fit(tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_the_space_a_run_takes_is_less_than_was_asked_for(fit, tmp_path, monkeypatch):
    monkeypatch.setattr(assemble, "EXTRA_SPACE", 0)
    asked, most = [], []
    original = assemble.space_needed
    monkeypatch.setattr(
        assemble, "space_needed", lambda backbone: asked.append(original(backbone)) or asked[-1]
    )
    original_prune = Checkpoints._prune

    def prune(self, *args):
        most.append(sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file()))
        original_prune(self, *args)

    monkeypatch.setattr(Checkpoints, "_prune", prune)
    fit(tmp_path / "run")
    text_files = 60_000  # state.json holds random states as text: next to nothing beside a real model
    assert 0.3 * asked[0] < max(most) < asked[0] + 5 * text_files


def test_output_below_a_file(fit, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ResourceError, match="could not be written"):
        fit(tmp_path / "file" / "run")
    with pytest.raises(ConfigError, match="is a file"):
        fit(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "x"


def test_a_folder_in_use_is_left_alone(fit, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        fit(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_check_space_leaves_nothing(tmp_path):
    check_space(tmp_path / "a" / "b", 1)
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_events_are_cut_to_the_checkpoint(tmp_path):
    path = tmp_path / "events.jsonl"
    first = JsonLines(path)
    first.on("step", {"step": 1, "text": "好 \ud800"})
    kept = path.stat().st_size
    first.on("step", {"step": 2})
    first.close()
    again = JsonLines(path, kept)
    again.on("step", {"step": 2, "again": True})
    again.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2] and lines[1]["again"]
    JsonLines(path).close()
    assert path.read_text() == ""


def test_events_on_a_full_disk_say_so(small_disk):
    log = JsonLines(small_disk / "events.jsonl")
    fill(small_disk / "ballast")
    with pytest.raises(ResourceError, match="disk is full"):
        for _ in range(100):
            log.on("note", {"text": "x" * 1000})
    log.close()
