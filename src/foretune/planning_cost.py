"""What a candidate costs: assembled on a sample of the rows in a folder of its own, timed, thrown away."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foretune.assemble import assemble, load_backbone, settle
from foretune.forecast.sized import round_sizes, workload
from foretune.planning_candidates import FEWEST
from foretune.prepare import Prepared, sampled
from foretune.recipe import Recipe
from foretune.strategies.base import Settings, Workload, make_strategy
from foretune.training.inference import Runtime

if TYPE_CHECKING:
    from foretune.forecast.cost import Cost

TRAINING = ("training", "validation")  # parts of a cost that end with the training
SAMPLE = 4000  # training rows that are tokenised to time steps on
FEWEST_TIMED, TIMED_PER_SECOND = 400, 20  # of them under a budget: at least, and for each second of it
STEP_SECONDS = 3.0  # spent on timing the steps of one candidate, at most
STEPS_SHARE = 1 / 60  # of a budget, likewise
CUT_SHARE = 0.5  # of the time that is left, for all but the training where that may be cut short
ROOM = 0.85  # of the time that is left, for a fit with a part of the rows: forecasts err


@dataclass(frozen=True)
class Timer:
    """Forecasts what candidates cost on these data. `inside`: planned in the process that will fit.

    `cut`: training may be cut short where its time does not suffice, as the user named what to train.
    """

    recipe: Recipe
    prepared: Prepared
    view: Prepared  # with few enough training rows
    metric: str
    runtime: Runtime
    budget: float | None
    prepare_seconds: float
    inside: bool
    cut: bool = False

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        prepared: Prepared,
        metric: str,
        runtime: Runtime,
        budget: float | None,
        prepare_seconds: float,
        inside: bool,
        cut: bool = False,
    ) -> Timer:
        """Make a timer, with a sample of the rows where there are many."""
        most = SAMPLE
        if budget is not None:
            most = int(min(max(TIMED_PER_SECOND * budget, FEWEST_TIMED), SAMPLE))
        view = sampled(prepared, most, recipe.seed)
        return cls(recipe, prepared, view, metric, runtime, budget, prepare_seconds, inside, cut)

    @property
    def forecasts(self) -> bool:
        """Return whether outcomes of this task and metric were measured, so that scores can be forecast."""
        from foretune.forecast.scores import CLASS_METRICS

        return self.prepared.task.forecasts and self.metric in CLASS_METRICS

    @property
    def limit(self) -> float:
        """Return how long (seconds) the steps of a candidate may be timed: less under a small budget."""
        return STEP_SECONDS if self.budget is None else min(STEP_SECONDS, STEPS_SHARE * self.budget)

    @property
    def sizes(self) -> Sequence[int]:
        """Return the numbers of training rows to forecast: all, and fewer where a budget may ask for it."""
        rows = len(self.prepared.train)
        if self.budget is None or self.recipe.rows is not None:
            return [rows]
        return round_sizes(fewest(self.prepared), rows)

    def costs(self, backbone: str, strategy_name: str) -> dict[int, Cost]:
        """Return what a fit costs by its number of training rows. Raises BackboneError and ConfigError."""
        from foretune.forecast import cost

        recipe = self.recipe_of(backbone, strategy_name)
        strategy = make_strategy(strategy_name, recipe, self.prepared.task)
        view, task = replace(self.view, notes=[], warnings=[]), self.prepared.task

        def settings(work: Workload) -> Settings:
            return settle(recipe, task.adjusted(strategy.defaults(work), work), task.rate_factor)

        model = load_backbone(recipe, view)
        with tempfile.TemporaryDirectory(prefix="foretune-plan-") as folder:
            job = assemble(
                recipe, view, self.metric, self.runtime, model, strategy, Path(folder) / "run", (), None
            )
            if len(job.train) < len(self.prepared.train):  # batches as large as those of all rows
                job = replace(job, settings=settings(workload(job, len(self.prepared.train))))
            try:
                return cost.forecast_costs(
                    job, self.prepared, self.sizes, settings, limit_seconds=self.limit,
                    prepare_seconds=self.prepare_seconds, hurried=self.inside,
                )  # fmt: skip
            finally:
                job.events.close()

    def recipe_of(self, backbone: str, strategy: str) -> Recipe:
        """Return the recipe of a candidate; the strategy's options are those of the one that they were given for."""
        options = self.recipe.options if strategy == self.recipe.strategy else {}
        return self.recipe.with_changes(backbone=backbone, strategy=strategy, options=options)

    def needs(self, found: Cost) -> float:
        """Return the seconds that a fit takes from now on: planned inside it, its start lies behind."""
        return found.seconds - (found.begun if self.inside else 0.0)

    def least(self, found: Cost) -> float:
        """Return the seconds that a fit takes at the least: without its training where that may be cut short."""
        training = sum(found.parts.get(name, 0.0) for name in TRAINING) if self.cut else 0.0
        return self.needs(found) - training

    def most_rows(self, found: Mapping[int, Cost], left: float) -> int | None:
        """Return the largest number of rows with which a fit is done in `left` seconds; None where there is none.

        Where training may be cut short, half of the time is enough for it if the user set its epochs, or if no number
        of rows leaves time for all of it.
        """
        fitting = [rows for rows, each in found.items() if self.needs(each) <= ROOM * left]
        if self.cut and (not fitting or self.recipe.epochs is not None):
            fitting = [rows for rows, each in found.items() if self.least(each) <= CUT_SHARE * left]
        return max(fitting, default=None)


def fewest(prepared: Prepared) -> int:
    """Return the fewest training rows that are worth a fit: two of each class, and no fewer than a plan needs."""
    targets = prepared.train.targets
    classes = 0
    if targets is not None and targets.ndim == 1 and targets.dtype.kind in "iu":
        classes = len(np.unique(targets))
    return min(max(FEWEST, 2 * classes), len(prepared.train))
