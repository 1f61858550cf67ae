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

import numpy as np

from foretune.assemble import LONGEST_BY_DEFAULT, assemble, load_backbone
from foretune.errors import BackboneError, ConfigError, DataError, did_you_mean
from foretune.forecast import ledger
from foretune.forecast.plan import GOALS, Choice, Plan, duration, limits, order
from foretune.forecast.records import Candidate, Outcome
from foretune.prepare import Prepared, metric_of, prepare
from foretune.recipe import Recipe
from foretune.strategies import import_strategies
from foretune.strategies.base import STRATEGIES, make_strategy
from foretune.tasks.base import Examples
from foretune.training import machine
from foretune.training.inference import Runtime
from foretune.training.prefix import MEANS, Prefix

if TYPE_CHECKING:
    from foretune.backbones.base import Backbone
    from foretune.backbones.catalogue import Entry
    from foretune.forecast.cost import Cost
    from foretune.forecast.curve import Curve

SAMPLE = 2000  # examples whose features are judged
FEWEST_JUDGED = 200  # of them, under a small budget
FEWEST = 20  # training examples; below, nothing can be held out to judge anything by
STEP_SECONDS = 3.0  # spent on timing the steps of one candidate, at most
PLANNING_SHARE = 0.2  # of a budget, after which no further backbone is looked at
FEW_PER_CLASS = 8  # labels; below, a class can hardly be learnt

UNKNOWN = "The score of this task is not forecast yet: no outcomes were measured. Time, memory and disk are."

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Look:
    """What the frozen features of one backbone say: the predictors, and the learning curve's forecasts."""

    predictors: dict[str, float]
    tokens: float  # mean length of an example
    fingerprint: str
    curve: Curve | None = None  # where a target score is asked for


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
    names = _strategies(strategies)
    prepared = prepared or prepare(data, dev, test, recipe)
    _check_size(prepared)
    metric_of(recipe, prepared.task)
    machine.set_threads()
    machine.keep_freed_memory()
    device = machine.pick_device(recipe.device)
    runtime = Runtime(device, machine.pick_precision(recipe.precision, device))
    planner = _Planner(recipe, prepared, runtime, budget, memory, goal, target_score, tell, started)
    wanted, notes = _backbones(backbones, recipe, prepared)
    return planner.run(wanted, names, notes, automatic=backbones is None, open_choice=strategies is None)


def look(
    backbone: Backbone,
    examples: Examples,
    recipe: Recipe,
    runtime: Runtime,
    metric: str,
    curve: bool = False,
    most: int = SAMPLE,
) -> Look:
    """Return what the frozen features of at most `most` of `examples` say, for the seed of the recipe."""
    from threadpoolctl import threadpool_limits

    from foretune.forecast.probe import probe_score
    from foretune.forecast.transferability import predictors

    assert examples.targets is not None
    sample = examples.take(_sample(examples.targets, recipe.seed, most))
    longest = recipe.max_tokens or min(backbone.max_length, LONGEST_BY_DEFAULT)
    store = backbone.preprocess(sample.inputs, max_length=longest, truncation=recipe.truncation)
    backbone.model.to(runtime.device)
    features, _ = Prefix(backbone, store, runtime, "fp32").stores([MEANS])[MEANS]
    matrix = features.rows(np.arange(len(store))).numpy()
    assert sample.targets is not None
    with threadpool_limits(1, user_api="blas"):  # small products: more threads only wait for each other
        found = predictors(matrix, sample.targets, metric=metric, seed=recipe.seed)
        last = probe_score(matrix[:, -1:], sample.targets, metric=metric, seed=recipe.seed)
        found["probe_last"] = last.value  # what the top layer hides, fine-tuning brings out
        law = _curve(matrix, sample.targets, metric, recipe.seed) if curve else None
    return Look(found, float(store.lengths.mean()), backbone.fingerprint(), law)


