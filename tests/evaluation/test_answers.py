from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretune.errors import ConfigError, DataError
from foretune.evaluation.answers import (
    ANSWER_METRICS,
    AnswerScores,
    cmrc_units,
    normalise_answer,
    score_answer,
)


@pytest.mark.parametrize(
    ("prediction", "answers", "exact", "f1"),
    [
        ("The Cat!", ["cat"], 1, 1),
        ("an  old\tU.S. ship", ["old US ship"], 1, 1),
        ("black cat", ["cat", "a black dog"], 0, 2 / 3),
        ("cat cat", ["cat"], 0, 2 / 3),  # a word counts as often as it stands on both sides
        ("dog", ["cat"], 0, 0),
        ("", [], 1, 1),
        ("", [""], 1, 1),
        ("cat", [], 0, 0),
        ("", ["cat"], 0, 0),
        ("The", ["cat"], 0, 0),
        ("the", [], 1, 1),  # an article alone is the empty answer
        ("cat", ["the", "cat"], 1, 1),
        ("Ångström", ["ångström"], 1, 1),
        ("2015", ["2015"], 1, 1),
    ],
)
def test_english_answers_by_the_rule_of_squad(
    prediction: str, answers: list[str], exact: int, f1: float
) -> None:
    assert score_answer(prediction, answers) == pytest.approx((exact, f1))
    assert score_answer(prediction, answers, "en") == pytest.approx((exact, f1))


@pytest.mark.parametrize(
    ("prediction", "answers", "exact", "f1"),
    [
        ("北京", ["北京"], 1, 1),
        ("《红楼梦》", ["红楼梦。"], 1, 1),
        ("在北京市", ["北京"], 0, 2 * 2 / (4 + 2)),
        ("北中京", ["北京"], 0, 2 * 1 / (3 + 2)),  # one run, not characters in order
        ("使用NBA球员", ["NBA"], 0, 2 * 1 / (5 + 1)),  # a word is one unit
        ("2015年", ["2015"], 0, 2 * 1 / (2 + 1)),
        ("上海", ["北京", "上海市"], 0, 2 * 2 / (2 + 3)),
        ("上海", [], 0, 0),
        ("", ["上海"], 0, 0),
        ("NBA 球", ["nba 球"], 1, 1),
        ("55.1%。", ["55.1%"], 1, 1),  # a Chinese mark tells the language too
    ],
)
def test_chinese_answers_by_the_rule_of_cmrc(
    prediction: str, answers: list[str], exact: int, f1: float
) -> None:
    assert score_answer(prediction, answers) == pytest.approx((exact, f1))
    assert score_answer(prediction, answers, "zh") == pytest.approx((exact, f1))


def test_no_answer_is_right_in_both_languages() -> None:
    assert score_answer("", [], "zh") == score_answer("", [""], "zh") == score_answer("", [], "en") == (1, 1)


def test_normalisation_takes_punctuation_before_articles() -> None:
    assert normalise_answer("  The  “A.” team's an-the ") == "“ ” teams anthe"


@given(
    st.text("abtheTHE .,-é'", max_size=16),
    st.lists(st.text("abtheTHE .,-é'", min_size=1, max_size=16), min_size=1, max_size=3),
)
@settings(max_examples=100, deadline=None)
def test_torchmetrics_agrees_on_english(prediction: str, answers: list[str]) -> None:
    squad = pytest.importorskip("torchmetrics.functional.text").squad
    # The official script gives no F1 to two empty answers in SQuAD 1.1; version 2, which we follow, does.
    answers = [answer for answer in answers if normalise_answer(answer)] or ["a bat"]
    scores = squad(
        [{"prediction_text": prediction, "id": "1"}],
        [{"id": "1", "answers": {"text": answers, "answer_start": [0] * len(answers)}}],
    )
    expected = (float(scores["exact_match"]) / 100, float(scores["f1"]) / 100)
    assert score_answer(prediction, answers, "en") == pytest.approx(expected)


