"""The sums of `benchmarks/cost.py`."""

import importlib.util
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "cost.py"


@pytest.fixture(scope="module")
def program():
    sys.path.insert(0, str(PROGRAM.parent))  # as for a program that is run
    spec = importlib.util.spec_from_file_location("cost_benchmark", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(PROGRAM.parent))


def row(taken, steps=100.0, early=True):
    """A fit forecast to take 60 s, 40 of them in 100 steps, that took `steps` and `taken` seconds."""
    parts = {"loading": 20.0, "training": 30.0, "validation": 10.0}
    predicted = {"seconds": 60.0, "steps": 100.0, "parts": parts, "spent": 6.0}
    sizes = {"peak_memory_bytes": 10**9, "disk_bytes": 10**8}
    actual = {"seconds": taken, "steps": steps, "stopped_early": early}
    return {"key": f"{taken}", "forecast": predicted | sizes, "actual": actual | sizes}


def test_time_as_if_it_were_known_when_training_stops(program):
    assert program.known_steps(row(60.0)) == 60.0
    assert program.known_steps(row(40.0, steps=50.0)) == 40.0  # half of the steps, half of the 40 seconds


def test_both_errors_stand_in_the_table(program):
    told = program.table([row(40.0, steps=50.0), row(50.0, early=False)])
    assert "seconds: median error 35.0%, worst 50.0%" in told
    known = next(line for line in told.splitlines() if "known when" in line)
    assert "median error 10.0%, worst 20.0%, 50% within 15 %; 1 stopped early" in known