def _curve(features: np.ndarray, targets: np.ndarray, metric: str, seed: int) -> Curve:
    """Return the learning curve of the probe on these features."""
    from foretune.forecast.curve import fit_curve
    from foretune.forecast.probe import layer_features, learning_curve, probe_score

    layer = probe_score(features, targets, metric=metric, seed=seed).layer
    measured = learning_curve(layer_features(features, layer), targets, metric=metric, seed=seed)
    return fit_curve(measured.sizes, measured.scores, measured.covariance, seed=seed)


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
        costs: dict[tuple[str, str], Cost] = {}
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

    def _choices(self, looks: dict[str, Look | None], costs: dict[tuple[str, str], Cost]) -> list[Choice]:
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

    def _scores(
        self, looks: dict[str, Look | None], pairs: list[tuple[str, str]]
    ) -> dict[tuple[str, str], dict[str, Any]]:
        """Return the forecast score of every candidate, and why."""
        from foretune.forecast.quality import QualityModel

        self.tell("forecasting the scores")
        found = {pair: looks[pair[0]] for pair in pairs}
        records = {pair: self._record(*pair, look) for pair, look in found.items() if look is not None}
        own = [_with_predictors(outcome, list(records.values())) for outcome in ledger.read()]
        forecasts = QualityModel.fit(ledger.shipped(), own).predict_all(list(records.values()))
        return {
            pair: {
                "value": forecast.value, "low": forecast.low, "high": forecast.high, "why": tuple(forecast.why),
                "known": _plain(records[pair]),
            }
            for pair, forecast in zip(records, forecasts, strict=True)
        }  # fmt: skip

    def _record(self, backbone: str, strategy: str, look: Look) -> Candidate:
        held_out = self.prepared.held_out
        return Candidate(
            data=self.prepared.fingerprints["train"], task=self.prepared.task.name, n=len(self.prepared.train),
            classes=int(look.predictors.get("classes", 0)), tokens=look.tokens, backbone=backbone,
            backbone_fingerprint=look.fingerprint, strategy=strategy, metric=self._metric,
            n_test=len(held_out[1]) if held_out else 0, predictors=look.predictors,
        )  # fmt: skip

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
        return Plan(
            candidates=tuple(ordered), labels=self._labels(best, looks[best.backbone]),
            advice=(*self._advice(ordered), *notes), command=self._command(best),
            machine=machine_profile(self.runtime.device.type, folder=Path.cwd()).to_json(),
            seconds_spent=time.perf_counter() - self.started, goal=self.goal,
            task=self.prepared.task.name, data=self.prepared.fingerprints["train"], sizes=self.prepared.sizes(),
            held_out=held_out[0] if held_out else "none",
        )  # fmt: skip

    def _labels(self, best: Choice, look: Look | None) -> dict[str, Any]:
        """Return what the learning curve of the probe says of 2 and 5 times the labels, for the best candidate.

        The candidate is expected to gain what the probe on its features gains; the interval joins that of the
        score and that of the gain.
        """
        labels: dict[str, Any] = {"n": len(self.prepared.train)}
        if look is None:
            return labels
        for times in (2, 5):
            gain, width = look.predictors[f"curve_x{times}"], look.predictors[f"curve_x{times}_width"]
            labels[f"x{times}"] = _shifted(best, gain, width)
        if self.target_score is not None and look.curve is not None:
            labels["target"] = _target(best, look.curve, self.target_score, len(self.prepared.train))
        return labels

    def _advice(self, ordered: list[Choice]) -> list[str]:
        advice = self._label_advice()
        best = ordered[0]
        close = [c for c in ordered[1:] if c.over is None and c.high >= best.value and c.value <= best.value]
        if close:
            named = ", ".join(f"{c.backbone} with {c.strategy}" for c in close[:3])
            advice.append(f"Not told apart from the best by this forecast: {named}.")
        return advice

    def _label_advice(self) -> list[str]:
        """Return what is to be said of classes with few labels, for tasks of one class per example."""
        targets, names = self.prepared.train.targets, self.prepared.task.labels
        if targets is None or targets.ndim != 1 or targets.dtype.kind not in "iu" or not names:
            return []
        counts = np.bincount(targets, minlength=len(names))
        few = [
            f"{name} ({count})" for name, count in zip(names, counts, strict=True) if count < FEW_PER_CLASS
        ]
        advice = []
        if few:
            advice.append(
                f"Too few labels to learn or measure well: {', '.join(few[:8])}. "
                f"Label at least {FEW_PER_CLASS} of each."
            )
        if counts.mean() < 2 * FEW_PER_CLASS:
            advice.append(
                "With so few labels per class compare with --strategy zero-shot, which needs none; linear-probe is the "
                "safe choice among those that train."
            )
        return advice

    def _command(self, best: Choice) -> str:
        import shlex

        return f"foretune fit DATA --backbone {shlex.quote(best.backbone)} --strategy {best.strategy}"


def _strategies(given: Sequence[str] | None) -> list[str]:
    import_strategies()
    usual = sorted((name for name in STRATEGIES if STRATEGIES[name].planned), key=_quickness)
    names = list(given) if given is not None else usual
    if not names:
        raise ConfigError("No strategy is named. Give some, separated by commas, or auto.")
    return [STRATEGIES[name].name for name in dict.fromkeys(names)]


