"""The Python API: `fit` and `load`. Every command of the command line is one call of these."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from foretune import artifact
from foretune.assemble import assemble, load_backbone, with_backbone
from foretune.errors import ConfigError
from foretune.forecast.plan import Plan, duration, parse_bytes, parse_duration
from foretune.model import Model
from foretune.planning_candidates import is_plannable
from foretune.planning_cost import TRAINING
from foretune.prepare import Prepared, metric_of, prepare, sample_words, sampled, source_name
from foretune.recipe import Recipe
from foretune.strategies import import_strategies
from foretune.strategies.base import make_strategy
from foretune.training import machine
from foretune.training.checkpoint import Checkpoints, Found
from foretune.training.events import Listener, check_trackers
from foretune.training.files import holds_others
from foretune.training.inference import Runtime
from foretune.training.job import Job
from foretune.training.loop import Loop
from foretune.training.signals import stop_on_signals
from foretune.training.state import Progress

PLAN = "plan.json"  # in a run's folder: what it was forecast to reach
RUN_FILES = ("events.jsonl", "checkpoints", artifact.RECORD)  # one of them is there from its beginning on
LATE = 1.05  # of a budget: what takes longer is told
CLOSING = ("evaluation", "baselines", "saving", "report")  # parts of a forecast that come after training

MEASURED_PER_SECOND, FEWEST_MEASURED = 10, 200  # rows split off for dev, and for test, under a budget


def fit(
    data: Any,
    *,
    dev: Any = None,
    test: Any = None,
    output: str | Path | None = None,
    resume: bool = False,
    recipe: Recipe | str | Path | None = None,
    plan: Plan | str | Path | None = None,
    budget: float | str | None = None,
    spent: float = 0.0,
    listeners: Sequence[Listener] = (),
    **options: Any,
) -> Model:
    """Fine-tune a backbone on labelled data and return the evaluated, saved model.

    `data`, `dev` and `test` are a path (csv, tsv, jsonl, parquet, also .gz), a DataFrame, a
    `datasets.Dataset`, a list of dicts or a hub id; without `dev` (and `test`) parts of `data` are held
    out. `options` are entries of the `Recipe` and override those of `recipe`. The artefact is written to
    `output` (default: a new folder below `runs`); `resume` goes on with a run that was stopped there.

    `plan` (from `foretune.plan`, or its file) names backbone and strategy. `budget` is wall-clock for everything
    (seconds, or "10m"): without `plan` what `options` leave open of backbone, strategy and rows is planned first, and
    training stops in time for evaluation and saving; `spent` seconds of it passed before the call.
    Raises subclasses of `ForetuneError`; nothing is written before data and options are checked.
    """
    started = time.perf_counter() - spent
    limit = None if budget is None else parse_duration(budget)
    given = _measured_within(_recipe(recipe).with_changes(**options), limit)
    check_trackers(given.trackers)
    if output is not None:
        _folder(data, output, resume, given)  # before a plan is made in vain
    import_strategies()
    asked_plan = _plan_of(plan, output)
    if asked_plan is not None:  # its split
        given = given.with_changes(held_out_rows=asked_plan.held_out_rows, rows=given.rows or asked_plan.rows)
    began = time.perf_counter()
    prepared = prepare(data, dev, test, given)
    read = time.perf_counter() - began
    if asked_plan is None:  # a plan names one
        given = with_backbone(given, prepared.task.name, _open(recipe, options))
    left_open = _open(recipe, options)
    if limit is not None and asked_plan is not None:
        _check_time(asked_plan, given, limit, started, left_open)
    elif limit is not None and (left_open or is_plannable(prepared)):
        asked_plan = _budget_plan(given, prepared, left_open, limit, started, read, listeners)
    planning = time.perf_counter() - began - read  # no part of what the plan forecasts
    chosen = given if asked_plan is None else _follow(given, asked_plan, prepared, left_open)
    if chosen.rows is not None and given.rows is None:
        prepared = _fewer(prepared, chosen)
    folder = _folder(data, output, resume, chosen)
    strategy = make_strategy(chosen.strategy, chosen, prepared.task)
    metric = metric_of(chosen, prepared.task)
    asked = _asked(chosen, prepared)
    if resume and (folder / artifact.RECORD).exists():
        return _finished(folder, chosen, asked)
    found = _found(folder, resume)
    kept = {} if found[0] is None else found[0].values
    runtime = _runtime(chosen, kept)
    backbone = load_backbone(chosen, prepared)
    job = assemble(
        chosen, prepared, metric, runtime, backbone, strategy, folder, listeners, kept.get("events_bytes")
    )
    job = replace(job, began=started + planning)
    if limit is not None:
        job = replace(job, deadline=started + limit, closing=_closing(asked_plan, job, prepared))
    if asked_plan is not None:
        asked_plan.save(folder / PLAN)
    if resume and found == (None, []):
        job.events.emit("note", text=f"No checkpoint to resume from in {folder}: the run begins anew.")
    try:
        with stop_on_signals() as stop:
            loop = Loop(job, stop, found if resume else None)
            del found  # the loop lets go of it, too
            progress = loop.run()
        return _finish(job, prepared, progress, (started, planning), asked, asked_plan)
    finally:
        job.events.close()


def plan(
    data: Any,
    *,
    dev: Any = None,
    test: Any = None,
    backbones: Sequence[str] | str = "auto",
    strategies: Sequence[str] | str = "auto",
    budget: float | str | None = None,
    memory: int | str | None = None,
    goal: str = "accuracy",
    target_score: float | None = None,
    pilots: int = 0,
    recipe: Recipe | str | Path | None = None,
    tell: Callable[[str], None] = lambda text: None,
    **options: Any,
) -> Plan:
    """Return a plan: each backbone and strategy with the score, time, memory and disk that a fit would take.

    Nothing is trained but pilots. `backbones` and `strategies` are names or "auto": the backbones that need no
    download, every strategy. `budget` (seconds or "10m") and `memory` (bytes or "8GB") leave out what exceeds them;
    `goal` is "accuracy", "speed" or "size". `pilots`: so many of the leading candidates that the forecast does not tell
    apart are tried on a few hundred rows. `target_score` asks how many labels it would need. `tell` is called with
    what is being done. Raises subclasses of `ForetuneError`.
    """
    from foretune.planning import make_plan

    started = time.perf_counter()
    limit = None if budget is None else parse_duration(budget)
    given = _measured_within(_recipe(recipe).with_changes(**options), limit)
    prepared = prepare(data, dev, test, given)
    read = time.perf_counter() - started
    named = _names(backbones)
    if named is None:
        given = with_backbone(given, prepared.task.name, _open(recipe, options))
    return make_plan(
        None, None, None, given, backbones=named, strategies=_names(strategies), budget=limit,
        memory=None if memory is None else parse_bytes(memory), goal=goal, target_score=target_score,
        tell=tell, started=started, prepared=prepared, prepare_seconds=read, pilots=pilots,
    )  # fmt: skip


def _measured_within(recipe: Recipe, limit: float | None) -> Recipe:
    """Return the recipe with no more rows split off than can be scored in a small part of `limit` seconds."""
    if limit is None or recipe.held_out_rows is not None:
        return recipe
    return recipe.with_changes(held_out_rows=max(int(MEASURED_PER_SECOND * limit), FEWEST_MEASURED))


def _names(given: Sequence[str] | str | None) -> list[str] | None:
    """Return the names in a list or in a text with commas; None for "auto". Raises ConfigError."""
    if given is None:
        return None
    if isinstance(given, str):
        return (
            None if given.strip() == "auto" else [part.strip() for part in given.split(",") if part.strip()]
        )
    if not isinstance(given, Sequence) or not all(isinstance(name, str | Path) for name in given):
        raise ConfigError(f'backbones or strategies are {given!r}; expected a list of names, or "auto".')
    return [str(name) for name in given]


def _open(recipe: Recipe | str | Path | None, options: dict[str, Any]) -> set[str]:
    """Return which of backbone and strategy the user left open."""
    base = _recipe(recipe)
    return {name for name in ("backbone", "strategy") if name not in options and not base.names(name)}


def _plan_of(plan: Plan | str | Path | None, output: str | Path | None) -> Plan | None:
    """Return the plan that is given, or that a resumed run began with."""
    if isinstance(plan, Plan):
        return plan
    if not isinstance(plan, str | Path | None):
        raise ConfigError(
            f"plan is a {type(plan).__name__}; expected what foretune.plan returned, or the file of a plan."
        )
    if plan is not None:
        return Plan.read(plan)
    kept = None if output is None else Path(output).expanduser() / PLAN
    return Plan.read(kept) if kept is not None and kept.is_file() else None


def _budget_plan(
    recipe: Recipe,
    prepared: Prepared,
    left_open: set[str],
    limit: float,
    started: float,
    read: float,
    listeners: Sequence[Listener],
) -> Plan:
    """Plan what the user left open, for a fit that ends `limit` seconds after `started`; `read`: seconds of reading."""
    from foretune.planning import make_plan

    def tell(text: str) -> None:
        for listener in listeners:
            listener.on("note", {"text": f"Planning: {text}."})

    return make_plan(
        None, None, None, recipe, backbones=None if "backbone" in left_open else [recipe.backbone],
        strategies=None if "strategy" in left_open else [recipe.strategy], budget=limit, memory=None, goal="accuracy",
        target_score=None, tell=tell, started=started, prepared=prepared, prepare_seconds=read, inside=True,
        cut=not left_open,
    )  # fmt: skip


def _check_time(plan: Plan, recipe: Recipe, limit: float, started: float, left_open: set[str]) -> None:
    """Raise ConfigError where a plan says that the rest of a budget does not even suffice without any training."""
    chosen = _named_by(plan, recipe, left_open)
    own = plan.candidate(chosen.backbone, chosen.strategy)
    if own is None:
        return
    left = limit - (time.perf_counter() - started)
    needs = sum(own.parts[name] for name in own.parts if name not in (*TRAINING, "loading"))
    if needs > left:
        raise ConfigError(
            f"Without any training {own.backbone} with {own.strategy} needs {duration(needs)}, more than the "
            f"{duration(max(left, 0.0))} that are left of the budget. The plan says {duration(own.seconds)} for all."
        )


def _named_by(plan: Plan, recipe: Recipe, left_open: set[str]) -> Recipe:
    """Return the recipe with backbone and strategy of the plan's best where the user left them open."""
    return recipe.with_changes(**{name: getattr(plan.best, name) for name in left_open})


