"""Forks one process per run and says how it ended: real processes to kill, without an import each time.

Reads one JSON object a line: {"data", "output", "options", "resume", "hooks": [[where, number, signal]]}. A
hook sends its own process a signal at the n-th time that it comes to a place.
"""

import contextlib
import json
import os
import signal
import sys
import time
from importlib import import_module
from pathlib import Path

from foretune import api, outcome
from foretune.strategies.base import STRATEGIES, Phase, Settings, Strategy, layerwise_groups
from foretune.tasks.text_classification import TextClassification
from foretune.training import checkpoint, files, machine, step
from foretune.training import loop as loop_module
from foretune.training.flops import FlopModel


@STRATEGIES.register("head-then-all")
class HeadThenAll(Strategy):
    """Two phases, as gradual unfreezing has them; the first starts from the cache."""

    name, about = "head-then-all", "for tests"

    def defaults(self, workload):
        return Settings(lr=1e-3, epochs=3, batch_tokens=120)

    def phases(self, backbone, settings, recipe):
        groups = layerwise_groups(backbone, settings, recipe.weight_decay)
        head = set(backbone.layers.head())
        first = tuple(group for group in groups if head.issuperset(group.names))
        return [Phase("head", 0.55 * settings.epochs, first), Phase("all", 0.45 * settings.epochs, groups)]


class Countdown:
    """Sends the own process a signal at the n-th call."""

    def __init__(self, number, kind):
        self.left, self.signal = number, getattr(signal, kind)

    def tick(self):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.signal)
            time.sleep(0.02)


def before(owner, name, countdown):
    """Count down each time before the function is called."""
    original = getattr(owner, name)

    def wrapper(*args, **options):
        countdown.tick()
        return original(*args, **options)

    setattr(owner, name, wrapper)


PLACES = {
    "micro": (step.Stepper, "_count"),  # after a backward pass
    "update": (step.Stepper, "_update"),
    "save": (loop_module.Loop, "_save"),
    "prune": (checkpoint.Checkpoints, "_prune"),
    "best": (checkpoint.Checkpoints, "save_best"),
    "predict": (loop_module, "predict"),
    "sync": (files, "sync"),
    "rename": (Path, "rename"),
    "replace": (os, "replace"),
    "outcome": (outcome, "outcome"),
    "report": (outcome, "write_report"),
}


def after_pause(place, countdown):
    """Count down at a safe point of given (step, micro), after what is saved there."""
    original = loop_module.Loop._pause

    def wrapper(loop):
        original(loop)
        if [loop.state.step, loop.state.micro] == place:
            countdown.tick()

    loop_module.Loop._pause = wrapper


def run(job):
    """Run one job in this process."""
    machine.gemm_peak = lambda *args, **options: 1e9
    loop_module.fit_flops = lambda *args: FlopModel(1.0, 0.0, 0.0)
    TextClassification.baselines = lambda *args, **options: {}
    outcome.write_report = lambda path, data: path.write_text("report")
    for where, number, kind in job.get("hooks", []):
        if isinstance(where, list):
            after_pause(where, Countdown(number, kind))
        else:
            before(*PLACES[where], Countdown(number, kind))
    data = json.loads(Path(job["data"]).read_text())
    api.fit(data, output=job["output"], resume=job.get("resume", False), **job["options"])


def child(job):
    """Run a job, write how it ended beside its output, and leave."""
    error = None
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        run(job)
    except BaseException as caught:
        error = f"{type(caught).__name__}: {caught}"
    Path(job["output"] + ".error").write_text(json.dumps(error))
    os._exit(1 if error else 0)


# Imported once here instead of in every fork.
WARM = (
    "pandas",
    "foretune.backbones.text",
    "foretune.strategies.full",
    "transformers.models.bert.modeling_bert",
)


def main():
    """Serve until the input ends."""
    for name in WARM:
        import_module(name)
    with contextlib.suppress(ImportError, AttributeError):  # filled once, a second each
        from transformers.conversion_mapping import get_checkpoint_conversion_mapping

        get_checkpoint_conversion_mapping("bert")
    for line in sys.stdin:
        job = json.loads(line)
        error = Path(job["output"] + ".error")
        error.unlink(missing_ok=True)
        process = os.fork()
        if process == 0:
            child(job)
        _, status = os.waitpid(process, 0)
        found = json.loads(error.read_text()) if error.exists() else None
        print(json.dumps({"code": os.waitstatus_to_exitcode(status), "error": found}), flush=True)


if __name__ == "__main__":
    main()
