"""From the user's files to encoded, audited, split examples and the task they define."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.data.coco import refuse_missing
from foretune.data.columns import Columns
from foretune.data.fingerprint import fingerprint
from foretune.data.infer import infer_task
from foretune.data.read import read_table
from foretune.data.split import split
from foretune.errors import ConfigError, DataError, did_you_mean
from foretune.tasks import task_class
from foretune.tasks.base import Examples, Task

if TYPE_CHECKING:
    import pandas as pd

    from foretune.recipe import Recipe


@dataclass(frozen=True)
class Prepared:
    """The data of a run. `warnings` and `notes` are sentences for the user.

    `whole` are all training examples where `train` is a sample of them; None: `train` is all there are.
    """

    task: Task
    columns: Columns
    train: Examples
    dev: Examples | None
    test: Examples | None
    name: str = "data"  # of the training file, for titles and folders
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    whole: Examples | None = None

    @property
    def held_out(self) -> tuple[str, Examples] | None:
        """Return the part that the headline score is measured on: test, else dev, else None."""
        if self.test is not None:
            return "test", self.test
        return None if self.dev is None else ("dev", self.dev)

    @property
    def parts(self) -> dict[str, Examples]:
        """Return the parts that there are, by name."""
        parts = {"train": self.train, "dev": self.dev, "test": self.test}
        return {name: part for name, part in parts.items() if part is not None}

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Return a sha256 of every part's inputs and targets; hashed once, asked for several times.

        That of the training data is of all examples, also where `train` is a sample.
        """
        parts = self.parts if self.whole is None else self.parts | {"train": self.whole}
        return {name: _fingerprint(self.task.identities(part), part) for name, part in parts.items()}

    def sizes(self) -> dict[str, int]:
        """Return the rows of every part."""
        return {name: len(part) for name, part in self.parts.items()}


PARTS = ("train", "training", "dev", "val", "valid", "validation", "test")


def prepare(train: Any, dev: Any, test: Any, recipe: Recipe) -> Prepared:
    """Read, check and split the data. Raises DataError and ConfigError before anything is written."""
    table = _read(train, recipe, "train")
    chosen = infer_task(
        table, text=recipe.text, second=recipe.second, target=recipe.target, task=recipe.task,
        need_target="labels" not in recipe.options,
    )  # fmt: skip
    kind, columns = task_class(chosen.task), chosen.columns
    if recipe.class_weights != "none" and not kind.class_weighted:
        raise ConfigError(
            f"Class weights are for classification, not for {kind.name}. Leave --class-weights out."
        )
    table, broken = readable(kind, kind.tidy(table, columns), columns, recipe.skip_broken, "train")
    notes = [chosen.reason]
    warnings = list(kind.audit(table, columns, where="train"))
    task = kind.from_table(table, columns, recipe)
    parts: dict[str, Examples | None] = {
        "train": task.examples(table, where="train"),
        "dev": None,
        "test": None,
    }
    for name, source in (("dev", dev), ("test", test)):
        if source is not None:
            other = kind.tidy(_other(source, columns, recipe, name), columns)
            other, found = readable(kind, other, columns, recipe.skip_broken, name)
            broken += found
            warnings += kind.audit(other, columns, where=name)
            warnings += kind.overlap(table, other, columns, name)
            parts[name] = task.examples(other, where=name)
    warnings += broken
    notes += _hold_out(parts, recipe, task)
    whole = _present(parts["train"])
    prepared = Prepared(
        task, columns, whole, parts["dev"], parts["test"], source_name(train), warnings, notes
    )
    if recipe.rows is not None and recipe.rows < len(whole):
        prepared = sampled(prepared, recipe.rows, recipe.seed)
        notes.append(f"{sample_words(prepared)}, drawn with seed {recipe.seed}, as --rows asks.")
    return prepared


def sampled(prepared: Prepared, rows: int, seed: int) -> Prepared:
    """Return the data with about `rows` training examples, all of them where there are no more.

    Drawn with the seed as a split is: stratified, each class in it, copies of one input together. Dev and test
    stay what they are.
    """
    from foretune.data.split import TRAIN

    train, task = prepared.train, prepared.task
    if rows >= len(train):
        return prepared
    labels = None if train.targets is None else task.strata(train)
    rest = {"rest": 1 - rows / len(train)}
    chosen = split(task.groups(train), labels, fractions=rest, seed=seed)[TRAIN]
    whole = train if prepared.whole is None else prepared.whole
    return replace(prepared, train=train.take(np.asarray(chosen)), whole=whole)


def sample_words(prepared: Prepared) -> str:
    """Say how many of the training examples are used: "Trained on 9,000 of 67,349 rows"."""
    whole = prepared.train if prepared.whole is None else prepared.whole
    return f"Trained on {len(prepared.train):,} of {len(whole):,} rows"


