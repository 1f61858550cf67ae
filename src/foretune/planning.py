"""From data to a plan: every candidate measured a little, its score and cost forecast, the best one named.

A candidate is a backbone and a strategy. For each backbone, frozen features of at most 2,000 examples are
computed once and judged (linear probe, kNN, H-score, LogME, learning curve); the quality model turns these
numbers into a score with an interval. For each candidate a few real steps are timed.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretune import planning_words as words
from foretune.assemble import assemble, load_backbone
from foretune.errors import BackboneError, ConfigError, did_you_mean
from foretune.forecast.plan import GOALS, Choice, Plan, duration, limits, order
from foretune.planning_candidates import backbones_of, check_size, strategies_of
from foretune.planning_look import SAMPLE, Look, look
from foretune.planning_scores import Pair, record_of, scores
from foretune.prepare import Prepared, metric_of, prepare
from foretune.recipe import Recipe
from foretune.strategies.base import make_strategy
from foretune.training import machine
from foretune.training.inference import Runtime

if TYPE_CHECKING:
    from foretune.forecast.cost import Cost

FEWEST_JUDGED = 200  # examples whose features are judged, under a small budget
STEP_SECONDS = 3.0  # spent on timing the steps of one candidate, at most
PLANNING_SHARE = 0.2  # of a budget, after which no further backbone is looked at

UNKNOWN = "The score of this task is not forecast yet: no outcomes were measured. Time, memory and disk are."

Tell = Callable[[str], None]


def make_plan(
    data: Any,
    dev: Any,
    test: Any,
    recipe: Recipe,
    *,
    backbones: Sequence[str] | None,
    strategies: Sequence[str] | None,
    budget: float | None,
    memory: int | None,
    goal: str,
    target_score: float | None,
    tell: Tell,
    started: float,
    prepared: Prepared | None = None,
) -> Plan:
    """Return the plan. Raises DataError, ConfigError and BackboneError; nothing is written but caches."""
    if target_score is not None and not 0 < target_score < 1:
        raise ConfigError(f"target score is {target_score}; expected a number between 0 and 1, such as 0.9.")
    if goal not in GOALS:
        raise ConfigError(f"goal is {goal!r}; expected one of {', '.join(GOALS)}.{did_you_mean(goal, GOALS)}")
    names = strategies_of(strategies)
    prepared = prepared or prepare(data, dev, test, recipe)
    check_size(prepared)
    metric_of(recipe, prepared.task)
    machine.set_threads()
    machine.keep_freed_memory()
    device = machine.pick_device(recipe.device)
    runtime = Runtime(device, machine.pick_precision(recipe.precision, device))
    planner = _Planner(recipe, prepared, runtime, budget, memory, goal, target_score, tell, started)
    wanted, notes = backbones_of(backbones, recipe, prepared)
    return planner.run(wanted, names, notes, automatic=backbones is None, open_choice=strategies is None)


@dataclass
class _Planner:
    recipe: Recipe
    prepared: Prepared
    runtime: Runtime
    budget: float | None
    memory: int | None
    goal: str
    target_score: float | None
    tell: Tell
    started: float

    def run(
        self,
        backbones: list[str],
        strategies: list[str],
        notes: list[str],
        automatic: bool,
        open_choice: bool,
    ) -> Plan:
        """Look at every backbone, time every candidate, forecast, order."""
        looks: dict[str, Look | None] = {}  # None: the task's score is not forecast
        costs: dict[Pair, Cost] = {}
        for number, name in enumerate(backbones):
            if number and self._late():
                left = ", ".join(backbones[number:])
                notes.append(
                    f"Not looked at, as planning may take {PLANNING_SHARE:.0%} of the budget: {left}."
                )
                break
            try:
                looks[name] = self._look(name) if self.prepared.task.forecasts else None
            except BackboneError as error:
                if not automatic:
                    raise
                notes.append(str(error))
                continue
            for strategy in strategies:
                if costs and self._late():
                    notes.append(
                        f"Not timed, as planning may take {PLANNING_SHARE:.0%} of the budget: {strategy}."
                    )
                    continue
                try:
                    costs[name, strategy] = self._cost(name, strategy)
                except (BackboneError, ConfigError) as error:  # not for this task, or not for this backbone
                    if not (automatic or open_choice):
                        raise
                    notes.append(f"{name} with {strategy}: {error}")
        choices = self._choices(looks, costs)
        if not choices:
            raise ConfigError(
                "No candidate is left. Name --backbones and --strategies that this machine has."
            )
        return self._plan(choices, looks, notes)

    def _late(self) -> bool:
        return self.budget is not None and time.perf_counter() - self.started > PLANNING_SHARE * self.budget

    def _look(self, name: str) -> Look:
        self.tell(f"{name}: judging its features")
        recipe = self.recipe.with_changes(backbone=name)
        backbone = load_backbone(recipe, self.prepared)
        curve = self.target_score is not None
        return look(backbone, self.prepared.train, recipe, self.runtime, self._metric, curve, self._most())

    def _most(self) -> int:
        """Return how many examples are judged: fewer under a small budget."""
        return SAMPLE if self.budget is None else int(min(max(5 * self.budget, FEWEST_JUDGED), SAMPLE))

    def _step_seconds(self) -> float:
        """Return how long the steps of a candidate may be timed: less under a small budget."""
        return STEP_SECONDS if self.budget is None else min(STEP_SECONDS, PLANNING_SHARE * self.budget / 12)

    @property
    def _metric(self) -> str:
        return metric_of(self.recipe, self.prepared.task)

    def _cost(self, name: str, strategy_name: str) -> Cost:
        """Assemble the candidate in a folder of its own, time a few steps, throw it away."""
        from foretune.forecast.cost import forecast_cost

        self.tell(f"{name}, {strategy_name}: timing a few steps")
        recipe = self.recipe.with_changes(
            backbone=name, strategy=strategy_name, options=self._options(strategy_name)
        )
        strategy = make_strategy(strategy_name, recipe, self.prepared.task)
        prepared = replace(self.prepared, notes=[], warnings=[])
        backbone = load_backbone(recipe, prepared)
        with tempfile.TemporaryDirectory(prefix="foretune-plan-") as folder:
            job = assemble(
                recipe,
                prepared,
                self._metric,
                self.runtime,
                backbone,
                strategy,
                Path(folder) / "run",
                (),
                None,
            )
            try:
                return forecast_cost(job, prepared, limit_seconds=self._step_seconds())
            finally:
                job.events.close()

    def _options(self, strategy: str) -> dict[str, Any]:
        return self.recipe.options if strategy == self.recipe.strategy else {}

    def _choices(self, looks: dict[str, Look | None], costs: dict[Pair, Cost]) -> list[Choice]:
        """Return every candidate with what it costs, and with its score where the task's can be forecast."""
        scores = self._scores(looks, list(costs)) if self.prepared.task.forecasts else {}
        limit = self.budget - (time.perf_counter() - self.started) if self.budget is not None else None
        unknown = {"value": math.nan, "low": math.nan, "high": math.nan, "why": (UNKNOWN,)}
        return [
            Choice(
                backbone=pair[0], strategy=pair[1], metric=self._metric, seconds=cost.seconds,
                peak_memory_bytes=_bytes(cost.peak_memory_bytes), disk_bytes=_bytes(cost.disk_bytes),
                over=limits(cost.seconds, _bytes(cost.peak_memory_bytes), limit, self.memory), parts=cost.parts,
                **scores.get(pair, unknown),
            )
            for pair, cost in costs.items()
        ]  # fmt: skip

    def _scores(self, looks: dict[str, Look | None], pairs: list[Pair]) -> dict[Pair, dict[str, Any]]:
        """Return the forecast score of every candidate, and why."""
        self.tell("forecasting the scores")
        found = {pair: looks[pair[0]] for pair in pairs}
        return scores({
            pair: record_of(pair, look, self.prepared, self._metric)
            for pair, look in found.items()
            if look is not None
        })  # fmt: skip

    def _plan(self, choices: list[Choice], looks: dict[str, Look | None], notes: list[str]) -> Plan:
        from foretune.forecast.machine_profile import machine_profile

        ordered = order(choices, self.goal)
        best = ordered[0]
        if best.over is not None:
            cheapest = min(choices, key=lambda c: c.seconds)
            raise ConfigError(
                f"No candidate keeps the limits; the quickest, {cheapest.backbone} with {cheapest.strategy}, "
                f"{cheapest.over}. The smallest --budget that would do is about "
                f"{duration(1.2 * cheapest.seconds + time.perf_counter() - self.started)}."
            )
        held_out = self.prepared.held_out
        labels = words.labels(best, looks[best.backbone], len(self.prepared.train), self.target_score)
        return Plan(
            candidates=tuple(ordered), labels=labels,
            advice=(*words.advice(ordered, self.prepared), *notes), command=words.command(best),
            machine=machine_profile(self.runtime.device.type, folder=Path.cwd()).to_json(),
            seconds_spent=time.perf_counter() - self.started, goal=self.goal,
            task=self.prepared.task.name, data=self.prepared.fingerprints["train"], sizes=self.prepared.sizes(),
            held_out=held_out[0] if held_out else "none",
        )  # fmt: skip


def _bytes(value: float) -> int:
    return int(value) if value != float("inf") else 1 << 62
