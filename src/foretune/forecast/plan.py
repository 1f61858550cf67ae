"""A plan: the candidates of a data set with what each is expected to reach and to cost, best first."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from foretune.errors import ConfigError
from foretune.forecast import plan_check
from foretune.forecast.plan_check import GOALS as GOALS

FORMAT = 1
TIE = 0.005  # of a bounded score: differences below it are no reason to take the dearer candidate
# Strategies by what they usually score with some hundred labels or more, best first: our measured outcomes.
USUAL = ("full", "lora", "gradual-unfreezing", "lp-ft", "top-layers", "linear-probe")
NEAR = 0.02  # of the score that the goals speed and size may give away

_SCORE = ("metric", "value", "low", "high")


def _known_number(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A candidate: score with its 90 % interval, wall time of a whole fit (seconds), memory and disk (bytes).

    The score is NaN, in JSON null, where that of the task is not forecast; seconds are infinite, in JSON null, where
    the candidate cannot run.
    """

    backbone: str
    strategy: str
    metric: str
    value: float
    low: float
    high: float
    seconds: float
    peak_memory_bytes: int
    disk_bytes: int
    why: tuple[str, ...] = ()
    over: str | None = None  # which limit it does not keep, in words
    known: dict[str, Any] = field(default_factory=dict)  # what the ledger notes of it
    parts: dict[str, float] = field(default_factory=dict)  # seconds by what they are spent on
    rows: int | None = None  # training rows that it takes, where a budget leaves no time for all of them

    def to_json(self) -> dict[str, Any]:
        """Return the candidate as `plan --json` prints it."""
        values = asdict(self)
        score = {key: _known_number(values.pop(key)) for key in _SCORE}
        names = {"backbone": values.pop("backbone"), "strategy": values.pop("strategy")}
        seconds = None if math.isinf(self.seconds) else self.seconds  # JSON has no infinity
        return {**names, "score": score, **values, "seconds": seconds, "why": list(self.why)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Choice:
        """Return the candidate that `to_json` gave. Raises ValueError or TypeError where an entry is wrong."""
        plan_check.need(values, ("score", "seconds", "why"))
        plan_check.need(values["score"], _SCORE)
        rest = {key: value for key, value in values.items() if key != "score"}
        score = {key: values["score"][key] for key in _SCORE}
        score |= {key: math.nan for key in _SCORE[1:] if score[key] is None}
        seconds = math.inf if values["seconds"] is None else values["seconds"]
        found = {**rest, **score, "seconds": seconds}
        plan_check.check(found, plan_check.CHOICE)
        plan_check.check_score(found["value"], found["low"], found["high"])
        choice = cls(**(found | {"why": tuple(values["why"])}))
        plan_check.check_known(choice.known, choice.metric, choice.strategy)
        return choice


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What `foretune plan` found. `candidates` are ordered best first under `goal`."""

    candidates: tuple[Choice, ...]
    labels: dict[str, Any]
    advice: tuple[str, ...]
    command: str
    machine: dict[str, Any]
    seconds_spent: float
    goal: str
    task: str
    data: str  # fingerprint of the training data
    sizes: dict[str, int]
    held_out: str  # the part that the score is expected on: test or dev
    held_out_rows: int | None = None  # most rows that were split off for a part, as in the recipe
    rows: int | None = None  # training rows that the user asked for, as in the recipe
    tuned: dict[str, Any] = field(default_factory=dict)  # `Recipe.tuned` of what was planned

    @property
    def best(self) -> Choice:
        """Return the candidate to take."""
        return self.candidates[0]

    def candidate(self, backbone: str, strategy: str) -> Choice | None:
        """Return what the plan says of a backbone and a strategy, if it weighed them."""
        return next((c for c in self.candidates if (c.backbone, c.strategy) == (backbone, strategy)), None)

    def to_json(self) -> dict[str, Any]:
        """Return the object that `plan --json` prints and `fit --plan` reads."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "candidates"}
        return {
            "candidates": [choice.to_json() for choice in self.candidates],
            "best": self.best.to_json(),
            **values,
            "advice": list(self.advice),
            "format": FORMAT,
        }

    def save(self, path: str | Path) -> None:
        """Write the plan as JSON."""
        Path(path).write_text(
            json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )

    @classmethod
    def from_json(cls, values: dict[str, Any], where: str = "plan") -> Plan:
        """Return the plan that `to_json` gave. Raises ConfigError where something is missing or wrong."""
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise ConfigError(
                f"{where} is no plan of this version. Make it with `foretune plan DATA --output FILE`."
            )
        try:
            found = cls._checked(values)
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise ConfigError(f"{where} is damaged ({error}). Make it anew with `foretune plan`.") from error
        if values.get("best", values["candidates"][0]) != values["candidates"][0]:
            raise ConfigError(
                f"{where} was changed by hand: its best is not its first candidate. To take another candidate leave "
                "the plan as it is and name it with --backbone and --strategy."
            )
        return found

    @classmethod
    def _checked(cls, values: dict[str, Any]) -> Plan:
        """Return the plan of JSON's values. Raises ValueError, TypeError and the like where an entry is wrong."""
        plan_check.need(values, ("candidates", "labels", "advice"))
        candidates = tuple(Choice.from_json(choice) for choice in values["candidates"])
        if not candidates:
            raise ValueError("it names no candidate")
        names = (name for name in cls.__dataclass_fields__ if name != "candidates")
        rest = {name: values[name] for name in names if name in values}
        plan_check.check(rest, plan_check.PLAN)
        plan_check.check_labels(rest["labels"])
        found = cls(candidates=candidates, **(rest | {"advice": tuple(values["advice"])}))
        plan_check.check_rows([choice.rows for choice in candidates], found.sizes["train"])
        return found

    @classmethod
    def read(cls, path: str | Path) -> Plan:
        """Read a plan's file. Raises ConfigError."""
        try:
            return cls.from_json(
                json.loads(Path(path).expanduser().read_text(encoding="utf-8-sig")), str(path)
            )
        except OSError as error:
            raise ConfigError(f"Plan {path} cannot be read: {error.strerror}. Check the path.") from error
        except (ValueError, RecursionError) as error:
            raise ConfigError(
                f"Plan {path} is no JSON: {error}. Make it anew with `foretune plan`."
            ) from error


def _usual(choice: Choice) -> tuple[int, float]:
    known = choice.strategy in USUAL
    return (USUAL.index(choice.strategy) if known else len(USUAL), -choice.seconds)


def order(choices: list[Choice], goal: str) -> list[Choice]:
    """Return the choices best first: those within the limits before the others, then by the goal.

    "accuracy": by score; of those within half a point of the best the quickest leads. "speed" and "size": of
    those within two points of the best the quickest or smallest leads, the rest follows by score. Without scores the
    candidates stand in the order of `USUAL`, under the other goals in that of what they cost.
    """
    fits = [choice for choice in choices if choice.over is None]
    rest = sorted((c for c in choices if c.over is not None), key=lambda c: -c.value)
    if not fits:
        return rest
    cost = (lambda c: c.disk_bytes) if goal == "size" else (lambda c: c.seconds)
    if any(math.isnan(choice.value) for choice in fits):
        return [*sorted(fits, key=_usual if goal == "accuracy" else cost), *rest]
    top = max(choice.value for choice in fits)
    slack = TIE if goal == "accuracy" else NEAR
    near = sorted((c for c in fits if c.value >= top - slack), key=cost)
    far = sorted((c for c in fits if c.value < top - slack), key=lambda c: -c.value)
    head = near[:1] + sorted(near[1:], key=lambda c: -c.value) if goal == "accuracy" else near
    return [*head, *far, *rest]


def limits(choice_seconds: float, memory: int, budget: float | None, allowed: int | None) -> str | None:
    """Return which limit a candidate exceeds, in words, or None. Seconds and bytes."""
    if budget is not None and choice_seconds > budget:
        return f"needs {duration(choice_seconds)}, more than the {duration(budget)} there are"
    if allowed is not None and memory > allowed:
        return f"needs {memory / 1e9:.1f} GB of memory, more than the {allowed / 1e9:.1f} GB there are"
    return None


def duration(seconds: float) -> str:
    """Return a time for people: 45 s, 3 min 20 s, 2 h 05 min."""
    if seconds == float("inf"):
        return "for ever"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def parse_duration(text: str | float) -> float:
    """Return seconds of "90", "90s", "10m", "1h30m" or a number. Raises ConfigError."""
    import re

    if isinstance(text, int | float) and not isinstance(text, bool):
        seconds = float(text)
    else:
        found = re.fullmatch(
            r"\s*(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s?)?\s*", str(text)
        )
        if re.search(r"h\s*\d+(?:\.\d+)?\s*$", str(text)):  # 1h30 is half past one to many, not 1 h 30 s
            found = None
        if not found or not any(found.groups()):
            raise ConfigError(f"A time is {text!r}; expected seconds or a time such as 90s, 10m or 1h30m.")
        hours, minutes, rest = (float(part or 0) for part in found.groups())
        seconds = 3600 * hours + 60 * minutes + rest
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"A time is {text!r}; expected more than nothing.")
    return seconds


def parse_bytes(text: str | int) -> int:
    """Return bytes of "8GB", "500MB", "2GiB" or a number. Raises ConfigError."""
    import re

    units = {
        "": 1,
        "k": 1e3,
        "m": 1e6,
        "g": 1e9,
        "t": 1e12,
        "ki": 2**10,
        "mi": 2**20,
        "gi": 2**30,
        "ti": 2**40,
    }
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?\s*", str(text).lower())
    if not found or not float(found[1]):
        raise ConfigError(f"A size is {text!r}; expected bytes or a size such as 8GB or 500MB.")
    return int(float(found[1]) * units[found[2] or ""])
