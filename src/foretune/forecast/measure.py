"""Times a piece of work on a few of its batches, of several shapes, within a limit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from foretune.forecast.timing import TimeModel, fit_times, spread, steady, work_of

PART = 4  # a first look takes a fourth of the largest batch
SLOW = 2.0  # seconds that such a look may always take, twice
ROUNDS, CHEAP_ROUNDS, CHEAP = (
    3,
    10,
    0.3,
)  # over all shapes; more of them while they take less than CHEAP seconds

Run = Callable[[np.ndarray], np.ndarray]  # runs the examples `rows` and returns the work done, (4,)
Check = Callable[[np.ndarray, np.ndarray], None]  # (the part that was run, the whole batch that comes next)


def measure(
    batches: Sequence[np.ndarray],
    lengths: np.ndarray,
    run: Run,
    limit: float,
    check: Check | None = None,
) -> tuple[TimeModel, float]:
    """Time `run` on batches of several shapes; return the fitted model and the share of the largest that was run.

    `batches`: row numbers of every true batch. A part of the largest comes first; where whole batches would
    take more than `limit` seconds, only parts are run. `check` is asked before the first whole batch.
    """
    works = np.array([work_of([lengths[batch]], steps=0) for batch in batches])
    chosen = [batches[i] for i in spread(works[:, 3], works[:, 2])]
    part = _affordable(part_of(chosen[0], lengths), lengths, run, limit)
    tried = len(part) / len(chosen[0])
    run(part)  # fills caches and pages
    seconds, work = _timed(run, part)
    times, done = {-1: [seconds]}, {-1: work}
    if check is not None:
        check(part, chosen[0])
    estimate = seconds / len(part) * sum(map(len, chosen))
    share = 1.0
    if estimate > limit:
        chosen, estimate, share = [part_of(b, lengths, tried) for b in chosen], estimate * tried, tried
    end = time.perf_counter() + limit
    for turn in range(CHEAP_ROUNDS):
        late = time.perf_counter() + estimate > end
        if late or (turn >= ROUNDS and end - limit + CHEAP < time.perf_counter()):
            break
        for number, batch in enumerate(chosen):
            seconds, done[number] = _timed(run, batch)
            times.setdefault(number, []).append(seconds)
    return fit_times([done[n] for n in times], [steady(t) for t in times.values()]), share


def part_of(batch: np.ndarray, lengths: np.ndarray, share: float = 1 / PART) -> np.ndarray:
    """Return the longest examples of a batch, a fourth of it unless told, at least one."""
    order = batch[np.argsort(lengths[batch], kind="stable")]
    return order[-max(int(len(batch) * share), 1) :]


def _affordable(part: np.ndarray, lengths: np.ndarray, run: Run, limit: float) -> np.ndarray:
    """Return as many examples of a part as two runs have time for; one by itself tells.

    Only pictures, of length 1 each, can be that slow; of texts a part is some hundred tokens, and a run of another
    size would only leave more holes in the heap. The first run of all fills caches and pages, so that a slow one is
    run again before it is believed.
    """
    if lengths[part].max() > 1:
        return part
    for _ in range(2):
        started = time.perf_counter()
        run(part[-1:])
        spent = time.perf_counter() - started
        if 2 * spent * len(part) <= max(limit, SLOW):
            return part
    return part[-max(int(max(limit, SLOW) / (2 * spent)), 1) :]


def _timed(run: Run, rows: np.ndarray) -> tuple[float, np.ndarray]:
    started = time.perf_counter()
    work = run(rows)
    return time.perf_counter() - started, work


class Clock:
    """The seconds that measuring may take."""

    def __init__(self, limit: float) -> None:
        self._end = time.perf_counter() + limit

    def left(self, share: float = 1.0) -> float:
        """Return a share of the seconds that are left, 0 or more."""
        return max(self._end - time.perf_counter(), 0.0) * share
