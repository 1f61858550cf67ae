"""What is measured and written after training: metrics, baselines, the artefact, the report."""

from __future__ import annotations

import hashlib
import math
import platform
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

import foretune
from foretune import artifact
from foretune.evaluation.report import ReportData, write_report
from foretune.evaluation.written import sample_sections
from foretune.forecast import ledger
from foretune.forecast.records import Outcome, Promise
from foretune.prepare import target_option
from foretune.recipe import CUTS
from foretune.training import machine
from foretune.untuned import untuned

if TYPE_CHECKING:
    from foretune.forecast.plan import Choice, Plan
    from foretune.model import Model
    from foretune.prepare import Prepared
    from foretune.training.job import Job
    from foretune.training.state import Progress

MISTAKES = 30
LENGTHS = ("tokens", "frames")  # units of which an example has many


def outcome(
    model: Model,
    job: Job,
    prepared: Prepared,
    progress: Progress,
    started: float,
    planning: float,
    plan: Plan | None = None,
) -> None:
    """Fill `model.record`, save the artefact and write report.html into the job's folder.

    `planning`: seconds since `started` that went on a plan, which are no part of what it forecast. Where nothing is
    held out there are no metrics, no baselines and no report. Time before a stop and a resumption counts.
    """
    clock = time.perf_counter()
    prepared.notes.extend(model.tune(prepared.dev, job.dev_set) if prepared.dev is not None else [])
    results, mistakes = _scores(model, job, prepared)
    split, held_out = prepared.held_out or (None, None)
    baselines = {} if held_out is None else model.task.baselines(prepared.train, held_out, job.recipe.seed)
    if held_out is not None and model.task.scores_untuned:
        baselines |= {"untuned": untuned(job, prepared, held_out)}
    evaluated = time.perf_counter() - clock
    model.record |= {
        "title": f"{job.backbone.name} on {prepared.name}",
        "backbone": job.recipe.backbone,
        "strategy": job.strategy.name,
        "metrics": {name: _scalars(model, result) for name, result in results.items()},
        "details": {
            name: {key: value for key, value in result.items() if key not in model.task.metrics}
            for name, result in results.items()
        },
        "baselines": baselines,
        "baselines_on": split,
        "train": _training(job, progress),
        "data": _data(prepared),
        "environment": {**machine.environment(), "device": job.runtime.device.type},
        "warnings": list(prepared.warnings),
    }
    seen = held_out or prepared.train
    probes = replace(seen.take(np.arange(min(artifact.PROBES, len(seen)))), targets=None)
    model.record["timings"] = {
        "evaluation_seconds": evaluated,
        "planning_seconds": planning,
        "total_seconds": progress.earlier + time.perf_counter() - started,
    }
    choice = None if plan is None else _forecast_of(job, plan, progress)
    if choice is not None and results:
        model.record["forecast"] = held_to(choice, model.record, job.metric)
    if results:  # before the artefact, whose record marks the run as finished
        write_report(job.folder / "report.html", _report(model, job, prepared, progress, results, mistakes))
    artifact.save(model, job.folder, probes)
    if held_out is not None and model.task.forecasts:
        note = ledger.record(_entry(model, job, prepared, choice, progress.cut_short))
        if note is not None:
            job.events.emit("warning", text=note)


def _forecast_of(job: Job, plan: Plan, progress: Progress) -> Choice | None:
    """Return what the plan says of this very fit; None, with a note, where it is of other rows, metric or settings."""
    choice = plan.candidate(job.recipe.backbone, job.strategy.name)
    if choice is None:
        return None
    if progress.cut_short:
        text = f"The budget ended training at step {progress.step:,}: forecast and outcome are not compared."
        job.events.emit("note", text=text)
        return None
    other = sorted(name for name in {*job.tuned, *plan.tuned} if job.tuned.get(name) != plan.tuned.get(name))
    if other:
        text = f"The plan was made with other settings ({', '.join(other)}): forecast and outcome are not compared."
        job.events.emit("note", text=text)
        return None
    planned = plan.sizes["train"] if choice.rows is None else choice.rows
    trained = len(job.train) if choice.rows is None else job.recipe.rows
    if (choice.metric, planned) == (job.metric, trained):
        return choice
    text = f"The plan forecast {choice.metric} with {planned:,} rows: forecast and outcome are not compared."
    job.events.emit("note", text=text)
    return None


def held_to(choice: Choice, record: dict[str, Any], metric: str) -> dict[str, Any]:
    """Return forecast and outcome side by side: score, seconds, memory (bytes)."""
    score = record["metrics"][record["baselines_on"]][metric]["value"]
    return {
        "metric": metric,
        "score": {**_promised_score(choice), "outcome": score},
        "inside": None if math.isnan(choice.value) else choice.low <= score <= choice.high,
        "seconds": {"forecast": choice.seconds, "outcome": _own_seconds(record)},
        "peak_memory_bytes": {
            "forecast": choice.peak_memory_bytes, "outcome": record["train"]["peak_memory_bytes"]
        },
    }  # fmt: skip


def _own_seconds(record: dict[str, Any]) -> float:
    """Return the seconds of the fit itself, without those of planning."""
    return float(record["timings"]["total_seconds"] - record["timings"]["planning_seconds"])


def _promised_score(choice: Choice) -> dict[str, float | None]:
    """Return the forecast score and its interval; None where there was none."""
    found = {"forecast": choice.value, "low": choice.low, "high": choice.high}
    return {name: None if math.isnan(value) else value for name, value in found.items()}


