"""What the frozen-prefix cache saves: the same work with it (cold, then warm) and without it, in one run.

    python benchmarks/cache.py [--rows 1000] [--trials 20]

Work: a linear probe of 5 epochs, top-2-layer tuning of 5 epochs, and a search of `trials` rates for the probe.
Seconds are those of the training loop, filling the cache and dev evaluations included; loading, baselines
and saving, which the cache does not touch, are left out. Data: SST-2 training phrases, and IMDb cut at 128 tokens.
Losses with and without the cache are compared too. Ends with a JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data import table

RATES = np.geomspace(1e-4, 1e-2, 20)
WORK = {
    "probe": {"strategy": "linear-probe", "epochs": 5.0},
    "top-2": {"strategy": "top-layers", "epochs": 5.0, "options": {"layers": 2}},
}


class Losses:
    """Keeps the loss of every step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on(self, kind: str, values: dict[str, Any]) -> None:
        if kind == "step":
            self.values.append(values["loss"])

    def close(self) -> None:
        pass


def run(train: pd.DataFrame, dev: pd.DataFrame, cache: str, **options: Any) -> tuple[float, list[float]]:
    """Return the seconds of the training loop and the losses."""
    import foretune

    losses = Losses()
    with tempfile.TemporaryDirectory() as folder:
        model = foretune.fit(
            train, dev=dev, output=Path(folder) / "run", cache=cache, max_tokens=128, patience=0, offline=True,
            text="text", target="label", listeners=[losses], **options,
        )  # fmt: skip
    return model.record["train"]["seconds"], losses.values


def compare(train: pd.DataFrame, dev: pd.DataFrame, features: Path, work: dict[str, Any]) -> dict[str, float]:
    """Return seconds without, with a cold and with a warm cache, and how far the losses differ."""
    shutil.rmtree(features, ignore_errors=True)
    without, plain = run(train, dev, "off", **work)
    cold, cached = run(train, dev, "bf16", **work)
    warm, _ = run(train, dev, "bf16", **work)
    shutil.rmtree(features, ignore_errors=True)
    _, exact = run(train, dev, "fp32", **work)
    return {
        "without": without, "cold": cold, "warm": warm, "cold_ratio": without / cold, "warm_ratio": without / warm,
        "loss_difference_bf16": float(np.abs(np.subtract(plain, cached)).max()),
        "loss_difference_fp32": float(np.abs(np.subtract(plain, exact)).max()),
    }  # fmt: skip


def search(train: pd.DataFrame, dev: pd.DataFrame, features: Path, trials: int) -> dict[str, float]:
    """Return seconds of a search over rates, all trials together, with a cold cache at the start and without."""
    shutil.rmtree(features, ignore_errors=True)
    totals = {"off": 0.0, "bf16": 0.0}
    for rate in RATES[:trials]:
        for cache in totals:
            totals[cache] += run(train, dev, cache, lr=float(rate), **WORK["probe"])[0]
    return {"without": totals["off"], "with": totals["bf16"], "ratio": totals["off"] / totals["bf16"]}


def disk(train: pd.DataFrame, dev: pd.DataFrame, features: Path) -> float:
    """Return the bytes on disk per 1,000 real tokens of one split point in bf16."""
    from foretune.backbones import feature_store
    from foretune.backbones.text import load_text_backbone

    shutil.rmtree(features, ignore_errors=True)
    run(train, dev, "bf16", **WORK["top-2"])
    backbone = load_text_backbone(
        "minilm-l6", auto_class="AutoModelForSequenceClassification", options={}, offline=True
    )
    tokens = sum(
        int(backbone.preprocess(list(part["text"]), max_length=128, truncation="head").lengths.sum())
        for part in (train, dev)
    )
    return 1000 * feature_store.report()["bytes"] / tokens


def sets(rows: int) -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
    """Return training and dev rows by name."""
    sst2 = table("text/sst2/train.csv").drop_duplicates("text").sample(rows + rows // 5, random_state=0)
    imdb = (
        table("text/imdb/train.csv.gz").drop_duplicates("text").sample(rows // 4 + rows // 20, random_state=0)
    )
    return {
        "sst2": (sst2.iloc[:rows], sst2.iloc[rows:]),
        "imdb": (imdb.iloc[: rows // 4], imdb.iloc[rows // 4 :]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=20)
    given = parser.parse_args()
    os.environ["FORETUNE_LEDGER"] = "off"
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FORETUNE_CACHE"] = folder
        features = Path(folder) / "features"
        for name, (train, dev) in sets(given.rows).items():
            run(train, dev, "off", strategy="linear-probe", epochs=1.0)  # warm up: tokens, kernels
            found[name] = {work: compare(train, dev, features, options) for work, options in WORK.items()}
            found[name]["bytes_per_1000_tokens"] = disk(train, dev, features)
        train, dev = sets(given.rows)["sst2"]
        found["search"] = search(train, dev, features, given.trials)
    print(json.dumps(found, indent=1))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
