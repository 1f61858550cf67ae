"""From a few timed batches to the seconds of all: shapes, fits, schedules, early stopping."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foretune.forecast import measure as measuring
from foretune.forecast.measure import Clock, measure
from foretune.forecast.schedule import GAIN, epoch_work, expected_evaluations, schedule
from foretune.forecast.timing import TimeModel, fit_times, passes, spread, steady, step_work, work_of
from foretune.training.feed import HEAD
from foretune.training.inference import Runtime, run_all
from foretune.training.loop import Loop
from foretune.training.signals import StopRequest

TRUE = np.array([0.03, 0.002, 4e-5, 3e-7])  # seconds per step, pass, padded token, padded token x longest


def batch(count, longest):
    return np.full(count, longest)


def test_the_work_of_batches_by_hand():
    found = work_of([np.array([3, 5, 4]), np.array([10]), np.array([], dtype=int)], steps=1)
    assert found.tolist() == [1, 2, 3 * 5 + 10, 3 * 5 * 5 + 100]
    assert work_of([], steps=0).tolist() == [0, 0, 0, 0]


def test_a_step_is_split_as_the_loop_splits_it():
    lengths = np.array([2, 9, 4, 4, 3, 8])
    rows = np.array([5, 0, 1, 3])  # lengths 8, 2, 9, 4: with 18 tokens a pass (2 4), (8 9)
    assert step_work(rows, lengths, 18).tolist() == [1, 2, 8 + 18, 32 + 162]
    assert step_work(rows, lengths, 36).tolist() == [1, 1, 36, 324]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=60), st.integers(20, 400))
def test_passes_are_those_of_an_evaluation(lengths, budget):
    """The same batches as `run_all` runs, each example once; the longest come first."""
    lengths = np.array(lengths)
    backbone = SimpleNamespace(model=torch.nn.Identity(), pass_limit=10**9)
    ran = run_all(
        backbone, SimpleNamespace(lengths=lengths), Runtime(torch.device("cpu"), "fp32"), len, budget
    )
    found = [rows.tolist() for rows, _ in ran]
    assert found[::-1] == [rows.tolist()[::-1] for rows in passes(lengths, budget)]
    assert np.diff(lengths[list(itertools.chain(*found))]).max(initial=0) == 0


def test_planted_coefficients_come_back():
    shapes = [(80, 12), (40, 25), (16, 60), (10, 25), (5, 5)]
    works = [work_of([batch(*shape)], steps=1) for shape in shapes]
    works += [work_of([batch(8, 50), batch(20, 20), batch(3, 60)], steps=1)]
    model = fit_times(works, [work @ TRUE for work in works])
    for shape in [(60, 16), (20, 50), (3, 60), (100, 8)]:
        work = work_of([batch(*shape)], steps=1)
        assert model.seconds(work) == pytest.approx(work @ TRUE, rel=0.02)
    assert min(model.coefficients) >= 0


def test_noise_is_averaged_out():
    draw = np.random.default_rng(0)
    works = [work_of([batch(n, t)], steps=1) for n, t in [(40, 10), (20, 20), (10, 40), (8, 60), (10, 10)]]
    errors = []
    for _ in range(20):
        model = fit_times(works, [work @ TRUE * draw.uniform(0.97, 1.03) for work in works])
        total = np.sum([work_of([batch(n, t)], steps=1) for n in range(8, 40) for t in range(5, 60)], axis=0)
        errors.append(model.seconds(total) / (total @ TRUE) - 1)
    assert np.abs(np.median(errors)) < 0.02 and np.abs(errors).max() < 0.08


def test_one_measurement_is_put_down_to_the_tokens():
    work = work_of([batch(10, 20)], steps=1)
    model = fit_times([work], [0.5])
    assert model.seconds(work) == pytest.approx(0.5)
    assert model.seconds(work_of([batch(40, 20)], steps=1)) == pytest.approx(2.0, rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 64), st.integers(1, 512), st.floats(1e-6, 1e3)), min_size=1, max_size=6)
)
def test_a_fit_never_fails_and_is_never_negative(measured):
    works = [work_of([batch(n, t)], steps=1) for n, t, _ in measured]
    model = fit_times(works, [seconds for *_, seconds in measured])
    assert all(0 <= c < np.inf for c in model.coefficients)


def test_nothing_to_fit():
    with pytest.raises(ValueError, match="no measurement"):
        fit_times([], [])


def test_the_batches_to_measure_are_the_largest_and_two_others():
    sizes = np.array([5, 100, 7, 50, 60, 55, 52, 51])
    first, *others = spread(sizes, np.ones(8))
    assert first == 1 and len(others) == 2 and sizes[others[0]] < sizes[others[1]] < 100
    assert spread(np.array([3.0]), np.array([1.0])) == [0]
    assert spread(np.array([3.0, 3.0]), np.ones(2))[0] in (0, 1)
    heavy = np.array([0.0, 0.1, 0.9, 0.0])  # most work is done in batches of one size
    assert 2 in spread(np.array([1.0, 2.0, 3.0, 4.0]), heavy)[1:]


def test_steady_times():
    assert steady([3.0]) == 3.0 and steady([3.0, 1.0]) == 1.0 and steady([9.0, 1.0, 2.0]) == 2.0


@pytest.fixture
def timed(monkeypatch):
    """Let every batch take what TRUE says; the clock moves by it alone. Returns the sizes that were run."""
    now, ran = [0.0], []

    def run(rows_and_work, rows):
        work = rows_and_work(rows)
        now[0] += work @ TRUE
        ran.append(len(rows))
        return work @ TRUE, work

    monkeypatch.setattr(measuring, "_timed", run)
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: now[0])
    return ran


LENGTHS = np.repeat([4, 10, 25, 60], 40)
BATCHES = [np.arange(start, start + 20) for start in range(0, 160, 20)]


def run(rows):
    return work_of([LENGTHS[rows]], steps=1)


def total():
    return np.sum([run(rows) for rows in BATCHES], axis=0)


def test_whole_batches_are_timed_where_there_is_time(timed):
    checked = []
    model, share = measure(
        BATCHES, LENGTHS, run, 100.0, lambda part, whole: checked.append((len(part), len(whole)))
    )
    assert share == 1.0 and checked == [(5, 20)]
    assert timed[0] == 5 and set(timed[1:]) == {20} and len(timed) - 1 >= 3 * measuring.ROUNDS
    assert model.seconds(total()) == pytest.approx(total() @ TRUE, rel=0.03)


@pytest.mark.parametrize(("limit", "least"), [(0.3, 4), (0.0, 1)])
def test_parts_are_timed_where_there_is_little(timed, limit, least):
    model, share = measure(BATCHES, LENGTHS, run, limit)
    assert share == pytest.approx(0.25) and set(timed) == {5} and len(timed) >= least
    assert sum(timed) / 5 * 0.03 <= limit + 0.1
    assert 0.5 < model.seconds(total()) / (total() @ TRUE) < 4


def test_a_batch_of_one_example(timed):
    model, share = measure([np.array([3])], LENGTHS, run, 1.0)
    assert share == 1.0 and model.seconds(run(np.array([3]))) == pytest.approx(run(np.array([3])) @ TRUE)


def test_the_longest_part_is_tried_first(timed):
    tried = []

    def spy(rows):
        tried.append(rows)
        return run(rows)

    measure([np.array([0, 159, 41, 81, 2, 1, 3, 158])], LENGTHS, spy, 0.0)
    assert sorted(LENGTHS[tried[0]]) == [60, 60]


@pytest.mark.parametrize(
    ("each", "limit", "part"), [(0.01, 0.0, 5), (0.5, 0.0, 2), (0.5, 4.0, 4), (9.0, 1.0, 1)]
)
def test_of_slow_pictures_fewer_are_tried(timed, monkeypatch, each, limit, part):
    """A batch of 20, of which 5 are tried first; a look at them twice takes no more than there is time for."""
    now, ran = [0.0], []
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: now[0])

    def slow(rows):
        ran.append(len(rows))
        now[0] += each * len(rows)
        return run(rows)

    model, share = measure([np.arange(20)], np.ones(20, dtype=np.int64), slow, limit)
    looks = 1 if each * 10 <= max(limit, measuring.SLOW) else 2
    assert ran[:looks] == [1] * looks and ran[looks] == part
    assert len(timed) > 0 and model.seconds(run(np.arange(20))) > 0
    assert share == (
        part / 20 if limit == 0.0 else 1.0
    )  # the clock of `timed` says that there is time for all


def test_a_check_that_refuses_stops_before_the_whole_batch(timed):
    def refuse(part, whole):
        raise MemoryError

    with pytest.raises(MemoryError):
        measure(BATCHES, LENGTHS, run, 100.0, refuse)
    assert set(timed) == {5}


def test_the_clock(monkeypatch):
    now = [10.0]
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: now[0])
    clock = Clock(4.0)
    assert clock.left() == 4.0 and clock.left(0.5) == 2.0
    now[0] = 20.0
    assert clock.left() == 0.0


def brute(most, patience, gain):
    """Expected evaluations and gains by going through every outcome."""
    made = gains = 0.0
    for outcome in itertools.product([True, False], repeat=most - 1):
        chance, missed, count, won = 1.0, 0, 1, 1
        for good in outcome:
            chance *= gain if good else 1 - gain
        for good in outcome:
            count, won, missed = count + 1, won + good, 0 if good else missed + 1
            if patience and missed >= patience:
                break
        made, gains = made + chance * count, gains + chance * won
    return made, gains


@pytest.mark.parametrize("patience", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("most", [1, 2, 4, 7, 10])
def test_early_stopping_by_brute_force(most, patience):
    assert expected_evaluations(most, patience, 0.3) == pytest.approx(brute(most, patience, 0.3))
    assert expected_evaluations(0, patience) == (0.0, 0.0)


def test_the_gain_explains_what_the_ledger_showed():
    """Of 32 fits: 4.7 of 5 evaluations with full fine-tuning, 7 of 10 with linear probes."""
    assert 0.1 < GAIN < 0.6
    assert 4.5 < expected_evaluations(5, 3)[0] < 4.9 and 6 < expected_evaluations(10, 3)[0] < 8


@pytest.mark.parametrize("strategy", ["full", "linear-probe", "gradual-unfreezing"])
def test_the_schedule_is_the_loops(assembled, strategy):
    job, _ = assembled(strategy=strategy, epochs=2.0, patience=0)
    loop = Loop(job, StopRequest())
    plans = schedule(loop)
    assert sum(plan.steps for plan in plans) == loop.total
    assert [plan.phase for plan in plans] == list(loop.phases) and [
        plan.start for plan in plans
    ] == loop.starts
    seen = []
    job = assembled(strategy=strategy, epochs=2.0, patience=0)[0]
    job.events.listeners.append(
        type("Seen", (), {"on": lambda self, kind, values: seen.append(kind), "close": lambda self: None})()
    )
    Loop(job, StopRequest()).run()
    assert seen.count("step") == loop.total
    assert sum(plan.evaluations for plan in plans) == seen.count("evaluation")


def test_a_schedule_with_early_stopping_is_shorter(assembled):
    job, _ = assembled(epochs=6.0, patience=2)
    loop = Loop(job, StopRequest())
    (plan,) = schedule(loop)
    made, gains = expected_evaluations(6, 2)
    assert plan.evaluations == pytest.approx(made) and plan.gains == pytest.approx(gains)
    assert plan.steps == pytest.approx(loop.total * made / 6) and 1 < gains < made < 6


def test_without_dev_there_is_no_evaluation(assembled):
    job, _ = assembled(dev_fraction=0.0, test_fraction=0.2)
    (plan,) = schedule(Loop(job, StopRequest()))
    assert (plan.evaluations, plan.gains) == (0, 0) and plan.steps == Loop(job, StopRequest()).total


def test_a_probe_is_evaluated_less_often(assembled, rows):
    job, _ = assembled(strategy="linear-probe", epochs=50.0, patience=0)
    loop = Loop(job, StopRequest())
    (plan,) = schedule(loop)
    assert plan.start == HEAD and plan.evaluations == 10


def test_the_work_of_an_epoch_covers_every_row_once(assembled):
    job, _ = assembled()
    loop = Loop(job, StopRequest())
    work = epoch_work(loop, 50)
    lengths = job.train_store.lengths
    assert work[0] == loop.plan.steps_per_epoch and work[1] >= work[0] and work[2] >= lengths.sum()
    real = sum(
        step_work(loop.plan.rows(s), lengths, 50) for s in range(loop.plan.steps_per_epoch, 2 * int(work[0]))
    )
    assert np.allclose(real, work)  # the second epoch's batches have the same lengths
    assert TimeModel((1.0, 0, 0, 0)).seconds(work) == loop.plan.steps_per_epoch
