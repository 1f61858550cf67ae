"""The data of `tasks.py`: real sets, cut by a seed and written as the files that both sides read."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from data import ROOT, table

ENCODING = "utf-8"


@dataclass(frozen=True)
class Cut:
    """How much of a set is taken: rows of each part (0: all; characters of running text), and epochs."""

    train: int = 0
    dev: int = 0
    test: int = 0
    epochs: float = 3


def write(name: str, cut: Cut, folder: Path) -> dict[str, str]:
    """Write the parts of the set `name` below `folder`; return {"train", "dev", "test": path}."""
    kind, *arguments = SETS[name]
    return WRITERS[kind](cut, folder, *arguments)  # type: ignore[operator]


def draw(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return `count` rows drawn with seed 0, in random order; all of them for 0."""
    return rows.sample(min(count or len(rows), len(rows)), random_state=0)


def part_off(rows: pd.DataFrame, count: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return (the others, `count` rows; for 0 a tenth) of rows in random order: dev where a set has none."""
    count = count or len(rows) // 10
    return rows.iloc[count:], rows.iloc[:count]


def _tables(cut: Cut, folder: Path, train: str, dev: str | None, test: str, *renamed: str) -> dict[str, str]:
    """Write csv or jsonl tables; `renamed`: the columns' names where they should differ."""
    held = draw(table(test), cut.test)
    if dev is None:
        rows, dev_rows = part_off(draw(table(train), cut.train + cut.dev), cut.dev)
    else:
        rows, dev_rows = draw(table(train), cut.train), draw(table(dev), cut.dev)
    parts = {"train": rows, "dev": dev_rows, "test": held}
    if renamed:
        parts = {name: frame.set_axis(list(renamed), axis=1) for name, frame in parts.items()}
    return _saved(parts, folder)


def _saved(parts: dict[str, pd.DataFrame], folder: Path) -> dict[str, str]:
    paths = {}
    for name, frame in parts.items():
        lists = any(frame[column].map(lambda cell: isinstance(cell, list)).any() for column in frame)
        path = folder / f"{name}.{'jsonl' if lists else 'csv'}"
        if lists:
            frame.to_json(path, orient="records", lines=True, force_ascii=False)
        else:
            frame.to_csv(path, index=False)
        paths[name] = str(path)
    return paths


def _conll(cut: Cut, folder: Path, name: str) -> dict[str, str]:
    """Write sentences as lists of words and of tags."""
    parts = {}
    for part, count in (("train", cut.train), ("dev", cut.dev), ("test", cut.test)):
        blocks = (ROOT / name / f"{part}.conll").read_text(ENCODING).strip().split("\n\n")
        words = [[line.split("\t") for line in block.split("\n")] for block in blocks]
        frame = pd.DataFrame(
            {"tokens": [[w[0] for w in s] for s in words], "tags": [[w[1] for w in s] for s in words]}
        )
        parts[part] = draw(frame, count)
    return _saved(parts, folder)


def _spans(cut: Cut, folder: Path, name: str) -> dict[str, str]:
    """Write texts with entities that do not overlap; the dev set is the test, as the real one has no labels."""
    train, test = (table(f"{name}/{part}.jsonl") for part in ("train", "dev"))
    train, test = (part[part["entities"].map(apart)] for part in (train, test))
    rows, dev = part_off(draw(train, cut.train + cut.dev), cut.dev)
    return _saved({"train": rows, "dev": dev, "test": draw(test, cut.test)}, folder)


def apart(entities: list[dict[str, Any]]) -> bool:
    """Say whether no two entities overlap."""
    placed = sorted((each["start"], each["end"]) for each in entities)
    return all(first[1] <= second[0] for first, second in itertools.pairwise(placed))


def _squad(cut: Cut, folder: Path, name: str) -> dict[str, str]:
    """Write questions in SQuAD's layout; those of one paragraph stay on one side."""
    train, test = (_open_squad(ROOT / name / f"{part}.json.gz") for part in ("train", "dev"))
    paragraphs = [p for article in train["data"] for p in article["paragraphs"]]
    paragraphs = [paragraphs[i] for i in pd.Series(range(len(paragraphs))).sample(frac=1, random_state=0)]
    dev = list(first_questions(paragraphs, cut.dev or 600))
    rows = list(first_questions(paragraphs[len(dev) :], cut.train))
    held = list(first_questions([p for a in test["data"] for p in a["paragraphs"]], cut.test))
    paths = {}
    for part, chosen in (("train", rows), ("dev", dev), ("test", held)):
        path = folder / f"{part}.json"
        content = {"version": "1.1", "data": [{"title": part, "paragraphs": chosen}]}
        path.write_text(json.dumps(content), ENCODING)
        paths[part] = str(path)
    return paths


def _open_squad(path: Path) -> dict[str, Any]:
    with gzip.open(path, "rt", encoding=ENCODING) as stream:
        content: dict[str, Any] = json.load(stream)
    return content


def first_questions(paragraphs: list[dict[str, Any]], count: int) -> Iterator[dict[str, Any]]:
    """Yield paragraphs until they hold `count` questions, the last one cut to fit; all of them for 0."""
    left = count or sum(len(p["qas"]) for p in paragraphs)
    for paragraph in paragraphs:
        if left <= 0:
            return
        yield {**paragraph, "qas": paragraph["qas"][:left]}
        left -= len(paragraph["qas"])


def _running_text(cut: Cut, folder: Path, name: str) -> dict[str, str]:
    """Write running text: the test's characters are the last tenth's first, dev those before them."""
    text = (ROOT / name).read_text(ENCODING)
    border = int(len(text) * 0.9)
    dev = cut.dev or len(text) // 20
    train = text[: border - dev][-(cut.train or border) :]
    parts = {"train": train, "dev": text[border - dev : border], "test": text[border:]}
    paths = {part: str(folder / f"{part}.txt") for part in parts}
    for part, content in parts.items():
        limit = cut.test if part == "test" else 0
        Path(paths[part]).write_text(content[: limit or None], ENCODING)
    return paths


def _folders(cut: Cut, folder: Path, train: str, test: str, *others: str) -> dict[str, str]:
    """Write tables of paths and labels of folders with a folder per class; `others` are further training folders."""
    own = pd.concat([labelled(ROOT / name) for name in (train, *others)])
    rows, dev = part_off(draw(own, cut.train + cut.dev), cut.dev)
    return _saved({"train": rows, "dev": dev, "test": draw(labelled(ROOT / test), cut.test)}, folder)


def labelled(folder: Path) -> pd.DataFrame:
    """Return columns path and label of the files in a folder's folders, in the order of their names."""
    files = sorted(file for file in folder.glob("*/*") if not file.name.startswith("."))
    names = [f"class {file.parent.name}" for file in files]  # digits would be read as numbers on one side
    return pd.DataFrame({"path": [str(file.absolute()) for file in files], "label": names})


def _speech(cut: Cut, folder: Path, name: str) -> dict[str, str]:
    train, test = (table(f"{name}/{part}.csv") for part in ("train", "test"))
    train, test = (
        part.assign(path=[str((ROOT / name / p).absolute()) for p in part["path"]]) for part in (train, test)
    )
    rows, dev = part_off(draw(train, cut.train + cut.dev), cut.dev)
    return _saved({"train": rows, "dev": dev, "test": draw(test, cut.test)}, folder)


def _masks(cut: Cut, folder: Path, name: str) -> dict[str, str]:
    """Write a folder of links to pictures and masks, with a split.json of the stems that are taken."""
    source = (ROOT / name).absolute()
    for inner in ("images", "masks", "classes.json"):
        (folder / inner).symlink_to(source / inner)
    split = json.loads((source / "split.json").read_text(ENCODING))
    stems = {
        part: sorted(draw(pd.DataFrame({"stem": split[own]}), count)["stem"])
        for part, own, count in (
            ("train", "train", cut.train),
            ("dev", "val", cut.dev),
            ("test", "test", cut.test),
        )
    }
    (folder / "split.json").write_text(json.dumps(stems), ENCODING)
    return dict.fromkeys(("train", "dev", "test"), str(folder))


def _boxes(cut: Cut, folder: Path, name: str) -> dict[str, str]:
    """Write COCO files whose pictures have whole paths."""
    train, test = (
        json.loads((ROOT / name / f"annotations_{part}.json").read_text(ENCODING))
        for part in ("train", "test")
    )
    own, dev = part_off(draw(pd.DataFrame(train["images"]), cut.train + cut.dev), cut.dev)
    held = draw(pd.DataFrame(test["images"]), cut.test)
    paths = {}
    for part, content, images in (("train", train, own), ("dev", train, dev), ("test", test, held)):
        kept = set(images["id"])
        images = images.assign(
            file_name=[str((ROOT / name / "images" / f).absolute()) for f in images["file_name"]]
        )
        chosen = {
            "images": images.to_dict("records"),
            "annotations": [a for a in content["annotations"] if a["image_id"] in kept],
            "categories": content["categories"],
        }
        paths[part] = str(folder / f"{part}.json")
        Path(paths[part]).write_text(json.dumps(chosen), ENCODING)
    return paths


WRITERS = {
    "tables": _tables, "conll": _conll, "spans": _spans, "squad": _squad, "text": _running_text,
    "folders": _folders, "speech": _speech, "masks": _masks, "boxes": _boxes,
}  # fmt: skip

ESC10 = [f"audio/esc10/fold{fold}" for fold in range(1, 6)]

#: Set -> its writer and where it lies below the data folder.
SETS: dict[str, tuple[Any, ...]] = {
    "stsb": ("tables", "text/stsb/train.csv", "text/stsb/dev.csv", "text/stsb/test.csv"),
    "mrpc": ("tables", "text/mrpc/train.csv", None, "text/mrpc/test.csv"),
    "conll2003": ("conll", "ner/conll2003"),
    "cluener": ("spans", "ner/cluener"),
    "squad": ("squad", "qa/squad_small"),
    "multi30k": (
        "tables", "seq2seq/multi30k_en_de/train.csv.gz", "seq2seq/multi30k_en_de/dev.csv.gz",
        "seq2seq/multi30k_en_de/test2016.csv.gz", "en", "de",
    ),
    "tinyshakespeare": ("text", "generation/tinyshakespeare.txt"),
    "hymenoptera": ("folders", "image/hymenoptera/train", "image/hymenoptera/val"),
    "flowers5": ("folders", "image/flowers5/train", "image/flowers5/test"),
    "cifar10": ("folders", "image/cifar10/train", "image/cifar10/test"),
    "bccd": ("boxes", "detection/bccd"),
    "camvid": ("masks", "segmentation/camvid"),
    "fsdd": ("folders", "audio/fsdd/train", "audio/fsdd/test"),
    "yesno": ("speech", "asr/yesno"),
    **{
        f"esc10-{fold}": ("folders", ESC10[fold - 5], ESC10[fold - 1], *(ESC10[fold - n] for n in (4, 3, 2)))
        for fold in range(1, 6)
    },
}  # fmt: skip
