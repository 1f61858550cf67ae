"""Texts to be written: source and target, prompt and response, or one running text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from foretune.data.audit import check_texts
from foretune.data.sheet import Sheet
from foretune.data.text import has_cjk, is_blank
from foretune.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

_SUMMARIES = """document summary|article highlights|article summary|text summary|dialogue summary|content summary
abstract summary|report summary|source summary|body summary|abstract tldr|text tldr|article abstract
正文 摘要|原文 摘要|文章 摘要|内容 摘要|文本 摘要"""
_TRANSLATIONS = "原文 译文|中文 英文|英文 中文|text translation|source translation|sentence translation"
_EITHER = (
    "source target|text target|src tgt|src trg|source_text target_text|input_text target_text|input target"
)
_CODES = """en de fr es it pt nl sv da no fi pl cs sk hu ro bg el ru uk tr ar he fa hi bn ta ja ko zh vi th id ms
english german french spanish italian portuguese dutch russian japanese korean chinese arabic turkish
eng deu fra spa ita por nld rus jpn kor zho cmn"""
_LANGUAGES = frozenset(_CODES.split())
_PROMPTS = """prompt completion|prompt response|prompt output|instruction output|instruction response
instruction completion|instruction answer|提示 回答|提示 回复|指令 输出|指令 回答"""
_QUESTIONS = "question answer|question response|问题 答案|问题 回答"
_INPUTS = ("input", "context", "输入")
SHORTER = 0.5


class Sequences(NamedTuple):
    """Which columns hold what is read and what is to be written; `second` is read after the source."""

    source: str
    target: str
    task: str
    why: str
    second: str | None = None


def seq2seq_columns(
    sheet: Sheet, text: str | None = None, target: str | None = None, task: str | None = None
) -> Sequences | None:
    """Return the columns of a summarisation or translation, those given or else told by name, or None.

    Where names leave it open it is summarisation if targets have less than half the characters of their
    sources and the same script. `task` limits the search to one of the two.
    """
    for names, kind in ((_SUMMARIES, "summarisation"), (_TRANSLATIONS, "translation"), (_EITHER, None)):
        for source, goal in _found(sheet, names):
            if text in (None, source) and target in (None, goal):
                return _sequences(sheet, source, goal, task or kind, "by their names")
    codes = _languages(sheet)
    codes.sort(key=lambda name: (name == target, name != text))
    given = {text, target} - {None}
    if given <= set(codes) and len(codes) == 2:
        return _sequences(sheet, codes[0], codes[1], task or "translation", "names of languages")
    if given <= set(codes) and len(given) == 2:
        return _sequences(sheet, str(text), str(target), task or "translation", "names of languages")
    if text is not None and target is not None and task is not None:
        return Sequences(text, target, task, "as given")
    return None


def prompt_columns(
    sheet: Sheet,
    text: str | None = None,
    target: str | None = None,
    second: str | None = None,
    *,
    told: bool = False,
) -> Sequences | None:
    """Return the columns of prompts and responses, or None; question and answer only where `told` so.

    `second` is the column of inputs that instructions are about; without one, it is told by its name.
    """
    for source, goal in _found(sheet, f"{_PROMPTS}|{_QUESTIONS}" if told else _PROMPTS):
        if text in (None, source) and target in (None, goal):
            return Sequences(
                source, goal, "text-generation", "by their names", second or _input(sheet, source, goal)
            )
    if told and text is not None and target is not None:
        return Sequences(text, target, "text-generation", "as given", second)
    return None


def documents(table: pd.DataFrame, column: str, where: str = "train") -> list[str]:
    """Return the running texts to learn from: a .txt file is one, every row of another table is one.

    Raises DataError naming rows that are blank (but empty lines of a .txt file stay) or no text.
    """
    values = table[column].tolist()
    if table.attrs.get("format") != "txt":
        return check_texts(values, column, where)
    # Lines were read one by one, empty ones as missing.
    text = "\n".join("" if is_blank(value) else value for value in values) + "\n"
    if not text.strip():
        raise DataError(f"{where}: nothing but white space, expected a text to learn from.")
    return [text]


def _languages(sheet: Sheet) -> list[str]:
    """Return the columns of texts that are called like languages, or were told to be by the table's reader."""
    told = sheet.table.attrs.get("languages", ())
    named = [name for name in sheet.names if name in told or name.strip().casefold() in _LANGUAGES]
    return [name for name in named if sheet.is_text(name)]


def _found(sheet: Sheet, pairs: str) -> list[tuple[str, str]]:
    """Return the pairs of columns that bear one of the pairs of names and both hold texts."""
    found = []
    for pair in pairs.replace("\n", "|").split("|"):
        source, target = (sheet.named(name) for name in pair.split())
        if source is not None and target is not None and sheet.is_prose(source) and sheet.is_prose(target):
            found.append((source, target))
    return found


def _sequences(sheet: Sheet, source: str, target: str, task: str | None, why: str) -> Sequences:
    if task is None:
        shorter = sheet.profile(target).length < SHORTER * sheet.profile(source).length
        same = _is_cjk(sheet.values(source)) == _is_cjk(sheet.values(target))
        task = "summarisation" if shorter and same else "translation"
        why = f"{why}; --task summarisation or translation says what it is"
    return Sequences(source, target, task, why)


def _is_cjk(values: Sequence[object]) -> bool:
    texts = [value for value in values[:200] if isinstance(value, str)]
    return 2 * sum(map(has_cjk, texts)) > len(texts)


def _input(sheet: Sheet, source: str, target: str) -> str | None:
    """Return the column that stands beside an instruction, as in Alpaca's data; it may often be empty."""
    name = sheet.named(*_INPUTS)
    return name if name not in (source, target, None) and sheet.is_text(str(name)) else None
