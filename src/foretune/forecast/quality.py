"""The quality model: what score a backbone and a strategy will reach, learnt from measured outcomes.

It forecasts the gain over the linear probe of the frozen features, on the logit scale: slopes on what was
measured without training, random offsets of strategy, task, backbone and data set (`mixed`), and around it a
conformal interval from data sets the model has not seen (`conformal`). It is refitted from the ledger whenever needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foretune.forecast.conformal import LEVEL, cv_plus, leave_one_group_out
from foretune.forecast.features import (
    COVARIATES,
    PILOTS,
    Names,
    Scaling,
    anchor,
    anchor_variance,
    logit,
    sampling_variance,
    usable,
)
from foretune.forecast.mixed import Block, MixedModel, Rows, fit_mixed
from foretune.forecast.records import Candidate, Outcome, latest

Floats = NDArray[np.float64]

#: Standard deviations expected before any data, in logits: 0.2 is 4 points at 70 % and 2 points at 90 %.
BLOCKS = (
    Block("mean", 0.3),
    Block("measured", 0.1, slopes=COVARIATES),
    Block("pilot", 0.2, slopes=PILOTS),
    Block("strategy", 0.3, by=("strategy",)),
    Block("strategy and measured", 0.1, by=("strategy",), slopes=COVARIATES),
    Block("task", 0.2, by=("task",)),
    Block("task and strategy", 0.2, by=("task", "strategy")),
    Block("backbone", 0.2, by=("backbone",)),
    Block("backbone and strategy", 0.1, by=("backbone", "strategy")),
    Block("data", 0.1, by=("data",)),
    Block("data and tuning", 0.2, by=("data",), slopes=("tuned",)),  # of a probe's gain less is unforeseen
    Block("data and examples", 0.1, by=("data",), slopes=("tuned examples",)),
    Block("data and strategy", 0.1, by=("data", "strategy")),
    Block("data and backbone", 0.1, by=("data", "backbone")),
)
OWN = Block("own", 0.3, slopes=("local",))  # how the user's data differ from ours, on the whole
LOCAL_WEIGHT = 3.0  # of a residual of the user's own data sets beside one of ours
OTHER_TASK = 0.1  # weight of a residual of another task beside one of the same
LOCAL_MOST = 300  # latest outcomes of the user's that are used: the fit takes time in the cube of all
Z90 = 1.6448536269514722


@dataclass(frozen=True)
class Forecast:
    """The score expected on held-out data with its 90 % interval, and why, in sentences."""

    value: float
    low: float
    high: float
    why: list[str]


@dataclass(frozen=True)
class QualityModel:
    """A fitted model. Make it with `fit`."""

    model: MixedModel
    scaling: Scaling
    names: Names
    local: NDArray[np.bool_]  # (n,) which outcomes are the user's
    folds: tuple[tuple[MixedModel, NDArray[np.intp]], ...]  # model without a data set, rows of that data set
    residuals: Floats  # (n,) |residual| / spread of each outcome under the model without its data set
    level: float = LEVEL

    @classmethod
    def fit(
        cls, outcomes: Sequence[Outcome], local: Sequence[Outcome] = (), *, level: float = LEVEL
    ) -> QualityModel:
        """Return the model of shipped `outcomes` and the user's own; those without a probe are left out."""
        ours = latest([outcome for outcome in outcomes if usable(outcome)])
        own = latest([outcome for outcome in local if usable(outcome)])[-LOCAL_MOST:]
        known = [*ours, *own]
        names, scaling = Names(ours, own), Scaling(known)
        mine = np.arange(len(known)) >= len(ours)
        rows = scaling.rows(known, mine, names)
        targets = np.array([logit(o.score, o.n_test) - anchor(o) for o in known])
        noise = np.array([sampling_variance(o.score, o.n_test) + anchor_variance(o) for o in known])
        model = fit_mixed((*BLOCKS, OWN) if own else BLOCKS, rows, targets, noise)
        folds, residuals = _cross_fit(model, rows, targets, noise)
        return cls(model, scaling, names, mine, folds, residuals, level)

    def predict(self, candidate: Candidate) -> Forecast:
        """Return the forecast of one candidate. Raises DataError where it has no probe."""
        return self.predict_all([candidate])[0]

    def predict_all(self, candidates: Sequence[Candidate]) -> list[Forecast]:
        """Return the forecast of every candidate. Raises DataError where one has no probe."""
        from foretune.forecast.words import reasons

        if not candidates:
            return []
        rows = self.scaling.rows(candidates, np.full(len(candidates), self.local.any()), self.names)
        starts = np.array([anchor(candidate) for candidate in candidates])
        centre = self.model.predict(rows)[0]
        values = _share(starts + centre)
        noise = np.array([
            sampling_variance(value, max(c.n_test, 1)) + anchor_variance(c)
            for value, c in zip(values, candidates, strict=True)
        ])  # fmt: skip
        low, high = self._intervals(rows, noise)
        lows, highs = _share(starts + np.minimum(low, centre)), _share(starts + np.maximum(high, centre))
        return [
            Forecast(
                float(values[i]),
                float(lows[i]),
                float(highs[i]),
                reasons(self, candidate, rows.take(np.array([i])), float(values[i])),
            )
            for i, candidate in enumerate(candidates)
        ]

    @property
    def calibrated(self) -> bool:
        """Say whether there are outcomes enough for a conformal interval."""
        return bool(np.isfinite(cv_plus(*(np.zeros(len(self.residuals)),) * 3, self._weights, self.level)[1]))

    @property
    def _weights(self) -> Floats:
        return np.where(self.local, LOCAL_WEIGHT, 1.0)

    def _intervals(self, rows: Rows, noise: Floats) -> tuple[Floats, Floats]:
        """Return low (m,) and high (m,) of the gain over the probe, in logits."""
        if not self.calibrated:  # what the model expects, unchecked
            mean, variance = self.model.predict(rows)
            reach = Z90 * np.sqrt(variance + self.model.residual**2 + noise)
            return mean - reach, mean + reach
        n = len(self.residuals)
        centres, spreads = np.empty((n, len(rows))), np.empty((n, len(rows)))
        for model, inside in self.folds:
            mean, variance = model.predict(rows)
            centres[inside], spreads[inside] = mean, np.sqrt(variance + model.residual**2 + noise)
        same = self.model.rows.levels["task"][:, None] == rows.levels["task"][None]  # (n, m)
        weights = self._weights[:, None] * np.where(same, 1.0, OTHER_TASK)
        bounds = [
            cv_plus(centres[:, i], spreads[:, i], self.residuals, weights[:, i], self.level) for i in range(len(rows))
        ]  # fmt: skip
        low, high = np.array(bounds).T
        return low, high


def _cross_fit(
    model: MixedModel, rows: Rows, targets: Floats, noise: Floats
) -> tuple[tuple[tuple[MixedModel, NDArray[np.intp]], ...], Floats]:
    """Return the model without each data set, and the residual of each outcome in units of its spread."""
    folds, residuals = [], np.zeros(len(targets))
    for outside, inside in leave_one_group_out(rows.levels["data"]):
        fold = model.only(outside)
        mean, variance = fold.predict(rows.take(inside))
        spread = np.sqrt(variance + fold.residual**2 + noise[inside])
        residuals[inside] = np.abs(targets[inside] - mean) / spread
        folds.append((fold, inside))
    return tuple(folds), residuals


def _share(logits: Floats) -> Floats:
    return 1 / (1 + np.exp(-logits))
