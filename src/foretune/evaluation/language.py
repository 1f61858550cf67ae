"""Which way of writing a text uses, as far as metrics depend on it: with blanks between words, or without."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from foretune.errors import ConfigError, did_you_mean

#: zh: Han characters without blanks; ja: the same with kana; en: every language that parts words by blanks.
Script = Literal["zh", "ja", "en"]
SCRIPTS: tuple[Script, ...] = ("zh", "ja", "en")

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_KANA = "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"
HAN = re.compile(f"[{_HAN}]")
KANA = re.compile(f"[{_KANA}]")
#: A character that stands for itself, as a word does elsewhere.
CJK = re.compile(f"[{_HAN}{_KANA}]")
_WORD = re.compile(r"[^\W\d_]+")


def script_of(texts: Iterable[str]) -> Script:
    """Return `"zh"` or `"ja"` where Chinese or Japanese characters outnumber the words in other letters.

    Words, not letters, are counted against characters, so that a long foreign name does not decide. Korean
    parts words by blanks and is `"en"` here, as is text without letters.
    """
    text = " ".join(texts)
    characters = len(CJK.findall(text))
    if characters <= len(_WORD.findall(CJK.sub(" ", text))):
        return "en"
    return "ja" if KANA.search(text) else "zh"


def check_language(language: str) -> None:
    """Raise ConfigError unless `language` is "auto" or one of `SCRIPTS`."""
    if language not in ("auto", *SCRIPTS):
        raise ConfigError(
            f"Unknown language {language!r}: expected auto, {', '.join(SCRIPTS)} (en: any language with blanks"
            f" between words).{did_you_mean(language, ('auto', *SCRIPTS))}"
        )
