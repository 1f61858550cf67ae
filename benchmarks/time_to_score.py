"""Wall time of the whole command until the dev score that Hugging Face Trainer ends with is reached.

    python benchmarks/time_to_score.py [--set sst2] [--seeds 3] [--first-seed 0] [--lr 5e-5 --epochs 3 --batch 8]

For every seed, in turn: a Trainer script (imports, tokenising, training with its defaults, one evaluation
on dev), then `foretune fit` with its defaults, both as new processes on the same files. Foretune's time to
the score runs from the start of its process to its first evaluation on dev that is at least Trainer's
final score; the time of the whole command, with final evaluation, baselines, saving and report, is beside it.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import peers
from data import sst2_2k, table

BACKBONES = {"chnsenticorp": "weights/roformer-zh-small"}


def main() -> None:
    """Run all seeds and print a table and a JSON line; `--trainer FILE` is the peer's own process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", default="sst2", choices=("sst2", "trec6", "tickets", "chnsenticorp"))
    parser.add_argument("--rows", type=int, default=0, help="training rows (0: all; sst2 always has 2,000)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=512, help="where both sides cut a text")
    parser.add_argument("--foretune", default="", help="further options of `foretune fit`, in one string")
    parser.add_argument("--trainer", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.trainer:
        trainer_process(options)
        return
    runs = [one_seed(options, seed) for seed in range(options.first_seed, options.first_seed + options.seeds)]
    report(options, runs)


def files(options: argparse.Namespace, seed: int, folder: Path) -> dict[str, Any]:
    """Write train, dev and test files of a set; return their paths and the backbone."""
    if options.set == "sst2":
        train, dev, test = sst2_2k()
    elif options.set == "trec6":
        train, test = table("text/trec6/train.csv"), table("text/trec6/test.csv")
        dev = train.sample(545, random_state=1)
        train = train.drop(dev.index)
    elif options.set == "tickets":
        whole = table(str(Path(__file__).resolve().parents[1] / "examples" / "support_tickets.csv"))
        test = whole.sample(192, random_state=1)
        train = whole.drop(test.index)
        dev = train.sample(96, random_state=1)
        train = train.drop(dev.index)
    else:
        train, dev, test = (table(f"text/chnsenticorp/{part}.csv") for part in ("train", "dev", "test"))
    if options.rows:
        train = train.sample(options.rows, random_state=0)
    paths = {}
    for name, rows in (("train", train), ("dev", dev), ("test", test)):
        paths[name] = str(folder / f"{name}.csv")
        rows.to_csv(paths[name], index=False)
    return paths | {"backbone": backbone(options.set)}


def backbone(name: str) -> str:
    """Return the folder of a set's backbone, or the bundled one's name."""
    from data import ROOT

    return str(ROOT.parent / BACKBONES[name]) if name in BACKBONES else "minilm-l6"


def one_seed(options: argparse.Namespace, seed: int) -> dict[str, float]:
    """Run Trainer, then Foretune; return seconds and scores."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = files(options, seed, folder) | {"seed": seed, "output": str(folder / "trainer")}
        (folder / "job.json").write_text(json.dumps(job))
        start = time.time()
        numbers = ["--lr", str(options.lr), "--epochs", str(options.epochs), "--batch", str(options.batch)]
        numbers += ["--max-tokens", str(options.max_tokens)]
        run([sys.executable, __file__, "--trainer", str(folder / "job.json"), *numbers])
        peer = json.loads((folder / "job.json.result").read_text())
        peer["seconds"] = peer["dev_done"] - start
        start = time.time()
        command = ["fit", job["train"], "--dev", job["dev"], "--test", job["test"], "--seed", str(seed)]
        command += ["--backbone", job["backbone"], "--output", str(folder / "ours"), "--json", "--quiet"]
        if options.max_tokens != 512:
            command += ["--max-tokens", str(options.max_tokens)]
        output = run([sys.executable, "-m", "foretune", *command, *options.foretune.split()])
        total = time.time() - start
        ours = json.loads(output.strip().splitlines()[-1])
        events = [json.loads(line) for line in (folder / "ours" / "events.jsonl").read_text().splitlines()]
    reached = [e["time"] for e in events if e["event"] == "evaluation" and e["accuracy"] >= peer["dev"]]
    found = {
        "trainer_seconds": peer["seconds"], "trainer_dev": peer["dev"], "trainer_test": peer["test"],
        "foretune_to_score": reached[0] - start if reached else float("nan"), "foretune_seconds": total,
        "foretune_dev": ours["metrics"]["dev"]["accuracy"]["value"],
        "foretune_test": ours["metrics"]["test"]["accuracy"]["value"],
        "tfidf_test": ours["baselines"]["tfidf_logreg"]["accuracy"]["value"],
        "tokens_per_s": ours["train"]["tokens_per_s"],
        "fraction_of_peak": ours["train"]["fraction_of_peak"],
    }  # fmt: skip
    print(seed, {k: round(v, 3) for k, v in found.items()}, flush=True)
    return found


def run(command: list[str]) -> str:
    """Run a process to its end and return what it printed; end the program where it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return done.stdout


def trainer_process(options: argparse.Namespace) -> None:
    """Be the peer: read the job, train, evaluate once on dev; the test score is taken after the clock's end."""
    import pandas as pd
    from transformers import AutoTokenizer

    from foretune.backbones.source import bundled_minilm

    job = json.loads(options.trainer.read_text())
    folder = bundled_minilm() if job["backbone"] == "minilm-l6" else Path(job["backbone"])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    parts = {name: pd.read_csv(job[name], keep_default_na=False) for name in ("train", "dev", "test")}
    names = sorted(parts["train"]["label"].unique())
    encoded = {
        name: peers.tokenised(
            tokenizer, part["text"].tolist(), [names.index(x) for x in part["label"]], options.max_tokens
        )
        for name, part in parts.items()
    }
    trainer = peers.make_trainer(
        folder, encoded["train"], encoded["dev"], len(names), Path(job["output"]), tokenizer, seed=job["seed"],
        num_train_epochs=options.epochs, learning_rate=options.lr, per_device_train_batch_size=options.batch,
    )  # fmt: skip
    trainer.train()
    dev = trainer.evaluate()["eval_accuracy"]
    done = time.time()  # the test score is taken after the clock has stopped
    test = trainer.evaluate(encoded["test"])["eval_accuracy"]
    Path(f"{options.trainer}.result").write_text(json.dumps({"dev": dev, "test": test, "dev_done": done}))


def report(options: argparse.Namespace, runs: list[dict[str, float]]) -> None:
    """Print means over seeds with their standard deviation, and the ratio of times."""
    for key in runs[0]:
        values = [r[key] for r in runs if not math.isnan(r[key])]  # nan: Trainer's score was not reached
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        mean = statistics.mean(values) if values else math.nan
        print(f"  {key:20} {mean:9.3f} ± {spread:.3f} ({len(values)} of {len(runs)} runs)")
    for key in ("foretune_to_score", "foretune_seconds"):
        ratios = [r["trainer_seconds"] / r[key] for r in runs if not math.isnan(r[key])]
        if ratios:
            low, high = min(ratios), max(ratios)
            print(f"  trainer_seconds / {key}: {statistics.mean(ratios):.2f} ({low:.2f} to {high:.2f})")
    print(json.dumps({"set": options.set, "lr": options.lr, "epochs": options.epochs, "runs": runs}))


if __name__ == "__main__":
    main()
