"""Guessing the task: the first rule that fits, and where none does a text classification."""

from __future__ import annotations

from collections.abc import Callable

from foretune.data.cells import is_list
from foretune.data.choosers import question_columns, span_columns
from foretune.data.columns import Choice, choice, guessed_target, named_target
from foretune.data.multilabel import is_bio, label_separator
from foretune.data.pairs import is_found_pair, pair_of
from foretune.data.sequences import prompt_columns, seq2seq_columns
from foretune.data.sheet import Sheet
from foretune.data.targets import Given, binary_columns, labels_target, number_target
from foretune.data.text import is_blank
from foretune.data.tokens import token_columns
from foretune.errors import DataError

Guess = tuple[str, str] | None  # a task and why
_SEEN = 200


def guess_task(sheet: Sheet, given: Given) -> tuple[str, str]:
    """Return the task of a table and why; no reason where it is the ordinary one, text classification."""
    for rule in RULES:
        found = rule(sheet, given)
        if found is not None:
            return found
    return "text-classification", ""


def _answered(sheet: Sheet, given: Given) -> Guess:
    if given.targets:
        return None
    try:
        columns = question_columns(sheet, given)
    except DataError:
        return None
    if sheet.format == "squad":
        return "question-answering", "a SQuAD file"
    if columns.target is None or not _stand_in(sheet, str(columns.second), columns.target):
        return None
    return "question-answering", "questions, contexts and answers that stand in them"


def _stand_in(sheet: Sheet, context: str, target: str) -> bool:
    """Say whether answers are lists or dicts, or strings that the contexts hold."""
    pairs = [
        (text, cell)
        for text, cell in zip(sheet.values(context), sheet.values(target), strict=True)
        if not is_blank(cell) and isinstance(text, str)
    ][:_SEEN]
    held = sum(is_list(cell) or isinstance(cell, dict) or str(cell) in text for text, cell in pairs)
    return bool(pairs) and held >= 0.9 * len(pairs)


def _tagged(sheet: Sheet, given: Given) -> Guess:
    if given.second or given.targets or (given.target is None and _classified(sheet, given)):
        return None
    tokens = token_columns(sheet, given.text, given.target)
    if tokens is not None:
        others = [p.name for p in sheet.profiles(without=tokens) if 2 <= p.distinct <= max(2, p.rows // 2)]
        hint = f", though column {others[0]!r} could be classified (--target {others[0]})" if others else ""
        return "token-labelling", f"a tag for every token{hint}"
    if span_columns(sheet, given) is not None:
        return "token-labelling", "spans of characters with labels"
    if sheet.format == "conll" and given.target is None:
        return "token-labelling", "a CoNLL file"
    return None


def _classified(sheet: Sheet, given: Given, without: tuple[str | None, ...] = ()) -> bool:
    """Say whether there are texts and a named target of single values: an ordinary classification."""
    profiles = [p for p in sheet.profiles(without) if p.distinct and not sheet.is_prose(p.name)]
    texts = [name for name in sheet.names if sheet.is_prose(name)]
    return bool(texts) and named_target(profiles, given.text, True) is not None


def _rewritten(sheet: Sheet, given: Given) -> Guess:
    if given.second or given.targets:
        return None
    found = seq2seq_columns(sheet, given.text, given.target)
    if found is not None and not _classified(sheet, given, (found.source, found.target)):
        return found.task, f"columns {found.source!r} and {found.target!r} are texts"
    found = prompt_columns(sheet, given.text, given.target)
    if found is not None and not _classified(sheet, given, (found.source, found.target)):
        return found.task, "prompts and responses"
    return None


def _paired(sheet: Sheet, given: Given) -> Guess:
    """A text given without a second one is meant to be read alone."""
    if given.targets or (given.text is not None and given.second is None):
        return None
    pair = pair_of(sheet, given.text, given.second, given.target)
    if pair is None:
        return None
    target = _candidate(sheet, given, (pair.first, pair.second))
    if target is None:
        return ("similarity", "pairs without a target") if is_found_pair(pair) or given.second else None
    if target.column.is_regression:
        return "pair-regression", f"two texts and fractional numbers in column {target.column.name!r}"
    return "text-pair", "two texts and a target"


def _candidate(sheet: Sheet, given: Given, without: tuple[str | None, ...]) -> Choice | None:
    """Return the target that would be taken, or None where none can be told."""
    if given.target is not None:
        return choice(sheet.profile(given.target), "as given")
    profiles = [p for p in sheet.profiles(without) if not sheet.is_prose(p.name)]
    named = named_target(profiles, given.text, True)
    if named is not None:
        return named
    try:
        return guessed_target(profiles, None, True)
    except DataError:
        return None


def _several(sheet: Sheet, given: Given) -> Guess:
    if given.targets:
        return "multi-label", f"--target names {len(given.targets)} columns"
    target = labels_target(sheet, given)
    # Lists without a usual name may be anything: tokens, paths, neighbours.
    if target is None or target.why == "the only lists":
        target = _candidate(sheet, given, (given.text,))
    if target is None:
        flags = binary_columns(sheet, given.text)
        return ("multi-label", f"{len(flags)} columns of 0 and 1") if flags else None
    name = target.column.name
    if sheet.is_lists(name):
        lists = not is_bio(sheet.values(name))
        return ("multi-label", f"column {name!r} holds lists of labels") if lists else None
    mark = label_separator(sheet.values(name)) if sheet.is_text(name) else None
    return ("multi-label", f"column {name!r} holds labels separated by {mark!r}") if mark else None


def _measured(sheet: Sheet, given: Given) -> Guess:
    if given.second or given.targets:
        return None
    target = _candidate(sheet, given, (given.text,))
    if target is None and given.target is None:
        target = number_target(sheet, given, (given.text,))
    if target is not None and target.column.is_regression:
        return "text-regression", f"column {target.column.name!r} holds fractional numbers"
    return None


def _running(sheet: Sheet, given: Given) -> Guess:
    """A plain text has no target to learn; where none is needed, its lines are texts to be judged."""
    plain = sheet.format == "txt" and given.need and given.target is None and not given.targets
    return ("text-generation", "a plain text without labels") if plain else None


RULES: tuple[Callable[[Sheet, Given], Guess], ...] = (
    _answered,
    _tagged,
    _rewritten,
    _paired,
    _several,
    _measured,
    _running,
)