def _follow(recipe: Recipe, plan: Plan, prepared: Prepared, left_open: set[str]) -> Recipe:
    """Return the recipe with the plan's choice where the user left it open. Raises ConfigError for other data."""
    if plan.data != prepared.fingerprints["train"]:
        raise ConfigError(
            "The plan was made for other training data, or another split of them. Give the options it was made with "
            "(such as --target, --seed, --dev, --test), or make one for these: foretune plan DATA."
        )
    chosen = _named_by(plan, recipe, left_open)
    own = plan.candidate(chosen.backbone, chosen.strategy) or plan.best
    return chosen if own.rows is None or chosen.rows is not None else chosen.with_changes(rows=own.rows)


def _fewer(prepared: Prepared, recipe: Recipe) -> Prepared:
    """Return the data with the training rows that a plan had time for, and say so."""
    fewer = sampled(prepared, recipe.rows or len(prepared.train), recipe.seed)
    fewer.warnings.append(f"{sample_words(fewer)}, as the budget allows: drawn with seed {recipe.seed}.")
    return fewer


def _closing(plan: Plan | None, job: Job, prepared: Prepared) -> float:
    """Return the seconds expected after training: evaluation, baselines, saving; measured where no plan says so."""
    from foretune.forecast.cost import forecast_cost

    own = None if plan is None else plan.candidate(job.recipe.backbone, job.strategy.name)
    parts = forecast_cost(job, prepared, limit_seconds=1.0).parts if own is None else own.parts
    return sum(parts.get(name, 0.0) for name in CLOSING)


