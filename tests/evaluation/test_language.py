from __future__ import annotations

import pytest

from foretune.errors import ConfigError
from foretune.evaluation import extras
from foretune.evaluation.extras import require
from foretune.evaluation.language import check_language, script_of


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("A plain sentence.", "en"),
        ("Ein Satz für Übungen", "en"),
        ("Обычное предложение", "en"),
        ("한국어 문장 입니다", "en"),
        ("这是一个句子。", "zh"),
        ("我用TensorFlow", "zh"),  # a long word is one word
        ("The city of Beijing (北京) is large", "en"),
        ("これは文です", "ja"),
        ("2019", "en"),
        ("", "en"),
    ],
)
def test_the_way_of_writing_is_found(text: str, script: str) -> None:
    assert script_of([text]) == script


def test_several_texts_decide_together() -> None:
    assert script_of(["OK", "今天天气很好"]) == "zh" and script_of(["好", "a b c"]) == "en"


def test_an_unknown_language_is_an_error() -> None:
    for language in ("auto", "zh", "ja", "en"):
        check_language(language)
    with pytest.raises(ConfigError, match="Did you mean 'auto'"):
        check_language("aut")


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    require("numpy", "generation", "BLEU")
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"BLEU needs the package sacrebleu.*pip install 'foretune\[generation\]'"
    ):
        require("sacrebleu", "generation", "BLEU")
