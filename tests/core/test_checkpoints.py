"""Checkpoints: whole or not there, checked, few, and only of this very run."""

import itertools
import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foretune.errors import CheckpointError, ResourceError
from foretune.training import files
from foretune.training.checkpoint import Checkpoints, load_trainable
from foretune.training.files import damage, write_folder
from foretune.training.state import Progress


def truncate(folder):
    path = folder / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def flip(folder):
    path = folder / "state.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def delete(folder):
    (folder / "state.json").unlink()


def empty(folder):
    (folder / "checksums.json").write_text("{}")


@pytest.fixture(scope="module")
def stopped(forked, tiny, tmp_path_factory):
    """Return a function: options -> (copy of a run killed at step 6, an undisturbed run)."""
    made = {}

    def run(options, target):
        if not made:
            base = tmp_path_factory.mktemp("stopped")
            kill = [[[6, 0], 1, "SIGKILL"]]
            assert forked(base / "killed", options, hooks=kill) == (-signal.SIGKILL, None)
            assert forked(base / "whole", options) == (0, None)
            made.update(killed=base / "killed", whole=base / "whole")
        shutil.copytree(made["killed"], target)
        return target, made["whole"]

    return run


def steps(folder):
    return sorted((folder / "checkpoints").glob("step-*"))


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("harm", [flip, delete])
def test_the_checkpoint_before_a_damaged_one_is_used(stopped, forked, options, events, tmp_path, harm):
    folder, whole = stopped(options, tmp_path / "run")
    assert [path.name for path in steps(folder)][-1] == "step-000000006-000000"
    harm(steps(folder)[-1])
    assert forked(folder, options, resume=True) == (0, None)
    told = [line["text"] for line in events(folder, "warning")]
    assert any("step-000000006-000000 is not used" in text for text in told)
    assert weights(folder) == weights(whole)


def test_after_a_damaged_one_two_good_ones_are_kept_again(stopped, forked, options, tmp_path):
    folder, whole = stopped(options, tmp_path / "run")
    flip(steps(folder)[-1])
    forked(folder, options, resume=True, hooks=[["save", 2, "SIGKILL"]])
    assert [damage(path) for path in steps(folder)] == [None, None]
    assert forked(folder, options, resume=True) == (0, None)
    assert weights(folder) == weights(whole)


def test_all_damaged_means_from_the_beginning_and_still_resumable(stopped, forked, options, events, tmp_path):
    folder, whole = stopped(options, tmp_path / "run")
    for path in steps(folder):
        truncate(path)
    forked(folder, options, resume=True, hooks=[["save", 4, "SIGKILL"]])
    assert events(folder, "start")[0]["step"] == 0
    assert any("starting from the beginning" in line["text"] for line in events(folder, "warning"))
    assert [damage(path) for path in steps(folder)] == [None, None]  # the damaged ones are not in the way
    assert forked(folder, options, resume=True) == (0, None)
    assert events(folder, "start")[-1]["step"] == 1
    assert weights(folder) == weights(whole)


def test_drafts_of_a_killed_write_do_not_stay(stopped, forked, options, tmp_path):
    folder, _ = stopped(options, tmp_path / "run")
    (folder / "checkpoints" / ".tmp-step-000000005-000001").mkdir()
    forked(folder, options, resume=True, hooks=[["save", 1, "SIGKILL"]])
    assert not list((folder / "checkpoints").glob(".tmp-*"))


@pytest.mark.parametrize("change", [{"lr": 2e-3}, {"class_weights": "auto"}])
def test_a_checkpoint_of_other_options_is_refused(stopped, forked, options, tmp_path, change):
    folder, _ = stopped(options, tmp_path / "run")
    before = [path.name for path in steps(folder)]
    code, error = forked(folder, options | change, resume=True)
    assert code == 1 and error.startswith("CheckpointError") and "belongs to another run" in error
    assert [path.name for path in steps(folder)] == before


def test_a_checkpoint_of_other_data_is_refused(stopped, forked, options, rows, tmp_path):
    folder, _ = stopped(options, tmp_path / "run")
    other = rows()
    other[5]["text"] += " good"
    (tmp_path / "other.json").write_text(json.dumps(other))
    code, error = forked(folder, options, resume=True, data=tmp_path / "other.json")
    assert code == 1 and error.startswith("CheckpointError")


def test_what_does_not_change_the_result_may_change(stopped, forked, options, tmp_path):
    folder, whole = stopped(options, tmp_path / "run")
    changed = options | {"checkpoint_seconds": 5.0, "offline": False}
    assert forked(folder, changed, resume=True) == (0, None)
    assert weights(folder) == weights(whole)


class Watch:
    """Looks into the checkpoints' folder at every event."""

    def __init__(self, folder):
        self.folder, self.steps, self.bests, self.wanted = folder / "checkpoints", [], [], []

    def on(self, kind, values):
        if kind not in ("checkpoint", "step") or not self.folder.exists():
            return
        self.steps.append(len(list(self.folder.glob("step-*"))))
        bests = {int(path.name.split("-")[1]) for path in self.folder.glob("best-*")}
        if kind == "checkpoint":
            kept = [json.loads((path / "state.json").read_text()) for path in self.folder.glob("step-*")]
            self.wanted.append({item["progress"]["best_step"] for item in kept} - {0})
            self.bests.append(bests)
        else:
            assert len(bests) <= 3

    def close(self):
        pass