def load(path: str | Path, *, device: str = "auto", precision: str = "fp32") -> Model:
    """Return the model that `fit` saved in `path`. Raises ArtifactError where it is not whole."""
    machine.set_threads()
    return artifact.load(path, device=device, precision=precision)


def _recipe(given: Recipe | str | Path | None) -> Recipe:
    if isinstance(given, Recipe):
        return given
    if not isinstance(given, str | Path | None):
        raise ConfigError(
            f"recipe is a {type(given).__name__}; expected a foretune.Recipe or its file. Give its entries as keyword "
            "arguments: fit(data, epochs=2, …)."
        )
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
    if resume and holds_others(folder, RUN_FILES):
        raise ConfigError(
            f"--output {folder} holds files, but no run to go on with. Give the folder of the run that was stopped, "
            "or a new one: files there may be overwritten."
        )
    return folder


def _suffixes() -> Any:
    yield ""
    number = 2
    while True:
        yield f"-{number}"
        number += 1


def _found(folder: Path, resume: bool) -> Found:
    """Return the newest whole checkpoint that a resumed run will start from, and warnings of damaged ones."""
    return Checkpoints(folder / "checkpoints").newest() if resume else (None, [])


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


def _finish(
    job: Job,
    prepared: Prepared,
    progress: Progress,
    clock: tuple[float, float],
    asked: str,
    plan: Plan | None,
) -> Model:
    """Evaluate, save, report; then delete the checkpoints. `clock`: when the fit began, seconds spent on planning."""
    from foretune.outcome import outcome

    job.strategy.finish(job.backbone)
    job.task.finish(job.backbone)
    job.backbone.fold_embeddings()
    job.backbone.model.eval()
    model = Model(job.backbone, job.task, job.recipe, job.runtime, {"asked": asked}, None)
    outcome(model, job, prepared, progress, *clock, plan)
    shutil.rmtree(job.checkpoints_folder, ignore_errors=True)
    limit, took = (
        (math.inf if job.deadline is None else job.deadline) - clock[0],
        time.perf_counter() - clock[0],
    )
    if took > LATE * limit:
        text = f"The budget of {duration(limit)} was not kept: everything took {duration(took)}."
        job.events.emit("warning", text=text)
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
