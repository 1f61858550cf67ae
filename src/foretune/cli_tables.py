"""Results as tables for people."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from foretune.display import console, duration, put
from foretune.evaluation.metric_names import BASELINE_NAMES

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from foretune.model import Model

BASELINES = {**BASELINE_NAMES, "majority": "most frequent label"}
MAIN_METRICS = ("accuracy", "macro_f1", "micro_f1", "f1")  # of tasks with labels
SHOWN_METRICS = 4  # beside a model and its baselines; the report has all
SHOWN_CLASSES = 40
SHOWN_CONFUSIONS = 5


def show_fit(model: Model, out: TextIO) -> None:
    """Print the outcome of a fit: scores beside baselines, speed, where everything is, what to do next."""
    screen, record = console(out), model.record
    if record["metrics"]:
        screen.print(_scores(model))
    else:
        put(
            screen,
            "Nothing was held out, so there is no score. Give --dev or --test to have one.",
            style="yellow",
        )
    doubt = _doubt(model)
    if doubt:
        put(screen, doubt, style="yellow")
    put(screen, _training(record["train"]))
    if record.get("forecast"):
        put(screen, _held_to(record["forecast"]))
    _places(model, screen)


def _training(train: dict[str, Any]) -> str:
    """Return sentences about time, speed and memory."""
    if not train["steps"]:
        return f"Nothing was trained; {train['peak_memory_bytes'] / 1e9:.1f} GB of memory at most."
    peak = train["peak_flops"] / 1e9
    early = (
        f", stopped early: the weights of step {train['best_step']:,} are kept"
        if train["stopped_early"]
        else ""
    )
    return (
        f"Trained for {duration(train['seconds'])}, {train['epochs']:.1f} epochs{early}. "
        f"{train['examples_per_s']:,.0f} examples/s, {_tokens(train)}"
        f"{train['fraction_of_peak']:.0%} of the matrix-multiply peak ({peak:,.0f} GFLOP/s, "
        f"{train['precision']}), {train['peak_memory_bytes'] / 1e9:.1f} GB of memory at most."
    )


def _tokens(train: dict[str, Any]) -> str:
    return f"{train['tokens_per_s']:,.0f} tokens/s, " if train.get("unit", "tokens") == "tokens" else ""


def _held_to(held: dict[str, Any]) -> str:
    """Return a sentence that sets the forecast beside the outcome."""
    score, seconds = held["score"], held["seconds"]
    time = f"Forecast time {duration(seconds['forecast'])}, needed {duration(seconds['outcome'])}."
    if score["forecast"] is None:
        return time
    return (
        f"Forecast {held['metric']} {score['forecast']:.3f} ({score['low']:.3f} – {score['high']:.3f}), outcome "
        f"{score['outcome']:.3f}: {'inside' if held['inside'] else 'outside'} the 90 % interval. {time}"
    )


def _scores(model: Model) -> Table:
    """Return the table of the model on each held-out part, and of the baselines."""
    record, on = model.record, model.record.get("baselines_on", "")
    shown = dict.fromkeys([model.recipe.metric, *(MAIN_METRICS if model.labels else model.task.metrics)])
    scored = [name for name in shown if name and any(name in part for part in record["metrics"].values())]
    names = (scored if len(scored) > 1 else [*dict.fromkeys([*scored, *model.task.metrics])])[:SHOWN_METRICS]
    table = _table(f"{on}, with 95 % intervals", *names)
    for split, metrics in sorted(record["metrics"].items(), key=lambda item: item[0] != on):
        title = "this model" if split == on else f"this model on {split}"
        table.add_row(
            title, *(_score(metrics.get(name)) for name in names), style="bold" if split == on else ""
        )
    for key, metrics in record["baselines"].items():
        table.add_row(BASELINES.get(key, key), *(_score(metrics.get(name)) for name in names))
    return table


def _doubt(model: Model) -> str:
    """Return a sentence where the score is not clearly above a baseline's, else nothing."""
    record = model.record
    metrics = record["metrics"].get(record.get("baselines_on"), {})
    for metric in dict.fromkeys([model.recipe.metric or "accuracy", "accuracy", *model.task.metrics]):
        baselines = record["baselines"].items()
        rivals = {key: score[metric]["value"] for key, score in baselines if metric in score}
        if rivals and metric in metrics:
            greater = model.task.metrics[metric]
            best = (max if greater else min)(rivals, key=lambda key: rivals[key])
            own = metrics[metric]
            beaten = own["low"] > rivals[best] if greater else own["high"] < rivals[best]
            name = BASELINES.get(best, best)
            return (
                ""
                if beaten
                else f"Not shown to be better than {name}, whose {metric} of {rivals[best]:.3f} lies within this "
                "model's interval or on its better side."
            )
    return ""


def _places(model: Model, screen: Console) -> None:
    """Print where the artefact is and the next commands."""
    folder = Path(str(model.path))
    put(screen, f"\nModel:  {folder}")
    if (folder / "report.html").exists():
        put(screen, f"Report: {folder / 'report.html'}")
    put(screen, f"Next:   foretune predict {shlex.quote(str(folder))} YOUR_DATA")


