"""A run that is killed at any moment and resumed ends with bit-identical weights."""

import json
import signal

import pytest

from foretune.errors import ConfigError

KILL = -signal.SIGKILL


@pytest.fixture(scope="module")
def undisturbed(forked, tiny, tmp_path_factory):
    """Return a function: strategy -> the folder of a run that nothing disturbed."""
    made = {}

    def run(options):
        if options["strategy"] not in made:
            folder = tmp_path_factory.mktemp("undisturbed") / options["strategy"]
            assert forked(folder, options) == (0, None)
            made[options["strategy"]] = folder
        return made[options["strategy"]]

    return run


@pytest.fixture(params=["full", "head-then-all", "linear-probe"])
def settings(request, options):
    return options | {"strategy": request.param}


def same_end(folder, reference, events):
    """The weights are the same to the last bit, no step is told twice, and no checkpoint is left."""
    weights = (folder / "model.safetensors").read_bytes()
    assert weights == (reference / "model.safetensors").read_bytes()
    told = [(line["step"], line["loss"]) for line in events(folder, "step")]
    assert told == [(line["step"], line["loss"]) for line in events(reference, "step")]
    evaluated = [(line["step"], line["accuracy"]) for line in events(folder, "evaluation")]
    assert evaluated == [(line["step"], line["accuracy"]) for line in events(reference, "evaluation")]
    assert not (folder / "checkpoints").exists()
    assert not list(folder.rglob(".tmp*"))


def killed_again_and_again(folder, reference, settings, forked, events, hooks):
    for number, hook in enumerate(hooks):
        code, error = forked(folder, settings, resume=number > 0, hooks=[hook])
        assert (code, error) == (KILL, None), f"{hook} was not reached"
    assert forked(folder, settings, resume=True) == (0, None)
    same_end(folder, reference, events)


def test_killed_between_and_within_steps(forked, settings, undisturbed, events, tmp_path):
    reference = undisturbed(settings)
    total = events(reference, "start")[0]["total"]
    boundary = round(0.4 * total)
    hooks = [
        ["micro", 1, "SIGKILL"],  # before the first checkpoint: nothing to resume from
        ["micro", 5, "SIGKILL"],
        [[boundary, 0], 1, "SIGKILL"],  # between the two phases
        ["micro", 2, "SIGKILL"],  # in the first step of the second
        ["update", 2, "SIGKILL"],
        ["predict", 1, "SIGKILL"],
        [[total - 1, 1], 1, "SIGKILL"],  # in the last step
        ["outcome", 1, "SIGKILL"],  # after it
    ]
    killed_again_and_again(tmp_path / "run", reference, settings, forked, events, hooks)


@pytest.mark.parametrize("settings", ["full", "head-then-all"], indirect=True)
def test_killed_while_a_checkpoint_is_written(forked, settings, undisturbed, events, tmp_path):
    hooks = [
        ["sync", 1, "SIGKILL"],
        ["sync", 7, "SIGKILL"],
        ["rename", 3, "SIGKILL"],
        ["prune", 4, "SIGKILL"],
        ["best", 1, "SIGKILL"],
        ["sync", 9, "SIGKILL"],
        ["replace", 2, "SIGKILL"],  # while the finished model is moved to its place
    ]
    killed_again_and_again(tmp_path / "run", undisturbed(settings), settings, forked, events, hooks)


def test_dropout_and_partial_steps_are_really_in_play(forked, options, undisturbed, events, tmp_path):
    """Without the random states, or without the gradients, the tests above would fail."""
    settings = options | {"strategy": "full"}
    reference = undisturbed(settings)
    assert any(line["folder"].endswith("-000001") for line in events(reference, "checkpoint"))
    assert forked(tmp_path / "dry", settings | {"dropout": 0.0}) == (0, None)
    assert events(tmp_path / "dry", "step")[0]["loss"] != events(reference, "step")[0]["loss"]


@pytest.mark.parametrize("settings", ["full", "head-then-all"], indirect=True)
def test_asked_to_stop(forked, settings, undisturbed, events, tmp_path):
    folder, kind = tmp_path / "run", "SIGINT" if settings["strategy"] == "full" else "SIGTERM"
    slow = settings | {
        "checkpoint_seconds": 1000.0
    }  # saved because it was asked to stop, not because it was time
    code, error = forked(folder, slow, hooks=[["micro", 6, kind]])
    assert code == 1 and error.startswith("Interrupted: Stopped at step")
    assert f"--resume --output {folder}" in error
    assert len(list((folder / "checkpoints").glob("step-*"))) == 1
    code, error = forked(folder, slow, resume=True, hooks=[["update", 3, kind]])
    assert code == 1 and error.startswith("Interrupted")
    assert forked(folder, settings, resume=True) == (0, None)
    same_end(folder, undisturbed(settings), events)


def test_asked_to_stop_at_the_very_end(forked, options, undisturbed, events, tmp_path):
    settings = options | {"strategy": "head-then-all"}
    total = events(undisturbed(settings), "start")[0]["total"]
    folder = tmp_path / "run"
    code, error = forked(folder, settings, hooks=[["update", total, "SIGTERM"]])
    assert code == 1 and f"Stopped at step {total} of {total}" in error
    assert forked(folder, settings, resume=True) == (0, None)
    same_end(folder, undisturbed(settings), events)


def test_resuming_a_finished_run_trains_no_more(forked, options, undisturbed, tmp_path):
    settings = options | {"strategy": "full"}
    folder = undisturbed(settings)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert forked(folder, settings, resume=True, hooks=[["micro", 1, "SIGKILL"]]) == (0, None)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_killed_between_model_and_report(forked, options, tmp_path):
    settings, folder = options | {"strategy": "linear-probe"}, tmp_path / "run"
    assert forked(folder, settings, hooks=[["report", 1, "SIGKILL"]]) == (KILL, None)
    assert forked(folder, settings, resume=True) == (0, None)
    assert (folder / "report.html").exists() and not (folder / "checkpoints").exists()


def test_the_time_spent_adds_up_over_resumed_parts(forked, options, events, tmp_path):
    settings, folder = options | {"strategy": "full"}, tmp_path / "run"
    forked(folder, settings, hooks=[[[6, 0], 1, "SIGKILL"]])
    forked(folder, settings, resume=True)
    record = json.loads((folder / "foretune.json").read_text())
    steps = events(folder, "step")
    assert record["train"]["steps"] == len(steps)
    assert record["train"]["epochs"] == pytest.approx(settings["epochs"])
    assert steps[6]["examples_per_s"] < 3 * steps[5]["examples_per_s"]  # the clock did not start again at 0


def test_files_that_are_no_run_are_not_written_over(fit, tmp_path, events):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/README.md").write_text("mine")
    with pytest.raises(ConfigError, match="holds files, but no run to go on with"):
        fit(tmp_path / "notes", resume=True)
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["README.md"]
    (tmp_path / "new").mkdir()
    (tmp_path / "new/.gitkeep").write_text("")
    fit(tmp_path / "new", resume=True)
    told = [line["text"] for line in events(tmp_path / "new", "note")]
    assert any(text.startswith("No checkpoint to resume from") for text in told)
