"""The command line: a thin skin, every command is one call of the Python API.

Nothing heavy is imported before a command runs, so that `foretune --help` answers at once.
"""

from __future__ import annotations

import shlex
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from foretune import cli_options as opt
from foretune.cli_guard import (
    go_offline,
    guard,
    quiet_when_pipes_close,
    say,
    tidy_process,
    usage_errors_as_json,
    write_json,
)

app = typer.Typer(
    name="foretune",
    help="Know before you tune: transfer learning with pretrained Transformers.",
    epilog="First steps: foretune inspect DATA, then foretune fit DATA.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line: the entry point of `foretune` and `python -m foretune`."""
    tidy_process()
    with quiet_when_pipes_close(), usage_errors_as_json(sys.argv):
        app(prog_name="foretune")


def _version(wanted: bool) -> None:
    if wanted:
        from foretune import __version__

        typer.echo(f"foretune {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


@app.command()
def fit(
    train: opt.Train,
    dev: opt.Dev = None,
    test: opt.Test = None,
    task: opt.Task = None,
    text: opt.Text = None,
    second: opt.Second = None,
    target: opt.Target = None,
    separator: opt.Separator = None,
    skip_broken: opt.SkipBroken = False,
    dev_fraction: opt.DevFraction = None,
    test_fraction: opt.TestFraction = None,
    rows: opt.Rows = None,
    held_out_rows: opt.HeldOutRows = None,
    backbone: opt.Backbone = None,
    strategy: opt.Strategy = None,
    trainable_layers: opt.TrainableLayers = None,
    option: opt.StrategyOption = None,
    max_tokens: opt.MaxTokens = None,
    truncation: opt.Truncation = None,
    epochs: opt.Epochs = None,
    lr: opt.LearningRate = None,
    layer_decay: opt.LayerDecay = None,
    dropout: opt.Dropout = None,
    class_weights: opt.ClassWeights = None,
    batch_tokens: opt.BatchTokens = None,
    micro_tokens: opt.MicroTokens = None,
    metric: opt.Metric = None,
    patience: opt.Patience = None,
    seed: opt.Seed = None,
    output: opt.Output = None,
    resume: opt.Resume = False,
    recipe: opt.RecipeFile = None,
    checkpoint_seconds: opt.CheckpointSeconds = None,
    track: opt.Track = None,
    plan: opt.PlanFile = None,
    budget: opt.Budget = None,
    cache: opt.Cache = None,
    precision: opt.Precision = None,
    device: opt.Device = None,
    offline: opt.Offline = False,
    as_json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Fine-tune a backbone on labelled data; evaluate it, save it and write a report."""
    given = dict(locals())
    with guard(as_json) as out:
        from foretune.cli_fit import run

        model, finished_before = run(given)
        from foretune.api import result

        if finished_before and not quiet:
            say(f"The run in {model.path} was finished already: nothing was trained. Its result again:")
        write_json(result(model), out) if as_json else _tables().show_fit(model, out)


@app.command()
def plan(
    data: opt.Data,
    dev: opt.Dev = None,
    test: opt.Test = None,
    task: opt.Task = None,
    text: opt.Text = None,
    second: opt.Second = None,
    target: opt.Target = None,
    separator: opt.Separator = None,
    skip_broken: opt.SkipBroken = False,
    rows: opt.Rows = None,
    held_out_rows: opt.HeldOutRows = None,
    backbones: opt.Backbones = "auto",
    strategies: opt.Strategies = "auto",
    budget: opt.Budget = None,
    memory: opt.MemoryLimit = None,
    goal: opt.Goal = "accuracy",
    target_score: opt.TargetScore = None,
    pilots: opt.Pilots = 0,
    max_tokens: opt.MaxTokens = None,
    metric: opt.Metric = None,
    seed: opt.Seed = None,
    recipe: opt.RecipeFile = None,
    output: opt.PlanOutput = None,
    precision: opt.Precision = None,
    device: opt.Device = None,
    offline: opt.Offline = False,
    as_json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Forecast before training: score, time and memory of each backbone and strategy, and what labels buy."""
    given = dict(locals())
    with guard(as_json) as out:
        from foretune.cli_plan import repeated, run

        found = run(given)
        if output is not None and not quiet:
            words = (
                f"foretune fit {shlex.quote(data)} --plan {shlex.quote(str(output))}{repeated(given, found)}"
            )
            say(f"The plan is in {output}. To follow it: {words}")
        write_json(found.to_json(), out) if as_json else _plan_tables().show_plan(found, data, out)


@app.command()
def ledger(as_json: opt.Json = False) -> None:
    """Print the record of forecasts and outcomes on this machine: coverage, error, regret."""
    with guard(as_json) as out:
        from foretune.forecast import ledger as kept

        with warnings.catch_warnings(record=True) as told:  # else silenced, as the libraries' are
            warnings.simplefilter("always")
            outcomes = kept.read()
        for warning in told:
            say(str(warning.message), head="Warning:", style="yellow")
        summary = kept.summary(outcomes)
        place = str(kept.ledger_path() or "off")
        if as_json:
            write_json({"ledger": place, "summary": summary}, out)
        else:
            _plan_tables().show_ledger(outcomes, summary, place, out, whole=not told)


@app.command()
def evaluate(
    model: opt.ModelFolder,
    data: opt.Data,
    text: opt.Text = None,
    second: opt.Second = None,
    target: opt.Target = None,
    separator: opt.Separator = None,
    skip_broken: opt.SkipBroken = False,
    device: opt.Device = None,
    offline: opt.Offline = False,
    as_json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Score a saved model on labelled data, each metric with its 95 % interval."""
    with guard(as_json) as out:
        loaded = _load(model, device, quiet, offline)
        columns = {"text": text, "second": second, "target": target}
        result = loaded.evaluate(
            data, **columns, separator=separator, offline=offline, skip_broken=skip_broken, tell=say
        )
        if as_json:
            write_json(evaluation_object(loaded, result), out)
        else:
            _tables().show_evaluation(loaded, data, result, out)


def evaluation_object(model: Any, result: dict[str, Any]) -> dict[str, Any]:
    """Return what `evaluate --json` prints; `per_class` and `confusion` are in the order of `labels`."""
    metrics = {name: result[name] for name in model.task.metrics if name in result}
    rest = {name: value for name, value in result.items() if name not in metrics}
    return {
        "task": model.task.name,
        "model": str(model.path),
        "metrics": metrics,
        "labels": model.labels,
        **rest,
    }


@app.command()
def predict(
    model: opt.ModelFolder,
    data: opt.Texts,
    output: opt.PredictionFile = None,
    text: opt.Text = None,
    second: opt.Second = None,
    separator: opt.Separator = None,
    skip_broken: opt.SkipBroken = False,
    device: opt.Device = None,
    offline: opt.Offline = False,
    quiet: opt.Quiet = False,
) -> None:
    """Predict for every row of a file or of standard input (-)."""
    with guard() as out:
        from foretune import cli_predict

        cli_predict.check_output(output)
        loaded = _load(model, device, quiet, offline)
        columns = {"text": text, "second": second}
        count = cli_predict.run(
            loaded, data, output, out, columns, separator=separator, quiet=quiet, skip_broken=skip_broken
        )
        if output is not None and not quiet:
            say(f"{count:,} predictions written to {output}.")


@app.command()
def models(as_json: opt.Json = False) -> None:
    """List the backbones that --backbone knows by name, the strategies and the tasks."""
    with guard(as_json) as out:
        from dataclasses import asdict

        from foretune.backbones.catalogue import CATALOGUE
        from foretune.strategies import import_strategies
        from foretune.strategies.base import STRATEGIES
        from foretune.tasks.catalogue import TASK_INFO

        entries = [asdict(entry) for entry in CATALOGUE]
        import_strategies()
        strategies = [{"name": name, "about": STRATEGIES[name].about} for name in STRATEGIES]
        tasks = [{"name": name, **asdict(info)} for name, info in TASK_INFO.items()]
        if as_json:
            write_json({"models": entries, "strategies": strategies, "tasks": tasks}, out)
        else:
            _tables().show_models(entries, strategies, tasks, out)


@app.command()
def inspect(
    data: opt.Data,
    task: opt.Task = None,
    text: opt.Text = None,
    second: opt.Second = None,
    target: opt.Target = None,
    separator: opt.Separator = None,
    offline: opt.Offline = False,
    as_json: opt.Json = False,
) -> None:
    """Look at data before training: columns, classes, lengths, and what to mend."""
    with guard(as_json) as out:
        from foretune.data.inspect import inspect_data

        if offline:
            go_offline()
        found = inspect_data(
            data,
            text=text,
            second=second,
            target=target,
            task=task or "auto",
            separator=separator,
            offline=offline,
        )
        write_json(found, out) if as_json else _tables().show_inspection(found, out)


def _load(folder: Path, device: str | None, quiet: bool, offline: bool = False) -> Any:
    """Load a model, with a spinner on a terminal."""
    if offline:
        go_offline()
    from foretune.display import waiting
    from foretune.recipe import Recipe

    wanted = Recipe(device=device or "auto").device  # raises ConfigError for an unknown one
    with waiting(f"loading {folder}", quiet):
        from foretune.api import load

        return load(folder, device=wanted)


def _plan_tables() -> Any:
    from foretune import cli_plan

    return cli_plan


def _tables() -> Any:
    from foretune import cli_tables

    return cli_tables
