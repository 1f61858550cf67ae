"""What a fit costs besides training: loading, tokenising, scoring, baselines, writing. Each measured on a sample."""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foretune.forecast.meter import MemoryMeter, nbytes
from foretune.training.files import write_folder

if TYPE_CHECKING:
    from foretune.data.store import Store
    from foretune.prepare import Prepared
    from foretune.tasks.base import Examples
    from foretune.training.job import Job

SAMPLE = 256  # inputs whose preprocessing is timed; fewer than are cached on the disk
SCORED = 20_000  # examples at most whose scoring is timed
FEW_SCORED, SCORING_SECONDS = 500, 10.0  # more are scored only where these tell that it takes no longer
PROBES = 8  # inputs on which a saved model is compared, as in `foretune.artifact`
FIRST_ROWS, GROWTH = 250, 3  # rows of the first baseline that is timed, and how the rows grow to the next
SLOW = 5.0  # seconds of baselines that are not repeated
EXPONENTS = (0.5, 1.6)  # between which time and memory of a baseline grow with the rows


@dataclass(frozen=True)
class Load:
    """What loading the backbone once more, and saving it as it is, took: seconds and bytes.

    `memory_bytes`: held once it has run, None where the system does not tell; `layers` and `layer_bytes`: of
    this model as it comes, to see what a strategy adds.
    """

    seconds: float
    memory_bytes: int | None
    save_seconds: float
    saved_bytes: int
    layers: int
    layer_bytes: int


_LOADS: dict[tuple[str, str, str], Load] = {}


def load_again(job: Job, prepared: Prepared, folder: Path) -> Load:
    """Return what loading and saving the backbone costs; measured once per backbone, vocabulary, task and process.

    `folder`: on the disk that the fit will write to; nothing is left there. Raises ResourceError.
    """
    key = (job.recipe.backbone, job.task.name, job.backbone.learnt)
    if key not in _LOADS:
        _LOADS[key] = _load(job, prepared, folder / "foretune-forecast")
    return _LOADS[key]


def _load(job: Job, prepared: Prepared, target: Path) -> Load:
    """Load the backbone anew, run it on a few short inputs, as the check of a saved model does, and save it."""
    import torch

    from foretune.assemble import load_backbone

    meter = MemoryMeter(torch.device("cpu"))
    meter.start()
    started = time.perf_counter()
    again = load_backbone(job.recipe, prepared)
    if job.backbone.learnt:  # else the tokens of these characters would lie beyond the table
        again.learn_vocabulary(job.task.texts(prepared.train))
    again.model.eval()
    rows = np.argsort(job.train_store.lengths, kind="stable")[:PROBES]
    with torch.inference_mode():
        again.forward(again.collate(job.train_store, rows))
    seconds, growth = time.perf_counter() - started, meter.growth()
    try:
        saving = timed(lambda: write_folder(target, again.save))
        saved = sum(path.stat().st_size for path in target.iterdir())
    finally:
        shutil.rmtree(target, ignore_errors=True)
    depth, count = again.layers.depth, again.layers.count
    top = nbytes(p for name, p in again.model.named_parameters() if depth[name] == count)
    return Load(seconds, growth, saving, saved, count, top)


def tokenising(job: Job, prepared: Prepared) -> tuple[dict[str, float], np.ndarray]:
    """Return the seconds of preprocessing each part, and the lengths (tokens) of a sample of the test part.

    A part whose tokens lie in the cache is read from it, as the fit will do.
    """
    stores = {"train": job.train_store, "dev": job.dev_store}
    seconds, lengths = {}, np.zeros(0, dtype=np.int64)
    for name, part in prepared.parts.items():
        store = stores.get(name)
        if store is not None and isinstance(getattr(store, "flat", None), np.memmap):
            seconds[name] = _preprocess(job, part)[0]
            continue
        seconds[name], found = _fresh(job, part)
        if name == "test":
            lengths = found.lengths
    return seconds, lengths


def tokenising_anew(job: Job, part: Examples) -> float:
    """Return the seconds of preprocessing an example of a part that is in no cache."""
    return _fresh(job, part)[0] / max(len(part), 1)


def _fresh(job: Job, part: Examples) -> tuple[float, Store]:
    """Return the seconds that a part would take, judging by a sample of it, and the sample."""
    sample = part.take(_evenly(len(part), SAMPLE))
    spent, found = _preprocess(job, sample)
    return spent * len(part) / len(sample), found


def _preprocess(job: Job, part: Examples) -> tuple[float, Store]:
    recipe, started = job.recipe, time.perf_counter()
    longest = recipe.max_tokens or job.backbone.max_length
    encoded = job.task.encode(job.backbone, part, max_length=longest, truncation=recipe.truncation)
    return time.perf_counter() - started, encoded.store


def _evenly(count: int, most: int) -> np.ndarray:
    """Return at most `most` of `count` positions, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def _stacks(rows: np.ndarray, outputs: dict[int, np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (rows, their outputs): all together where they are of one shape, else one by one."""
    if len({found.shape for found in outputs.values()}) == 1:
        yield rows, np.stack([outputs[int(row)] for row in rows])
        return
    for row in rows:
        yield np.array([row]), outputs[int(row)][None]


