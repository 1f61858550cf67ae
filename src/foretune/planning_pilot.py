"""Pilots: a candidate fine-tuned on a few hundred rows as it would be on all, and scored on others of them.

The rows are cut into two halves; a model of each half is scored on the other, so that every row is scored once.
The linear probe on the very same halves stands beside: what fine-tuning gains over it, the quality model weighs
as it learnt from the ledger's own pilots (`benchmarks/ledger.py --pilots`), which were made by this function.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from foretune.assemble import assemble, load_backbone
from foretune.data.split import split
from foretune.planning_look import sample_rows
from foretune.prepare import Prepared
from foretune.recipe import Recipe
from foretune.strategies.base import make_strategy
from foretune.tasks.base import Examples
from foretune.training import randomness
from foretune.training.inference import Runtime, predict
from foretune.training.loop import Loop
from foretune.training.signals import StopRequest

ROWS = 400  # at most: as many as the ledger's outcomes were measured on
NEVER = 1e9  # seconds between checkpoints

FROZEN = "linear-probe"  # the strategy that needs none: the probe is its pilot

Halves = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Pilot:
    """What a pilot came to: its score, that of the linear probe on the same halves, and seconds."""

    value: float
    probe: float
    seconds: float

    def predictors(self) -> dict[str, float]:
        """Return the numbers that the quality model learns from."""
        return {"pilot": self.value, "pilot_probe": self.probe}


def halves(prepared: Prepared, rows: np.ndarray, seed: int, most: int = ROWS) -> Halves:
    """Return two halves, as positions among `rows`, of at most `most` of the training examples `rows`.

    Stratified, equal inputs on one side, the same ones for every candidate. Raises DataError where a half
    would be empty.
    """
    judged = prepared.train.take(rows)
    assert judged.targets is not None
    taken = sample_rows(judged.targets, seed, most)
    sample = judged.take(taken)
    parts = split(
        prepared.task.groups(sample), prepared.task.strata(sample), fractions={"half": 0.5}, seed=seed
    )
    return taken[parts["train"]], taken[parts["half"]]


def pilot(
    recipe: Recipe, prepared: Prepared, runtime: Runtime, metric: str, features: np.ndarray, rows: np.ndarray
) -> Pilot:
    """Return what a pilot of the recipe's backbone and strategy comes to.

    `features`: (judged, width) of the probe's layer, of the training examples `rows`. Nothing is kept of the two
    models; random states are put back. Raises what a fit of the candidate raises.
    """
    from foretune.forecast.scores import score

    started, kept = time.perf_counter(), randomness.capture()
    sides = halves(prepared, rows, recipe.seed)
    judged = prepared.train.take(rows)
    assert judged.targets is not None
    found = np.zeros_like(judged.targets)
    try:
        for own, other in (sides, sides[::-1]):
            found[other] = _predicted(recipe, prepared, runtime, metric, judged.take(own), judged.take(other))
    finally:
        randomness.restore(*kept)
    scored = np.concatenate(sides)
    value = score(metric, judged.targets[scored], found[scored])
    return Pilot(value, probe_of(features, judged.targets, sides, metric), time.perf_counter() - started)


def probe_of(features: np.ndarray, targets: np.ndarray, sides: Halves, metric: str) -> float:
    """Return the score of linear models of each half on the other: features (n, width), targets (n,)."""
    from foretune.forecast.held_out import predictions, share_outputs
    from foretune.forecast.linear import principal_axes
    from foretune.forecast.scores import score

    rows = np.sort(np.concatenate(sides))
    own, other = (np.searchsorted(rows, side) for side in sides)
    outputs, _ = share_outputs(principal_axes(features[rows]), targets[rows], [own, other], [other, own])
    return score(metric, targets[rows], predictions(outputs, targets[rows]))


def _predicted(
    recipe: Recipe, prepared: Prepared, runtime: Runtime, metric: str, train: Examples, other: Examples
) -> np.ndarray:
    """Train on one half and return the classes that are predicted for the other: (n,) ids."""
    recipe = recipe.with_changes(rows=None, checkpoint_seconds=NEVER, trackers=())
    part = replace(prepared, train=train, dev=None, test=None, notes=[], warnings=[])
    backbone = load_backbone(recipe, part)
    strategy = make_strategy(recipe.strategy, recipe, part.task)
    with tempfile.TemporaryDirectory(prefix="foretune-pilot-") as folder:
        run = Path(folder) / "run"
        job = assemble(recipe, part, metric, runtime, backbone, strategy, run, (), None)
        try:
            Loop(job, StopRequest()).run()
        finally:
            job.events.close()
    longest = job.recipe.max_tokens
    assert longest is not None
    encoded = part.task.encode(backbone, other, max_length=longest, truncation=recipe.truncation)
    found = np.zeros(len(other), dtype=np.int64)
    for rows, outputs in predict(backbone, part.task, encoded.store, runtime):
        found[rows] = outputs.argmax(axis=1)
    return found
