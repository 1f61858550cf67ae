"""The errors Foretune raises on purpose: one small family, each saying what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ForetuneError(Exception):
    """Something the user can act on.

    The message says what was found, what was expected and what to do. The command line prints it
    without a traceback and ends with `exit_code`.
    """

    exit_code = 1


class DataError(ForetuneError):
    """The user's data cannot be used as they are."""


class ConfigError(ForetuneError):
    """An option, recipe entry or argument is wrong."""

    exit_code = 2


class BackboneError(ForetuneError):
    """A pretrained model cannot be found or loaded."""


class ResourceError(ForetuneError):
    """Disk, memory or permission is missing."""


class CheckpointError(ForetuneError):
    """No checkpoint can be resumed, or one belongs to another run."""


class ArtifactError(ForetuneError):
    """A saved model is incomplete, damaged, or differs from the model in memory."""


class TrainingError(ForetuneError):
    """Training cannot go on, for example because the loss is not finite."""


class Interrupted(ForetuneError):
    """The run was stopped by the user after saving its state (exit code 130, as after SIGINT)."""

    exit_code = 130


def describe_error(error: Exception) -> dict[str, str]:
    """Return an error as the object that `--json` prints."""
    return {"error": type(error).__name__, "message": str(error)}


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """Return `" Did you mean 'x'?"` for the nearest of `known`, or an empty string."""
    choices = {str(item).lower(): str(item) for item in known}
    match = difflib.get_close_matches(str(name).lower(), list(choices), n=1, cutoff=0.5)
    return f" Did you mean {choices[match[0]]!r}?" if match else ""
