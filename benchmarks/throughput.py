"""Training speed at equal batch size against Hugging Face Trainer, interleaved in one process.

    python benchmarks/throughput.py [--rounds 3] [--steps 15] [--batch 32]

Every round runs the same number of optimizer steps of Trainer with its defaults, Trainer with its best
flags (bf16, group_by_length) and Foretune, one after another, on the same rows. Reported are real tokens/s
(padding not counted), the ratio of medians, and the fraction of the matrix-multiply peak measured here.
Where bf16 is slower than fp32 on this machine, Trainer's best flags leave it out, and this is said.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import peers
from data import table
from foretune.backbones.source import bundled_minilm
from foretune.backbones.text import quiet

SETS = {
    "sentences": ("text/sst2/dev.csv", 1, 60),
    "texts of 100-500 tokens": ("text/imdb/train.csv.gz", 100, 500),
}


def main() -> None:
    """Measure both sets and print a table and a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--set", choices=list(SETS), help="one of the two sets (default: both)")
    options = parser.parse_args()
    results = {name: measure(name, options) for name in ([options.set] if options.set else SETS)}
    print(json.dumps(results))


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run the rounds on one set."""
    from foretune.training import machine

    machine.set_threads()
    texts, labels = rows_of(name, options.batch * options.steps)
    peaks = {p: machine.gemm_peak("cpu", p) for p in ("fp32", "bf16")}
    flags = dict(peers.FLAGS["best flags"])
    if peaks["bf16"] < peaks["fp32"]:
        flags.pop("bf16")
    runs: dict[str, list[dict[str, float]]] = {"defaults": [], "best flags": [], "foretune": []}
    for _ in range(options.rounds):
        runs["defaults"].append(trainer_speed(texts, labels, options.batch, {}))
        runs["best flags"].append(trainer_speed(texts, labels, options.batch, flags))
        runs["foretune"].append(foretune_speed(texts, labels, options.batch))
    return summary(name, runs, peaks, flags)


def rows_of(name: str, count: int) -> tuple[list[str], list[int]]:
    """Return `count` texts of a set whose token counts lie in its range."""
    from transformers import AutoTokenizer

    path, low, high = SETS[name]
    data = table(path).sample(frac=1, random_state=0)
    tokenizer = AutoTokenizer.from_pretrained(bundled_minilm())
    lengths = np.array([len(ids) for ids in tokenizer(data["text"].tolist(), verbose=False)["input_ids"]])
    data = data[(lengths >= low) & (lengths <= high)].head(count)
    return data["text"].tolist(), pd_codes(data["label"])


def pd_codes(labels: Any) -> list[int]:
    """Return label names as numbers."""
    return np.unique(labels.to_numpy(dtype=str), return_inverse=True)[1].tolist()


def trainer_speed(texts: list[str], labels: list[int], batch: int, flags: dict[str, Any]) -> dict[str, float]:
    """Train one epoch with Trainer; time its training loop only."""
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as folder, quiet():
        tokenizer = AutoTokenizer.from_pretrained(bundled_minilm())
        train = peers.tokenised(tokenizer, texts, labels, 512)
        tokens = sum(len(ids) for ids in train["input_ids"])
        arguments = {
            "num_train_epochs": 1,
            "per_device_train_batch_size": batch,
            "logging_strategy": "no",
            **flags,
        }
        trainer = peers.make_trainer(bundled_minilm(), train, None, 2, Path(folder), tokenizer, **arguments)
        cpu, wall = time.process_time(), time.perf_counter()
        trainer.train()
        return rates(tokens, time.perf_counter() - wall, time.process_time() - cpu)


def foretune_speed(texts: list[str], labels: list[int], batch: int) -> dict[str, float]:
    """Train one epoch with Foretune in batches of the same mean number of examples; time its loop only."""
    import foretune

    times: dict[str, float] = {}

    class Clock:
        def on(self, kind: str, values: dict[str, Any]) -> None:
            if kind == "start":
                times.update(cpu=time.process_time(), wall=time.perf_counter())
            if kind == "step":
                times.update(cpu_end=time.process_time(), wall_end=time.perf_counter(), steps=values["step"])

        def close(self) -> None:
            """Nothing to close."""

    from foretune.recipe import Recipe

    rows = {"text": texts, "label": [str(label) for label in labels]}
    with tempfile.TemporaryDirectory() as folder:
        recipe = Recipe(
            epochs=1, dev_fraction=0.0, test_fraction=0.0, batch_tokens=equal_budget(texts, batch),
            checkpoint_seconds=1e9, text="text", target="label",
        )  # fmt: skip
        head = {name: values[:8] for name, values in rows.items()}
        model = foretune.fit(rows, test=head, output=Path(folder) / "run", recipe=recipe, listeners=[Clock()])
        tokens = int(model.preprocess(texts).lengths.sum())
        found = rates(tokens, times["wall_end"] - times["wall"], times["cpu_end"] - times["cpu"])
        return found | {
            "fraction_of_peak": model.record["train"]["fraction_of_peak"],
            "examples_per_step": len(texts) / times["steps"],
        }


def equal_budget(texts: list[str], batch: int) -> int:
    """Return the token budget that cuts the texts into the number of batches that Trainer has."""
    from transformers import AutoTokenizer

    from foretune.training.batching import cut_by_budget

    tokenizer = AutoTokenizer.from_pretrained(bundled_minilm())
    lengths = np.sort([len(ids) for ids in tokenizer(texts, verbose=False)["input_ids"]])
    low, high = int(lengths[-1]), int(lengths.sum())
    while low < high:
        middle = (low + high) // 2
        if len(cut_by_budget(lengths, middle)) > -(-len(texts) // batch):
            low = middle + 1
        else:
            high = middle
    return low


def rates(tokens: int, wall: float, cpu: float) -> dict[str, float]:
    """Return tokens per second and per CPU-second."""
    return {"tokens_per_s": tokens / wall, "tokens_per_cpu_s": tokens / cpu}


def summary(
    name: str, runs: dict[str, list[dict[str, float]]], peaks: dict[str, float], flags: dict[str, Any]
) -> dict[str, Any]:
    """Print the medians and ratios of one set and return them."""
    median = {k: {m: statistics.median(r[m] for r in v) for m in v[0]} for k, v in runs.items()}
    ours = median["foretune"]
    ratios = {k: ours["tokens_per_s"] / median[k]["tokens_per_s"] for k in ("defaults", "best flags")}
    per_cpu = {k: ours["tokens_per_cpu_s"] / median[k]["tokens_per_cpu_s"] for k in ratios}
    print(
        f"\n{name}: GEMM peak fp32 {peaks['fp32'] / 1e9:.0f}, bf16 {peaks['bf16'] / 1e9:.0f} GFLOP/s; "
        f"best flags: {flags}"
    )
    for key, values in median.items():
        print(f"  {key:12} " + "  ".join(f"{m} {v:,.2f}" for m, v in values.items()))
    print(
        "  ratio "
        + "  ".join(f"to {k}: {v:.2f} (per CPU-second {per_cpu[k]:.2f})" for k, v in ratios.items())
    )
    return {"median": median, "ratio": ratios, "ratio_per_cpu_s": per_cpu, "peaks": peaks, "flags": flags}


if __name__ == "__main__":
    main()
