"""The data of the benchmarks, read from a folder of real sets that is not part of this repository."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(os.environ.get("FORETUNE_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def table(name: str) -> pd.DataFrame:
    """Return a csv or jsonl below the data folder, strings as they are; end the program where it is missing."""
    path = ROOT / name
    if not path.exists():
        sys.exit(f"{path} is missing. Set FORETUNE_DATA to a folder that holds {name}.")
    if ".jsonl" in path.suffixes:
        return pd.read_json(path, lines=True)
    return pd.read_csv(path, keep_default_na=False)


def sst2_2k(seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return 2,000 training rows of SST-2 drawn with `seed`, and the whole dev and test sets."""
    return (
        table("text/sst2/train.csv").sample(2000, random_state=seed),
        table("text/sst2/dev.csv"),
        table("text/sst2/test.csv"),
    )