def test_two_checkpoints_and_the_best_they_need(fit, tmp_path, monkeypatch):
    improve_always(monkeypatch)
    watch = Watch(tmp_path / "run")
    fit(tmp_path / "run", listeners=[watch], epochs=4.0)
    assert max(watch.steps) == 2
    assert watch.bests == watch.wanted and max(map(len, watch.bests)) >= 1
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_old_best_weights_go_where_no_checkpoint_is_due(fit, tmp_path, monkeypatch):
    improve_always(monkeypatch)
    most = []
    original = Checkpoints.save_best

    def save_best(self, *args):
        original(self, *args)
        most.append(len(list(self.folder.glob("best-*"))))

    monkeypatch.setattr(Checkpoints, "save_best", save_best)
    fit(tmp_path / "run", epochs=4.0, checkpoint_seconds=1e6)
    assert most == [1, 1, 1, 1]


def improve_always(monkeypatch):
    from foretune.evaluation.metrics import ClassificationScores

    values = iter(range(1, 100))
    original = ClassificationScores.point
    monkeypatch.setattr(
        ClassificationScores, "point", lambda self: original(self) | {"accuracy": next(values) / 100}
    )


def test_damaged_best_weights_are_not_used(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save_best({"w": torch.ones(2)}, 5)
    assert checkpoints.load_best(5)["w"].tolist() == [1, 1]
    flip_any(tmp_path / "best-000000005" / "state.safetensors")
    with pytest.raises(CheckpointError, match="is damaged"):
        checkpoints.load_best(5)


def flip_any(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 255
    path.write_bytes(content)


@settings(max_examples=40, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), name=st.integers(0, 2))
def test_every_flipped_bit_is_noticed(tmp_path_factory, where, bit, name):
    folder = tmp_path_factory.mktemp("flip") / "step"
    write_folder(folder, lambda draft: [(draft / n).write_bytes(bytes(range(50))) for n in ("a", "b")])
    assert damage(folder) is None
    path = sorted(folder.iterdir())[name]
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 1 << bit
    path.write_bytes(content)
    assert (damage(folder) is None) == (path.name == files.CHECKSUMS and says_the_same(path, folder))


def says_the_same(path, folder):
    """A flipped bit of white space changes nothing."""
    sums = {p.name: files.sha256(p) for p in folder.iterdir() if p != path}
    try:
        return json.loads(path.read_bytes()) == sums
    except ValueError:
        return False


@pytest.mark.parametrize("harm", [truncate, flip, delete, empty])
def test_every_kind_of_damage_is_named(tmp_path, harm):
    def fill(draft):
        (draft / "state.safetensors").write_bytes(bytes(500))
        (draft / "state.json").write_text("{}")

    write_folder(tmp_path / "step", fill)
    assert damage(tmp_path / "step") is None
    harm(tmp_path / "step")
    expected = {truncate: "is damaged", flip: "is damaged", delete: "is missing", empty: "lists no file"}
    assert expected[harm] in damage(tmp_path / "step")


def test_a_failing_write_leaves_the_old_folder(tmp_path):
    target = tmp_path / "step"
    write_folder(target, lambda draft: (draft / "a").write_text("old"))

    def fill(draft):
        (draft / "a").write_text("new")
        raise OSError(28, "No space left on device")

    with pytest.raises(ResourceError, match="disk is full"):
        write_folder(target, fill)
    assert (target / "a").read_text() == "old" and damage(target) is None
    assert [path.name for path in tmp_path.iterdir()] == ["step"]


def test_weights_of_another_shape_are_refused():
    with pytest.raises(CheckpointError, match="does not fit"):
        load_trainable(torch.nn.Linear(2, 2), {"weight": torch.ones(3, 2)})
    with pytest.raises(CheckpointError, match="does not fit"):
        load_trainable(torch.nn.Linear(2, 2), {"other": torch.ones(2, 2)})


@given(st.floats(allow_nan=False), st.integers(0, 10**9), st.booleans())
def test_progress_survives_json(value, step, stopped_early):
    state = Progress(step=step, partial_loss=value, best=value, stopped_early=stopped_early)
    state.record_loss(step, value, 0.5)
    assert Progress.from_json(json.loads(json.dumps(state.to_json()))) == state


def test_the_loss_curve_stays_short():
    state = Progress()
    for step in range(1, 20_001):
        state.record_loss(step, float(step), 1.0)
    recorded = [int(point["step"]) for point in state.losses]
    assert 500 <= len(recorded) <= 1000
    assert recorded == sorted(recorded) and recorded[-1] > 19_900
    assert all(point["loss"] == point["step"] for point in state.losses)
    assert len({b - a for a, b in itertools.pairwise(recorded)}) <= 2


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ResourceError, match="could not be written"):
        write_folder(Path(tmp_path / "file" / "step"), lambda draft: None)
