"""Measure what fine-tuning reaches: real sets x backbones x strategies x sizes, one JSON line an outcome.

    python benchmarks/ledger.py OUT.jsonl --weights FOLDER [--strategies A,B] [--only KEY=VALUE …] [--part 0/2]
    python benchmarks/ledger.py OUT.jsonl --weights FOLDER --predictors
    python benchmarks/ledger.py OUT.jsonl --weights FOLDER --pilots [--only KEY=VALUE …]
    python benchmarks/forecast.py OUT.jsonl --ship src/foretune/forecast/shipped.jsonl.gz

Outcomes that stand in OUT.jsonl already are not measured again, so that the program can be stopped at any
time. `--weights` holds one folder per backbone (all but the bundled MiniLM and those in ../shared/weights). Every
set is cut to texts of at most 64 tokens, a seeded sample of `n` training rows, 150 dev (at most a quarter of what is
not test) and at most 600 test rows. These are of the training rows' own draw; `--published` takes the set's own test
file instead, which may differ from its training file. Pictures take `--sizes 200`, as few have more.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data import ROOT, table

MAX_TOKENS, DEV_ROWS, TEST_ROWS = 64, 150, 600
HELD_ROWS = 800  # set aside for test of sets in one file
MEASURED = ("predictors", "predictor_seconds", "tokens", "backbone_fingerprint")
ENGLISH = ("minilm-l6", "minilm-l3", "bge-small-en", "granite-30m-en", "mpnet-base")
CHINESE = ("roformer-zh-small", "minilm-l6", "minilm-l3", "bge-small-en")
PICTURES = ("resnet18-imagenet", "tinyvit-5m")


@dataclass(frozen=True)
class Source:
    """A set: its training file, its published test file (None: it has none), target column.

    Of texts with entities those count whose entities are all of one type, which is the label. A set of pictures is
    a folder per class, without an ending.
    """

    train: str
    test: str | None
    target: str = "label"
    backbones: tuple[str, ...] = ENGLISH


SETS = {
    "sst2": Source("text/sst2/train.csv", "text/sst2/test.csv"),
    "trec6": Source("text/trec6/train.csv", "text/trec6/test.csv"),
    "snips": Source("text/snips/train.jsonl", "text/snips/test.jsonl", "intent"),
    "ag_news": Source("text/ag_news/train.csv", "text/ag_news/test.csv"),
    "imdb": Source("text/imdb/train.csv.gz", "text/imdb/test.csv.gz"),
    "amazon_books": Source("text/amazon/books.csv", None),
    "amazon_kitchen": Source("text/amazon/kitchen.csv", None),
    "chnsenticorp": Source("text/chnsenticorp/train.csv", "text/chnsenticorp/test.csv", backbones=CHINESE),
    "zh_poetry": Source("generation/zh_poetry.jsonl.gz", None, "kind", CHINESE),
    "cluener_types": Source("ner/cluener/train.jsonl", None, backbones=CHINESE),
    "conll_types": Source("ner/conll2003/train.conll", None),
    "tickets": Source("examples", None, "intent"),
    "hymenoptera": Source("image/hymenoptera/train", "image/hymenoptera/val", backbones=PICTURES),
    "flowers5": Source("image/flowers5/train", "image/flowers5/test", backbones=PICTURES),
    "cifar10": Source("image/cifar10/train", "image/cifar10/test", backbones=PICTURES),
}


@dataclass(frozen=True)
class Job:
    """One outcome to measure."""

    data: str
    backbone: str
    strategy: str
    n: int
    seed: int = 0

    @property
    def key(self) -> str:
        """Return the outcome's name."""
        return "/".join(map(str, asdict(self).values()))


def jobs(strategies: tuple[str, ...], sizes: tuple[int, ...]) -> Iterator[Job]:
    """Yield every job, cheap ones first within a set."""
    for size in sizes:
        for data, source in SETS.items():
            for backbone in source.backbones:
                for strategy in strategies:
                    yield Job(data, backbone, strategy, size)


