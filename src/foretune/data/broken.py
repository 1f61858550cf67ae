"""Pictures and sounds that are missing or cannot be decoded, left out and counted, where the user asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foretune.data.images import open_image
from foretune.data.media import IMAGE, NOUNS, BrokenMediaError, Media, in_threads, located
from foretune.data.sounds import read_sound
from foretune.data.text import counted, listed
from foretune.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

RATE = 16_000  # samples/s at which sounds are decoded to be tried


def without_broken(table: pd.DataFrame, column: str, kind: str, where: str) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows whose picture or sound (`kind` "image" or "audio") decodes, and a warning that counts the others.

    Every file is decoded once, whole; a missing one counts as broken. Raises DataError where none is left.
    """
    placed = located(table, Media(column, kind), some_missing=True)
    reasons = in_threads(lambda path: _reason(path, kind), placed[column].tolist())
    broken = [(path, reason) for path, reason in zip(placed[column], reasons, strict=True) if reason]
    if not broken:
        return placed, []
    named = listed([f"{path} ({reason})" for path, reason in broken])
    said = f"{where}: {counted(len(broken), NOUNS[kind])} of {len(table):,} broken"
    if len(broken) == len(table):
        raise DataError(f"{said}: {named}. Nothing is left; replace the files.")
    kept = placed[[reason is None for reason in reasons]].reset_index(drop=True)
    kept.attrs.update(placed.attrs)
    return kept, [f"{said} and left out: {named}"]


def _reason(path: str, kind: str) -> str | None:
    """Return why a file cannot be decoded, or None."""
    try:
        open_image(path) if kind == IMAGE else read_sound(path, RATE)
    except BrokenMediaError as error:
        return error.reason
    return None
