"""`foretune fit` itself, killed from outside at moments that it does not choose, then resumed: the same bits."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from itertools import pairwise

import pytest

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "WUNTRACED"), reason="needs POSIX signals"),
    pytest.mark.timeout(1500),  # where other programs hold the processor, each start takes minutes
]
TOOLONG = 300  # seconds, for one process
POLL, STARTUP_POLL = 2e-4, 0.05  # seconds; a draft of a checkpoint is there for milliseconds
ROWS = {"full": 60, "linear-probe": 400}  # a frozen backbone trains in milliseconds: more to come into


class Command:
    """Starts `foretune fit` on one file, each time the same but for the folder, and kills it."""

    def __init__(self, strategy, backbone, base, rows):
        self.base, data = base, base / "rows.csv"
        with data.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["text", "label"])
            writer.writeheader()
            writer.writerows(rows(ROWS[strategy]))
        self.words = [
            sys.executable, "-m", "foretune", "fit", data, "--backbone", backbone, "--strategy", strategy,
            "--epochs", "3", "--lr", "0.001", "--dropout", "0.1", "--batch-tokens", "120",
            "--micro-tokens", "50", "--test-fraction", "0", "--checkpoint-seconds", "0", "--seed", "3",
            "--precision", "fp32", "--device", "cpu", "--offline", "--quiet",
        ]  # fmt: skip

    def start(self, folder, resume=False):
        """Start a process that trains into `folder`; what it says goes to a file beside it."""
        words = [*map(str, self.words), "--output", str(folder), *(["--resume"] if resume else [])]
        env = {**os.environ, "FORETUNE_CACHE": str(self.base / "cache")}
        with folder.with_suffix(".said").open("ab") as said:
            return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=said, env=env)

    def kill(self, folder, there, resume, jitter=0.0):
        """Start, wait until `there(folder, since the start)` holds, and kill the process while it does."""
        began, end = time.time(), time.monotonic() + TOOLONG
        process = self.start(folder, resume)
        try:
            while time.monotonic() < end:
                if there(folder, began) and stopped_while(process, lambda: there(folder, began)):
                    if jitter:
                        process.send_signal(signal.SIGCONT)
                        time.sleep(jitter)
                    break
                assert process.poll() is None, folder.with_suffix(".said").read_text()
                time.sleep(POLL if trains(folder, began) else STARTUP_POLL)
            else:
                pytest.fail(f"the moment did not come within {TOOLONG} s")
        finally:
            process.kill()
            process.wait()
        assert process.returncode == -signal.SIGKILL

    def finish(self, folder):
        """Resume and let the run come to its end."""
        process = self.start(folder, resume=True)
        try:
            assert process.wait(TOOLONG) == 0, folder.with_suffix(".said").read_text()
        finally:
            process.kill()
            process.wait()


def trains(folder, began):
    """Whether the process that began then has written an event."""
    file = folder / "events.jsonl"
    return file.exists() and file.stat().st_mtime >= began


def stopped_while(process, there):
    """Halt the process; if the moment has passed meanwhile let it go on and return False."""
    process.send_signal(signal.SIGSTOP)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), "the process ended"
    if there():
        return True
    process.send_signal(signal.SIGCONT)
    return False


def after_step(number):
    """A moment when the process that began then has told of a step of at least that number."""

    def there(folder, began):
        if not trains(folder, began):
            return False
        lines = (folder / "events.jsonl").read_bytes().splitlines()
        told = [json.loads(line) for line in lines if b'"event": "step"' in line and line.endswith(b"}")]
        return any(line["step"] >= number and line["time"] >= began for line in told)

    return there


def starts(folder):
    """When each process began to train."""
    file = folder / "events.jsonl"
    lines = file.read_bytes().splitlines() if file.exists() else []
    return [json.loads(line)["time"] for line in lines if b'"event": "start"' in line and line.endswith(b"}")]


def within(pattern):
    """A moment when a draft is being written: its folder is there, its last file is not.

    The process that began then must train: before that it clears away a draft that a killed one left.
    """

    def there(folder, began):
        if not any(time >= began for time in starts(folder)):
            return False
        try:
            drafts = [draft for draft in folder.glob(pattern) if draft.stat().st_mtime >= began]
        except FileNotFoundError:  # renamed in between
            return False
        return any(not (draft / "checksums.json").exists() for draft in drafts)

    return there


STEP, BEST, MODEL = "checkpoints/.tmp-step-*", "checkpoints/.tmp-best-*", ".tmp-artefact"


@pytest.fixture(scope="module")
def command(tiny, rows, tmp_path_factory):
    """Return a function: strategy -> its command and the process of the run that nothing disturbs."""
    made = {}

    def make(strategy):
        if strategy not in made:
            base = tmp_path_factory.mktemp(strategy)
            runs = Command(strategy, tiny, base, rows)
            made[strategy] = runs, runs.start(base / "undisturbed")  # runs beside the ones that are killed
        return made[strategy]

    yield make
    for _, process in made.values():
        process.kill()
        process.wait()


@pytest.fixture
def check(command, events, tmp_path):
    """Return a function that kills a run at every moment, finishes it, and compares it with the undisturbed."""

    def run(strategy, moments):
        runs, undisturbed = command(strategy)
        folder, reference = tmp_path / "run", runs.base / "undisturbed"
        begins = 0
        for number, (there, jitter) in enumerate(moments):
            runs.kill(folder, there, resume=number > 0, jitter=jitter)
            assert began_at(folder, events) == begins
            begins = newest(folder)
        runs.finish(folder)
        assert began_at(folder, events) == begins > 0
        assert undisturbed.wait(TOOLONG) == 0, reference.with_suffix(".said").read_text()
        same_end(folder, reference, events)

    return run


def newest(folder):
    """The step of the newest checkpoint that is whole: there the next process must go on."""
    return max((int(path.name.split("-")[1]) for path in folder.glob("checkpoints/step-*")), default=0)


def began_at(folder, events):
    """The step at which the last process began."""
    return events(folder, "start")[-1]["step"]


def same_end(folder, reference, events):
    """The weights are the same to the last bit, every step is told once, and nothing half-done is left."""
    weights = (folder / "model.safetensors").read_bytes()
    assert weights == (reference / "model.safetensors").read_bytes()
    told = [[(line["step"], line["loss"]) for line in events(place, "step")] for place in (folder, reference)]
    assert told[0] == told[1] and len(told[0]) > 10
    assert all(after[0] == before[0] + 1 for before, after in pairwise(told[0]))
    assert not (folder / "checkpoints").exists() and not list(folder.rglob(".tmp*"))


def moments(seed, number, last):
    """Draw steps and, for each, a pause of some milliseconds, so that the kill comes anywhere after it."""
    draw = random.Random(seed)
    steps = sorted(draw.sample(range(1, last), number))
    return [(after_step(step), draw.uniform(0.001, 0.03)) for step in steps]


def test_killed_after_a_step_and_within_a_checkpoint(check):
    check("full", [*moments(0, 1, 8), (within(STEP), 0.0)])


@pytest.mark.slow
def test_killed_at_random_moments(check):
    check("full", moments(1, 4, 18))


@pytest.mark.slow
def test_killed_within_every_kind_of_write(check):
    check("full", [(within(pattern), 0.0) for pattern in (STEP, STEP, BEST, MODEL)])


@pytest.mark.slow
def test_a_frozen_backbone(check):
    check("linear-probe", [*moments(2, 2, 40), (within(STEP), 0.0), (within(MODEL), 0.0)])
