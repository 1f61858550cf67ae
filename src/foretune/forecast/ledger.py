"""The ledger: every outcome that was measured, ours (shipped) and the user's own (local).

The local ledger is one JSON object a line at `$FORETUNE_LEDGER`, else in the user's data folder;
FORETUNE_LEDGER=off switches it off. It holds numbers, names and fingerprints only.
"""

from __future__ import annotations

import gzip
import os
import warnings
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from foretune.errors import DataError
from foretune.forecast.records import Candidate, Outcome, Promise, last_part, latest

__all__ = [
    "Candidate", "Outcome", "Promise", "last_part", "latest", "ledger_path", "read", "record", "shipped",
    "summary", "write_shipped",
]  # fmt: skip

SHIPPED = "shipped.jsonl.gz"


def ledger_path() -> Path | None:
    """Return the local ledger's file, or None where FORETUNE_LEDGER is "off"."""
    given = os.environ.get("FORETUNE_LEDGER", "").strip()
    if given.lower() == "off":
        return None
    if given:
        return Path(given).expanduser()
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser() / "foretune" / "ledger.jsonl"


def record(outcome: Outcome, path: Path | None = None) -> str | None:
    """Append `outcome` to the local ledger; return None, or why it could not be kept. Never raises OSError.

    One write to a file opened for appending: lines of processes that write at once do not mix (POSIX,
    write(2), O_APPEND). A line that a full disk or a crash cut short is closed first, so that it harms no other.
    """
    path = path or ledger_path()
    if path is None:
        return None
    data = (outcome.to_json() + "\n").encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            written = os.write(handle, (b"\n" if _open_line(handle) else b"") + data)
        finally:
            os.close(handle)
    except OSError as error:
        return f"The ledger {path} could not be written ({error.strerror or error}); this fit is not in it."
    return None if written >= len(data) else f"The disk of the ledger {path} is full; this fit is not in it."


def _open_line(handle: int) -> bool:
    """Say whether the file ends inside a line."""
    size = os.lseek(handle, 0, os.SEEK_END)
    if not size:
        return False
    os.lseek(handle, size - 1, os.SEEK_SET)
    return os.read(handle, 1) != b"\n"


def read(path: Path | None = None) -> list[Outcome]:
    """Return the outcomes of the local ledger, oldest first; none where it is off, missing or unreadable.

    Damaged lines are left out with one warning; the file is never changed.
    """
    path = path or ledger_path()
    try:
        content = path.read_bytes() if path else b""
    except FileNotFoundError:
        return []
    except OSError as error:
        warnings.warn(f"The ledger {path} cannot be read ({error.strerror or error}).", stacklevel=2)
        return []
    return _parse(content.split(b"\n"), str(path))


def shipped() -> list[Outcome]:
    """Return the outcomes that come with Foretune (made by `benchmarks/ledger.py`)."""
    file = files("foretune.forecast") / SHIPPED
    if not file.is_file():
        return []
    return _parse(gzip.decompress(file.read_bytes()).split(b"\n"), SHIPPED)


def write_shipped(outcomes: Iterable[Outcome], path: Path) -> None:
    """Write outcomes as the shipped ledger: gzip without a time, so that the same outcomes give the same file."""
    lines = sorted(outcome.to_json() for outcome in outcomes)
    path.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode(), mtime=0))


def _parse(lines: Sequence[bytes], name: str) -> list[Outcome]:
    outcomes, damaged = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            outcomes.append(Outcome.from_json(line))
        except DataError as error:
            damaged.append(f"line {number}: {error}")
    if damaged:
        warnings.warn(
            f"{len(damaged)} of {len(outcomes) + len(damaged)} lines of the ledger {name} were left out ({damaged[0]})",
            stacklevel=3,
        )
    return outcomes


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return how the forecasts did; every number is None where nothing can be said.

    coverage        share of scores within their 90 % interval, with its exact 95 % interval
    half_width, error, bias     means of (high - low) / 2, |score - forecast|, score - forecast, in units of the score
    time_error      median of |seconds forecast / seconds needed - 1|
    regret          best score minus that of the candidate forecast to be best, a mean over `choices`:
                    the data sets of which at least two candidates were forecast and fitted
    """
    import numpy as np

    from foretune.forecast.conformal import coverage

    promised = [(o, o.promise) for o in outcomes if o.promise is not None]
    errors = np.array([o.score - p.value for o, p in promised])
    times = [abs(p.seconds / o.seconds - 1) for o, p in promised if p.seconds is not None and o.seconds > 0]
    regrets = _regrets(outcomes)
    return {
        "outcomes": len(outcomes),
        "data_sets": len({o.data for o in outcomes}),
        "backbones": len({o.backbone for o in outcomes}),
        "strategies": len({o.strategy for o in outcomes}),
        "forecasts": len(promised),
        "coverage": coverage([p.holds(o.score) for o, p in promised]) if promised else None,
        "half_width": float(np.mean([(p.high - p.low) / 2 for _, p in promised])) if promised else None,
        "error": float(np.abs(errors).mean()) if promised else None,
        "bias": float(errors.mean()) if promised else None,
        "time_error": float(np.median(times)) if times else None,
        "regret": float(np.mean(regrets)) if regrets else None,
        "choices": len(regrets),
    }


def _regrets(outcomes: Sequence[Outcome]) -> list[float]:
    """Return the regret of every data set with at least two candidates that were forecast."""
    sets: dict[tuple[Any, ...], list[tuple[float, float]]] = {}
    for outcome in latest(list(outcomes)):
        if outcome.promise is not None:
            key = (outcome.data, outcome.n, outcome.metric)
            sets.setdefault(key, []).append((outcome.promise.value, outcome.score))
    return [max(s for _, s in tried) - max(tried)[1] for tried in sets.values() if len(tried) > 1]
