from __future__ import annotations

import json
import random

import jiwer
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretune.errors import ConfigError, DataError
from foretune.evaluation import extras
from foretune.evaluation.transcription import (
    TRANSCRIPTION_METRICS,
    TranscriptionScores,
    edits,
    normalise_transcript,
)

WORDS = ["yes", "no", "one", "two", "three", "four", "alpha", "beta"]


def utterances(n: int = 80, seed: int = 0) -> tuple[list[str], list[str]]:
    """Recognised and spoken texts."""
    rng = random.Random(seed)
    spoken = [[rng.choice(WORDS) for _ in range(rng.randint(2, 9))] for _ in range(n)]
    heard = [
        [rng.choice(WORDS) if rng.random() < 0.15 else w for w in words if rng.random() > 0.08]
        + [rng.choice(WORDS)] * (rng.random() < 0.2)
        for words in spoken
    ]
    return [" ".join(words) for words in heard], [" ".join(words) for words in spoken]


def scored(hypotheses: list[str], references: list[str], normalise: bool = True) -> TranscriptionScores:
    scores = TranscriptionScores(normalise)
    for start in range(0, len(references), 32):
        scores.update(hypotheses[start : start + 32], references[start : start + 32])
    return scores


@pytest.mark.parametrize("seed", range(3))
def test_rates_and_edits_agree_with_jiwer(seed: int) -> None:
    hypotheses, references = utterances(seed=seed)
    result = scored(hypotheses, references, normalise=False).result()
    words, characters = (
        jiwer.process_words(references, hypotheses),
        jiwer.process_characters(references, hypotheses),
    )
    assert result["wer"]["value"] == pytest.approx(words.wer)
    assert result["cer"]["value"] == pytest.approx(characters.cer)
    for unit, known in (("words", words), ("characters", characters)):
        for name in ("substitutions", "insertions", "deletions", "hits"):
            assert result[unit][name] == getattr(known, name)


@given(st.lists(st.sampled_from("abc"), max_size=8), st.lists(st.sampled_from("abc"), min_size=1, max_size=8))
@settings(max_examples=100, deadline=None)
def test_edits_lead_from_one_length_to_the_other(hypothesis: list[str], reference: list[str]) -> None:
    substitutions, insertions, deletions, hits = edits(hypothesis, reference)
    assert substitutions + deletions + hits == len(reference)
    assert substitutions + insertions + hits == len(hypothesis)
    wrong = jiwer.wer(" ".join(reference), " ".join(hypothesis)) * len(reference)
    assert substitutions + insertions + deletions == pytest.approx(wrong)


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("Hello, World!", "hello world"),
        ("don't — it’s “fine”", "dont its fine"),
        ("Ｆｕｌｌ　ｗｉｄｔｈ", "full width"),
        ("Straße ÜBER", "strasse über"),
        ("今天 天气，很 好！", "今天天气很好"),
        ("用 GPU 训练", "用gpu训练"),
        ("twenty-one 3.5", "twenty one 3 5"),
        (" ... ", ""),
    ],
)
def test_transcripts_are_compared_as_they_are_spoken(written: str, spoken: str) -> None:
    assert normalise_transcript(written) == spoken
    assert normalise_transcript(spoken) == spoken


def test_the_normaliser_can_be_switched_off() -> None:
    assert scored(["hello world"], ["Hello, world!"]).point() == {"wer": 0, "cer": 0}
    assert scored(["hello world"], ["Hello, world!"], normalise=False).point()["wer"] == 1


def test_chinese_is_scored_by_characters() -> None:
    scores = scored(["今天天气很好", "我们走吧"], ["今天天汽很好。", "我们走"])
    result = scores.result()
    assert result["headline"] == "cer" and result["cer"]["value"] == pytest.approx(2 / 9)
    assert result["characters"] == {
        "substitutions": 1,
        "insertions": 1,
        "deletions": 0,
        "hits": 8,
        "reference": 9,
    }
    assert result["wer"]["value"] == 1  # each sentence is one "word", and none is wholly right
    assert scored(*utterances()).headline == "wer"


def test_result_is_json_with_intervals_around_the_points() -> None:
    scores = scored(*utterances())
    result = json.loads(json.dumps(scores.result()))
    assert [*result] == [*TRANSCRIPTION_METRICS, "headline", "words", "characters", "n"] and result["n"] == 80
    assert not any(TRANSCRIPTION_METRICS.values())
    for name, value in scores.point().items():
        assert result[name]["value"] == pytest.approx(value)
        assert result[name]["low"] < value < result[name]["high"]


def test_more_words_than_were_said_are_more_than_one_error_per_word() -> None:
    assert scored(["yes yes yes"], ["no"]).point()["wer"] == 3


def test_without_an_error_the_interval_is_not_empty() -> None:
    _, references = utterances(10)
    interval = scored(references, references).result()["wer"]
    assert interval["value"] == 0 and interval["high"] == pytest.approx(0.3085, abs=1e-4)


def test_silence_that_is_heard_as_words_counts() -> None:
    scores = scored(["yes", "no"], ["", "no"])
    assert scores.point()["wer"] == 1 and scores.result()["words"]["insertions"] == 1


def test_references_without_words_are_an_error() -> None:
    scores = scored(["yes"], ["?!"])
    for call in (scores.point, scores.result):
        with pytest.raises(DataError, match="hold no words"):
            call()


def test_bad_input_is_an_error_and_changes_nothing() -> None:
    scores = TranscriptionScores()
    with pytest.raises(DataError, match="per utterance"):
        scores.update(["a"], ["a", "b"])
    with pytest.raises(DataError, match="into a list"):
        scores.update("a", "a")
    scores.update([], [])
    assert scores.n == 0
    with pytest.raises(DataError, match="no examples"):
        scores.result()


def test_without_jiwer_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"foretune\[audio\]"):
        TranscriptionScores()
