"""The columns of each task on texts: those given, else those that fit; errors where none does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from foretune.data.columns import (
    TARGET_NAMES,
    Choice,
    Columns,
    check_classes,
    choice,
    columns_reason,
    guessed_target,
    infer_columns,
    named_target,
    text_choice,
)
from foretune.data.pairs import Pair, pair_of
from foretune.data.profile import Profile
from foretune.data.sequences import Sequences, prompt_columns, seq2seq_columns
from foretune.data.sheet import Sheet
from foretune.data.text import listed
from foretune.data.tokens import token_columns
from foretune.errors import DataError

SCORE_NAMES = ("score", "similarity", "rating", "stars", "value", "price", "分数", "得分", "评分", "相似度")
_QUESTION = ("question", "query", "问题")
_CONTEXT = ("context", "passage", "paragraph", "上下文", "文章", "段落")
_ANSWERS = ("answers", "answer", "答案", "回答")


@dataclass(frozen=True)
class Given:
    """The columns that the user named, and whether a target must be found."""

    text: str | None = None
    second: str | None = None
    target: str | None = None
    targets: tuple[str, ...] = ()
    need: bool = True


def _fail(sheet: Sheet, task: str, expected: str, remedy: str) -> DataError:
    return DataError(
        f"The data do not fit --task {task}: expected {expected}. Columns: {', '.join(sheet.names)}. {remedy}"
    )


def classification_columns(sheet: Sheet, given: Given) -> Columns:
    """Return a column of texts, or of tokens where there is none, and one of classes."""
    _one_target(given, "text-classification")
    text = given.text or _tokens_as_text(sheet, given.target)
    return infer_columns(
        sheet.table, text=text, target=given.target, need_target=given.need, profiles=sheet.profiles()
    )


def _tokens_as_text(sheet: Sheet, *targets: str | None) -> str | None:
    """Return the column of tokens where no column holds texts: its sentences are the texts."""
    if any(sheet.is_prose(name) for name in sheet.names if name not in targets):
        return None
    found = token_columns(sheet)
    return found[0] if found and found[0] not in targets else None


def _one_target(given: Given, task: str) -> None:
    if given.targets:
        raise DataError(
            f"--target names {len(given.targets)} columns ({listed([repr(t) for t in given.targets])}), "
            f"which is for --task multi-label; name one column for {task}."
        )


def multi_label_columns(sheet: Sheet, given: Given) -> Columns:
    """Return a column of texts and one of lists or separated labels, or several of 0 and 1."""
    targets = given.targets
    if given.target is None and not targets and named_target(_plain(sheet), given.text, True) is None:
        lists = [name for name in sheet.names if sheet.is_tokens(name)]
        text = given.text or _tokens_as_text(sheet)
        lists = [name for name in lists if name != text]
        if len(lists) == 1:
            return multi_label_columns(sheet, Given(text, None, lists[0], (), given.need))
        targets = tuple(binary_columns(sheet, given.text))
    if targets:
        text_given = given.text or _tokens_as_text(sheet, *targets)
        text = text_choice(sheet.profiles(without=targets), text_given, None)
        names = listed([repr(name) for name in targets], 10)
        return Columns(
            text.column.name,
            None,
            f"Text is column {text.column.name!r} ({text.why}); every label has a column of 0 and 1: {names}; "
            f"--target names others.",
            targets=targets,
        )
    text_given = given.text or _tokens_as_text(sheet, given.target)
    chosen = _target(sheet, given, (text_given,))
    text = text_choice(sheet.profiles(), text_given, chosen)
    return _columns(text, chosen)


def binary_columns(sheet: Sheet, text: str | None = None) -> list[str]:
    """Return the columns of 0 and 1 if there are two or more, and no other column but texts and identifiers."""
    flags = [name for name in sheet.names if name != text and sheet.is_binary(name)]
    rest = [p for p in sheet.profiles(without=(text, *flags)) if p.rows]
    other = [
        p for p in rest if not (p.is_identifier or p.prose >= 0.3 or p.name.casefold() in ("id", "index"))
    ]
    return flags if len(flags) > 1 and not other else []


def regression_columns(sheet: Sheet, given: Given) -> Columns:
    """Return a column of texts and one of numbers."""
    _one_target(given, "text-regression")
    target = number_target(sheet, given, (given.text,))
    if target is None and given.need:
        raise _fail(sheet, "text-regression", "one column of numbers", "Name it with --target.")
    text = text_choice(sheet.profiles(), given.text or _tokens_as_text(sheet, given.target), target)
    return _columns(text, target)


def number_target(sheet: Sheet, given: Given, without: tuple[str | None, ...]) -> Choice | None:
    """Return the column of numbers: as given, by its name, the only fractional one, or the only one."""
    if given.target is not None:
        return choice(sheet.profile(given.target), "as given")
    numbers = [p for p in sheet.profiles(without) if p.numeric]
    known = (*TARGET_NAMES, *SCORE_NAMES)
    named = sorted(
        (p for p in numbers if p.name.strip().casefold() in known),
        key=lambda p: known.index(p.name.strip().casefold()),
    )
    if named:
        return choice(named[0], "by its name", named)
    fractional = [p for p in numbers if p.fractional]
    lone = fractional if len(fractional) == 1 else numbers
    return (
        choice(lone[0], "the only numbers" if lone is numbers else "the only fractional numbers")
        if (len(lone) == 1)
        else None
    )


def pair_columns(sheet: Sheet, given: Given) -> Columns:
    """Return two columns of texts and one of classes."""
    _one_target(given, "text-pair")
    pair = _pair(sheet, given, "text-pair")
    target = _target(sheet, given, (pair.first, pair.second))
    if target is not None:
        check_classes(target.column)
    return _pair_columns(pair, target)


def pair_regression_columns(sheet: Sheet, given: Given) -> Columns:
    """Return two columns of texts and one of numbers."""
    _one_target(given, "pair-regression")
    pair = _pair(sheet, given, "pair-regression")
    target = number_target(sheet, given, (pair.first, pair.second))
    if target is None and given.need:
        raise _fail(
            sheet, "pair-regression", "a column of numbers beside two texts", "Name it with --target."
        )
    return _pair_columns(pair, target)


def similarity_columns(sheet: Sheet, given: Given) -> Columns:
    """Return two columns of texts that belong together, and a score or class of the pair where there is one."""
    _one_target(given, "similarity")
    pair = _pair(sheet, given, "similarity")
    rest = Given(given.text, given.second, given.target, (), False)
    taken = (pair.first, pair.second)
    return _pair_columns(
        pair, number_target(sheet, rest, taken) or _target(sheet, rest, taken), "every pair belongs together"
    )


def _pair(sheet: Sheet, given: Given, task: str) -> Pair:
    pair = pair_of(sheet, given.text, given.second, given.target)
    if pair is None:
        raise _fail(sheet, task, "two columns of texts", "Name them with --text and --second.")
    return pair


def _pair_columns(pair: Pair, target: Choice | None, without: str = "no target was found") -> Columns:
    end = without if target is None else f"target is column {target.column.name!r} ({target.why})"
    return Columns(
        pair.first,
        target.column.name if target else None,
        f"First text is column {pair.first!r}, second text is column {pair.second!r} ({pair.why}; --text and "
        f"--second choose others); {end}.",
        second=pair.second,
    )


def _plain(sheet: Sheet) -> list[Profile]:
    """Return the profiles of the columns whose cells are single values."""
    return [p for p in sheet.profiles() if p.distinct or not p.rows]


def _target(sheet: Sheet, given: Given, without: tuple[str | None, ...]) -> Choice | None:
    """Return the column of labels: as given, by its name, or the only one that could be."""
    if given.target is not None:
        return choice(sheet.profile(given.target), "as given")
    profiles = sheet.profiles(without)
    named = named_target(profiles, None, given.need)
    if named is not None or not profiles:
        return named
    # The texts are left out already, and texts that are not chosen are no classes either.
    left = [p for p in profiles if not sheet.is_prose(p.name)] or profiles
    return guessed_target(left, None, given.need)


def _columns(text: Choice, target: Choice | None) -> Columns:
    return Columns(text.column.name, target.column.name if target else None, columns_reason(text, target))


def label_columns(sheet: Sheet, given: Given) -> Columns:
    """Return columns of tokens and tags, or of texts and spans of their characters."""
    _one_target(given, "token-labelling")
    tokens = token_columns(sheet, given.text, given.target)
    if tokens is not None:
        return _pointed(*tokens, "tokens", "tags")
    spans = span_columns(sheet, given)
    if spans is not None:
        return _pointed(*spans, "text", "spans of characters")
    if not given.need and given.target is None:
        lists = [name for name in sheet.names if sheet.is_tokens(name)]
        text = given.text or (lists[0] if lists else text_choice(sheet.profiles(), None, None).column.name)
        return Columns(text, None, f"Text is column {text!r}; no tags were found.")
    raise _fail(
        sheet,
        "token-labelling",
        "a column of token lists and one of tag lists of the same lengths, or texts and entities as "
        '[{"start": 0, "end": 2, "label": "X"}]',
        "Name them with --text and --target, or give a .conll file.",
    )


def span_columns(sheet: Sheet, given: Given) -> tuple[str, str] | None:
    """Return the column of texts and that of spans, those given or else found, or None."""
    spans = [name for name in sheet.names if given.target in (None, name) and sheet.is_spans(name)]
    texts = [p for p in sheet.profiles() if p.is_textual]
    if not spans or not texts:
        return None
    return text_choice(texts, given.text, None).column.name, spans[0]


def _pointed(text: str, target: str, read: str, learnt: str) -> Columns:
    reason = f"Column {text!r} holds {read}, column {target!r} {learnt}; --text and --target choose others."
    return Columns(text, target, reason)


def question_columns(sheet: Sheet, given: Given) -> Columns:
    """Return the columns of questions (text), contexts (second) and answers (target)."""
    _one_target(given, "question-answering")
    text, second = given.text or sheet.named(*_QUESTION), given.second or sheet.named(*_CONTEXT)
    target = given.target or sheet.named(*_ANSWERS)
    if text is None or second is None or (target is None and given.need):
        raise _fail(
            sheet,
            "question-answering",
            "columns question, context and answers",
            "Name them with --text (questions), --second (contexts) and --target (answers).",
        )
    answers = "no answers were found" if target is None else f"answers are column {target!r}"
    reason = (
        f"Questions are column {text!r}, contexts column {second!r}, {answers}; --text, --second and --target "
        f"choose others."
    )
    return Columns(text, target, reason, second=second)


def summarisation_columns(sheet: Sheet, given: Given) -> Columns:
    """Return the columns of documents and summaries."""
    return _sequence_columns(sheet, given, "summarisation", "column of texts and one of their summaries")


def translation_columns(sheet: Sheet, given: Given) -> Columns:
    """Return the columns of sources and translations."""
    return _sequence_columns(sheet, given, "translation", "column of texts and one of their translations")


def _sequence_columns(sheet: Sheet, given: Given, task: str, expected: str) -> Columns:
    _one_target(given, task)
    found = seq2seq_columns(sheet, given.text, given.target, task)
    if found is not None:
        return _written(found, "sources", "targets")
    if given.need or given.target is not None:
        raise _fail(sheet, task, f"a {expected}", "Name them with --text and --target.")
    named = given.text or sheet.named("source", "src", "document", "article", "原文")
    text = text_choice(sheet.profiles(), named, None)
    return _columns(text, None)


def generation_columns(sheet: Sheet, given: Given) -> Columns:
    """Return the columns of prompts and responses, or the one column of texts to be continued."""
    _one_target(given, "text-generation")
    found = prompt_columns(sheet, given.text, given.target, told=True)
    if found is not None:
        return _written(found, "prompts", "responses")
    if given.target is not None:
        raise _fail(
            sheet, "text-generation", "a column of prompts beside that of responses", "Name it with --text."
        )
    text = text_choice(sheet.profiles(), given.text, None)
    whole = " and is one running text" if sheet.format == "txt" else ", every row a text"
    reason = (
        f"Text is column {text.column.name!r} ({text.why}){whole}; --text chooses another column, --target "
        f"one of responses."
    )
    return Columns(text.column.name, None, reason)


def _written(found: Sequences, read: str, learnt: str) -> Columns:
    second = f", followed by column {found.second!r}," if found.second else ""
    reason = (
        f"Column {found.source!r}{second} holds {read}, column {found.target!r} {learnt} ({found.why}); "
        f"--text and --target choose others."
    )
    return Columns(found.source, found.target, reason, second=found.second)


CHOOSERS: dict[str, Callable[[Sheet, Given], Columns]] = {
    "text-classification": classification_columns,
    "multi-label": multi_label_columns,
    "text-regression": regression_columns,
    "text-pair": pair_columns,
    "pair-regression": pair_regression_columns,
    "similarity": similarity_columns,
    "token-labelling": label_columns,
    "question-answering": question_columns,
    "summarisation": summarisation_columns,
    "translation": translation_columns,
    "text-generation": generation_columns,
}
