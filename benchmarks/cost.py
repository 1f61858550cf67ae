"""Hold the cost model to what fits really take: each case is forecast in one fresh process and fitted in another.

    python benchmarks/cost.py OUT.jsonl --weights FOLDER [--limit 20] [--only KEY=VALUE …] [--table]

One JSON line a case; cases that stand in OUT.jsonl already are not run again, so that the program can be stopped
at any time. At the end (with --table: at once) the errors of time, peak memory and peak disk are printed. The
machine should be idle. `--weights` holds one folder per backbone (all but the bundled MiniLM).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ledger import backbone_path, parts

SECONDS = 3600.0  # that a single fit may take


@dataclass(frozen=True)
class Case:
    """One fit to forecast."""

    data: str
    backbone: str
    strategy: str
    n: int
    max_tokens: int

    @property
    def key(self) -> str:
        """Return the case's name."""
        return "/".join(map(str, asdict(self).values()))


CASES = (
    Case("sst2", "minilm-l6", "full", 400, 64), Case("sst2", "minilm-l6", "linear-probe", 2000, 64),
    Case("sst2", "minilm-l3", "lp-ft", 1000, 64), Case("sst2", "granite-30m-en", "full", 300, 64),
    Case("sst2", "bge-small-en", "linear-probe", 400, 64), Case("sst2", "minilm-l6", "top-layers", 2000, 64),
    Case("trec6", "minilm-l3", "full", 2000, 64), Case("trec6", "bge-small-en", "gradual-unfreezing", 400, 64),
    Case("trec6", "minilm-l6", "lora", 400, 64), Case("trec6", "granite-30m-en", "linear-probe", 2000, 64),
    Case("snips", "minilm-l6", "full", 1000, 64), Case("snips", "bge-small-en", "top-layers", 1000, 64),
    Case("ag_news", "minilm-l6", "full", 300, 128), Case("ag_news", "granite-30m-en", "lora", 200, 128),
    Case("ag_news", "minilm-l3", "linear-probe", 4000, 128), Case("ag_news", "bge-small-en", "full", 200, 128),
    Case("imdb", "minilm-l3", "full", 300, 256), Case("imdb", "minilm-l6", "top-layers", 500, 256),
    Case("imdb", "minilm-l6", "linear-probe", 1000, 512), Case("imdb", "bge-small-en", "lp-ft", 100, 256),
    Case("amazon_books", "minilm-l6", "gradual-unfreezing", 400, 128),
    Case("amazon_kitchen", "minilm-l3", "lora", 500, 128),
    Case("chnsenticorp", "roformer-zh-small", "full", 300, 128),
    Case("chnsenticorp", "roformer-zh-small", "linear-probe", 1000, 128),
    Case("chnsenticorp", "minilm-l6", "full", 200, 128), Case("tickets", "minilm-l6", "full", 400, 64),
)  # fmt: skip


def forecast(case: Case, folder: Path, weights: Path, limit: float) -> dict[str, Any]:
    """Return the forecast of a case whose parts lie in `folder`; to be run in a fresh process."""
    from foretune import let_threads_sleep

    let_threads_sleep()  # as every command does
    from foretune import api
    from foretune.assemble import assemble, load_backbone
    from foretune.forecast.cost import forecast_cost
    from foretune.prepare import prepare
    from foretune.recipe import Recipe
    from foretune.strategies.base import STRATEGIES

    recipe = Recipe(
        backbone=backbone_path(case.backbone, weights), strategy=case.strategy, max_tokens=case.max_tokens,
        text="text", target="label", offline=True,
    )  # fmt: skip
    api.import_strategies()
    files = [str(folder / f"{name}.csv") for name in ("train", "dev", "test")]
    prepare(*files, recipe)  # a first time, for the imports: the minimal fit counts those
    started = time.perf_counter()
    prepared = prepare(*files, recipe)
    reading = time.perf_counter() - started
    runtime = api._runtime(recipe, {})
    backbone, strategy = load_backbone(recipe, prepared), STRATEGIES[recipe.strategy](recipe.options)
    job = assemble(
        recipe,
        prepared,
        prepared.task.default_metric,
        runtime,
        backbone,
        strategy,
        folder / "forecast",
        [],
        None,
    )
    try:
        return asdict(forecast_cost(job, prepared, limit_seconds=limit, prepare_seconds=reading))
    finally:
        job.events.close()


def measured(case: Case, folder: Path, weights: Path) -> dict[str, Any]:
    """Run `foretune fit` in a fresh process and return what it took."""
    from foretune.forecast.startup import run_measured

    output = folder / "run"
    arguments = [
        "fit", str(folder / "train.csv"), "--dev", str(folder / "dev.csv"), "--test", str(folder / "test.csv"),
        "--backbone", backbone_path(case.backbone, weights), "--strategy", case.strategy, "--max-tokens",
        str(case.max_tokens), "--text", "text", "--target", "label", "--output", str(output), "--offline", "--quiet",
        "--json",
    ]  # fmt: skip
    features = Path(os.environ["FORETUNE_CACHE"]) / "features"
    with watched([output, features]) as disk:
        done = run_measured(arguments, folder, timeout=SECONDS)
    if done.code != 0:
        sys.exit(f"{case.key} failed:\n{done.errors.decode(errors='replace')}")
    train = json.loads(done.output)["train"]
    return {
        "seconds": done.seconds, "peak_memory_bytes": done.memory_bytes, "disk_bytes": max(disk),
        "train_seconds": train["seconds"], "steps": train["steps"], "stopped_early": train["stopped_early"],
        "timings": json.loads((output / "foretune.json").read_text())["timings"],
    }  # fmt: skip