def _quickness(name: str) -> tuple[int, str]:
    """Order strategies for a planner in a hurry: those that differ most come first."""
    first = ("linear-probe", "full", "top-layers")
    return (first.index(name) if name in first else len(first), name)


# Heads that the catalogue's encoders of text can carry.
READERS = tuple(f"AutoModel{head}" for head in ("ForSequenceClassification", "ForTokenClassification", ""))
READERS = (*READERS, "AutoModelForQuestionAnswering")


def _backbones(
    given: Sequence[str] | None, recipe: Recipe, prepared: Prepared
) -> tuple[list[str], list[str]]:
    """Return the backbones to look at, and notes: without a list those that need no download."""
    from foretune.backbones.catalogue import CATALOGUE
    from foretune.backbones.source import resolve

    if given is None and (prepared.task.modality != "text" or prepared.task.auto_class not in READERS):
        named = f"Looked at {recipe.backbone} alone; name others for {prepared.task.name} with --backbones."
        return [recipe.backbone], [named]
    if given is not None:
        if not given:
            raise ConfigError("No backbone is named. Give some, separated by commas, or auto.")
        for name in given:
            resolve(name)
        return list(dict.fromkeys(given)), []
    here = [entry.name for entry in CATALOGUE if _is_here(entry)]
    if recipe.backbone not in here:
        here.insert(0, recipe.backbone)
    away = [entry.name for entry in CATALOGUE if entry.name not in here]
    note = (
        f"Looked at what is on this machine. Others, fetched when named with --backbones: {', '.join(away)}."
    )
    return here, [note] if away else []


def _is_here(entry: Entry) -> bool:
    """Say whether a catalogue's backbone needs no download: bundled, or in the hub's local cache."""
    from huggingface_hub import try_to_load_from_cache

    if entry.source == "bundled":
        return True
    wanted = ("config.json", "model.safetensors")
    return all(isinstance(try_to_load_from_cache(entry.source, name), str) for name in wanted)


def _check_size(prepared: Prepared) -> None:
    if prepared.held_out is None:
        raise ConfigError(
            "A plan forecasts the score on held-out data, but nothing is held out. Set --dev-fraction."
        )
    if len(prepared.train) < FEWEST:
        raise DataError(
            f"{len(prepared.train)} training rows are too few to forecast from; {FEWEST} or more are needed. "
            "Label more, or fit right away with --strategy linear-probe."
        )


def _sample(targets: np.ndarray, seed: int, most: int = SAMPLE) -> np.ndarray:
    """Return at most `most` rows, in order, every class with its share and at least one row."""
    if len(targets) <= most:
        return np.arange(len(targets))
    rng = np.random.default_rng((seed, 3))
    order = rng.permutation(len(targets))
    if not np.issubdtype(targets.dtype, np.integer) or targets.ndim != 1:
        return np.sort(order[:most])
    first = np.array([order[np.flatnonzero(targets[order] == c)[0]] for c in np.unique(targets)])
    rest = order[~np.isin(order, first)][: max(most - len(first), 0)]
    return np.sort(np.concatenate([first, rest]))


def _with_predictors(outcome: Outcome, records: list[Candidate]) -> Outcome:
    """Give an outcome of this very data and backbone the numbers that were measured now, where it has none."""
    if outcome.predictors:
        return outcome
    for record in records:
        same = (outcome.data, outcome.backbone_fingerprint) == (record.data, record.backbone_fingerprint)
        if same and outcome.n == record.n:
            return replace(outcome, predictors=record.predictors)
    return outcome


def _target(best: Choice, curve: Curve, target: float, n: int) -> dict[str, Any]:
    """Return the labels that `target` needs, None where it is out of reach: the curve, moved to the candidate."""
    from foretune.forecast.curve import forecast_at, labels_for

    shift = best.value - forecast_at(curve, n).value
    found = labels_for(curve, target - shift)
    return {"score": target, "value": found.value, "low": found.low, "high": found.high}


def _shifted(best: Choice, gain: float, width: float) -> dict[str, float]:
    low = gain - ((best.value - best.low) ** 2 + width**2) ** 0.5
    high = gain + ((best.high - best.value) ** 2 + width**2) ** 0.5
    value = min(best.value + gain, 1.0)
    return {"value": value, "low": max(best.value + low, 0.0), "high": min(best.value + high, 1.0)}


def _bytes(value: float) -> int:
    return int(value) if value != float("inf") else 1 << 62


def _plain(record: Candidate) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(record)
