"""A run that is tracked with MLflow, read back with MLflow's own client."""

import json
import os
import subprocess
import sys

import pytest

from foretune.errors import ResourceError, TrainingError

mlflow = pytest.importorskip("mlflow")
QUICK = {"epochs": 2.0, "checkpoint_seconds": 1e6}


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """One database for most tests: to make one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/all.db"


@pytest.fixture
def shared(database, monkeypatch):
    """Let MLFLOW_TRACKING_URI name that database; return a function: run's name -> what MLflow has of it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    return lambda name: tracked(database, name)


def tracked(uri, name):
    """Return the only run of that name, and its client."""
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("foretune").experiment_id
    (found,) = [run for run in client.search_runs([experiment]) if run.info.run_name == name]
    return found, client


def history(run, client, name):
    """Return the value of a metric at every step."""
    return {one.step: one.value for one in client.get_metric_history(run.info.run_id, name)}


def test_everything_arrives(fit, events, tmp_path, monkeypatch):
    """Without MLFLOW_TRACKING_URI it goes into the run's folder, whatever that is called."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "a run #1, é"
    before = mlflow.get_tracking_uri()
    model = fit(folder, trackers=("mlflow",), **QUICK)
    assert mlflow.get_tracking_uri() == before and mlflow.active_run() is None
    assert sorted(path.name for path in tmp_path.iterdir()) == [folder.name]
    assert (folder / "mlflow.db").is_file()
    run, client = tracked(f"sqlite:///{folder}/mlflow.db", folder.name)
    assert run.info.status == "FINISHED"
    (setup,) = events(folder, "setup")
    assert run.data.params == {k: str(v) for k, v in setup.items() if k not in ("event", "time")}
    assert run.data.params["strategy"] == "full" and run.data.params["lr"] == "0.001"
    for kind, name in (("step", "loss"), ("step", "tokens_per_s"), ("evaluation", "accuracy")):
        expected = {line["step"]: line[name] for line in events(folder, kind)}
        assert history(run, client, f"{kind}_{name}") == pytest.approx(expected) and expected
    accuracy = model.record["metrics"]["dev"]["accuracy"]
    found = [run.data.metrics[f"dev_accuracy{end}"] for end in ("", "_low", "_high")]
    assert found == pytest.approx([accuracy[name] for name in ("value", "low", "high")])
    assert run.data.metrics["train_steps"] == model.record["train"]["steps"]


def test_tracking_changes_no_bit_and_takes_no_run_of_the_user(fit, tmp_path, shared):
    fit(tmp_path / "plain", **QUICK)
    with mlflow.start_run(run_name="mine") as mine:
        fit(tmp_path / "tracked", trackers=("mlflow",), **QUICK)
        assert mlflow.active_run().info.run_id == mine.info.run_id
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("plain", "tracked")]
    assert weights[0] == weights[1]
    assert shared("tracked")[0].info.status == "FINISHED"
    assert not (tmp_path / "tracked" / "mlflow.db").exists()


def test_long_runs_arrive_in_several_writes(shared, tmp_path, monkeypatch):
    from foretune.training.track_mlflow import FLUSH_METRICS, MLflow

    sizes, original = [], mlflow.MlflowClient.log_batch

    def log_batch(self, run_id, metrics=(), **rest):
        sizes.append(len(metrics))
        return original(self, run_id, metrics=metrics, **rest)

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", log_batch)
    tracker = MLflow(tmp_path / "long")
    for step in range(1, 701):
        tracker.on("step", {"step": step, "loss": 1 / step, "schedule": 1.0, "name": "no number"})
    tracker.close()
    assert max(sizes) <= FLUSH_METRICS and 2 <= len(sizes) < 100
    found, client = shared("long")
    assert history(found, client, "step_loss") == pytest.approx({n: 1 / n for n in range(1, 701)})
    assert found.info.status == "FAILED"  # it came to no end


def test_how_a_run_ended(fit, stop_at, shared, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "stopped", trackers=("mlflow",), listeners=[stop_at("step", 3)], **QUICK)
    run, client = shared("stopped")
    assert run.info.status == "KILLED"
    assert set(history(run, client, "step_loss")) == {1, 2, 3}
    with pytest.raises(TrainingError, match="not finite"):
        fit(tmp_path / "broken", trackers=("mlflow",), lr=1e30, **QUICK)
    assert shared("broken")[0].info.status == "FAILED"


def test_a_run_outlives_its_tracker(fit, events, shared, tmp_path, monkeypatch):
    def gone(*args, **options):
        raise mlflow.exceptions.MlflowException("the server has gone.\nand more")

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", gone)
    model = fit(tmp_path / "run", trackers=("mlflow",), **QUICK)
    assert model.record["train"]["steps"] == len(events(tmp_path / "run", "step")) > 3
    told = [line["text"] for line in events(tmp_path / "run", "warning")]
    expected = "MLflow cannot be written any more: the server has gone. The run goes on without it."
    assert [text for text in told if "MLflow" in text] == [expected]


def test_a_tracking_server_that_cannot_be_used(fit, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://somewhere")
    with pytest.raises(
        ResourceError, match=r"--track mlflow: nonsense://somewhere cannot be used: .*[^.]\. Ch"
    ):
        fit(tmp_path / "run", trackers=("mlflow",), **QUICK)


@pytest.mark.parametrize(("name", "path"), [("a b#é", "a b#é"), ("100%20?", "100%2520%3F")])
def test_the_address_of_a_database_in_any_folder(tmp_path, name, path):
    from sqlalchemy.engine import make_url

    from foretune.training.track_mlflow import _local

    assert _local(tmp_path / name) == f"sqlite:///{tmp_path}/{path}/mlflow.db"
    assert make_url(_local(tmp_path / name)).database == f"{tmp_path}/{name}/mlflow.db"


GUARDED = """
import json, socket, sys, threading
asked = []
for name in ("connect", "connect_ex"):
    setattr(socket.socket, name, lambda self, address, *rest: asked.append(str(address)) or 1 / 0)
socket.getaddrinfo = lambda *address, **rest: asked.append(str(address)) or 1 / 0
from pathlib import Path
from foretune.training.track_mlflow import MLflow
tracker = MLflow(Path(sys.argv[1]))
tracker.on("step", {"step": 1, "loss": 0.5})
tracker.close()
for thread in threading.enumerate():
    if thread is not threading.current_thread():
        thread.join(5)
print(json.dumps(asked))
"""


def test_no_network_call_is_made(tmp_path, database):
    """MLflow reports its use to its makers unless told not to; in tests and CI it keeps from that by itself."""
    hidden = ("CI", "PYTEST", "GITHUB", "GITLAB", "JENKINS", "MLFLOW", "DO_NOT_TRACK")
    env = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    done = subprocess.run(
        [sys.executable, "-c", GUARDED, str(tmp_path)],
        env={**env, "MLFLOW_TRACKING_URI": database}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []
