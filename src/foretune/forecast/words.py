"""Why a forecast is what it is, in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from foretune.forecast.features import sampling_variance

if TYPE_CHECKING:
    from foretune.forecast.mixed import Rows
    from foretune.forecast.quality import QualityModel
    from foretune.forecast.records import Candidate

Z90 = 1.6448536269514722
MANY_UNKNOWN = 0.05  # of the tokens
WORTH_SAYING = 0.5  # points; less is not put into words


def reasons(model: QualityModel, candidate: Candidate, row: Rows, value: float) -> list[str]:
    """Return what moves the forecast `value` of a candidate and its interval; `row` is its one row."""
    slope = 100 * value * (1 - value)  # points per logit
    return [
        *_probe(candidate, value),
        *_strategy(model, candidate),
        *_backbone(model, candidate, row, slope),
        *_data(model, candidate, row, slope),
        *_doubt(model, candidate, value, slope),
    ]


def _probe(candidate: Candidate, value: float) -> Iterator[str]:
    probe, common = candidate.predictors["probe"], candidate.predictors.get("majority", 0.0)
    above = (probe - common) / max(1 - common, 1e-9)
    beside = f"; the commonest class alone is {_percent(common)}" if common else ""
    if above < 0.2:
        yield f"The frozen features hardly tell the classes apart (probe {_percent(probe)}{beside})."
    elif probe >= 0.9:
        yield f"The frozen features already separate the classes (probe {_percent(probe)})."
    else:
        yield f"The frozen features separate the classes in part (probe {_percent(probe)}{beside})."
    words = candidate.predictors.get("bag_of_words", 0.0)
    if words > probe:
        yield f"Counted words alone tell {_percent(words)}: the features hide something that fine-tuning may learn."
    gain = 100 * (value - probe)
    if abs(gain) >= WORTH_SAYING:
        yield f"{candidate.strategy} should end {_points(gain, 'above', 'below')} the probe."
    else:
        yield f"{candidate.strategy} should end where the probe does."
    unknown = candidate.predictors.get("unknown", 0.0)
    if unknown > MANY_UNKNOWN:
        yield f"{_percent(unknown)} of the tokens are unknown to this backbone."
    if "pilot" in candidate.predictors:
        yield f"A short fine-tuning on a part of the data reached {_percent(candidate.predictors['pilot'])}."


def _strategy(model: QualityModel, candidate: Candidate) -> Iterator[str]:
    levels = model.model.rows.levels
    same = levels["strategy"] == candidate.strategy
    if not np.any(same):
        yield f"No outcome of {candidate.strategy} has been measured yet, so the interval is wider."
    elif not np.any(same & (levels["task"] == candidate.task)):
        yield (
            f"No outcome of {candidate.strategy} in {candidate.task} has been measured yet: what it gained in other "
            "tasks is counted, so the interval is wider."
        )


def _backbone(model: QualityModel, candidate: Candidate, row: Rows, slope: float) -> Iterator[str]:
    known = int(np.sum(model.model.rows.levels["backbone"] == row.levels["backbone"][0]))
    if not known:
        yield f"No outcome of {candidate.backbone} has been measured yet, so the interval is wider."
        return
    parts = ("backbone", "backbone and strategy")
    moved = slope * float(sum(model.model.part(name, row)[0] for name in parts))
    if abs(moved) >= WORTH_SAYING:
        beside = f"{_points(moved, 'higher', 'lower')} than others with such a probe"
        yield f"{candidate.backbone} has ended {beside} ({_outcomes(known)})."


def _data(model: QualityModel, candidate: Candidate, row: Rows, slope: float) -> Iterator[str]:
    same = int(np.sum(model.model.rows.levels["data"] == candidate.data))
    if same:
        yield f"What these data came to before is counted in ({_outcomes(same)})."
    own = int(model.local.sum())
    if own:
        moved = slope * float(model.model.part("own", row)[0])
        by = (
            f", which moves the forecast {_points(moved, 'up', 'down')}" if abs(moved) >= WORTH_SAYING else ""
        )
        yield f"Your own fits are counted in ({_outcomes(own)}){by}."


def _doubt(model: QualityModel, candidate: Candidate, value: float, slope: float) -> Iterator[str]:
    chance = Z90 * slope * sampling_variance(value, max(candidate.n_test, 1)) ** 0.5
    if chance >= 3:
        yield f"Chance alone moves a score on {candidate.n_test:,} held-out examples by {chance:.0f} points either way."
    if not model.calibrated:
        yield f"The interval is unchecked: there are too few measured outcomes ({len(model.residuals)})."


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _points(points: float, more: str, less: str) -> str:
    return f"{abs(points):.1f} points {more if points > 0 else less}"


def _outcomes(count: int) -> str:
    return f"{count} outcome{'s' * (count != 1)}"
