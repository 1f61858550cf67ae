"""Which task a table of texts is for, and which of its columns: as told, else by names and kinds of columns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from foretune.data.choosers import CHOOSERS, PAIRED
from foretune.data.columns import Columns
from foretune.data.guess import guess_task
from foretune.data.infer_media import infer_media
from foretune.data.sheet import Sheet
from foretune.data.targets import Given
from foretune.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

TEXT_TASKS = tuple(CHOOSERS)


@dataclass(frozen=True)
class Inferred:
    """A task, its columns, and the sentences for the user that say why these and what changes them."""

    task: str
    columns: Columns
    reason: str


def infer_task(
    table: pd.DataFrame,
    *,
    text: str | None = None,
    second: str | None = None,
    target: str | None = None,
    task: str = "auto",
    need_target: bool = True,
) -> Inferred:
    """Return the task of a table and its columns, those given or else guessed; see `infer_media` for media.

    `target` may name several columns of 0 and 1, separated by commas. With "auto" a table of one text and
    one class per row is always a text classification. Without `need_target` the target is None where none
    is found. Raises DataError where columns do not exist or fit, ConfigError for an unknown task.
    """
    media = infer_media(table, text=text, target=target, task=task, need_target=need_target)
    if media is not None:
        return Inferred(media[0], media[1], media[1].reason)
    sheet = Sheet(table)
    given = _given(sheet, text, second, target, need_target)
    why = ""
    if task == "auto":
        task, why = guess_task(sheet, given)
    if task not in CHOOSERS:
        known = ", ".join(CHOOSERS)
        raise ConfigError(
            f"Unknown task {task!r} for texts.{did_you_mean(task, CHOOSERS)} Known: auto, {known}."
        )
    if given.second is not None and task not in PAIRED:
        raise ConfigError(
            f"--second is for {', '.join(PAIRED)}, not for {task}. Leave it out or change --task."
        )
    columns = CHOOSERS[task](sheet, given)
    opening = f"The task is {task}: {why}; --task chooses another. " if why else ""
    columns = replace(columns, reason=opening + columns.reason)
    return Inferred(task, columns, columns.reason)


def _given(sheet: Sheet, text: str | None, second: str | None, target: str | None, need: bool) -> Given:
    targets: tuple[str, ...] = ()
    if target is not None and target not in sheet.names and "," in target:
        parts = [part.strip() for part in target.split(",") if part.strip()]
        targets = tuple(dict.fromkeys(str(sheet.resolve(part, "--target")) for part in parts))
        target = None
    found = Given(
        sheet.resolve(text, "--text"),
        sheet.resolve(second, "--second"),
        sheet.resolve(target, "--target"),
        targets,
        need,
    )
    _check_distinct(found)
    return found


def _check_distinct(given: Given) -> None:
    named = {"Text": given.text, "second": given.second, "target": given.target}
    taken = [(role, name) for role, name in named.items() if name is not None]
    taken += [("target", name) for name in given.targets]
    for i, (role, name) in enumerate(taken):
        for other, same in taken[i + 1 :]:
            if name == same:
                raise DataError(
                    f"{role.capitalize()} and {other} are both column {name!r}. Name different columns with "
                    f"--text, --second and --target."
                )
