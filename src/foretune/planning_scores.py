"""The forecast scores of a plan's candidates: what was judged of their features, through the quality model."""

from __future__ import annotations

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


def record_of(pair: Pair, look: Look, prepared: Prepared, metric: str) -> Candidate:
    """Return a candidate as the ledger and the quality model know it."""
    held_out = prepared.held_out
    return Candidate(
        data=prepared.fingerprints["train"], task=prepared.task.name, n=len(prepared.train),
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
