"""The forecast scores of a plan's candidates: what was judged of their features, through the quality model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from foretune.forecast import ledger
from foretune.forecast.records import Candidate, Outcome
from foretune.planning_look import Look
from foretune.prepare import Prepared

Pair = tuple[str, str]  # backbone, strategy


def scores(records: Mapping[Pair, Candidate]) -> dict[Pair, dict[str, Any]]:
    """Return value, low and high of every candidate, why, and what the ledger is to note of it."""
    from foretune.forecast.quality import QualityModel

    candidates = list(records.values())
    own = [_with_predictors(outcome, candidates) for outcome in ledger.read()]
    forecasts = QualityModel.fit(ledger.shipped(), own).predict_all(candidates)
    return {
        pair: {
            "value": forecast.value, "low": forecast.low, "high": forecast.high, "why": tuple(forecast.why),
            "known": asdict(records[pair]),
        }
        for pair, forecast in zip(records, forecasts, strict=True)
    }  # fmt: skip


def grown(score: dict[str, Any], look: Look, rows: int) -> dict[str, Any]:
    """Return a score as it is expected with more training rows than were judged: it gains what the probe gains.

    The interval joins that of the score and that of the gain on the probe's learning curve.
    """
    from foretune.forecast.curve import forecast_at

    judged = len(look.rows)
    if rows <= judged:
        return score
    now, then = forecast_at(look.curve, judged), forecast_at(look.curve, rows)
    gain, width = then.value - now.value, (then.high - then.low) / 2
    why = f"{rows:,} rows should bring {100 * gain:.1f} points beside the {judged:,} that were judged."
    moved = gained(score["value"], score["low"], score["high"], gain, width)
    return {**score, **moved, "why": (*score["why"], why)}


def gained(value: float, low: float, high: float, gain: float, width: float) -> dict[str, float]:
    """Return a score with its interval after a gain, given ± `width`, within 0 and 1: the two errors add in squares."""
    centre = min(max(value + gain, 0.0), 1.0)
    below, above = math.hypot(value - low, width), math.hypot(high - value, width)
    return {"value": centre, "low": max(centre - below, 0.0), "high": min(centre + above, 1.0)}


def record_of(pair: Pair, look: Look, prepared: Prepared, metric: str, rows: int) -> Candidate:
    """Return a candidate with so many training rows as the ledger and the quality model know it."""
    held_out = prepared.held_out
    return Candidate(
        data=prepared.fingerprints["train"], task=prepared.task.name, n=rows,
        classes=int(look.predictors.get("classes", 0)), tokens=look.tokens, backbone=pair[0],
        backbone_fingerprint=look.fingerprint, strategy=pair[1], metric=metric,
        n_test=len(held_out[1]) if held_out else 0, predictors=look.predictors,
    )  # fmt: skip


def _with_predictors(outcome: Outcome, records: Sequence[Candidate]) -> Outcome:
    """Give an outcome of this very data and backbone the numbers that were measured now, where it has none."""
    if outcome.predictors:
        return outcome
    for record in records:
        same = (outcome.data, outcome.backbone_fingerprint) == (record.data, record.backbone_fingerprint)
        if same and outcome.n == record.n:
            return replace(outcome, predictors=record.predictors)
    return outcome