def metric_of(recipe: Recipe, task: Task) -> str:
    """Return the metric that selects the best weights. Raises ConfigError where the task has no such metric."""
    if recipe.metric is None:
        return task.default_metric
    if recipe.metric not in task.metrics:
        known, hint = ", ".join(task.metrics), did_you_mean(recipe.metric, task.metrics)
        raise ConfigError(f"Unknown metric {recipe.metric!r} for {task.name}.{hint} Known: {known}.")
    return recipe.metric


def readable(
    kind: type[Task], table: pd.DataFrame, columns: Columns, skip: bool, where: str
) -> tuple[pd.DataFrame, list[str]]:
    """Return the table without the rows of broken pictures or sounds, where they are to be skipped, and a warning.

    Raises DataError where pictures of a COCO file are missing and are not to be skipped.
    """
    if not skip or kind.modality == "text":
        refuse_missing(table)
        return table, []
    from foretune.data.broken import without_broken

    return without_broken(table, columns.text, kind.modality, where)


def column_names(columns: Columns) -> list[str]:
    """Return every column that is read."""
    single = (columns.text, columns.second, columns.target)
    return [name for name in (*single, *columns.targets) if name is not None]


def target_option(columns: Columns) -> str | None:
    """Return what `--target` would name these columns."""
    return ",".join(columns.targets) if columns.targets else columns.target


def source_name(source: Any) -> str:
    """Return a short name of the data: the file's without its endings, the hub id's last part, or "data".

    A file or folder that is only called after its part, such as train, has the name of the folder it lies in.
    """
    if not isinstance(source, str | Path) or str(source) == "-":
        return "data"
    path = Path(source)
    name = path.name.split(".")[0]
    above = path.parent.name
    return f"{above}-{name}" if name.lower() in PARTS and above else name or "data"


def _read(source: Any, recipe: Recipe, split_name: str) -> pd.DataFrame:
    return read_table(source, separator=recipe.separator, offline=recipe.offline, split=split_name)


def _other(source: Any, columns: Columns, recipe: Recipe, name: str) -> pd.DataFrame:
    """Read a dev or test table. Raises DataError where it lacks the training table's columns."""
    table = _read(source, recipe, name)
    missing = [column for column in column_names(columns) if column not in table.columns]
    if missing:
        raise DataError(
            f"The {name} data have no column {' or '.join(repr(m) for m in missing)}; found: "
            f"{', '.join(map(str, table.columns))}. Name the columns as in the training data."
        )
    return table


def _hold_out(parts: dict[str, Examples | None], recipe: Recipe, task: Task) -> list[str]:
    """Split dev and test off the training examples where none were given; return a note."""
    fractions: dict[str, float] = {}
    if parts["dev"] is None and recipe.dev_fraction > 0:
        fractions["dev"] = recipe.dev_fraction
    if parts["dev"] is None and parts["test"] is None and recipe.test_fraction > 0:
        fractions["test"] = recipe.test_fraction
    whole = _present(parts["train"])
    most = 1.0 if recipe.held_out_rows is None else recipe.held_out_rows / len(whole)
    fractions = {name: min(share, most) for name, share in fractions.items()}
    if not fractions or (whole.targets is None and task.labels):  # labels alone: nothing could be scored
        return []
    if task.in_order(whole):
        return [_hold_out_end(parts, whole, fractions)]
    strata = task.strata(whole)
    rows = split(task.groups(whole), strata, fractions=fractions, seed=recipe.seed)
    for name, numbers in rows.items():
        parts[name] = whole.take(np.asarray(numbers))
    sizes = ", ".join(f"{len(numbers):,} {name}" for name, numbers in rows.items())
    how = "" if strata is None else "stratified, "
    return [f"Split with seed {recipe.seed}, {how}identical inputs on one side: {sizes}."]


def _hold_out_end(parts: dict[str, Examples | None], whole: Examples, fractions: dict[str, float]) -> str:
    """Hold out the ends of examples that are parts of one whole; return a note. Raises DataError for too few."""
    counts = {name: max(round(len(whole) * share), 1) for name, share in fractions.items()}
    if sum(counts.values()) >= len(whole):
        raise DataError(
            f"The text is too short to hold out {' and '.join(counts)}: it has {len(whole)} parts. Give more text, "
            "or held-out files with --dev or --test."
        )
    end = len(whole)
    for name in reversed(counts):
        parts[name] = whole.take(np.arange(end - counts[name], end))
        end -= counts[name]
    parts["train"] = whole.take(np.arange(end))
    shares = ", ".join(f"{share:.0%} {name}" for name, share in fractions.items())
    return f"Held out in order, from the end of the text: {shares}."


def _present(examples: Examples | None) -> Examples:
    assert examples is not None
    return examples


def _fingerprint(inputs: list[str], examples: Examples) -> str:
    labels = None if examples.targets is None else [str(target) for target in examples.targets.tolist()]
    return fingerprint(inputs, labels)
