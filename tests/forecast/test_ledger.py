from __future__ import annotations

import errno
import gzip
import json
import multiprocessing
import os
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from foretune.errors import DataError
from foretune.forecast import ledger
from foretune.forecast.ledger import Outcome, Promise, latest, ledger_path, read, record, summary

PROMISE = Promise(value=0.8, low=0.75, high=0.85, seconds=90.0)


def outcome(**changes) -> Outcome:
    values = {
        "data": "ab12", "task": "text-classification", "n": 400, "classes": 3, "tokens": 21.5, "backbone": "minilm-l6",
        "backbone_fingerprint": "cd34", "strategy": "full", "metric": "accuracy", "n_test": 100,
        "predictors": {"probe": 0.75, "log_me": -0.5}, "score": 0.82, "seconds": 100.0, "peak_memory_bytes": 10**9,
        "promise": PROMISE, "version": "0.1.0", "machine": "ef56", "date": "2026-01-31",
    }  # fmt: skip
    return Outcome(**(values | changes))


@pytest.fixture
def path(tmp_path, monkeypatch) -> Path:
    file = tmp_path / "new" / "ledger.jsonl"
    monkeypatch.setenv("FORETUNE_LEDGER", str(file))
    return file


# --- one outcome -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes", [{}, {"promise": None}, {"promise": replace(PROMISE, seconds=None)}, {"predictors": {}}]
)
def test_an_outcome_comes_back_from_its_line(changes) -> None:
    made = outcome(**changes)
    assert Outcome.from_json(made.to_json()) == made
    assert "\n" not in made.to_json() and json.loads(made.to_json())["format"] == 1


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("/home/anna/secret project/model v2", "model-v2"),
        ("C:\\Users\\anna\\model", "model"),
        ("BAAI/bge-small-en-v1.5", "bge-small-en-v1.5"),
        ("minilm-l6", "minilm-l6"),
        ("模型/", "模型"),
        ("", ""),
    ],
)
def test_no_path_gets_into_an_outcome(name, stored) -> None:
    assert outcome(backbone=name).backbone == stored


@pytest.mark.parametrize(
    "changes",
    [
        {"score": float("nan")},
        {"seconds": float("inf")},
        {"tokens": "12"},
        {"n": 4.5},
        {"n": -1},
        {"classes": True},
        {"data": "a sentence of the user's"},
        {"machine": "/home/anna"},
        {"date": None},
        {"predictors": {"probe": float("nan")}},
        {"predictors": {"share of label refund please": 0.5}},
        {"predictors": {"probe": "0.5"}},
        {"predictors": [1]},
    ],
)
def test_what_is_no_number_or_could_be_text_is_refused(changes) -> None:
    with pytest.raises(DataError, match=next(iter(changes))):
        outcome(**changes)


def test_a_promise_lies_within_its_interval() -> None:
    with pytest.raises(DataError, match="outside"):
        Promise(value=0.9, low=0.7, high=0.8)
    assert PROMISE.holds(0.75) and PROMISE.holds(0.85) and not PROMISE.holds(0.86)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "no json",
        "[]",
        '"x"',
        "{}",
        '{"format": 1}',
        "[" * 100_000,
        b"\xff\xfe",
        '{"format": 1, "n": NaN}',
    ],
)
def test_a_damaged_line_is_a_data_error(line) -> None:
    with pytest.raises(DataError, match="It is"):
        Outcome.from_json(line)


def test_a_newer_format_is_refused_and_an_unknown_entry_ignored() -> None:
    values = json.loads(outcome().to_json())
    with pytest.raises(DataError, match="Update Foretune"):
        Outcome.from_json(json.dumps(values | {"format": 2}))
    assert Outcome.from_json(json.dumps(values | {"later": 3})) == outcome()


def test_each_missing_entry_without_a_default_is_named() -> None:
    values = json.loads(outcome().to_json())
    for name in ("data", "score", "n_test"):
        with pytest.raises(DataError, match=name):
            Outcome.from_json(json.dumps({k: v for k, v in values.items() if k != name}))


