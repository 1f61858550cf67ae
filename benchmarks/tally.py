"""What one way of forecasting or ranking candidates did: coverage, error, Kendall's tau, regret."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foretune.forecast.conformal import coverage
from foretune.forecast.ledger import Outcome
from foretune.forecast.quality import Forecast


@dataclass
class Tally:
    """What one way of forecasting or ranking did, over the data sets left out."""

    inside: list[bool]
    half_widths: list[float]
    errors: list[float]
    taus: list[float]
    backbone_taus: list[float]
    regrets: list[float]

    @classmethod
    def empty(cls) -> Tally:
        """Return a tally of nothing."""
        return cls([], [], [], [], [], [])

    def rank(self, values: Sequence[Any], outcomes: Sequence[Outcome], regret: bool = True) -> None:
        """Add one choice: `values` (greater is better, tuples too) against the measured scores."""
        scores = np.array([outcome.score for outcome in outcomes])
        places = places_of(values)
        self._add(self.taus, places, scores)
        for strategy in sorted({outcome.strategy for outcome in outcomes}):
            rows = [i for i, outcome in enumerate(outcomes) if outcome.strategy == strategy]
            self._add(self.backbone_taus, places[rows], scores[rows])
        if regret and len(scores) > 1:
            # Among equals the mean: whoever chooses by this value takes any of them.
            self.regrets.append(float(scores.max() - scores[places == places.max()].mean()))

    @staticmethod
    def _add(taus: list[float], places: np.ndarray, scores: np.ndarray) -> None:
        found = tau_b(places, scores)
        taus += [] if found is None else [found]

    def forecast(self, forecasts: Sequence[Forecast], outcomes: Sequence[Outcome]) -> None:
        """Add forecasts with intervals against the measured scores."""
        for made, outcome in zip(forecasts, outcomes, strict=True):
            self.inside.append(made.low <= outcome.score <= made.high)
            self.half_widths.append((made.high - made.low) / 2)
            self.errors.append(abs(made.value - outcome.score))

    def result(self) -> dict[str, Any]:
        """Return the means; None where nothing was added."""
        return {
            "coverage": coverage(self.inside) if self.inside else None,
            "half_width": mean(self.half_widths),
            "error": mean(self.errors),
            "tau": mean(self.taus),
            "tau_backbones": mean(self.backbone_taus),
            "regret": mean(self.regrets),
            "worst_regret": max(self.regrets, default=None),
        }


def places_of(values: Sequence[Any]) -> np.ndarray:
    """Return the rank of every value, equal ones alike: (n,)."""
    order = sorted(set(values))
    return np.array([order.index(value) for value in values])


def tau_b(places: np.ndarray, scores: np.ndarray) -> float | None:
    """Return Kendall's tau-b (Kendall 1945); 0 where `places` tells nothing apart, None where scores hold no order."""
    first, second = (np.sign(np.subtract.outer(values, values)) for values in (places, scores))
    if not second.any():
        return None
    return (
        float((first * second).sum() / np.sqrt((first**2).sum() * (second**2).sum())) if first.any() else 0.0
    )


def mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None
