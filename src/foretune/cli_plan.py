"""`foretune plan` and `foretune ledger`: from options to the call, from results to tables."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from foretune.cli_guard import go_offline, say
from foretune.display import console, put
from foretune.errors import ConfigError
from foretune.evaluation.metric_names import named
from foretune.forecast.plan import Choice, Plan, duration
from foretune.recipe import Recipe

if TYPE_CHECKING:
    from foretune.forecast.records import Outcome

_RECIPE = (
    "task",
    "text",
    "second",
    "target",
    "separator",
    "skip_broken",
    "rows",
    "held_out_rows",
    "max_tokens",
    "metric",
    "seed",
    "precision",
    "device",
    "offline",
)
_PLAN = ("backbones", "strategies", "budget", "memory", "goal", "target_score", "pilots")
# By a fit that follows the plan: on them the split depends, too. The plan's command has the rows held out already.
_REPEATED = ("dev", "test", "recipe", *(name for name in _RECIPE if name != "held_out_rows"))
SHOWN_OUTCOMES = 20


def run(given: dict[str, Any]) -> Plan:
    """Return the plan of the options, and write it where asked. Raises ForetuneError."""
    recipe = Recipe() if given["recipe"] is None else Recipe.read(given["recipe"])
    recipe = recipe.with_changes(**{k: given[k] for k in _RECIPE if given[k] not in (None, False)})
    output: Path | None = given["output"]
    if output is not None and not output.expanduser().parent.is_dir():
        raise ConfigError(f"--output {output}: there is no folder {output.parent}. Make it first.")
    if output is not None and output.expanduser().is_dir():
        raise ConfigError(f"--output {output} is a folder. Give a file.")
    if recipe.offline:
        go_offline()
    from foretune.api import plan
    from foretune.training.files import disk_errors

    tell = (lambda text: None) if given["quiet"] else (lambda text: say(f"{text} …"))
    found = plan(
        given["data"],
        dev=given["dev"],
        test=given["test"],
        recipe=recipe,
        tell=tell,
        **{k: given[k] for k in _PLAN},
    )
    found = replace(found, command=found.command + repeated(given, found))
    if output is not None:
        with disk_errors(output):
            found.save(output.expanduser())
    return found


def repeated(given: dict[str, Any], plan: Plan) -> str:
    """Return the options of this command that a fit needs as well, each after a blank."""
    words = []
    for name in _REPEATED:
        value = None if name == "rows" and plan.best.rows is not None else given[name]
        if value not in (None, False):
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [shlex.quote(str(value))])]
    return "".join(f" {word}" for word in words)


def show_plan(plan: Plan, data: str, out: TextIO) -> None:
    """Print the candidates best first, why the best leads, what labels would buy, and the command."""
    screen = console(out)
    screen.print(_candidates(plan))
    best = plan.best
    put(screen, f"\n{best.backbone} with {best.strategy}:", style="bold")
    for reason in best.why:
        put(screen, f"  {reason}")
    put(screen, f"\nLabels: {_labels(plan)}")
    for text in plan.advice:
        put(screen, text, style="yellow")
    put(screen, f"\nPlanned in {duration(plan.seconds_spent)}. To fine-tune:")
    put(screen, f"  {plan.command.replace('DATA', shlex.quote(data), 1)}", style="bold")


def _candidates(plan: Plan) -> Any:
    part = {"test": "the test rows", "dev": "the dev rows"}.get(plan.held_out, plan.held_out)
    title = f"Expected {plan.best.metric} on {part}, with 90 % intervals"
    title = f"What each candidate of {plan.task} costs" if math.isnan(plan.best.value) else title
    table = _table(title, ("backbone", "strategy"))
    for name in ("score", "time", "memory", "disk"):
        table.add_column(name, justify="right", no_wrap=True)
    for choice in plan.candidates:
        table.add_row(*_row(choice), style="bold" if choice is plan.best else "dim" if choice.over else "")
    return table


def _table(title: str, names: tuple[str, ...]) -> Any:
    """Return a table without lines, so that it fits 80 columns; `names` are its columns of text."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold", no_wrap=name in ("strategy", "data"))
    return table