@contextmanager
def watched(folders: list[Path]) -> Iterator[list[int]]:
    """Yield a list that grows by the bytes that lie in `folders`, looked at fifty times a second."""
    sizes, done = [0], threading.Event()

    def look() -> None:
        while not done.wait(0.02):
            sizes.append(sum(size_of(folder) for folder in folders))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield sizes
    finally:
        done.set()
        thread.join()


def size_of(folder: Path) -> int:
    """Return the bytes of all files below a folder; files that vanish meanwhile count as nothing."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(place) / name).stat().st_size
            except OSError:
                continue
    return total


def run(case: Case, given: argparse.Namespace) -> dict[str, Any]:
    """Forecast and fit one case, each in a process of its own; the token and feature caches start empty."""
    cache = Path(os.environ["FORETUNE_CACHE"])
    for name in ("tokens", "features"):
        shutil.rmtree(cache / name, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="foretune-cost-") as name:
        folder = Path(name)
        for part, frame in zip(("train", "dev", "test"), parts(case.data, case.n), strict=True):
            frame.to_csv(folder / f"{part}.csv", index=False)
        command = [
            sys.executable, __file__, str(folder), "--weights", str(given.weights), "--limit", str(given.limit),
            "--forecast", json.dumps(asdict(case)),
        ]  # fmt: skip
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        predicted = json.loads(told.splitlines()[-1])
        actual = measured(case, folder, given.weights)
    return {"key": case.key, **asdict(case), "forecast": predicted, "actual": actual}


QUANTITIES = {"seconds": "s", "peak_memory_bytes": "MB", "disk_bytes": "MB"}


def table(rows: list[dict[str, Any]]) -> str:
    """Return every case's forecast and outcome, and the median and worst errors, as Markdown."""
    lines = [
        "| case | seconds | error | memory, MB | error | disk, MB | error |",
        "|---|---|---|---|---|---|---|",
    ]
    errors: dict[str, list[float]] = {name: [] for name in QUANTITIES}
    for row in rows:
        cells = [row["key"]]
        for name, unit in QUANTITIES.items():
            predicted, actual = row["forecast"][name], row["actual"][name]
            errors[name].append(predicted / actual - 1)
            scale, digits = (1e6, 0) if unit == "MB" else (1, 1)
            cells += [
                f"{predicted / scale:,.{digits}f} → {actual / scale:,.{digits}f}",
                f"{errors[name][-1]:+.1%}",
            ]
        lines.append("| " + " | ".join(cells) + " |")
    lines.append("")
    for name, found in errors.items():
        size = np.abs(found)
        lines.append(
            f"{name}: median error {np.median(size):.1%}, worst {size.max():.1%}, mean signed {np.mean(found):+.1%}, "
            f"{np.mean(size <= 0.15):.0%} within 15 %, over {len(rows)} fits"
        )
    known = np.abs([known_steps(row) / row["actual"]["seconds"] - 1 for row in rows])
    lines.append(
        f"seconds, were it known when training stops: median error {np.median(known):.1%}, worst {known.max():.1%}, "
        f"{np.mean(known <= 0.15):.0%} within 15 %; {sum(row['actual']['stopped_early'] for row in rows)} stopped early"
    )
    spent = [row["forecast"]["spent"] / row["actual"]["seconds"] for row in rows]
    lines.append(f"time of a forecast as a share of the fit's: median {np.median(spent):.0%}")
    return "\n".join(lines)


def known_steps(row: dict[str, Any]) -> float:
    """Return the forecast of seconds, its training and validation scaled to the steps that were taken."""
    predicted = row["forecast"]
    share = row["actual"]["steps"] / predicted["steps"]
    scaled = predicted["parts"]["training"] + predicted["parts"]["validation"]
    return predicted["seconds"] + (share - 1) * scaled


def read(path: Path) -> list[dict[str, Any]]:
    """Return the outcomes so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--limit", type=float, default=20.0, help="seconds of measuring per forecast")
    parser.add_argument("--only", action="append", default=[], help="such as data=sst2 or strategy=full,lora")
    parser.add_argument("--table", action="store_true", help="print the table of what is there, run nothing")
    parser.add_argument("--forecast", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.forecast:
        case = Case(**json.loads(given.forecast))
        print(json.dumps(forecast(case, given.output, given.weights, given.limit)))
        return
    wanted = dict(item.split("=", 1) for item in given.only)
    os.environ.setdefault("FORETUNE_CACHE", str(given.output.resolve().with_suffix(".cache")))
    for case in () if given.table else CASES:
        chosen = all(str(asdict(case)[name]) in value.split(",") for name, value in wanted.items())
        if not chosen or case.key in {row["key"] for row in read(given.output)}:
            continue
        row = run(case, given)
        with given.output.open("a") as file:
            file.write(json.dumps(row) + "\n")
        found = f"{row['forecast']['seconds']:.0f} s forecast, {row['actual']['seconds']:.0f} s taken"
        print(f"{case.key}: {found}", file=sys.stderr, flush=True)
    rows = read(given.output)
    if rows:
        print(table(rows))


if __name__ == "__main__":
    main()