@pytest.mark.parametrize(
    "text",
    [
        "3.5 kg",
        "10,000 people",
        "u.s army",
        "in 1999, then",
        "50%",
        "iphone 4s",
        "(a) b",
        "a1 b2",
        "30°c",
        "terry a. gates",
        "a—b",
        "wait... go",
        "«a»",
    ],
)
def test_words_between_chinese_characters_are_those_of_nltk(text: str) -> None:
    nltk = pytest.importorskip("nltk.tokenize.destructive")
    expected = nltk.NLTKWordTokenizer().tokenize(text)
    assert cmrc_units(f"共{text}了") == ["共", *expected, "了"]


def official_lcs(one: list[str], other: list[str]) -> int:
    """The longest common run by dynamic programming, the way the official script finds it."""
    best, before = 0, [0] * (len(other) + 1)
    for unit in one:
        row = [0] + [before[j] + 1 if unit == known else 0 for j, known in enumerate(other)]
        best, before = max(best, *row), row
    return best


@given(st.text("北京上海a ，", max_size=12), st.text("北京上海a ，", max_size=12))
@settings(max_examples=200, deadline=None)
def test_f1_is_that_of_the_longest_common_run(prediction: str, answer: str) -> None:
    ours, theirs = cmrc_units(prediction), cmrc_units(answer)
    expected = (
        2 * official_lcs(ours, theirs) / (len(ours) + len(theirs)) if ours and theirs else ours == theirs
    )
    assert score_answer(prediction, [answer], "zh")[1] == pytest.approx(float(expected))


@given(st.text("abthe .,", max_size=20), st.lists(st.text("abthe .,", max_size=20), max_size=3))
@settings(max_examples=200, deadline=None)
def test_an_exact_match_is_a_perfect_f1_and_both_lie_in_0_to_1(prediction: str, answers: list[str]) -> None:
    exact, f1 = score_answer(prediction, answers)
    assert exact in (0, 1) and 0 <= f1 <= 1 and (not exact or f1 == 1)


def scored(n: int = 60) -> AnswerScores:
    scores = AnswerScores()
    for i in range(0, n, 3):
        scores.update(
            ["red fox", "" if i % 2 else "cat", "the moon"], [["fox", "red"], [], ["moon", "the full moon"]]
        )
    return scores


def test_result_reports_both_kinds_of_questions() -> None:
    scores = scored()
    result = json.loads(json.dumps(scores.result()))
    assert [*result] == [*ANSWER_METRICS, "has_answer", "no_answer", "n"] and result["n"] == 60
    assert result["exact_match"]["value"] == pytest.approx(30 / 60) == scores.point()["exact_match"]
    assert result["has_answer"]["n"] == 40 and result["no_answer"]["n"] == 20
    assert result["has_answer"]["f1"]["value"] == pytest.approx((2 / 3 + 1) / 2)
    assert result["no_answer"]["exact_match"]["value"] == pytest.approx(0.5)
    each = [result["f1"], result["has_answer"]["f1"], result["no_answer"]["f1"]]
    assert all(i["low"] < i["value"] < i["high"] for i in each)


def test_only_answerable_questions_leave_the_other_half_empty() -> None:
    scores = AnswerScores()
    scores.update(["a cat", "dog"], [["cat"], ["fox"]])
    result = scores.result()
    assert result["no_answer"] == {"n": 0} and result["has_answer"]["n"] == 2
    assert result["has_answer"]["f1"] == result["f1"]


def test_only_numbers_are_kept() -> None:
    assert all(part.dtype == float and part.shape[1] == 6 for part in scored()._parts)


@pytest.mark.parametrize(
    ("predictions", "answers", "says"),
    [(["a"], [], "per question"), (["a"], ["a"], "list of right answers"), ([None], [["a"]], "empty text")],
)
def test_bad_input_is_an_error_and_changes_nothing(predictions: list, answers: list, says: str) -> None:
    scores = AnswerScores()
    with pytest.raises(DataError, match=says):
        scores.update(predictions, answers)
    assert scores.n == 0


def test_misuse_is_an_error() -> None:
    with pytest.raises(ConfigError, match="Unknown language 'cn'"):
        AnswerScores("cn")
    scores = AnswerScores()
    scores.update([], [])
    with pytest.raises(DataError, match="no examples"):
        scores.result()