def scoring(job: Job, outputs: dict[int, np.ndarray], examples: Examples, count: int) -> tuple[float, float]:
    """Return the seconds of scoring `count` examples: with intervals, and without.

    `outputs`: what the model gave for some positions of `examples`; they are scored over and over: a few first, and
    as many as there are where that is quick.
    """
    if not outputs or examples.targets is None:
        return 0.0, 0.0
    few = min(count, FEW_SCORED)
    found = _scored(job, outputs, examples, few)
    more = min(count, SCORED)
    if more > few and found[0] * more / few <= SCORING_SECONDS:
        found, few = _scored(job, outputs, examples, more), more
    return found[0] * count / few, found[1] * count / few


def _scored(job: Job, outputs: dict[int, np.ndarray], examples: Examples, count: int) -> tuple[float, float]:
    """Score `count` examples; return the seconds with intervals, and without."""
    rows = np.resize(np.fromiter(outputs, dtype=np.int64), count)
    assert job.dev_set is None or job.dev_set.targets is not None
    encoded = job.train_set if job.dev_set is None else job.dev_set
    scores, started = job.task.scores(examples, encoded), time.perf_counter()
    for some, stacked in _stacks(rows, outputs):
        scores.update(stacked, encoded.targets[some], some)  # type: ignore[index]
    scores.point()
    quick = time.perf_counter() - started
    scores.result(seed=job.recipe.seed)
    return time.perf_counter() - started, quick


@dataclass(frozen=True)
class Baselines:
    """Seconds and memory (bytes) of the task's trivial models, and what was measured of both.

    `measured`: (rows, seconds, bytes) of each sample, its rows being those that the models train on and those that
    they are scored on.
    """

    seconds: float = 0.0
    memory_bytes: int = 0
    measured: tuple[tuple[int, float, float], ...] = ()

    def at(self, train: int, held_out: int) -> Baselines:
        """Return what they cost with other numbers of examples."""
        if not self.measured:
            return self
        sizes, seconds, held = (list(column) for column in zip(*self.measured, strict=True))
        rows = train + held_out
        return replace(
            self, seconds=extended(sizes, seconds, rows), memory_bytes=int(extended(sizes, held, rows))
        )


_BASELINES: dict[tuple[str, ...], Baselines] = {}


def baselines(job: Job, prepared: Prepared, limit: float) -> Baselines:
    """Return what the baselines cost, from growing samples of the rows; measured once per data and process."""
    if prepared.held_out is None:
        return Baselines()
    key = (job.task.name, str(job.recipe.seed), *prepared.fingerprints.values())
    if key not in _BASELINES:
        _BASELINES[key] = _measure_baselines(job, prepared.train, prepared.held_out[1], limit)
    return _BASELINES[key]


def _measure_baselines(job: Job, train: Examples, held_out: Examples, limit: float) -> Baselines:
    """Time the baselines on growing samples; the first run, with imports, counts where it is too long for another."""
    import torch

    meter, end = MemoryMeter(torch.device("cpu")), time.perf_counter() + limit
    measured: list[tuple[int, float, float]] = []
    size = min(FIRST_ROWS, len(train))
    while True:
        scored = min(len(held_out) * size // len(train), size)
        parts = _drawn(train, size), _drawn(held_out, max(scored, 1))
        rows, work = sum(map(len, parts)), partial(job.task.baselines, *parts, job.recipe.seed)
        seconds = timed(work) if not measured else 0.0
        if seconds <= max(limit, SLOW):
            meter.start()
            seconds = timed(work)
        measured.append((rows, seconds, float(meter.growth() or 0)))
        if size == len(train) or time.perf_counter() + seconds * GROWTH >= end:
            return Baselines(measured=tuple(measured)).at(len(train), len(held_out))
        size = min(size * GROWTH, len(train))


def _drawn(part: Examples, count: int) -> Examples:
    """Return `count` examples at random, always the same ones; data files are often sorted by label."""
    return part.take(np.sort(np.random.default_rng(0).permutation(len(part))[:count]))


def extended(sizes: list[int], values: list[float], size: int) -> float:
    """Return the value at `size` of a power law through the last two measured ones; below these no extension."""
    if sizes[-1] >= size or values[-1] <= 0:
        return float(np.interp(size, sizes, values))
    power = 1.0
    if len(sizes) > 1 and values[-2] > 0:
        power = math.log(values[-1] / values[-2]) / math.log(sizes[-1] / sizes[-2])
        power = min(max(power, EXPONENTS[0]), EXPONENTS[1])
    return values[-1] * (size / sizes[-1]) ** power


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that `work` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def data_bytes(prepared: Prepared) -> int:
    """Return the bytes of the examples in memory, twice: reading and preparing hold a table of them as well."""
    return 2 * sum(_input_bytes(part) for part in prepared.parts.values())


def _input_bytes(part: Examples) -> int:
    sample = _evenly(len(part), SCORED)
    sizes = [sys.getsizeof(part.inputs[row]) for row in sample]
    return int(np.mean(sizes) * len(part)) if sizes else 0
