"""From outcomes and candidates to the numbers that the quality model sees."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from foretune.errors import DataError
from foretune.evaluation.counts import COUNT_METRICS
from foretune.forecast.mixed import Rows
from foretune.forecast.records import Candidate, Outcome

Floats = NDArray[np.float64]

#: What tells how far fine-tuning goes beyond the probe; what was not measured counts as average.
#:   probe     the probe's logit: much of the room above it may be gained
#:   layers    the last layer's probe less the best layer's: what the last layer hides, fine-tuning brings out
#:   examples  the logarithm of their number
#:   words     what counted words score, less the probe: what the features hide, fine-tuning may learn from the words
#:   unknown   the share of tokens that are unknown: full fine-tuning learns new ones, which the probe cannot
#: Tried and left out: nearest neighbours, H-score, LogME, the curve's slope, classes and tokens. Leaving one data
#: set out (44 outcomes of 6 sets; later 204 of 10), none made the error or the ranking better by more than noise.
COVARIATES = ("probe", "layers", "words", "examples", "unknown")
#: A short fine-tuning of this candidate less the probe on the very same rows, and the same for the same strategy on
#: the same data, a mean over the backbones that were tried.
PILOTS = ("pilot", "peers")
#: The least spread that a covariate is measured in, where the default of 0.1 is too small: a factor of e examples.
LEAST_SPREAD = {"examples": 1.0}
ANCHOR = "probe"
FROZEN = (
    "linear-probe",
)  # it reads the very features that the anchor was measured on: less of it is unforeseen


def usable(outcome: Outcome) -> bool:
    """Say whether the quality model can learn from an outcome: a share, beside a probe, of the usual settings."""
    share = outcome.metric in COUNT_METRICS and 0 <= outcome.score <= 1
    return (
        share and not outcome.tuned and outcome.n_test > 0 and outcome.n > 0 and ANCHOR in outcome.predictors
    )


def logit(share: float, n: float) -> float:
    """Return the empirical logit of a share of n: finite also for 0 and 1 (Haldane 1956, Anscombe 1956)."""
    hits = min(max(share, 0.0), 1.0) * n
    return math.log((hits + 0.5) / (n - hits + 0.5))


def sampling_variance(share: float, n: float) -> float:
    """Return the variance of an empirical logit (Gart & Zweifel 1967, Biometrika 54:181)."""
    hits = min(max(share, 0.0), 1.0) * n
    return 1 / (hits + 0.5) + 1 / (n - hits + 0.5)


def anchor(candidate: Candidate) -> float:
    """Return the probe's score as a logit, from which every forecast starts. Raises DataError."""
    probe = candidate.predictors.get(ANCHOR)
    if probe is None:
        raise DataError(
            f"A forecast needs the predictor {ANCHOR!r}; found {sorted(candidate.predictors)}. "
            "Measure the frozen features first (foretune.forecast.transferability.predictors)."
        )
    return logit(probe, candidate.n)


def anchor_variance(candidate: Candidate) -> float:
    """Return the variance of the anchor: chance decides which examples there are to cross-validate the probe on."""
    return sampling_variance(candidate.predictors[ANCHOR], candidate.n)


def covariates(candidate: Candidate) -> dict[str, float]:
    """Return the numbers that are there, on scales on which effects add up. Raises DataError without a probe."""
    given, start = candidate.predictors, anchor(candidate)
    found = {"probe": start, "examples": math.log(max(candidate.n, 1))}
    if "probe_last" in given:
        found["layers"] = logit(given["probe_last"], candidate.n) - start
    if "bag_of_words" in given:
        found["words"] = logit(given["bag_of_words"], candidate.n) - start
    if "unknown" in given:
        found["unknown"] = given["unknown"]
    if "pilot" in given:
        beside = logit(given["pilot_probe"], candidate.n) if "pilot_probe" in given else start
        found["pilot"] = logit(given["pilot"], candidate.n) - beside
    return found


def table(candidates: Sequence[Candidate]) -> list[dict[str, float]]:
    """Return the covariates of each candidate, with those that come from others of the same data."""
    found = [covariates(candidate) for candidate in candidates]
    pilots: dict[tuple[str, str], list[float]] = {}
    for candidate, values in zip(candidates, found, strict=True):
        if "pilot" in values:
            pilots.setdefault((candidate.data, candidate.strategy), []).append(values["pilot"])
    for candidate, values in zip(candidates, found, strict=True):
        if tried := pilots.get((candidate.data, candidate.strategy)):
            values["peers"] = sum(tried) / len(tried)
    return found


class Scaling:
    """Covariates as standard deviations from the mean of the outcomes; unknown ones are 0, the mean."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        found = table(candidates)
        self.centre, self.spread = {}, {}
        for name in (*COVARIATES, *PILOTS):
            values = [values[name] for values in found if name in values]
            self.centre[name] = float(np.mean(values)) if values else 0.0
            # A covariate that hardly varied must not explode when it does.
            self.spread[name] = max(float(np.std(values)) if values else 0.0, LEAST_SPREAD.get(name, 0.1))

    def rows(self, candidates: Sequence[Candidate], local: NDArray[np.bool_], names: Names) -> Rows:
        """Return what the mixed model sees of candidates; `local` marks the user's own."""
        found = table(candidates)
        numbers = {
            name: np.array([
                (values[name] - self.centre[name]) / self.spread[name] if name in values else 0.0
                for values in found
            ])
            for name in (*COVARIATES, *PILOTS)
        }  # fmt: skip
        tuned = np.array([float(candidate.strategy not in FROZEN) for candidate in candidates])
        numbers |= {
            "local": local.astype(np.float64),
            "tuned": tuned,
            "tuned examples": tuned * numbers["examples"],
        }
        levels = {
            "strategy": [candidate.strategy for candidate in candidates],
            "task": [candidate.task for candidate in candidates],
            "backbone": [names.level(candidate) for candidate in candidates],
            "data": [candidate.data for candidate in candidates],
        }
        return Rows(numbers, {name: np.asarray(values, dtype=str) for name, values in levels.items()})


class Names:
    """Which outcomes are of the same backbone: the same fingerprint, else the same well-known name.

    Names in the shipped ledger are well known; a user's folder called "model" may be anything.
    """

    def __init__(self, shipped: Iterable[Candidate], local: Iterable[Candidate] = ()) -> None:
        self._by_print: dict[str, str] = {}
        self._known: set[str] = set()
        for candidate in shipped:
            self._known.add(candidate.backbone)
            self._by_print.setdefault(candidate.backbone_fingerprint, candidate.backbone)
        for candidate in local:
            self._by_print.setdefault(candidate.backbone_fingerprint, self.level(candidate))
        self._by_print.pop("", None)

    def level(self, candidate: Candidate) -> str:
        """Return the backbone's level in the model."""
        printed = candidate.backbone_fingerprint
        if printed in self._by_print:
            return self._by_print[printed]
        return (
            candidate.backbone
            if candidate.backbone in self._known
            else f"{candidate.backbone}@{printed[:12]}"
        )