def _row(choice: Choice) -> list[str]:
    memory = "too much" if choice.peak_memory_bytes > 1 << 60 else f"{choice.peak_memory_bytes / 1e9:.1f} GB"
    disk = "–" if choice.disk_bytes > 1 << 60 else f"{choice.disk_bytes / 1e9:.2f} GB"
    rows = "" if choice.rows is None else f" ({choice.rows:,} rows)"
    name = f"{choice.backbone} ({choice.over})" if choice.over else choice.backbone + rows
    return [
        name, choice.strategy, _span(choice.value, choice.low, choice.high), duration(choice.seconds), memory, disk,
    ]  # fmt: skip


def _span(value: float, low: float, high: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{100 * value:.1f} ({100 * low:.1f}–{100 * high:.1f})"


def _labels(plan: Plan) -> str:
    now, parts = plan.best.value, []
    for times in (2, 5) if "x2" in plan.labels else ():
        score = plan.labels[f"x{times}"]
        gain = 100 * (score["value"] - now)
        parts.append(
            f"{times} × as many would give about {100 * score['value']:.1f} "
            f"({100 * score['low']:.1f} – {100 * score['high']:.1f}; {gain:+.1f} points)"
        )
    target = plan.labels.get("target")
    if target:
        parts.append(_target(target))
    return " ".join([f"{plan.labels['n']:,} now.", *(["; ".join(parts) + "."] if parts else [])])


def _target(target: dict[str, Any]) -> str:
    aim = f"{100 * target['score']:.1f}"
    if target["value"] is None:
        best = "" if target["low"] is None else f" (with luck from {target['low']:,} labels)"
        return f"{aim} is out of reach with this kind of model and data{best}"
    high = "never" if target["high"] is None else f"{target['high']:,}"
    return f"{aim} needs about {target['value']:,} labels ({target['low'] or 0:,} – {high})"


def show_ledger(
    outcomes: Sequence[Outcome], summary: dict[str, Any], place: str, out: TextIO, whole: bool
) -> None:
    """Print the newest outcomes with their forecasts, and what they say of the forecasts; `whole`: all were read."""
    screen = console(out)
    if not outcomes:
        empty = (
            f"The ledger ({place}) is empty. Every `foretune fit` adds a line: numbers and fingerprints only."
        )
        off = "The ledger is switched off by FORETUNE_LEDGER; nothing is noted."
        put(
            screen,
            off if place == "off" else empty if whole else f"Nothing was read from the ledger ({place}).",
        )
        return
    put(screen, f"{len(outcomes):,} outcomes in {place}")
    table = _table(f"The newest {min(SHOWN_OUTCOMES, len(outcomes))}", ("data", "backbone", "strategy"))
    for name in ("rows", "score", "forecast", "time", "forecast"):
        table.add_column(name, justify="right")
    for outcome in list(outcomes)[-SHOWN_OUTCOMES:]:
        table.add_row(*_outcome(outcome))
    screen.print(table)
    for name, value in summary.items():
        put(screen, f"{name.replace('_', ' ')}: {_plain(value)}")


def _outcome(outcome: Outcome) -> list[str]:
    promise = outcome.promise
    span, time = "–", "–"
    if promise is not None:
        span = _span(promise.value, promise.low, promise.high)
        time = "–" if promise.seconds is None else duration(promise.seconds)
    return [
        outcome.data[:8], outcome.backbone, outcome.strategy, f"{outcome.n:,}",
        _value(outcome.metric, outcome.score), span, duration(outcome.seconds), time,
    ]  # fmt: skip


def _value(metric: str, score: float) -> str:
    return f"{100 * score:.1f}" if named(metric).share else f"{score:.3f} {named(metric).spoken}"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key.replace('_', ' ')} {_plain(item)}" for key, item in value.items())
    if isinstance(value, float):
        return f"{value:.3g}"
    return "none yet" if value is None else str(value)
