"""The Python API: `fit` and `load`. Every command of the command line is one call of these."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foretune import artifact
from foretune.assemble import assemble, load_backbone
from foretune.errors import ConfigError, did_you_mean
from foretune.model import Model
from foretune.prepare import Prepared, prepare, source_name
from foretune.recipe import Recipe
from foretune.strategies.base import STRATEGIES
from foretune.training import machine
from foretune.training.checkpoint import Checkpoints
from foretune.training.events import Listener, check_trackers
from foretune.training.inference import Runtime
from foretune.training.job import Job
from foretune.training.loop import Loop
from foretune.training.signals import stop_on_signals
from foretune.training.state import Progress


def fit(
    data: Any,
    *,
    dev: Any = None,
    test: Any = None,
    output: str | Path | None = None,
    resume: bool = False,
    recipe: Recipe | str | Path | None = None,
    listeners: Sequence[Listener] = (),
    **options: Any,
) -> Model:
    """Fine-tune a backbone on labelled data and return the evaluated, saved model.

    `data`, `dev` and `test` are a path (csv, tsv, jsonl, parquet, also .gz), a DataFrame, a
    `datasets.Dataset`, a list of dicts or a hub id; without `dev` (and `test`) parts of `data` are held
    out. `options` are entries of the `Recipe` and override those of `recipe`. The artefact is written to
    `output` (default: a new folder below `runs`); `resume` goes on with a run that was stopped there.
    Raises subclasses of `ForetuneError`; nothing is written before data and options are checked.
    """
    started = time.perf_counter()
    plan = _recipe(recipe).with_changes(**options)
    check_trackers(plan.trackers)
    folder = _folder(data, output, resume, plan)
    import_strategies()
    strategy = STRATEGIES[plan.strategy](plan.options)
    prepared = prepare(data, dev, test, plan)
    metric = _metric(plan, prepared)
    asked = _asked(plan, prepared)
    if resume and (folder / artifact.RECORD).exists():
        return _finished(folder, plan, asked)
    found = _found(folder, resume)
    runtime = _runtime(plan, found)
    backbone = load_backbone(plan, prepared)
    kept = found.get("events_bytes")
    job = assemble(plan, prepared, metric, runtime, backbone, strategy, folder, listeners, kept)
    try:
        with stop_on_signals() as stop:
            progress = Loop(job, stop).run(resume)
        return _finish(job, prepared, progress, started, asked)
    finally:
        job.events.close()


def load(path: str | Path, *, device: str = "auto", precision: str = "fp32") -> Model:
    """Return the model that `fit` saved in `path`. Raises ArtifactError where it is not whole."""
    machine.set_threads()
    return artifact.load(path, device=device, precision=precision)


def import_strategies() -> None:
    """Import the files that register strategies."""
    import foretune.strategies.full
    import foretune.strategies.linear_probe  # noqa: F401


def _recipe(given: Recipe | str | Path | None) -> Recipe:
    if isinstance(given, Recipe):
        return given
    return Recipe() if given is None else Recipe.read(given)


def _folder(data: Any, output: str | Path | None, resume: bool, recipe: Recipe) -> Path:
    """Return the run's folder. Raises ConfigError where it holds something already."""
    if output is None:
        if resume:
            raise ConfigError("--resume needs --output: the folder of the run that was stopped.")
        names = (Path("runs") / f"{source_name(data)}-{recipe.strategy}{suffix}" for suffix in _suffixes())
        return next(name for name in names if not name.exists())
    folder = Path(output).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--output {folder} is a file. Give a folder.")
    if folder.is_dir() and any(folder.iterdir()) and not resume:
        raise ConfigError(
            f"--output {folder} is not empty. To go on with a run stopped there add --resume; else give another."
        )
    return folder


def _suffixes() -> Any:
    yield ""
    number = 2
    while True:
        yield f"-{number}"
        number += 1


def _metric(recipe: Recipe, prepared: Prepared) -> str:
    """Return the metric that selects the best weights, checked against those that will exist."""
    task = prepared.task
    if recipe.metric is None:
        return task.default_metric
    if recipe.metric not in task.metrics:
        known = ", ".join(task.metrics)
        hint = did_you_mean(recipe.metric, task.metrics)
        raise ConfigError(f"Unknown metric {recipe.metric!r} for {task.name}.{hint} Known: {known}.")
    return recipe.metric


def _found(folder: Path, resume: bool) -> dict[str, Any]:
    """Return the plain values of the checkpoint that a resumed run will start from, or nothing."""
    found, _ = Checkpoints(folder / "checkpoints").newest() if resume else (None, [])
    return {} if found is None else found.values


def _runtime(recipe: Recipe, found: dict[str, Any]) -> Runtime:
    """Return device and precision; a resumed run keeps the precision that was measured to be best before."""
    machine.set_threads()
    machine.keep_freed_memory()
    device = machine.pick_device(recipe.device)
    wanted = found.get("precision", recipe.precision) if recipe.precision == "auto" else recipe.precision
    return Runtime(device, machine.pick_precision(wanted, device))


def _asked(recipe: Recipe, prepared: Prepared) -> str:
    """Return a hash (hex) of what the user asked for: options and data."""
    parts = [recipe.deciding().to_toml(), json.dumps(prepared.fingerprints)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _finished(folder: Path, recipe: Recipe, asked: str) -> Model:
    """Return the model of a run that had ended. Raises ConfigError where it was another run."""
    model = artifact.load(folder, device=recipe.device)
    if model.record.get("asked") not in (None, asked):
        raise ConfigError(
            f"{folder} holds the finished model of a run with other data or options. Resume with the same command, "
            "or give another --output."
        )
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # a kill may have come just before their end
    return model


def _finish(job: Job, prepared: Prepared, progress: Progress, started: float, asked: str) -> Model:
    """Evaluate, save, report; then delete the checkpoints."""
    from foretune.outcome import outcome

    job.strategy.finish(job.backbone)
    job.backbone.fold_embeddings()
    job.backbone.model.eval()
    model = Model(job.backbone, job.task, job.recipe, job.runtime, {"asked": asked}, None)
    outcome(model, job, prepared, progress, started)
    shutil.rmtree(job.checkpoints_folder, ignore_errors=True)
    job.events.emit("end", output=str(job.folder), result=result(model))
    return model


def result(model: Model) -> dict[str, Any]:
    """Return the outcome of a fit as the object that `--json` prints."""
    record = model.record
    return {
        "task": model.task.name,
        **{key: record[key] for key in ("backbone", "strategy", "metrics", "baselines", "train")},
        "output": str(model.path),
    }
