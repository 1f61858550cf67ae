"""What the ledger holds: a candidate, what was promised for it, and what came out."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from foretune.errors import DataError

FORMAT = 1
_NAME = re.compile(r"[\w.+*-]{0,100}")  # no blank, no separator: neither a sentence nor a path fits in

#: Every number that can be measured of a candidate without fine-tuning it: by `transferability.measure`, by
#: `planning_look.look` (unknown), and by a pilot. A plan with another name is refused: names go into the ledger.
PREDICTORS = frozenset({
    "n", "layers", "width", "classes", "majority", "entropy", "smallest", "rare", "probe", "probe_se", "probe_last",
    "probe_depth", "knn", "h_score", "h_share", "log_me", "log_me_gain", "curve_a", "curve_c", "curve_slope",
    "curve_x2", "curve_x2_width", "curve_x5", "curve_x5_width", "unknown", "bag_of_words", "pilot", "pilot_probe",
})  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One way to fine-tune on one data set, as it is known before the fit.

    `data` is the fingerprint of the training data, or the name of a public set; `n` counts training
    examples, `n_test` those that the score is measured on; `tokens` is the mean length. `predictors` are
    the numbers measured without training (`probe`, `knn`, `log_me`, …). Raises DataError where a number is
    not finite or a name could hold text of the user's.
    """

    data: str
    task: str
    n: int
    classes: int
    tokens: float
    backbone: str
    backbone_fingerprint: str
    strategy: str
    metric: str
    n_test: int
    predictors: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "backbone", last_part(self.backbone))
        for entry in fields(self):
            _check(entry.name, getattr(self, entry.name), str(entry.type))


@dataclass(frozen=True, kw_only=True)
class Promise:
    """What was forecast before a fit: the score with its 90 % interval, and the wall time in seconds."""

    value: float
    low: float
    high: float
    seconds: float | None = None

    def __post_init__(self) -> None:
        for entry in fields(self):
            _check(entry.name, getattr(self, entry.name), str(entry.type))
        if not self.low <= self.value <= self.high:
            raise DataError(
                f"A forecast lies within its interval; found {self.value} outside {self.low} to {self.high}."
            )

    def holds(self, score: float) -> bool:
        """Say whether the interval holds `score`."""
        return self.low <= score <= self.high


@dataclass(frozen=True, kw_only=True)
class Outcome(Candidate):
    """A fit and what it came to: numbers, names and fingerprints, never data, labels or paths.

    `seconds` is the wall time of the whole fit; `machine` a key made of the machine's properties; `date`
    the day, as 2026-01-31; `version` that of Foretune; `tuned`: with the user's own settings, such as epochs or lr.
    """

    score: float
    seconds: float
    peak_memory_bytes: int
    promise: Promise | None = None
    tuned: bool = False
    version: str = ""
    machine: str = ""
    date: str = ""

    def to_json(self) -> str:
        """Return one line of JSON, without the line's end."""
        return json.dumps({"format": FORMAT, **asdict(self)}, allow_nan=False, sort_keys=True)

    @classmethod
    def from_json(cls, line: str | bytes) -> Self:
        """Return the outcome of one line. Raises DataError where it is damaged or of a newer format."""
        try:
            values = json.loads(line)
            found = values.pop("format")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise DataError(f"It is no outcome: {error!r}. Expected a JSON object with a format.") from error
        if found != FORMAT:
            raise DataError(f"It has format {found!r}; this Foretune reads {FORMAT}. Update Foretune.")
        known = {entry.name for entry in fields(cls)}
        try:
            promise = values.pop("promise", None)
            return cls(
                promise=None if promise is None else Promise(**promise),
                **{key: value for key, value in values.items() if key in known},
            )
        except TypeError as error:
            raise DataError(f"It is incomplete or holds a wrong entry ({error}).") from error


def last_part(name: str) -> str:
    """Return the last part of a path or hub id, with blanks and what else is no part of a name as "-"."""
    parts = [part for part in re.split(r"[/\\]+", str(name)) if part]
    return re.sub(r"[^\w.+*-]", "-", parts[-1])[:100] if parts else ""


def latest(outcomes: list[Outcome]) -> list[Outcome]:
    """Return the outcomes without those that a later one of the same candidate replaces, in their order."""
    last = {_identity(outcome): number for number, outcome in enumerate(outcomes)}
    return [outcomes[number] for number in sorted(last.values())]


def _identity(outcome: Outcome) -> tuple[Any, ...]:
    names = ("data", "n", "backbone", "backbone_fingerprint", "strategy", "metric")
    return tuple(getattr(outcome, name) for name in names)


def _check(name: str, value: Any, kind: str) -> None:
    """Raise DataError where `value` is not of the field's type or could carry text."""
    if kind == "str":
        right = isinstance(value, str) and _NAME.fullmatch(value) is not None
    elif kind == "int":
        right = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    elif kind == "dict[str, float]":
        right = isinstance(value, dict) and all(
            isinstance(key, str) and _NAME.fullmatch(key) and _is_number(number)
            for key, number in value.items()
        )
    elif kind.startswith("float"):
        right = _is_number(value) or (value is None and kind.endswith("None"))
    else:
        right = True
    if not right:
        raise DataError(
            f"{name} is {value!r} in an outcome; expected {_EXPECTED.get(kind, 'a finite number')}."
        )


_EXPECTED = {
    "str": "a name of letters, digits, . + * _ - without blanks",
    "int": "a whole number from 0",
    "dict[str, float]": "names, each with a finite number",
}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
