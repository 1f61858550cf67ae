"""From data to a plan: every candidate measured a little, its score and cost forecast, the best one named.

A candidate is a backbone and a strategy. For each backbone, frozen features of at most 2,000 examples are
computed once and judged (linear probe, kNN, H-score, LogME, learning curve); the quality model turns these
numbers into a score with an interval. For each candidate a few real steps are timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretune import planning_words as words
from foretune.assemble import load_backbone
from foretune.errors import BackboneError, ConfigError, did_you_mean
from foretune.forecast.plan import GOALS, Choice, Plan, order
from foretune.planning_candidates import backbones_of, check_size, strategies_of
from foretune.planning_choices import choices_of
from foretune.planning_cost import Timer
from foretune.planning_look import SAMPLE, Look, look
from foretune.planning_scores import Pair
from foretune.prepare import Prepared, metric_of, prepare
from foretune.recipe import Recipe
from foretune.training import machine
from foretune.training.inference import Runtime

if TYPE_CHECKING:
    from foretune.forecast.cost import Cost
    from foretune.planning_pilot import Pilot

FEWEST_JUDGED, JUDGED_PER_SECOND = 200, 3  # examples whose features are judged, under a budget
PLANNING_SHARE = 0.2  # of what is left of a budget when planning begins
LATE = f"as planning may take {PLANNING_SHARE:.0%} of the budget"

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
    prepare_seconds: float = 0.0,
    inside: bool = False,
    pilots: int = 0,
    cut: bool = False,
) -> Plan:
    """Return the plan. Raises DataError, ConfigError and BackboneError; nothing is written but caches.

    `started`: when the budget began, on the clock of time.perf_counter; `prepare_seconds`: what reading and checking
    the data took; `inside`: the fit follows in this process; `pilots`: at most so many of the candidates that lead, and
    that the forecast does not tell apart, are tried on a few hundred rows; `cut`: the budget may cut training short.
    """
    if target_score is not None and not (isinstance(target_score, int | float) and 0 < target_score < 1):
        raise ConfigError(
            f"target score is {target_score!r}; expected a number between 0 and 1, such as 0.9."
        )
    if goal not in GOALS:
        raise ConfigError(f"goal is {goal!r}; expected one of {', '.join(GOALS)}.{did_you_mean(goal, GOALS)}")
    if not isinstance(pilots, int) or pilots < 0:
        raise ConfigError(
            f"pilots is {pilots!r}; expected how many candidates to try at most, such as 3, or 0."
        )
    names = strategies_of(strategies)
    prepared = prepared or prepare(data, dev, test, recipe)
    check_size(prepared)
    metric = metric_of(recipe, prepared.task)
    machine.set_threads()
    machine.keep_freed_memory()
    device = machine.pick_device(recipe.device)
    runtime = Runtime(device, machine.pick_precision(recipe.precision, device))
    wanted, notes = backbones_of(backbones, recipe, prepared)
    timer = Timer.of(recipe, prepared, metric, runtime, budget, prepare_seconds, inside, cut)
    planner = _Planner(timer, memory, goal, target_score, tell, started, notes, pilots)
    planner.measure(wanted, names, automatic=backbones is None, open_choice=strategies is None)
    return planner.plan()


@dataclass
class _Planner:
    timer: Timer
    memory: int | None
    goal: str
    target_score: float | None
    tell: Tell
    started: float
    notes: list[str]
    pilots: int
    looks: dict[str, Look | None] = field(default_factory=dict)  # None: the task's score is not forecast
    costs: dict[Pair, dict[int, Cost]] = field(default_factory=dict)  # by training rows

    def __post_init__(self) -> None:
        budget, now = self.timer.budget, time.perf_counter()
        self._end = None if budget is None else now + PLANNING_SHARE * (budget - (now - self.started))
        self._words: dict[int, float] = {}  # what counted words score, by the most examples that were judged
        self._longest: dict[str, float] = {}  # seconds by what was done: a look, a timing, a pilot

    def measure(
        self, backbones: list[str], strategies: list[str], automatic: bool, open_choice: bool
    ) -> None:
        """Look at every backbone and time every candidate, as far as the budget's share for planning goes."""
        for number, name in enumerate(backbones):
            if number and self._late("_look", "_cost"):
                self.notes.append(f"Not looked at, {LATE}: {', '.join(backbones[number:])}.")
                break
            try:
                self.looks[name] = self._timed(self._look, name) if self.timer.forecasts else None
            except BackboneError as error:
                if not automatic:
                    raise
                self.notes.append(str(error))
                continue
            for place, strategy in enumerate(strategies):
                if self.costs and self._late("_cost"):
                    self.notes.append(f"Not timed with {name}, {LATE}: {', '.join(strategies[place:])}.")
                    break
                try:
                    self.costs[name, strategy] = self._timed(self._cost, name, strategy)
                except (BackboneError, ConfigError) as error:  # not for this task, or not for this backbone
                    if not (automatic or open_choice):
                        raise
                    self.notes.append(f"{name} with {strategy}: {error}")

    def _timed(self, work: Callable[..., Any], *given: Any) -> Any:
        began, name = time.perf_counter(), work.__name__
        found = work(*given)
        self._longest[name] = max(self._longest.get(name, 0.0), time.perf_counter() - began)
        return found

    def _late(self, *works: str) -> bool:
        """Say whether these would go beyond the time for planning, judged by the longest of each kind so far."""
        seconds = sum(self._longest.get(name, max(self._longest.values(), default=0.0)) for name in works)
        return self._end is not None and time.perf_counter() + seconds > self._end

    def _look(self, name: str, most: int | None = None) -> Look:
        self.tell(f"{name}: judging its features")
        timer = self.timer
        backbone = load_backbone(timer.recipe.with_changes(backbone=name), timer.prepared)
        judged = self._most() if most is None else most
        given = (timer.prepared.train, timer.recipe, timer.runtime, timer.metric, judged)
        found = look(backbone, *given, self._words.get(judged))
        if "bag_of_words" in found.predictors:
            self._words[judged] = found.predictors["bag_of_words"]
        return found

    def _most(self) -> int:
        """Return how many examples are judged: fewer under a small budget."""
        budget = self.timer.budget
        return SAMPLE if budget is None else int(min(max(JUDGED_PER_SECOND * budget, FEWEST_JUDGED), SAMPLE))

    def _cost(self, name: str, strategy: str) -> dict[int, Cost]:
        self.tell(f"{name}, {strategy}: timing a few steps")
        return self.timer.costs(name, strategy)

    def _seen(self, name: str, rows: int) -> Look | None:
        """Return what is seen of a backbone on no more than `rows` examples."""
        found = self.looks[name]
        return self._look(name, rows) if found is not None and len(found.rows) > rows else found

    def plan(self) -> Plan:
        """Forecast, order, and put into words. Raises ConfigError where no candidate keeps the limits."""
        from foretune.forecast.machine_profile import machine_profile

        self.tell("forecasting the scores")
        timer, began = self.timer, self.started
        choices = choices_of(timer, self.costs, self._seen, began, self.memory)
        tried = self._try(order(choices, self.goal)) if self.pilots and timer.forecasts else {}
        if tried:
            choices = choices_of(timer, self.costs, self._seen, began, self.memory, tried)
        ordered = order(choices, self.goal)
        best, prepared = ordered[0], timer.prepared
        if best.over is not None:
            raise ConfigError(words.refusal(timer, self.costs, choices, time.perf_counter() - began))
        held_out = prepared.held_out
        rows = len(prepared.train) if best.rows is None else best.rows
        labels = words.labels(best, self.looks[best.backbone], rows, self.target_score)
        advice = (*words.advice(ordered, prepared), *words.unused(timer, self.target_score), *self.notes)
        return Plan(
            candidates=tuple(ordered), labels=labels, advice=advice, command=words.command(best, self._held_out_rows()),
            machine=machine_profile(timer.runtime.device.type, folder=Path.cwd()).to_json(),
            seconds_spent=time.perf_counter() - began, goal=self.goal, task=prepared.task.name,
            data=prepared.fingerprints["train"], sizes=prepared.sizes(), held_out=held_out[0] if held_out else "none",
            held_out_rows=timer.recipe.held_out_rows, rows=timer.recipe.rows, tuned=timer.recipe.tuned(),
        )  # fmt: skip

    def _held_out_rows(self) -> int | None:
        """Return the most rows held out for a part, if a part has so many: else the fit needs not be told."""
        most, sizes = self.timer.recipe.held_out_rows, self.timer.prepared.sizes()
        return most if most in (sizes.get("dev"), sizes.get("test")) else None

    def _try(self, ordered: list[Choice]) -> dict[Pair, Pilot]:
        """Return pilots of the candidates that lead, where the forecast does not tell some of them apart."""
        from foretune import planning_pilot as pilots

        timer, found = self.timer, {}
        close = [c for c in (ordered[0], *words.not_told_apart(ordered)) if c.over is None]
        close = [c for c in close if c.strategy != pilots.FROZEN] if len(close) > 1 else []
        for choice in close[: self.pilots]:
            pair, look = (choice.backbone, choice.strategy), self.looks[choice.backbone]
            if look is None or self._late("pilot"):
                self.notes.append(f"Not tried, {LATE}: {' with '.join(pair)}.")
                continue
            self.tell(f"{pair[0]}, {pair[1]}: a pilot on a few hundred rows")
            given = (timer.recipe_of(*pair), timer.prepared, timer.runtime, timer.metric)
            found[pair] = self._timed(pilots.pilot, *given, look.features, look.rows)
        return found
