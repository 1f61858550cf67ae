"""The columns of each task on texts: those given, else those that fit; errors where none does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from foretune.data.columns import (
    Choice,
    Columns,
    check_classes,
    infer_columns,
    text_choice,
)
from foretune.data.pairs import Pair, pair_of
from foretune.data.references import references_column
from foretune.data.sequences import Sequences, prompt_columns, seq2seq_columns
from foretune.data.sheet import Sheet
from foretune.data.targets import (
    TOKENS_READ,
    Given,
    binary_columns,
    class_target,
    labels_target,
    misfit,
    number_target,
    one_target,
    text_and_target,
    text_of,
    tokens_as_text,
)
from foretune.data.text import listed
from foretune.data.tokens import token_columns

_QUESTION = ("question", "query", "问题")
_CONTEXT = ("context", "passage", "paragraph", "上下文", "文章", "段落")
_ANSWERS = ("answers", "answer", "答案", "回答")


def classification_columns(sheet: Sheet, given: Given) -> Columns:
    """Return a column of texts, or of tokens where there is none, and one of classes."""
    one_target(given, "text-classification")
    text = given.text or tokens_as_text(sheet, given.target)
    columns = infer_columns(
        sheet.table, text=text, target=given.target, need_target=given.need, profiles=sheet.profiles()
    )
    if text == given.text:
        return columns
    return replace(columns, reason=columns.reason.replace("as given", TOKENS_READ, 1))


def multi_label_columns(sheet: Sheet, given: Given) -> Columns:
    """Return a column of texts and one of lists or separated labels, or several of 0 and 1."""
    target = None if given.targets else labels_target(sheet, given)
    targets = given.targets or (() if target else tuple(binary_columns(sheet, given.text)))
    if targets:
        return _flag_columns(sheet, given, targets)
    target = target or class_target(sheet, given, (given.text or tokens_as_text(sheet),))
    return text_and_target(text_of(sheet, given, target), target)


def _flag_columns(sheet: Sheet, given: Given, targets: tuple[str, ...]) -> Columns:
    text = text_of(sheet, given, None, targets)
    reason = (
        f"Text is column {text.column.name!r} ({text.why}); every label has a column of 0 and 1: "
        f"{listed([repr(name) for name in targets], 10)}; --target names others."
    )
    return Columns(text.column.name, None, reason, targets=targets)


def regression_columns(sheet: Sheet, given: Given) -> Columns:
    """Return a column of texts and one of numbers."""
    one_target(given, "text-regression")
    target = number_target(sheet, given, (given.text,))
    if target is None and given.need:
        raise misfit(sheet, "text-regression", "one column of numbers", "Name it with --target.")
    text = text_of(sheet, given, target)
    return text_and_target(text, target)


def pair_columns(sheet: Sheet, given: Given) -> Columns:
    """Return two columns of texts and one of classes."""
    one_target(given, "text-pair")
    pair = _pair(sheet, given, "text-pair")
    target = class_target(sheet, given, (pair.first, pair.second))
    if target is not None:
        check_classes(target.column)
    return _pair_columns(pair, target)


def pair_regression_columns(sheet: Sheet, given: Given) -> Columns:
    """Return two columns of texts and one of numbers."""
    one_target(given, "pair-regression")
    pair = _pair(sheet, given, "pair-regression")
    target = number_target(sheet, given, (pair.first, pair.second))
    if target is None and given.need:
        raise misfit(
            sheet, "pair-regression", "a column of numbers beside two texts", "Name it with --target."
        )
    return _pair_columns(pair, target)


def similarity_columns(sheet: Sheet, given: Given) -> Columns:
    """Return two columns of texts that belong together, and a score or class of the pair where there is one."""
    one_target(given, "similarity")
    pair = _pair(sheet, given, "similarity")
    rest = Given(given.text, given.second, given.target, (), False)
    taken = (pair.first, pair.second)
    return _pair_columns(
        pair,
        number_target(sheet, rest, taken) or class_target(sheet, rest, taken),
        "every pair belongs together",
    )


def _pair(sheet: Sheet, given: Given, task: str) -> Pair:
    pair = pair_of(sheet, given.text, given.second, given.target)
    if pair is None:
        raise misfit(sheet, task, "two columns of texts", "Name them with --text and --second.")
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


def label_columns(sheet: Sheet, given: Given) -> Columns:
    """Return columns of tokens and tags, or of texts and spans of their characters."""
    one_target(given, "token-labelling")
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
    raise misfit(
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
    one_target(given, "question-answering")
    text, second = given.text or sheet.named(*_QUESTION), given.second or sheet.named(*_CONTEXT)
    target = given.target or sheet.named(*_ANSWERS)
    if text is None or second is None or (target is None and given.need):
        raise misfit(
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
    one_target(given, task)
    found = seq2seq_columns(sheet, given.text, given.target, task)
    if found is not None:
        return _with_references(sheet, _written(found, "sources", "targets"))
    if given.need or given.target is not None:
        raise misfit(sheet, task, f"a {expected}", "Name them with --text and --target.")
    named = given.text or sheet.named("source", "src", "document", "article", "原文")
    text = text_choice(sheet.profiles(), named, None)
    return text_and_target(text, None)


def _with_references(sheet: Sheet, columns: Columns) -> Columns:
    """Return the columns with a word on the one that holds several references, where there is one."""
    name = references_column(sheet.table, str(columns.target))
    if name is None:
        return columns
    more = f"Column {name!r} holds lists of references, all of which count in scores (--option references=none: not)."
    return replace(columns, reason=f"{columns.reason} {more}")


def generation_columns(sheet: Sheet, given: Given) -> Columns:
    """Return the columns of prompts and responses, or the one column of texts to be continued."""
    one_target(given, "text-generation")
    found = prompt_columns(sheet, given.text, given.target, given.second, told=True)
    if found is not None:
        return _written(found, "prompts", "responses")
    if given.target is not None:
        raise misfit(
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


# Tasks that read a second column, which --second names.
PAIRED = ("text-pair", "pair-regression", "similarity", "question-answering", "text-generation")
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
