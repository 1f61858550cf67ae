"""Tells MLflow of a run: the setup as params, steps, evaluations and the result as metrics."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from foretune.errors import Interrupted, ResourceError
from foretune.training.events import TrackerLostError, scalars

FLUSH_SECONDS = 5.0  # between writes: one takes longer than many a step
FLUSH_METRICS = 1000  # at most in one write, a limit of MLflow


class MLflow:
    """A listener that logs to MLflow (extra `mlflow`).

    It goes where MLFLOW_TRACKING_URI or `mlflow.set_tracking_uri` says, else to `mlflow.db` in the run's
    folder, as a run of its own whatever run is active. Raises ResourceError where that cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        # Read when mlflow is imported: by default it reports its use to its makers over the network.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow

        uri = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else _local(folder)
        self._waiting: list[Any] = []
        self._flushed, self._ended = time.monotonic(), False
        try:
            with _silent("mlflow", "alembic"):
                self._client = mlflow.MlflowClient(tracking_uri=uri)
                self._run = self._client.create_run(self._experiment(), run_name=folder.name).info.run_id
        except Exception as error:  # of many kinds: the server's, the network's, the database's
            raise ResourceError(
                f"--track mlflow: {uri} cannot be used: {_reason(error)}. Check MLFLOW_TRACKING_URI, or leave "
                "--track out."
            ) from error

    def _experiment(self) -> str:
        """Return the id of the experiment, made where it is not there."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "foretune")
        found = self._client.get_experiment_by_name(name)
        return found.experiment_id if found else self._client.create_experiment(name)

    def on(self, kind: str, values: dict[str, Any]) -> None:
        """Take one event. Raises TrackerLostError where MLflow cannot be written any more."""
        try:
            if kind == "setup":
                self._params(values)
            elif kind in ("step", "evaluation"):
                self._metrics({f"{kind}_{name}": v for name, v in scalars(values).items()}, values["step"])
            elif kind == "end":
                self._metrics(_result(values["result"]), step=0)
                self._flush()
                self._ended = True
        except Exception as error:
            raise TrackerLostError(
                f"MLflow cannot be written any more: {_reason(error)}. The run goes on without it."
            ) from error

    def _params(self, values: dict[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(name, str(value)) for name, value in values.items()]
        self._client.log_batch(self._run, params=params)

    def _metrics(self, values: dict[str, float], step: int) -> None:
        """Keep numbers, and write what is kept when it is time."""
        from mlflow.entities import Metric

        now = round(time.time() * 1000)  # milliseconds
        self._waiting += [Metric(name, value, now, step) for name, value in values.items()]
        due = time.monotonic() - self._flushed >= FLUSH_SECONDS
        if due or len(self._waiting) >= FLUSH_METRICS // 2:
            self._flush()

    def _flush(self) -> None:
        while self._waiting:
            self._client.log_batch(self._run, metrics=self._waiting[:FLUSH_METRICS])
            del self._waiting[:FLUSH_METRICS]
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Write what is left and end the run: FINISHED, or how it came to an early end."""
        stopped = isinstance(sys.exception(), KeyboardInterrupt | Interrupted)
        status = "FINISHED" if self._ended else "KILLED" if stopped else "FAILED"
        with suppress(Exception):  # the run's own outcome is what counts
            self._flush()
            self._client.set_terminated(self._run, status)


def _local(folder: Path) -> str:
    """Return the address of a database in `folder`; quoted is only what would else end or change the path."""
    path = str(folder.resolve() / "mlflow.db").replace("%", "%25").replace("?", "%3F")
    return f"sqlite:///{path}"


@contextmanager
def _silent(*names: str) -> Iterator[None]:
    """Keep the loggers of these names to warnings."""
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _reason(error: Exception) -> str:
    """Return the first line of a message, without its last stop."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _result(result: dict[str, Any]) -> dict[str, float]:
    """Return the result of a fit as flat numbers: test_accuracy, test_accuracy_low, train_seconds …"""
    flat = {f"train_{name}": value for name, value in scalars(result["train"]).items()}
    for split, metrics in result["metrics"].items():
        for metric, found in metrics.items():
            flat |= {
                f"{split}_{metric}{'' if k == 'value' else '_' + k}": v for k, v in scalars(found).items()
            }
    return flat
