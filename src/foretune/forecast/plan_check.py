"""Whether the entries of a plan are what a plan holds: a file changed by hand is refused before anything trains."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from foretune.errors import DataError
from foretune.forecast.records import PREDICTORS, Candidate

GOALS = ("accuracy", "speed", "size")
PARTS = ("test", "dev")  # that a score can be expected on

Check = tuple[Callable[[Any], bool], str]  # whether a value is right, and what is expected, in words


def is_number(value: Any) -> bool:
    """Say whether a value is a number, NaN and infinity included."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_amount(value: Any) -> bool:
    """Say whether a value is a finite number from 0."""
    return is_number(value) and 0 <= value < math.inf


def is_count(value: Any) -> bool:
    """Say whether a value is a whole number from 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_some(value: Any) -> bool:
    """Say whether a value is a whole number from 1, or None."""
    return value is None or (is_count(value) and value > 0)


def is_text(value: Any) -> bool:
    """Say whether a value is a text that is not empty."""
    return isinstance(value, str) and bool(value)


def is_texts(value: Any) -> bool:
    """Say whether a value is a list of texts."""
    return isinstance(value, list | tuple) and all(isinstance(text, str) for text in value)


def is_object(value: Any) -> bool:
    """Say whether a value is what JSON calls an object: entries by name."""
    return isinstance(value, dict) and all(isinstance(name, str) for name in value)


def is_amounts(value: Any) -> bool:
    """Say whether a value is finite numbers from 0 by name."""
    return is_object(value) and all(map(is_amount, value.values()))


def _is_sizes(value: Any) -> bool:
    return is_object(value) and all(map(is_count, value.values())) and value.get("train", 0) > 0


_SPAN = ("value", "low", "high")


def _is_score(value: Any) -> bool:
    return is_object(value) and all(is_number(value.get(name)) for name in _SPAN)


def _is_target(value: Any) -> bool:
    if not is_object(value) or not is_number(value.get("score")):
        return False
    return all(name in value and (value[name] is None or is_count(value[name])) for name in _SPAN)


_TEXT: Check = (is_text, "a text")
_OBJECT: Check = (is_object, "an object: entries by name")
_BYTES: Check = (is_count, "a whole number of bytes")
_ROWS: Check = (is_some, "a whole number of rows, or null")

CHOICE: dict[str, Check] = {
    "backbone": _TEXT,
    "strategy": _TEXT,
    "metric": _TEXT,
    "value": (is_number, "a number, or null"),
    "low": (is_number, "a number, or null"),
    "high": (is_number, "a number, or null"),
    "seconds": (lambda value: is_number(value) and value >= 0, "a number from 0, or null"),
    "peak_memory_bytes": _BYTES,
    "disk_bytes": _BYTES,
    "why": (is_texts, "a list of texts"),
    "over": (lambda value: value is None or isinstance(value, str), "a text, or null"),
    "known": _OBJECT,
    "parts": (is_amounts, "seconds by name"),
    "rows": _ROWS,
}

PLAN: dict[str, Check] = {
    "labels": _OBJECT,
    "advice": (is_texts, "a list of texts"),
    "command": _TEXT,
    "machine": _OBJECT,
    "seconds_spent": (is_amount, "seconds"),
    "goal": (lambda value: value in GOALS, f"one of {', '.join(GOALS)}"),
    "task": _TEXT,
    "data": _TEXT,
    "sizes": (_is_sizes, "rows by part, those of train among them"),
    "held_out": (lambda value: value in PARTS, f"one of {', '.join(PARTS)}"),
    "held_out_rows": _ROWS,
    "rows": _ROWS,
    "tuned": (is_object, "settings by name"),
}

LABELS: dict[str, Check] = {
    "n": (is_count, "a whole number of rows"),
    "x2": (_is_score, "a score with value, low and high"),
    "x5": (_is_score, "a score with value, low and high"),
    "target": (_is_target, "a score, and the labels that it needs as value, low and high"),
}


def check(values: Mapping[str, Any], checks: Mapping[str, Check]) -> None:
    """Raise ValueError for the first entry that is not what is expected; those that are missing are passed over."""
    for name, (right, expected) in checks.items():
        if name in values and not right(values[name]):
            raise ValueError(f"{name} is {reprlib.repr(values[name])}; expected {expected}")


def need(values: Mapping[str, Any], names: tuple[str, ...]) -> None:
    """Raise ValueError for the first of `names` that is missing, and for values that are no object."""
    if not is_object(values):
        raise ValueError(f"found {reprlib.repr(values)}; expected an object with {', '.join(names)}")
    for name in names:
        if name not in values:
            raise ValueError(f"{name} is missing")


def check_labels(labels: Mapping[str, Any]) -> None:
    """Raise ValueError where what a plan says of labels is not as it is shown: both forecasts, or neither."""
    need(labels, ("n", "x2", "x5") if labels.keys() & {"x2", "x5"} else ("n",))
    check(labels, LABELS)


def check_rows(rows: Sequence[int | None], train: int) -> None:
    """Raise ValueError where a candidate takes more rows than the `train` that there are."""
    for number in rows:
        if number is not None and number > train:
            raise ValueError(f"rows is {number}; expected at most the {train} of train")


def check_score(value: float, low: float, high: float) -> None:
    """Raise ValueError where a score is not within its interval; all three are NaN where it is not forecast."""
    if all(map(math.isnan, (value, low, high))):
        return
    if not all(map(math.isfinite, (value, low, high))) or not low <= value <= high:
        raise ValueError(f"value is {value}; expected a score from low ({low}) to high ({high})")


def check_known(known: Mapping[str, Any], metric: str, strategy: str) -> None:
    """Raise ValueError where `known`, which the ledger notes, is neither empty nor the very candidate's record.

    Names of predictors go into the ledger, so no other than ours may stand there.
    """
    if not known:
        return
    try:
        record = Candidate(**known)
    except (DataError, TypeError) as error:
        raise ValueError(f"known is no candidate of the ledger: {error}") from error
    if (record.metric, record.strategy) != (metric, strategy):
        raise ValueError(f"known is of {record.strategy} by {record.metric}; expected {strategy} by {metric}")
    unknown = sorted(record.predictors.keys() - PREDICTORS)
    if unknown:
        raise ValueError(
            f"known has the predictor {reprlib.repr(unknown[0])}; expected those that Foretune measures"
        )
