"""What happens in a run, told to whoever listens: a file, a display, TensorBoard, MLflow."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, Protocol

from foretune.errors import ConfigError
from foretune.training.files import disk_errors


class Listener(Protocol):
    """Something that is told of events; it must not change the run."""

    def on(self, kind: str, values: dict[str, Any]) -> None:
        """Take one event: note, warning, setup, start, step, evaluation, sample, checkpoint, trained, end."""

    def close(self) -> None:
        """Finish."""


class TrackerLostError(Exception):
    """A tracker can no longer write: a reason to go on without it, not to stop the run."""


class Events:
    """A list of listeners."""

    def __init__(self, listeners: list[Listener] | None = None) -> None:
        self.listeners = list(listeners or [])

    def emit(self, kind: str, **values: Any) -> None:
        """Tell every listener, and go on with a warning without a tracker that is lost."""
        for listener in list(self.listeners):
            try:
                listener.on(kind, values)
            except TrackerLostError as error:
                self.listeners.remove(listener)
                self.emit("warning", text=str(error))

    def close(self) -> None:
        """Close every listener."""
        for listener in self.listeners:
            listener.close()


class JsonLines:
    """Append events to a file, one JSON object a line, written at once."""

    def __init__(self, path: Path, keep_bytes: int | None = None) -> None:
        """Open `path`; on resume, cut it to `keep_bytes`, what it held at the checkpoint. Raises ResourceError."""
        self.path = path
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if keep_bytes is not None and path.exists() and path.stat().st_size > keep_bytes:
                os.truncate(path, keep_bytes)
            self._file = path.open("wb" if keep_bytes is None else "ab", buffering=0)

    def on(self, kind: str, values: dict[str, Any]) -> None:
        """Write one line. Raises ResourceError."""
        line = {"event": kind, "time": round(time.time(), 3), **values}
        data = (json.dumps(line, ensure_ascii=False, default=str) + "\n").encode("utf-8", "replace")
        with disk_errors(self.path):
            while data:  # a nearly full disk takes a part of it
                data = data[self._file.write(data) :]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TensorBoard:
    """Write scalars for TensorBoard (extra `tensorboard`)."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def on(self, kind: str, values: dict[str, Any]) -> None:
        """Write the numbers of steps and evaluations."""
        if kind in ("step", "evaluation"):
            for name, value in scalars(values).items():
                self._writer.add_scalar(f"{kind}/{name}", value, values["step"])

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


def check_trackers(names: tuple[str, ...]) -> None:
    """Raise ConfigError where a tracker's package is missing."""
    from importlib.util import find_spec

    for name in names:
        found = find_spec(name)
        if found is None or found.origin is None:  # a folder of that name alone is no package
            raise ConfigError(f"--track {name} needs: pip install 'foretune[{name}]'")


def trackers(names: tuple[str, ...], folder: Path) -> list[Listener]:
    """Return the listeners that the recipe asks for, after `check_trackers`."""
    from foretune.training.track_mlflow import MLflow

    made: list[Listener] = []
    for name in names:
        made.append(TensorBoard(folder / "tensorboard") if name == "tensorboard" else MLflow(folder))
    return made


def scalars(values: dict[str, Any]) -> dict[str, float]:
    """Return the numbers among `values` but for the step, as floats."""
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and name != "step" and not isinstance(value, bool)
    }