def _entry(
    model: Model, job: Job, prepared: Prepared, choice: Choice | None, cut_short: bool = False
) -> Outcome:
    """Return the ledger's line of this run: numbers, names of models and fingerprints."""
    record, held_out = model.record, prepared.held_out
    assert held_out is not None
    known = {} if choice is None else choice.known
    promise = None
    if choice is not None and math.isfinite(choice.seconds) and not math.isnan(choice.value):
        promise = Promise(value=choice.value, low=choice.low, high=choice.high, seconds=choice.seconds)
    return Outcome(
        data=prepared.fingerprints["train"], task=job.task.name, n=len(job.train),
        classes=int(job.task.model_options().get("num_labels", 0)), tokens=float(job.train_store.lengths.mean()),
        backbone=job.recipe.backbone, backbone_fingerprint=job.backbone.fingerprint(), strategy=job.strategy.name,
        metric=job.metric, n_test=len(held_out[1]), predictors=known.get("predictors", {}),
        score=record["metrics"][held_out[0]][job.metric]["value"], seconds=_own_seconds(record),
        peak_memory_bytes=record["train"]["peak_memory_bytes"], promise=promise,
        tuned=cut_short or bool(job.tuned.keys() - CUTS), version=foretune.__version__,
        machine=_machine(job), date=datetime.now(UTC).date().isoformat(),
    )  # fmt: skip


def _machine(job: Job) -> str:
    """Return a short hash that runs on the same kind of machine share."""
    parts = [platform.machine(), platform.system(), machine.usable_cores(), job.runtime.device.type]
    return hashlib.sha256(" ".join(map(str, parts)).encode()).hexdigest()[:16]


def _scores(model: Model, job: Job, prepared: Prepared) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the metrics of every held-out part, and the mistakes on the headline's.

    Where the headline's metric is too slow to be watched during training, it is not measured on dev beside test.
    """
    results: dict[str, Any] = {}
    mistakes: list[dict[str, Any]] = []
    if prepared.dev is not None:
        quick = prepared.test is not None and model.task.watched(job.metric) != job.metric
        results["dev"], mistakes = model.score(prepared.dev, job.dev_set, MISTAKES, quick)
    if prepared.test is not None:
        results["test"], mistakes = model.score(prepared.test, None, MISTAKES)
    return results, mistakes


def _scalars(model: Model, result: dict[str, Any]) -> dict[str, Any]:
    return {name: result[name] for name in model.task.metrics if name in result}


def _training(job: Job, progress: Progress) -> dict[str, Any]:
    seconds = max(progress.seconds, 1e-9)
    peak = machine.gemm_peak(job.runtime.device.type, job.runtime.precision, again=True)
    return {
        "seconds": progress.seconds,
        "examples_per_s": progress.examples / seconds,
        "tokens_per_s": progress.tokens / seconds,
        "unit": job.backbone.unit,  # what is counted as tokens
        "fraction_of_peak": progress.flops / seconds / peak,
        "peak_flops": peak,
        "padding_share": 1 - progress.tokens / progress.padded_tokens if progress.padded_tokens else 0.0,
        "peak_memory_bytes": machine.peak_memory_bytes(job.runtime.device),
        "steps": progress.step,
        "epochs": progress.examples / max(len(job.train_store), 1),
        "precision": job.runtime.precision,
        "best_step": progress.best_step,
        "stopped_early": progress.stopped_early,
    }


def _speed(train: dict[str, Any]) -> str:
    """Return examples per second, and what is counted besides where they are of unequal length."""
    speed = f"{train['examples_per_s']:,.1f} examples/s"
    return f"{speed}, {train['tokens_per_s']:,.0f} {train['unit']}/s" if train["unit"] in LENGTHS else speed


def _data(prepared: Prepared) -> dict[str, Any]:
    sizes = prepared.sizes()
    return {
        "sizes": sizes,
        "fingerprints": prepared.fingerprints,
        "columns": {"text": prepared.columns.text, "target": target_option(prepared.columns)},
        "sentences": [
            *prepared.notes,
            "Rows: " + ", ".join(f"{n:,} {name}" for name, n in sizes.items()) + ".",
        ],
    }


def _report(
    model: Model,
    job: Job,
    prepared: Prepared,
    progress: Progress,
    results: dict[str, Any],
    mistakes: list[dict[str, Any]],
) -> ReportData:
    train, sizes = model.record["train"], prepared.sizes()
    longest = job.recipe.max_tokens or job.backbone.max_length
    return ReportData(
        title=f"Foretune: {model.record['title']}",
        metrics=results,
        class_names=list(model.labels),
        metric=job.metric,
        summary={
            "Task": model.task.name,
            "Backbone": job.recipe.backbone,
            "Strategy": job.strategy.name,
            "Rows": ", ".join(f"{n:,} {name}" for name, n in sizes.items()),
            "Epochs": f"{train['epochs']:.1f} ({train['steps']:,} steps)",
            "Seed": str(job.recipe.seed),
            "Precision": f"{train['precision']} on {job.runtime.device.type}",
        },
        baselines=model.record["baselines"],
        history=progress.losses,
        evals=progress.evaluations,
        mistakes=mistakes,
        sections=[
            *(model.task.sections(results[prepared.held_out[0]], mistakes) if prepared.held_out else []),
            *sample_sections(job.events_file),
        ],
        warnings=list(prepared.warnings),
        timings={
            "Training": f"{train['seconds']:.1f} s",
            "Evaluation and baselines": f"{model.record['timings']['evaluation_seconds']:.1f} s",
            "Everything": f"{model.record['timings']['total_seconds']:.1f} s",
            "Speed": _speed(train),
            "Share of the machine's matrix-multiply peak": f"{train['fraction_of_peak']:.0%}",
            "Peak memory": f"{train['peak_memory_bytes'] / 1e9:.2f} GB",
        },
        forecast=model.record.get("forecast"),
        truncated=job.train_store.cuts.sentence(longest),
        recipe_toml=job.recipe.to_toml(),
    )