def parts(
    name: str, n: int, seed: int = 0, published: bool = False
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return train (n rows), dev and test of a set with the columns text and label, none in two parts."""
    source = SETS[name]
    pool = _frame(source.train, source.target).drop_duplicates("text").sample(frac=1, random_state=seed)
    if source.test is None:
        held = min(HELD_ROWS, len(pool) // 3)
        test, pool = pool.iloc[: min(held, TEST_ROWS)], pool.iloc[held:]
    else:
        test = _frame(source.test, source.target).drop_duplicates("text")
        test = test.sample(min(HELD_ROWS, len(test)), random_state=seed)
        pool = pool[~pool["text"].isin(test["text"])]
    n_dev = min(DEV_ROWS, len(pool) // 4)
    dev, pool = pool.iloc[:n_dev], pool.iloc[n_dev:]
    train = pool.iloc[:n]
    if source.test is not None:
        test = test.iloc[:TEST_ROWS] if published else pool.iloc[len(train) :].iloc[-TEST_ROWS:]
    known = set(train["label"])  # a class that the sample lacks cannot be learnt or scored
    return train, dev[dev["label"].isin(known)], test[test["label"].isin(known)]


def _frame(name: str, target: str) -> pd.DataFrame:
    from foretune.data.read import read_table

    if (ROOT / name).is_dir():
        pictures = read_table(ROOT / name)
        return pd.DataFrame({"text": pictures["path"].astype(str), "label": pictures["label"].astype(str)})
    if name == "examples":
        path = Path(__file__).resolve().parents[1] / "examples" / "support_tickets.csv"
        frame = pd.read_csv(path, keep_default_na=False)
        target = next(column for column in frame.columns if column != "text")
    else:
        frame = read_table(ROOT / name) if name.endswith(".conll") else table(name)
    types = None
    if "entities" in frame:
        types = frame["entities"].map(lambda spans: sorted({span["label"] for span in spans}))
    elif "tags" in frame and target not in frame:
        types = frame["tags"].map(lambda tags: sorted({tag[2:] for tag in tags if tag != "O"}))
    if types is not None:
        frame = frame[types.map(len) == 1].assign(**{target: types.str[0]})
    if "tokens" in frame:
        frame["text"] = frame["tokens"].map(" ".join)
    return pd.DataFrame({"text": frame["text"].astype(str), "label": frame[target].astype(str)})


def backbone_path(name: str, weights: Path) -> str:
    """Return what --backbone is given: the bundled model's name, or a folder."""
    if name == "minilm-l6":
        return name
    shared = ROOT.parent / "weights" / name
    return str(shared if shared.is_dir() else weights / name)


def _cut(name: str) -> int | None:
    """Return how many tokens are read of a set's texts; None for pictures."""
    return None if SETS[name].backbones == PICTURES else MAX_TOKENS


def measure(job: Job, weights: Path, published: bool) -> dict[str, Any]:
    """Fine-tune and return the outcome."""
    import foretune

    train, dev, test = parts(job.data, job.n, job.seed, published)
    if test.empty:
        raise SystemExit(
            f"{job.key}: no rows are left for test beside {len(train)} for training; take --published."
        )
    started, cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        model = foretune.fit(
            train, dev=dev, test=test, text="text", target="label", backbone=backbone_path(job.backbone, weights),
            strategy=job.strategy, seed=job.seed, max_tokens=_cut(job.data), output=Path(folder) / "run", offline=True,
        )  # fmt: skip
        record = model.record
    return {
        "key": job.key, **asdict(job), "classes": int(train["label"].nunique()),
        "test": "published" if published else "own", "task": model.task.name, "train_rows": len(train),
        "dev_rows": len(dev), "test_rows": len(test),
        "metrics": record["metrics"],
        "baselines": {name: scores.get("accuracy") for name, scores in record["baselines"].items()},
        "train": record["train"], "seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu,
    }  # fmt: skip


def add_predictors(path: Path, weights: Path) -> None:
    """Give every line of `path` without predictors those of its data and backbone, measured as `plan` does."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    names = sorted(
        {
            (line["data"], line["backbone"], line["n"], line["seed"])
            for line in lines
            if "predictors" not in line
        }
    )
    for data, backbone, n, seed in names:
        found, seconds = _look(data, backbone, n, seed, weights)
        for line in lines:
            if _features_of(line) == (data, backbone, n, seed):
                line["predictors"], line["predictor_seconds"] = found.predictors, seconds
                line["tokens"], line["backbone_fingerprint"] = found.tokens, found.fingerprint
        _write(path, lines)
        print(
            f"{data}/{backbone}/{n}: probe {found.predictors['probe']:.3f} in {seconds:.0f} s",
            file=sys.stderr,
            flush=True,
        )


def _features_of(line: dict[str, Any]) -> tuple[str, str, int, int]:
    """Return what decides the frozen features: strategies share them."""
    return line["data"], line["backbone"], line["n"], line["seed"]


def add_pilots(path: Path, weights: Path, wanted: dict[str, str]) -> None:
    """Give the lines of `path` that are wanted and have none a pilot, made as `plan` makes it.

    The linear probe has none: the predictor `probe` is its pilot.
    """
    from foretune.planning_pilot import pilot
    from foretune.strategies import import_strategies

    import_strategies()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        asked = all(str(line[name]) in value.split(",") for name, value in wanted.items())
        if not asked or line["strategy"] == "linear-probe" or "pilot" in line["predictors"]:
            continue
        recipe, prepared, runtime = _ready(*_features_of(line), weights)
        found = _look(*_features_of(line), weights)[0]
        recipe, cpu = recipe.with_changes(strategy=line["strategy"]), time.process_time()
        done = pilot(recipe, prepared, runtime, "accuracy", found.features, found.rows)
        line["predictors"] |= done.predictors()
        line["pilot_seconds"], line["pilot_cpu_seconds"] = done.seconds, time.process_time() - cpu
        _write(path, lines)
        print(
            f"{line['key']}: pilot {done.value:.3f}, probe {done.probe:.3f} in {done.seconds:.0f} s",
            file=sys.stderr,
            flush=True,
        )


def _write(path: Path, lines: list[dict[str, Any]]) -> None:
    draft = path.with_suffix(".part")  # the whole file appears or none
    draft.write_text("".join(json.dumps(line) + "\n" for line in lines))
    draft.replace(path)


@cache
def _ready(data: str, backbone: str, n: int, seed: int, weights: Path) -> tuple[Any, Any, Any]:
    """Return recipe, prepared data and runtime."""
    from foretune.prepare import prepare
    from foretune.recipe import Recipe
    from foretune.training import machine
    from foretune.training.inference import Runtime

    train, dev, test = parts(data, n, seed, published=True)  # which test rows they are does not matter here
    recipe = Recipe(
        backbone=backbone_path(backbone, weights),
        text="text",
        target="label",
        max_tokens=_cut(data),
        seed=seed,
        offline=True,
    )
    return recipe, prepare(train, dev, test, recipe), Runtime(machine.pick_device("cpu"), "fp32")


@cache
def _look(data: str, backbone: str, n: int, seed: int, weights: Path) -> tuple[Any, float]:
    """Return what is seen of the frozen features, and the seconds that it took."""
    from foretune.assemble import load_backbone
    from foretune.planning_look import look

    recipe, prepared, runtime = _ready(data, backbone, n, seed, weights)
    model = load_backbone(recipe, prepared)
    started = time.perf_counter()
    return look(model, prepared.train, recipe, runtime, "accuracy"), time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--strategies", default="linear-probe,full")
    parser.add_argument("--sizes", default="400")
    parser.add_argument("--only", action="append", default=[], help="such as data=sst2 or backbone=minilm-l6")
    parser.add_argument("--part", default="0/1", help="k/n: every n-th job from the k-th on")
    parser.add_argument("--published", action="store_true", help="score the sets' published test files")
    parser.add_argument(
        "--predictors", action="store_true", help="add what `plan` measures to OUT.jsonl, and stop"
    )
    parser.add_argument("--pilots", action="store_true", help="add pilots to OUT.jsonl, and stop")
    given = parser.parse_args()
    wanted = dict(item.split("=", 1) for item in given.only)
    if given.predictors:
        return add_predictors(given.output, given.weights)
    if given.pilots:
        return add_pilots(given.output, given.weights, wanted)
    part, count = map(int, given.part.split("/"))
    todo = [
        job for job in jobs(tuple(given.strategies.split(",")), tuple(map(int, given.sizes.split(","))))
        if all(str(asdict(job)[name]) in value.split(",") for name, value in wanted.items())
    ][part::count]  # fmt: skip
    for job in todo:
        if job.key in _done(given.output):
            continue
        outcome = measure(job, given.weights, given.published)
        with given.output.open("a") as file:
            file.write(json.dumps(outcome) + "\n")
        score = outcome["metrics"]["test"]["accuracy"]["value"]
        print(f"{job.key}: {score:.3f} in {outcome['seconds']:.0f} s", file=sys.stderr, flush=True)


def _done(path: Path) -> set[str]:
    return {json.loads(line)["key"] for line in path.read_text().splitlines()} if path.exists() else set()


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    np.seterr(all="ignore")
    main()
