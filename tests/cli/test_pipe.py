"""Output that nobody reads any more, or that cannot be written: a quiet end with the right exit status."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX pipes and devices")
CLOSED = 141  # 128 + SIGPIPE


@pytest.fixture
def command(environment: dict[str, str]) -> Callable[..., subprocess.Popen]:
    """Start a command in a process of its own."""

    def start(*words: object, **options) -> subprocess.Popen:
        env = {**os.environ, **environment, **options.pop("env", {})}
        line = [sys.executable, "-m", "foretune", *map(str, words)]
        return subprocess.Popen(line, env=env, stderr=options.pop("stderr", subprocess.PIPE), **options)

    return start


@pytest.fixture
def unread():
    """Yield the writing end of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


def ended(process: subprocess.Popen) -> tuple[int, str]:
    """Return the exit status and what was said on stderr."""
    _, said = process.communicate(timeout=120)
    return process.returncode, (said or b"").decode()


@pytest.mark.parametrize("words", ["models", "models --json", "--help", "--version", "fit --help"])
def test_nobody_reads_the_output(command, unread: int, words: str) -> None:
    assert ended(command(*words.split(), stdout=unread)) == (CLOSED, "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_nobody_reads_anything(command, unread: int, unbuffered: str) -> None:
    """`foretune … 2>&1 | true`, also where Python keeps no buffer."""
    process = command("models", stdout=unread, stderr=unread, env={"PYTHONUNBUFFERED": unbuffered})
    assert ended(process) == (CLOSED, "")


def test_inspect(command, unread: int, table: Path) -> None:
    assert ended(command("inspect", table, stdout=unread)) == (CLOSED, "")


def test_an_error_is_still_told_where_only_stdout_has_gone(command, unread: int, table: Path) -> None:
    code, said = ended(command("inspect", table, "--text", "reviews", "--json", stdout=unread))
    assert code == 1 and "There is no column 'reviews'" in said
    assert "Traceback" not in said and "ignored" not in said


def test_predictions_for_a_reader_that_takes_one_line(
    command, fitted: SimpleNamespace, sentences: list[tuple[str, str]], tmp_path: Path
) -> None:
    """More than a pipe holds (64 KiB), so that it closes while predictions are being written."""
    data = tmp_path / "many.csv"
    data.write_text("review\n" + "".join(f"{text} {n}\n" for n in range(30) for text, _ in sentences))
    process = command("predict", fitted.folder, data, "--quiet", stdout=subprocess.PIPE)
    assert process.stdout.readline().startswith(b'{"row": 1, "label": ')
    process.stdout.close()
    said = process.stderr.read().decode()
    assert (process.wait(timeout=120), said) == (CLOSED, "")
    process.stderr.close()


@pytest.mark.parametrize("words", ["models", "models --json"])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_the_output(command, words: str) -> None:
    with Path("/dev/full").open("wb") as full:
        code, said = ended(command(*words.split(), stdout=full))
    assert code == 1
    assert said == (
        "Error: The result could not be written: No space left on device. "
        "Free some space, or send it elsewhere.\n"
    )


@pytest.mark.parametrize("words", ["models", "--version"])
def test_started_without_stdout(environment: dict[str, str], words: str) -> None:
    """`foretune … >&-`: there is nothing to write to, and nothing to complain of."""
    line = f'"$0" -m foretune {words} >&-'
    done = subprocess.run(
        ["sh", "-c", line, sys.executable], env={**os.environ, **environment}, capture_output=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_results_stay_on_stdout_without_stderr(environment: dict[str, str]) -> None:
    line = '"$0" -m foretune inspect no-such.csv --json 2>&-'
    done = subprocess.run(
        ["sh", "-c", line, sys.executable], env={**os.environ, **environment}, capture_output=True, timeout=60
    )
    assert done.returncode == 1 and done.stderr == b""
    assert done.stdout.startswith(b'{"error": "DataError"') and done.stdout.count(b"\n") == 1


@pytest.mark.slow
def test_a_fit_that_nobody_reads_leaves_its_model(
    command, unread: int, table: Path, fit_options: list[str], tmp_path: Path
) -> None:
    words = ("fit", table, "--output", tmp_path / "model", *fit_options, "--quiet")
    assert ended(command(*words, stdout=unread)) == (CLOSED, "")
    assert (tmp_path / "model" / "foretune.json").exists() and (tmp_path / "model" / "report.html").exists()
