"""Questions with the text that answers them, from SQuAD files and from plain tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from foretune.data.audit import check_texts
from foretune.data.cells import is_list
from foretune.data.text import counted, excerpt, is_blank, listed, row_list
from foretune.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from foretune.data.columns import Columns

Answer = tuple[int, str]  # where it starts in the context, in characters, and its text
_Found = tuple[int | None, str]
_STARTS = ("answer_start", "start", "offset")


@dataclass(frozen=True)
class Questions:
    """Questions in the table's order; no answers means that the context does not answer. `notes` are for the user."""

    contexts: list[str]
    questions: list[str]
    answers: list[list[Answer]]
    ids: list[str]
    notes: list[str] = field(default_factory=list)


def read_questions(
    table: pd.DataFrame, columns: Columns, *, where: str = "train", need_answers: bool = True
) -> Questions:
    """Return the questions (`columns.text`), contexts (`.second`) and answers (`.target`) of a table.

    An answer is [start, text], {"text", "answer_start"}, or its text alone, which is then looked for in the
    context. Blank questions are kept and noted. Raises DataError naming rows or ids that have a blank
    context, or answers badly formed or not in their context.
    """
    assert columns.second is not None
    asked = table[columns.text].tolist()
    blank = [row for row, value in enumerate(asked) if is_blank(value)]
    # Published sets have questions lost on the way; their answers can still be learnt from the context.
    questions = ["" if is_blank(text) else text for text in asked]
    if len(blank) < len(asked):
        check_texts([text for text in questions if text], columns.text, where)
    contexts = check_texts(table[columns.second].tolist(), columns.second, where)
    rows = [str(number) for number in range(1, len(table) + 1)]
    ids = [str(value) for value in table["id"].tolist()] if "id" in table.columns else rows
    lost = [f"{where}: {counted(len(blank), 'question')} of {len(asked):,} blank ({row_list(blank)})"]
    notes = lost if blank else []
    if not need_answers or columns.target is None:
        return Questions(contexts, questions, [[] for _ in ids], ids, notes)
    found = _read(table, columns.target, where)
    notes = notes + _notes(contexts, found, where)
    answers = [_placed(context, row) for context, row in zip(contexts, found, strict=True)]
    check_answers(contexts, answers, ids, where)
    return Questions(contexts, questions, answers, ids, notes)


def _read(table: pd.DataFrame, target: str, where: str) -> list[list[_Found]]:
    cells = table[target].tolist()
    start = next((name for name in _STARTS if name in table.columns), None)
    if start is not None and all(isinstance(cell, str) or is_blank(cell) for cell in cells):
        starts = table[start].tolist()
        cells = [
            cell if is_blank(cell) or is_blank(at) else [(at, cell)]
            for cell, at in zip(cells, starts, strict=True)
        ]
    read = [_cell(cell) for cell in cells]
    wrong = [row for row, answers in enumerate(read) if answers is None]
    if wrong:
        raise DataError(
            f"{where}: {counted(len(wrong), 'cell')} of column {target!r} not readable as answers "
            f"({row_list(wrong)}), for instance {excerpt(repr(cells[wrong[0]]))}. Expected a list of "
            f'{{"text": …, "answer_start": …}}, or the answer\'s text; an empty list means no answer.'
        )
    return [answers for answers in read if answers is not None]


def _cell(cell: Any) -> list[_Found] | None:
    """Return the answers of one cell, or None where it cannot be read."""
    if is_blank(cell):
        return []
    if isinstance(cell, str):
        return [(None, cell)]
    if isinstance(cell, int | float) and not isinstance(cell, bool):  # such as a year; beside gaps 1989.0
        return [(None, str(int(cell)) if float(cell).is_integer() else str(cell))]
    if isinstance(cell, dict):
        return _from_dict(cell)
    if not is_list(cell):
        return None
    parts = [_item(item) for item in cell]
    return None if any(part is None for part in parts) else [part for part in parts if part is not None]


def _from_dict(cell: dict[str, Any]) -> list[_Found] | None:
    """Read one answer, or the hub's form of several: a list of texts and one of starts."""
    texts: Any = cell.get("text")
    starts: Any = next((cell[name] for name in _STARTS if name in cell), None)
    if not is_list(texts):
        one = _item(cell)
        return None if one is None else [one]
    starts = [None] * len(texts) if starts is None else starts
    if not is_list(starts) or len(starts) != len(texts):
        return None
    return _cell([list(pair) for pair in zip(starts, texts, strict=True)])


def _item(item: Any) -> _Found | None:
    if isinstance(item, str):
        return None, item
    if isinstance(item, dict):
        start = next((item[name] for name in _STARTS if name in item), None)
        item = (start, item.get("text"))
    if not is_list(item) or len(item) != 2 or not isinstance(item[1], str):
        return None
    start, text = item
    if (isinstance(start, str) and start.strip().isdecimal()) or (
        isinstance(start, float) and start.is_integer()
    ):
        start = int(start)
    return (start, text) if start is None or type(start) is int else None


def _placed(context: str, answers: Sequence[_Found]) -> list[Answer]:
    return [(context.find(text) if start is None else start, text) for start, text in answers]


def _notes(contexts: Sequence[str], found: Sequence[Sequence[_Found]], where: str) -> list[str]:
    """Say how many questions have no answer, and how many answers without offset could stand in several places."""
    none = sum(not answers for answers in found)
    several = sum(
        start is None and context.count(text) > 1
        for context, answers in zip(contexts, found, strict=True)
        for start, text in answers
    )
    notes = []
    if none:
        notes.append(
            f"{where}: {counted(none, 'question')} of {len(found):,} without an answer in the context"
        )
    if several:
        notes.append(
            f"{where}: {counted(several, 'answer')} without an offset more than once in the context; the "
            f"first place was taken, answer_start says which"
        )
    return notes


def check_answers(
    contexts: Sequence[str], answers: Sequence[Sequence[Answer]], ids: Sequence[str], where: str
) -> None:
    """Raise DataError naming the ids of answers that are empty or do not stand at their offset."""
    wrong = [
        (str(name), context, start, text)
        for name, context, row in zip(ids, contexts, answers, strict=True)
        for start, text in row
        if not text or start < 0 or context[start : start + len(text)] != text
    ]
    if not wrong:
        return
    total = sum(map(len, answers))
    name, context, start, text = wrong[0]
    stands = excerpt(context[start : start + len(text)], 30)
    place = f"should start at {start}, where the context holds {stands}"
    raise DataError(
        f"{where}: {counted(len(wrong), 'answer')} of {total:,} not at the offset in the context (id "
        f"{listed([item[0] for item in wrong])}). Answer {excerpt(text, 30)} of {name} "
        f"{place if start >= 0 else 'does not stand in its context'}. {_elsewhere(wrong)}Correct the offsets, "
        f"counted in characters from 0, or drop these answers."
    )


def _elsewhere(wrong: Sequence[tuple[str, str, int, str]]) -> str:
    once = [
        (name, context.find(text)) for name, context, _, text in wrong if text and context.count(text) == 1
    ]
    if not once:
        return ""
    return f"{len(once):,} of these stand exactly once elsewhere (that of {once[0][0]} at {once[0][1]}). "
