"""Every task once on real data: `foretune fit` beside the plain Hugging Face or timm script.

    python benchmarks/tasks.py OUT.jsonl --weights FOLDER [--only NAME …] [--side both] [--scale small]
    python benchmarks/tasks.py OUT.jsonl --table

For every case the same training, dev and test rows are written as files; each side is a new process with the same
backbone, epochs and threads. Ours is the command with its defaults (but for what `Case.options` says), which also
scores dev, keeps the best weights, fits baselines and writes a report; the peer trains at its example's usual rate,
keeps the last weights and predicts the test rows (`peer_*.py`). Both sides' predictions are scored by the field's own
packages (`task_scores.py`); `interval` is the one that Foretune gives. One JSON line per case and side; what stands
in OUT.jsonl already is not run again. Weights: one folder per backbone (several parents may be named).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import task_data
import task_scores
from task_cases import CASES, Case
from task_data import Cut

SIDE = 256  # pixels of the longest side where boxes are looked for


def backbone_folder(name: str, parents: list[Path]) -> str:
    """Return the folder of a backbone. Ends the program where none of `parents` holds it."""
    if name == "minilm-l6":
        from foretune.backbones.source import bundled_minilm

        return str(bundled_minilm())
    found = next((folder / name for folder in parents if (folder / name).is_dir()), None)
    if found is None:
        sys.exit(f"No folder {name} below {', '.join(map(str, parents))}. Name its parent with --weights.")
    return str(found.absolute())


def ours(case: Case, cut: Cut, files: dict[str, str], backbone: str, folder: Path) -> dict[str, Any]:
    """Run `foretune fit`; return scores, seconds and what the command said."""
    run = folder / "ours"
    command = ["fit", files["train"], "--dev", files["dev"], "--test", files["test"], "--backbone", backbone]
    command += ["--epochs", str(cut.epochs), "--output", str(run), "--offline", "--json", "--quiet"]
    command += case.options
    command += ["--max-tokens", str(case.max_tokens)] if case.max_tokens else []
    printed, times = timed([sys.executable, "-m", "foretune", *command], folder)
    said = json.loads(printed.strip().splitlines()[-1])
    test = said["metrics"]["test"]
    return {
        "scores": scored(case, files, run, None, folder),
        "own": {name: value for name, value in test.items() if isinstance(value, dict)},
        "baselines": said["baselines"], **times, "training_seconds": said["train"]["seconds"],
        "epochs": said["train"]["epochs"], "steps": said["train"]["steps"],
    }  # fmt: skip


def peer(case: Case, cut: Cut, files: dict[str, str], backbone: str, folder: Path) -> dict[str, Any]:
    """Run the plain script; return scores and seconds."""
    job = {
        **files, "backbone": backbone, "epochs": cut.epochs, "rate": case.rate, "batch": case.batch, "seed": 0,
        "max_tokens": case.max_tokens, "side": SIDE, "output": str(folder / "peer"), "script": case.peer,
    }  # fmt: skip
    path = folder / "job.json"
    path.write_text(json.dumps(job), "utf-8")
    _, times = timed([sys.executable, __file__, str(path), "--peer"], folder)
    result = json.loads((folder / "job.json.result").read_text("utf-8"))
    return {
        "scores": scored(case, files, folder / "peer", result["predictions"], folder), **times,
        "training_seconds": result["seconds"], "epochs": cut.epochs, "rate": case.rate, "batch": case.batch,
    }  # fmt: skip


def peer_process(path: Path) -> None:
    """Be the peer: read the job, run its script, write predictions and seconds."""
    job = json.loads(path.read_text("utf-8"))
    module, function = job["script"].split(".")
    predictions, seconds = getattr(__import__(module), function)(job)
    for each in predictions:
        if "mask" in each:
            each["mask"] = each["mask"].tolist()
    result = {"predictions": predictions, "seconds": seconds}
    Path(f"{path}.result").write_text(json.dumps(result), "utf-8")


def timed(command: list[str], folder: Path) -> tuple[str, dict[str, float]]:
    """Run a process; return what it printed, its seconds, and those that it and its own processes had a core."""
    clock, before = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    printed = started(command, folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return printed, {"seconds": time.time() - clock, "cpu_seconds": cpu}


def started(command: list[str], folder: Path) -> str:
    """Run a process with an empty cache and no ledger; return what it printed; raise RuntimeError where it fails."""
    own = {"FORETUNE_CACHE": str(folder / "cache"), "FORETUNE_LEDGER": "off", "HF_HUB_OFFLINE": "1"}
    own |= {"HF_DATASETS_CACHE": str(folder / "datasets"), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | own)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return done.stdout


def scored(
    case: Case, files: dict[str, str], model: Path, predictions: Any, folder: Path
) -> dict[str, float]:
    """Return the scores of predictions of the test rows; None: those of our model in the folder `model`."""
    if case.kind == "language":
        return task_scores.perplexity(model, files["test"])
    if predictions is None:
        predictions = list(_ours_on_test(case, files, model, folder))
    return task_scores.SCORES[case.kind](predictions, files["test"])


def _ours_on_test(case: Case, files: dict[str, str], model: Path, folder: Path) -> Iterator[dict[str, Any]]:
    if case.kind not in ("mask", "boxes"):
        lines = started(
            [sys.executable, "-m", "foretune", "predict", str(model), files["test"], "--quiet"], folder
        )
        yield from map(json.loads, lines.splitlines())
        return
    import foretune
    from foretune.tasks import detection

    detection.SHOWN_SCORE = 0.0  # `predict` shows sure boxes only; average precision looks at all
    if case.kind == "mask":
        pictures = task_scores.mask_files(Path(files["test"]), "test", "images")
    else:
        pictures = [
            Path(i["file_name"]) for i in json.loads(Path(files["test"]).read_text("utf-8"))["images"]
        ]
    yield from foretune.load(model).predictions([str(path) for path in pictures])


def run_case(case: Case, scale: str, side: str, parents: list[Path]) -> dict[str, Any]:
    """Run one side of a case in a temporary folder; return its line."""
    cut = case.small if scale == "small" else case.full
    assert cut is not None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data").mkdir()
        files = task_data.write(case.name, cut, folder / "data")
        backbone = backbone_folder(case.backbone, parents)
        found = (ours if side == "foretune" else peer)(case, cut, files, backbone, folder)
    rows = {"train": cut.train, "dev": cut.dev, "test": cut.test}
    return {"case": case.name, "scale": scale, "side": side, "backbone": case.backbone, "rows": rows, **found}


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Return the lines of OUT.jsonl, none where it is missing."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def table(lines: list[dict[str, Any]]) -> str:
    """Return both sides side by side as a Markdown table."""
    found = {(line["case"], line["scale"], line["side"]): line for line in lines}
    rows = [
        "| data | metric | Foretune | plain script | best trivial model | CPU-seconds: Foretune, script |"
    ]
    rows += ["|---|---|---|---|---|---|"]
    for case in CASES:
        for scale in ("small", "full"):
            pair = [found.get((case.name, scale, side)) for side in ("foretune", "peer")]
            if any(pair):
                rows.append(_row(case, pair))
    return "\n".join(rows)


def _row(case: Case, pair: list[dict[str, Any] | None]) -> str:
    own, other = pair
    score = "–" if own is None else _number(case.metric, own["scores"][case.metric])
    interval = (own or {}).get("own", {}).get(case.metric)
    if interval:
        score += f" ({_number(case.metric, interval['low'])}–{_number(case.metric, interval['high'])})"
    theirs = "–" if other is None else _number(case.metric, other["scores"][case.metric])
    times = ", ".join("–" if line is None else f"{line['cpu_seconds']:.0f}" for line in pair)
    return f"| {case.name} | {case.metric} | {score} | {theirs} | {_trivial(case, own)} | {times} |"


def _trivial(case: Case, line: dict[str, Any] | None) -> str:
    """Return the best baseline's name and score."""
    found = {n: _value(s.get(case.metric)) for n, s in (line or {}).get("baselines", {}).items()}
    known = {name: value for name, value in found.items() if value is not None}
    if not known:
        return "–"
    best = (min if case.metric in ("wer", "perplexity") else max)(known, key=lambda name: known[name])
    return f"{best}: {_number(case.metric, known[best])}"