def show_evaluation(model: Model, data: str, result: dict[str, Any], out: TextIO) -> None:
    """Print metrics, classes and the most frequent confusions."""
    screen, labels = console(out), model.labels
    put(screen, f"{model.path} on {data}: {result['n']:,} examples")
    table = _table("metric", "value", "95 % interval")
    for name in model.task.metrics:
        if name in result:
            score = result[name]
            table.add_row(name, f"{score['value']:.4f}", f"{score['low']:.4f} – {score['high']:.4f}")
    screen.print(table)
    if not labels or len(result.get("per_class", ())) != len(labels):
        return
    screen.print(_classes(labels, result["per_class"]))
    if len(labels) > SHOWN_CLASSES:
        put(screen, f"The {SHOWN_CLASSES} labels of lowest F1 of {len(labels):,}; --json has all.")
    for count, true, guess in _confusions(result.get("confusion", [])):
        put(screen, f"{count:,} × {labels[true]} taken for {labels[guess]}")


def _classes(labels: tuple[str, ...], per_class: list[dict[str, Any]]) -> Table:
    table = _table("label", "precision", "recall", "F1", "examples")
    rows = list(zip(labels, per_class, strict=True))
    if len(rows) > SHOWN_CLASSES:
        rows = sorted(rows, key=lambda row: row[1]["f1"]["value"])[:SHOWN_CLASSES]
    for label, found in rows:
        precision, recall = f"{found['precision']:.3f}", f"{found['recall']:.3f}"
        table.add_row(label, precision, recall, _score(found["f1"]), f"{found['support']:,}")
    return table


def _confusions(confusion: list[list[int]]) -> list[tuple[int, int, int]]:
    """Return the most frequent (count, true, guessed) off the diagonal."""
    found = [
        (count, true, guess)
        for true, row in enumerate(confusion)
        for guess, count in enumerate(row)
        if count and true != guess
    ]
    return sorted(found, reverse=True)[:SHOWN_CONFUSIONS]


def show_models(
    entries: list[dict[str, Any]], strategies: list[dict[str, str]], tasks: list[dict[str, Any]], out: TextIO
) -> None:
    """Print the catalogue, the strategies and the tasks."""
    screen = console(out)
    names = ("name", "languages", "layers", "width", "parameters")
    put(screen, f"{names[0]:<21}{names[1]:<15}{names[2]:>6}{names[3]:>7}{names[4]:>12}", style="bold")
    for entry in entries:
        size = f"{entry['parameters']:g} M"
        put(
            screen,
            f"{entry['name']:<21}{entry['languages']:<15}{entry['layers']:>6}{entry['width']:>7}{size:>12}",
            style="green" if entry["source"] == "bundled" else "",
        )
        put(screen, f"    {entry['source']}: {entry['about']}", style="dim")
    put(screen, "\nThe bundled one needs no network, the others are fetched at first use.")
    put(screen, "--backbone also takes a folder or any hub id.")
    put(screen, "\nstrategies (--strategy)", style="bold")
    for strategy in strategies:
        put(screen, f"{strategy['name']:<21}{strategy['about']}")
    put(screen, "\ntasks (--task, guessed from the data)", style="bold")
    for task in tasks:
        put(screen, f"{task['name']:<21}{task['data']}: {task['about']}")
        put(
            screen,
            f"    backbone: {task['backbone'] or 'named with --backbone, such as ' + task['suggestion']}",
            style="dim",
        )


def show_inspection(found: dict[str, Any], out: TextIO) -> None:
    """Print what `inspect_data` found."""
    screen = console(out)
    put(screen, f"{found['file']}: {found['rows']:,} rows", style="bold")
    table = _table(
        "column", "role", "type", "distinct", "missing", "example", left=("role", "type", "example")
    )
    for column in found["columns"]:
        numbers = (f"{column['distinct']:,}", f"{column['missing']:,}")
        example = (column["example"] or "").replace("\n", " ")
        table.add_row(column["name"], column["role"] or "", column["type"], *numbers, example)
    screen.print(table)
    put(screen, found["reason"], style="dim")
    if found["classes"]:
        screen.print(_class_counts(found["classes"]))
    lengths = found["lengths"]
    if lengths is not None:
        put(
            screen,
            f"Characters per text: {lengths['median']:,.0f} (median), {lengths['p95']:,.0f} (95 % are shorter), "
            f"{lengths['max']:,.0f} (longest).",
        )
    for warning in found["warnings"]:
        put(screen, f"Warning: {warning}", style="yellow")


def _class_counts(classes: dict[str, int]) -> Table:
    table = _table("class", "rows", "share", "", left=("",))
    most, total = max(classes.values()), sum(classes.values())
    for name, count in sorted(classes.items(), key=lambda item: -item[1])[:SHOWN_CLASSES]:
        table.add_row(name, f"{count:,}", f"{count / total:.1%}", "■" * max(round(20 * count / most), 1))
    if len(classes) > SHOWN_CLASSES:
        table.add_row(f"and {len(classes) - SHOWN_CLASSES:,} more", "", "", "")
    return table


def _table(first: str, *others: str, left: tuple[str, ...] = ()) -> Table:
    """Return a table without frame; columns are numbers, right aligned, but the first and those in `left`."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="left" if name in left else "right", overflow="fold")
    return table


def _score(score: dict[str, float] | None) -> str:
    if score is None:
        return ""
    return f"{score['value']:.3f} ({score['low']:.3f}–{score['high']:.3f})"
