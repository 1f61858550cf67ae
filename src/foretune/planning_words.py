"""What a plan says beside its candidates: what labels would buy, which classes are too small, the command."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.forecast.plan import Choice, duration
from foretune.planning_cost import Timer
from foretune.planning_look import Look
from foretune.planning_scores import gained
from foretune.prepare import Prepared
from foretune.recipe import CUTS
from foretune.strategies import import_strategies
from foretune.strategies.base import STRATEGIES

if TYPE_CHECKING:
    from foretune.forecast.curve import Curve
    from foretune.planning_choices import Costs

FEW_PER_CLASS = 8  # labels; below, a class can hardly be learnt


def labels(best: Choice, look: Look | None, n: int, target_score: float | None) -> dict[str, Any]:
    """Return what the learning curve of the probe says of 2 and 5 times the `n` labels, for the best candidate.

    The candidate is expected to gain what the probe on its features gains; the interval joins that of the
    score and that of the gain. A strategy that learns from no labels gains nothing by more of them.
    """
    found: dict[str, Any] = {"n": n}
    if look is None:
        return found
    learns = _learns(best.strategy)
    for times in (2, 5):
        gain, width = look.predictors[f"curve_x{times}"], look.predictors[f"curve_x{times}_width"]
        now = {"value": best.value, "low": best.low, "high": best.high}
        found[f"x{times}"] = gained(**now, gain=gain, width=width) if learns else now
    if target_score is not None:
        found["target"] = _target(best, look.curve, target_score, n) if learns else _now(best, target_score)
    return found


def _learns(strategy: str) -> bool:
    """Say whether a strategy learns from labels, so that more of them may raise its score."""
    import_strategies()
    return STRATEGIES[strategy].needs_targets


def _now(best: Choice, target: float) -> dict[str, Any]:
    """Return the labels that `target` needs where none are learnt from: 0 if the score is there, None if not."""
    value, low, high = (0 if score >= target else None for score in (best.value, best.high, best.low))
    return {"score": target, "value": value, "low": low, "high": high}


def _target(best: Choice, curve: Curve, target: float, n: int) -> dict[str, Any]:
    """Return the labels that `target` needs, None where it is out of reach: the curve, moved to the candidate."""
    from foretune.forecast.curve import forecast_at, labels_for

    shift = best.value - forecast_at(curve, n).value
    found = labels_for(curve, target - shift)
    return {"score": target, "value": found.value, "low": found.low, "high": found.high}


def advice(ordered: Sequence[Choice], prepared: Prepared) -> list[str]:
    """Return sentences on classes with few labels, and on candidates that the forecast does not tell apart."""
    found = _label_advice(prepared)
    close = not_told_apart(ordered)
    if close:
        named = ", ".join(f"{c.backbone} with {c.strategy}" for c in close[:3])
        found.append(f"Not told apart from the best by this forecast: {named}.")
    return found


def unused(timer: Timer, target_score: float | None) -> list[str]:
    """Return sentences on what was asked and does not count in the forecast of scores."""
    own = sorted(timer.recipe.tuned().keys() - CUTS)
    if timer.forecasts and own:
        return [f"Scores are forecast for the default settings; {', '.join(own)}: in time and memory only."]
    if not timer.forecasts and target_score is not None:
        return ["No score is forecast here, so none can say what labels a target needs."]
    return []


def not_told_apart(ordered: Sequence[Choice]) -> list[Choice]:
    """Return the candidates within the limits whose interval reaches the score of the first, the best."""
    best = ordered[0]
    return [c for c in ordered[1:] if c.over is None and c.high >= best.value and c.value <= best.value]


def _label_advice(prepared: Prepared) -> list[str]:
    """Return what is to be said of classes with few labels, for tasks of one class per example."""
    targets, names = prepared.train.targets, prepared.task.labels
    if targets is None or targets.ndim != 1 or targets.dtype.kind not in "iu" or not names:
        return []
    counts = np.bincount(targets, minlength=len(names))
    few = [f"{name} ({count})" for name, count in zip(names, counts, strict=True) if count < FEW_PER_CLASS]
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


def command(best: Choice, held_out_rows: int | None) -> str:
    """Return the command that takes the best candidate, with as many rows split off for dev and for test."""
    rows = "" if best.rows is None else f" --rows {best.rows}"
    rows += "" if held_out_rows is None else f" --held-out-rows {held_out_rows}"
    return f"foretune fit DATA --backbone {shlex.quote(best.backbone)} --strategy {best.strategy}{rows}"


def refusal(timer: Timer, costs: Costs, choices: Sequence[Choice], elapsed: float) -> str:
    """Return why there is no plan: no candidate keeps the limits; `elapsed`: seconds since the budget began."""
    possible = [choice for choice in choices if math.isfinite(choice.seconds)]
    if not possible:
        return f"No candidate is left; {choices[0].backbone} with {choices[0].strategy} {choices[0].over}"
    cheapest = min(possible, key=lambda c: c.seconds)
    if all("of memory" in (choice.over or "") for choice in possible):
        need = math.ceil(min(choice.peak_memory_bytes for choice in possible) / 1e7) / 100
        return (
            f"No candidate keeps the limits; the quickest, {cheapest.backbone} with {cheapest.strategy}, "
            f"{cheapest.over}. The smallest --memory that would do is about {need:.2f}GB."
        )
    least = {pair: min(each) for pair, each in costs.items()}
    rows, seconds = min(
        ((least[pair], timer.least(each[least[pair]])) for pair, each in costs.items()),
        key=lambda found: found[1],
    )
    fewer = f", and {duration(seconds)} with {rows:,} rows" if rows < len(timer.prepared.train) else ""
    return (
        f"No candidate keeps the limits; the quickest, {cheapest.backbone} with {cheapest.strategy}, "
        f"{cheapest.over}{fewer}. The smallest --budget that would do is about {duration(1.2 * seconds + elapsed)}."
    )