def test_the_latest_of_the_same_candidate_counts() -> None:
    first, other, second = outcome(score=0.1), outcome(strategy="lora"), outcome(score=0.2, date="2026-02-01")
    assert latest([first, other, second]) == [other, second]
    assert len(latest([outcome(n=n) for n in (1, 2, 3)])) == 3


# --- the file --------------------------------------------------------------------------------------------


def test_where_the_ledger_is(monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("FORETUNE_LEDGER", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert ledger_path() == tmp_path / "foretune" / "ledger.jsonl"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ledger_path() == tmp_path / ".local" / "share" / "foretune" / "ledger.jsonl"
    monkeypatch.setenv("FORETUNE_LEDGER", "~/mine.jsonl")
    assert ledger_path() == tmp_path / "mine.jsonl"


@pytest.mark.parametrize("word", ["off", "OFF", " Off "])
def test_off_writes_and_reads_nothing(monkeypatch, tmp_path, word) -> None:
    monkeypatch.setenv("FORETUNE_LEDGER", word)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert ledger_path() is None and record(outcome()) is None and read() == []
    assert list(tmp_path.iterdir()) == []


def test_what_is_recorded_is_read_in_its_order(path) -> None:
    made = [outcome(score=i / 10) for i in range(5)]
    assert [record(one) for one in made] == [None] * 5
    assert read() == made
    assert path.stat().st_mode & 0o077 == 0  # nobody else's business


def test_no_ledger_yet_is_no_outcome_and_no_warning(path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read() == [] and not path.parent.exists()


def test_a_damaged_line_costs_only_itself(path) -> None:
    record(outcome(score=0.1))
    with path.open("ab") as file:
        file.write(b'\x00\xff{"format": 1, "score\n\n{"format": 9}\n')
    record(outcome(score=0.2))
    before = path.read_bytes()
    with pytest.warns(UserWarning, match="2 of 4 lines.*line 2"):
        assert [one.score for one in read()] == [0.1, 0.2]
    assert path.read_bytes() == before


def test_a_line_cut_short_does_not_take_the_next_with_it(path) -> None:
    record(outcome(score=0.1))
    path.write_bytes(path.read_bytes() + outcome(score=0.2).to_json().encode()[:50])
    record(outcome(score=0.3))
    with pytest.warns(UserWarning, match="1 of 3"):
        assert [one.score for one in read()] == [0.1, 0.3]


def _append(path: Path, writer: int, count: int, start) -> None:
    start.wait()
    for i in range(count):
        # Longer than a pipe's or page's atomic size, so that a torn write would show.
        numbers = {f"p{j}": float(writer) for j in range(400)}
        assert record(outcome(n=i, n_test=writer, predictors=numbers), path) is None


def test_processes_that_write_at_once_do_not_mix_their_lines(path) -> None:
    context = multiprocessing.get_context("fork")
    start, writers, count = context.Event(), 4, 25
    processes = [context.Process(target=_append, args=(path, w, count, start)) for w in range(writers)]
    for process in processes:
        process.start()
    start.set()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    found = [(one.n_test, one.n) for one in read()]
    assert sorted(found) == [(w, i) for w in range(writers) for i in range(count)]
    for w in range(writers):
        assert [n for writer, n in found if writer == w] == list(range(count))
    assert all(set(one.predictors.values()) == {float(one.n_test)} for one in read())


def test_a_place_that_cannot_be_written_is_said_and_breaks_nothing(tmp_path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("x")
    for path in (blocked / "ledger.jsonl", tmp_path):  # below a file; a folder itself
        said = record(outcome(), path)
        assert said is not None and "could not be written" in said and str(path) in said


def test_a_full_disk_is_said(path, monkeypatch) -> None:
    def full(handle, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        assert "No space left" in (record(outcome()) or "")
    with monkeypatch.context() as patch:
        write = os.write
        patch.setattr(os, "write", lambda handle, data: write(handle, data[:30]))
        assert "is full" in (record(outcome()) or "")
    assert record(outcome(score=0.4)) is None
    with pytest.warns(UserWarning, match="1 of 2"):
        assert [one.score for one in read()] == [0.4]


def test_a_ledger_that_cannot_be_read_is_a_warning(tmp_path) -> None:
    with pytest.warns(UserWarning, match="cannot be read"):
        assert read(tmp_path) == []


# --- the shipped ledger ----------------------------------------------------------------------------------


def test_the_shipped_ledger_is_whole_and_each_of_its_lines_is_read() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = ledger.shipped()
    assert latest(found) == found  # nothing twice
    assert all(one.promise is None and 0 <= one.score <= 1 for one in found)


def test_a_shipped_ledger_is_the_same_file_for_the_same_outcomes(tmp_path, monkeypatch) -> None:
    made = [outcome(n=n) for n in (3, 1, 2)]
    ledger.write_shipped(made, tmp_path / "a.gz")
    ledger.write_shipped(reversed(made), tmp_path / "b.gz")
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    assert len(gzip.decompress((tmp_path / "a.gz").read_bytes()).splitlines()) == 3
    monkeypatch.setattr(ledger, "files", lambda package: tmp_path)
    monkeypatch.setattr(ledger, "SHIPPED", "a.gz")
    assert sorted(ledger.shipped(), key=lambda one: one.n) == [made[1], made[2], made[0]]
    monkeypatch.setattr(ledger, "SHIPPED", "missing.gz")
    assert ledger.shipped() == []


# --- how the forecasts did -------------------------------------------------------------------------------


def test_summary_by_hand() -> None:
    def made(data, strategy, score, value, seconds=100.0):
        promise = Promise(value=value, low=value - 0.05, high=value + 0.05, seconds=110.0)
        return outcome(data=data, strategy=strategy, score=score, promise=promise, seconds=seconds)

    found = summary(
        [
            made("a", "full", 0.80, 0.82),
            made("a", "lora", 0.84, 0.81),  # better, though forecast to be worse: 4 points of regret
            made("b", "full", 0.60, 0.70, seconds=55.0),  # outside its interval
            made("b", "lora", 0.50, 0.54),
            made("c", "full", 0.90, 0.90),
            outcome(data="d", promise=None),
        ]
    )
    assert (found["outcomes"], found["forecasts"], found["data_sets"], found["strategies"]) == (6, 5, 4, 2)
    assert found["coverage"]["value"] == pytest.approx(0.8) and found["coverage"]["n"] == 5
    assert found["half_width"] == pytest.approx(0.05)
    assert found["error"] == pytest.approx((0.02 + 0.03 + 0.1 + 0.04 + 0) / 5)
    assert found["bias"] == pytest.approx((-0.02 + 0.03 - 0.1 - 0.04 + 0) / 5)
    assert found["time_error"] == pytest.approx(0.1)
    assert found["regret"] == pytest.approx((0.04 + 0) / 2) and found["choices"] == 2
    json.dumps(found)


def test_regret_is_asked_among_the_same_data_size_and_metric_only() -> None:
    sides = [outcome(), outcome(n=800, strategy="lora"), outcome(metric="macro_f1", strategy="lora")]
    assert summary(sides)["choices"] == 0
    # The later of two fits of the same candidate stands for it.
    again = [
        outcome(score=0.9),
        outcome(score=0.7),
        outcome(strategy="lora", score=0.75, promise=replace(PROMISE, value=0.76)),
    ]
    assert summary(again)["regret"] == pytest.approx(0.05)


@pytest.mark.parametrize("outcomes", [[], [outcome(promise=None)]])
def test_summary_of_nothing_says_nothing(outcomes) -> None:
    found = summary(outcomes)
    assert found["outcomes"] == len(outcomes) and found["forecasts"] == 0
    assert all(
        found[name] is None for name in ("coverage", "half_width", "error", "bias", "time_error", "regret")
    )
