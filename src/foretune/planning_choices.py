"""From what was measured of every candidate to choices: rows, score, time, memory, and the limit it breaks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from foretune.errors import ConfigError
from foretune.forecast.plan import Choice, duration, limits
from foretune.planning_cost import Timer
from foretune.planning_look import Look
from foretune.planning_scores import Pair, grown, record_of, scores
from foretune.strategies.base import STRATEGIES

if TYPE_CHECKING:
    from foretune.forecast.cost import Cost
    from foretune.planning_pilot import Pilot

UNKNOWN = "The {} is not forecast yet: no outcomes were measured. Time, memory and disk are."

Costs = Mapping[Pair, Mapping[int, "Cost"]]
Seen = Callable[[str, int], "Look | None"]  # (backbone, training rows) -> what its features say


def choices_of(
    timer: Timer,
    costs: Costs,
    seen: Seen,
    started: float,
    memory: int | None,
    pilots: Mapping[Pair, Pilot] | None = None,
) -> list[Choice]:
    """Return every candidate with what it costs, and with its score where the task's can be forecast.

    One that does not keep the budget with all rows takes as many as it has time for. Raises ConfigError where there is
    no candidate.
    """
    if not costs:
        raise ConfigError("No candidate is left. Name --backbones and --strategies that this machine has.")
    left = None if timer.budget is None else max(timer.budget - (time.perf_counter() - started), 0.0)
    every = len(timer.prepared.train)
    rows = _rows(timer, costs, left, every)
    known = _scores(timer, rows, seen, pilots or {}) if timer.forecasts else {}
    what = f"metric {timer.metric}" if timer.prepared.task.forecasts else "score of this task"
    found = []
    for pair, number in rows.items():
        cost, unknown = (
            costs[pair][number],
            {"value": math.nan, "low": math.nan, "high": math.nan, "why": (UNKNOWN.format(what),)},
        )
        size = _bytes(cost.peak_memory_bytes)
        score = known.get(pair, unknown)
        if number < every:
            score["why"] = (f"Learns from {number:,} of {every:,} rows, as the budget allows.", *score["why"])
        if timer.cut and left is not None and timer.least(cost) <= left < timer.needs(cost):
            score["why"] = (
                f"Needs {duration(timer.needs(cost))}: the budget will end its training.",
                *score["why"],
            )
        found.append(Choice(
            backbone=pair[0], strategy=pair[1], metric=timer.metric, seconds=cost.seconds, peak_memory_bytes=size,
            disk_bytes=_bytes(cost.disk_bytes), over=_over(cost, timer.least(cost), left, memory), parts=cost.parts,
            rows=number if number < every else None, **score,
        ))  # fmt: skip
    return found


def _rows(timer: Timer, costs: Costs, left: float | None, every: int) -> dict[Pair, int]:
    """Return the training rows that each candidate takes: all, or as many as it has time for."""
    found = {}
    for pair, each in costs.items():
        whole = left is None or timer.needs(each[every]) <= left
        most = every if whole or left is None else timer.most_rows(each, left)
        found[pair] = every if most is None else most
    return found


def _scores(
    timer: Timer, rows: Mapping[Pair, int], seen: Seen, pilots: Mapping[Pair, Pilot]
) -> dict[Pair, dict[str, Any]]:
    """Return the forecast score of every candidate with its number of rows, and why."""
    looks = {key: seen(*key) for key in dict.fromkeys((pair[0], number) for pair, number in rows.items())}
    records, judged = {}, {}
    for pair, number in rows.items():
        look = looks[pair[0], number]
        assert look is not None
        record, judged[pair] = record_of(pair, look, timer.prepared, timer.metric, number), look
        tried = pilots[pair].predictors() if pair in pilots else {}
        records[pair] = replace(record, predictors=record.predictors | tried)
    found, every = scores(records), len(timer.prepared.train)
    return {
        pair: grown(score, judged[pair], rows[pair])
        if rows[pair] < every and STRATEGIES[pair[1]].needs_targets
        else score
        for pair, score in found.items()
    }


def _over(cost: Cost, needs: float, left: float | None, memory: int | None) -> str | None:
    """Return why a candidate is not to be chosen, in words, or None: it cannot run, or exceeds a limit."""
    if cost.reason is not None:
        return f"cannot run here: {cost.reason}"
    return limits(needs, _bytes(cost.peak_memory_bytes), left, memory)


def _bytes(value: float) -> int:
    return int(value) if value != float("inf") else 1 << 62
