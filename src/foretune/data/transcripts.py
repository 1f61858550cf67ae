"""Manifests of speech recognition: a table with the path of a sound and what is said in it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from foretune.data.media import AUDIO, located, media_of
from foretune.data.text import is_blank, listed, row_list
from foretune.errors import DataError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

#: Names of the transcript's column, the likeliest first.
_NAMES = """transcript transcription text sentence normalized_text utterance words raw_text label target
文本 转写 句子"""


def transcripts(
    table: pd.DataFrame, *, text: str | None = None, folder: str | os.PathLike[str] | None = None
) -> pd.DataFrame:
    """Return columns `path` (absolute) and `text` of a manifest of sounds and what is said in them.

    The transcript's column is `text`, or found by its name, or the only other one. Relative paths count
    from `folder` (`foretune.data.media.located`). `attrs`: format "transcripts", media "audio".
    Raises DataError where there is no column of sounds or of transcripts, and naming the rows whose
    transcript is empty or whose file is missing.
    """
    media = media_of(table)
    if media is None or media.kind != AUDIO:
        raise DataError(
            f"No column holds the paths of sounds. Columns: {listed(list(table.columns), 10)}. Expected one such "
            f"as path with values such as clips/1.wav."
        )
    column = _text_column([str(name) for name in table.columns], media.column, text)
    _check_filled(table[column].tolist(), column)
    found = located(table, media, folder)[[media.column, column]]
    result = found.set_axis(["path", "text"], axis=1)
    result.attrs = {**table.attrs, "format": "transcripts", "media": AUDIO}
    return result


def _text_column(names: list[str], sound: str, given: str | None) -> str:
    others = [name for name in names if name != sound]
    if given is not None:
        if given not in others:
            hint = did_you_mean(given, others)
            raise DataError(
                f"There is no column {given!r} of transcripts.{hint} Columns: {', '.join(names)}."
            )
        return given
    named = [name for known in _NAMES.split() for name in others if name.strip().casefold() == known]
    if named or len(others) == 1:
        return (named or others)[0]
    raise DataError(
        f"The column of transcripts cannot be told. Columns: {listed(names, 10)}. Call it text, or name it with "
        f"--text."
    )


def _check_filled(values: list[object], column: str) -> None:
    empty = [row for row, value in enumerate(values) if is_blank(value)]
    if empty:
        raise DataError(
            f"{row_list(empty).capitalize()} of column {column!r}: the transcript is empty. Write down what is "
            f"said, or remove the rows."
        )
    wrong = [row for row, value in enumerate(values) if not isinstance(value, str)]
    if wrong:
        raise DataError(
            f"{row_list(wrong).capitalize()} of column {column!r}: a {type(values[wrong[0]]).__name__}, expected "
            f"text. Read the column as text, or choose another with --text."
        )