def _value(score: Any) -> float | None:
    return score.get("value") if isinstance(score, dict) else score


def _number(metric: str, value: float) -> str:
    return f"{value:.1f}" if metric in ("bleu", "chrf", "perplexity") else f"{100 * value:.1f}"


def main() -> None:
    """Run what is missing in OUT.jsonl, or print the table of what is there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--weights", type=Path, nargs="+", default=[task_data.ROOT.parent / "weights"])
    parser.add_argument("--only", nargs="+", choices=[case.name for case in CASES])
    parser.add_argument("--side", choices=("foretune", "peer", "both"), default="both")
    parser.add_argument("--scale", choices=("small", "full"), default="small")
    parser.add_argument("--table", action="store_true", help="print what OUT.jsonl holds, and stop")
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peer:
        return peer_process(given.output)
    if given.table:
        return print(table(lines_of(given.output)))
    for case in CASES:
        if (given.only and case.name not in given.only) or (given.scale == "small" and case.small is None):
            continue
        for side in ("foretune", "peer") if given.side == "both" else (given.side,):
            run_missing(case, given.scale, side, given.weights, given.output)


def run_missing(case: Case, scale: str, side: str, parents: list[Path], output: Path) -> None:
    """Run one side of a case unless it stands in `output`; a side that fails is told and left out."""
    if any(
        (line["case"], line["scale"], line["side"]) == (case.name, scale, side) for line in lines_of(output)
    ):
        return
    try:
        found = run_case(case, scale, side, parents)
    except RuntimeError as error:
        print(f"{case.name}, {side}: {error}", file=sys.stderr, flush=True)
        return
    with output.open("a", encoding="utf-8") as file:
        file.write(json.dumps(found) + "\n")
    scores = ", ".join(f"{name} {value:.3f}" for name, value in found["scores"].items())
    print(f"{case.name}, {side}: {scores} in {found['seconds']:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
