"""What surrounds every command: a quiet environment, a clean stdout, and errors as exit codes."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any, NoReturn, TextIO

import typer

from foretune import let_threads_sleep
from foretune.errors import ConfigError, ForetuneError, Interrupted, ResourceError, describe_error

UNEXPECTED = 70  # EX_SOFTWARE of sysexits.h
BROKEN_PIPE = 141  # 128 + SIGPIPE, as of a program that the closed pipe ended
DEBUG = "FORETUNE_DEBUG"
# Set before the libraries are imported. The tokenizers' threads stay on; the entry only silences a warning.
_ENVIRONMENT = {
    "TOKENIZERS_PARALLELISM": "true",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DATASETS_VERBOSITY": "error",
}


def tidy_process() -> None:
    """Silence the libraries' warnings (not with FORETUNE_DEBUG) and never fail on a terminal's encoding."""
    import warnings

    let_threads_sleep()
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # started with it closed, as by >&-
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    if not os.environ.get(DEBUG):
        warnings.simplefilter("ignore")
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)


def go_offline() -> None:
    """Keep the hub's libraries from the network; to be called before they are imported."""
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TRANSFORMERS_OFFLINE="1")


@contextmanager
def quiet_when_pipes_close() -> Iterator[None]:
    """End with 141 and no message where whoever reads the output has gone; to be put around everything.

    The printing libraries turn the error into an exit with 1, which would say that the command failed.
    """
    try:
        yield
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):
            end.code = BROKEN_PIPE
        _drop_unwritable()
        raise


@contextmanager
def usage_errors_as_json(words: Sequence[str]) -> Iterator[None]:
    """Write an option that the parser of the command line refuses as JSON, too, where `words` ask for JSON.

    The parser has printed its message on stderr and exits before any command, and so its guard, is reached.
    """
    try:
        yield
    except SystemExit as end:
        told = getattr(end.__context__, "format_message", None)  # of the parser's errors
        if "--json" in words and told is not None:
            with suppress(OSError):
                write_json(describe_error(ConfigError(told())), sys.stdout)
        raise


@contextmanager
def guard(as_json: bool = False) -> Iterator[TextIO]:
    """Yield the real stdout, for results alone, and end the process with the right code on any error.

    Whatever else is printed inside goes to stderr. With `as_json` an error is also the JSON object on stdout.
    """
    out = sys.stdout
    try:
        with redirect_stdout(sys.stderr):
            yield out
            out.flush()
    except (typer.Exit, typer.Abort):
        raise
    except BrokenPipeError:
        raise typer.Exit(BROKEN_PIPE) from None
    except KeyboardInterrupt:
        _fail(Interrupted("Interrupted."), out if as_json else None)
    except ForetuneError as error:
        _fail(error, out if as_json else None)
    except OSError as error:
        _fail(_full(error) if error.errno == errno.ENOSPC else error, out if as_json else None)
    except Exception as error:
        _fail(error, out if as_json else None)


def _full(error: OSError) -> ForetuneError:
    """Return what to tell of a disk that filled up under the results; files of a run have errors of their own."""
    return ResourceError(
        f"The result could not be written: {error.strerror}. Free some space, or send it elsewhere."
    )


def _fail(error: Exception, out: TextIO | None) -> NoReturn:
    """Say what went wrong and leave with the error's code."""
    known = isinstance(error, ForetuneError)
    message = str(error) if known else f"{type(error).__name__}: {error}".rstrip(": ")
    advice = (
        ""
        if known
        else f" This is a fault of Foretune; for the traceback set {DEBUG}=1 and please report it."
    )
    if os.environ.get(DEBUG):
        import traceback

        traceback.print_exception(error, file=sys.stderr)
    stopped = isinstance(error, Interrupted)
    say(message + advice, head="" if stopped else "Error:", style="yellow" if stopped else "bold red")
    if out is not None:
        with suppress(OSError):  # stdout itself may be what cannot be written; stderr has the message
            write_json(describe_error(error), out)
    raise typer.Exit(getattr(error, "exit_code", UNEXPECTED) if known else UNEXPECTED) from None


def say(message: str, *, head: str = "", style: str = "") -> None:
    """Print a message on stderr, `head` (or, without one, all of it) in `style`."""
    from rich.text import Text

    from foretune.display import console, put

    line = Text(message, style="" if head else style)
    put(console(), Text.assemble((head + " ", style), line) if head else line)


def write_json(value: Any, out: TextIO) -> None:
    """Write `value` as one line of JSON, in ASCII where `out` is not UTF-8."""
    out.write(json.dumps(value, ensure_ascii=not is_utf8(out), default=str) + "\n")
    out.flush()


def is_utf8(stream: TextIO) -> bool:
    """Return whether every character can be written to `stream`."""
    return (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "") == "utf8"


def _drop_unwritable() -> None:
    """Point streams that cannot be written at nothing, so that the interpreter's last flush does not complain."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
