"""Which task a table of pictures or sounds is for, and which of its columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foretune.data.columns import TARGET_NAMES, Columns, check_classes, named_target
from foretune.data.mask_columns import mask_columns
from foretune.data.media import AUDIO, IMAGE, NOUNS, Media, media_of, path_columns
from foretune.data.objects import BOXES, holds_boxes
from foretune.data.profile import profile
from foretune.data.sheet import Sheet
from foretune.data.text import listed
from foretune.data.transcripts import _NAMES
from foretune.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

#: The tasks by what they read; the first is the ordinary one.
MEDIA_TASKS = {
    IMAGE: ("image-classification", "detection", "segmentation"),
    AUDIO: ("audio-classification", "speech-recognition"),
}
#: The tasks of data that hold more than classes, and their columns of targets.
_FORMATS = {"coco": ("detection", BOXES), "objects": ("detection", BOXES), "masks": ("segmentation", "mask")}
#: Names of columns of transcripts that are no names of labels.
_TRANSCRIPTS = tuple(name for name in _NAMES.split() if name not in TARGET_NAMES)
_WORDS = 3  # in the median of a column: labels have fewer, transcripts as many or more


def infer_media(
    table: pd.DataFrame, *, text: str | None, target: str | None, task: str, need_target: bool
) -> tuple[str, Columns] | None:
    """Return the task of a table of pictures or sounds and its columns, or None where it holds neither.

    `text` names the column of paths, `target` that of labels or transcripts, where they are not guessed. Raises
    DataError where a column does not exist or no target is found, ConfigError for a task of another kind.
    """
    known = {name for names in MEDIA_TASKS.values() for name in names}
    if task not in ("auto", *known):
        return None
    sheet = Sheet(table)
    text = sheet.resolve(text, "--text")
    media = media_of(table if text is None else table[[text]])
    if media is None:
        if task in known:
            raise _no_paths(table, task)
        return None
    target = sheet.resolve(target, "--target")
    if task != "auto" and task not in MEDIA_TASKS[media.kind]:
        raise ConfigError(
            f"Column {media.column!r} holds {NOUNS[media.kind]}s, but the task is {task}."
            f"{did_you_mean(task, MEDIA_TASKS[media.kind])} Expected {' or '.join(MEDIA_TASKS[media.kind])}."
        )
    if media.kind == IMAGE and (pair := _masks(table, text, target, task)) is not None:
        media, target, task = Media(pair[0], IMAGE), pair[1], "segmentation"
    return _chosen(table, media, target, task, need_target)


def _masks(table: pd.DataFrame, text: str | None, target: str | None, task: str) -> tuple[str, str] | None:
    """Return the columns of pictures and masks, or None where the table is for something else."""
    if task not in ("auto", "segmentation") or table.attrs.get("format") in _FORMATS or holds_boxes(table):
        return None
    paths = {name for _, name, _ in path_columns(table)}
    others = [str(name) for name in table.columns if str(name) not in paths]
    labels = named_target([profile(name, table[name].tolist()) for name in others], None, needed=True)
    if task == "auto" and target is None and labels is not None:
        return None
    return mask_columns(table, text, target, told=task == "segmentation")


def _chosen(
    table: pd.DataFrame, media: Media, target: str | None, task: str, need_target: bool
) -> tuple[str, Columns]:
    form = _FORMATS.get("objects" if holds_boxes(table) else str(table.attrs.get("format", "")))
    if form is not None and task in ("auto", form[0]):
        found, column = form[0], target or (form[1] if form[1] in table else None)
    else:
        column = target or _target(table, media, task)
        found = task if task != "auto" else _task(table, media, column)
    if column is None and need_target:
        raise DataError(
            f"Column {media.column!r} holds the paths of {NOUNS[media.kind]}s, but no column of labels was found. "
            f"Columns: {listed(list(map(str, table.columns)), 10)}. Name it with --target."
        )
    if column is not None and found.endswith("classification"):
        check_classes(profile(column, table[column].tolist()))
    noun = "their masks" if found == "segmentation" else "the target"
    learnt = "no target was found" if column is None else f"column {column!r} {noun}"
    return found, Columns(
        media.column, column,
        f"The task is {found}: column {media.column!r} holds the paths of {NOUNS[media.kind]}s, {learnt}; --task, "
        "--text and --target choose others.",
    )  # fmt: skip


def _target(table: pd.DataFrame, media: Media, task: str) -> str | None:
    """Return the column of labels or of transcripts: by its name, or the only other one."""
    others = [str(name) for name in table.columns if str(name) != media.column]
    named = named_target([profile(name, table[name].tolist()) for name in others], None, needed=True)
    labels = [named.column.name] if named is not None else []
    spoken = [name for known in _TRANSCRIPTS for name in others if name.strip().casefold() == known]
    if media.kind != AUDIO:
        spoken = []
    found = [*spoken, *labels] if task == "speech-recognition" else [*labels, *spoken]
    return next(iter(found or (others if len(others) == 1 else [])), None)


def _task(table: pd.DataFrame, media: Media, column: str | None) -> str:
    """Return the task of paths and a target: sounds with sentences, or with names that repeat, are told apart."""
    ordinary, *_ = MEDIA_TASKS[media.kind]
    if media.kind != AUDIO or column is None or table.attrs.get("format") == "folder":
        return ordinary
    values = [str(value) for value in table[column].tolist()]
    words = sorted(len(value.split()) for value in values)[len(values) // 2]
    written = column.strip().casefold() in _TRANSCRIPTS and 2 * len(set(values)) > len(values)
    return "speech-recognition" if words >= _WORDS or written else ordinary


def _no_paths(table: pd.DataFrame, task: str) -> DataError:
    kind = next(kind for kind, names in MEDIA_TASKS.items() if task in names)
    noun = NOUNS[kind]
    return DataError(
        f"No column holds the paths of {noun}s, which {task} needs. Columns: "
        f"{listed(list(map(str, table.columns)), 10)}. Give a folder per class, or a csv with a column such as "
        f"path (--text), whose values end like {noun} files."
    )
