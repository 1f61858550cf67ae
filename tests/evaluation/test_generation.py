from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from foretune.errors import ConfigError, DataError
from foretune.evaluation import extras
from foretune.evaluation.generation import GENERATION_METRICS, RougeTokenizer, TextScores, bleu, chrf

WORDS = ["the", "a", "cat", "dog", "sits", "runs,", "on", "under", "mat.", "house"]
WORDS += ["(old)", "U.S.", "3.5", "state-of-the-art", "Tiere", "schön"]
HAN = "今天天气很好我们去公园吧他喜欢看书"


def texts(n: int = 60, seed: int = 0, references: int = 1) -> tuple[list[str], list[list[str]]]:
    rng = random.Random(seed)
    known = [
        [" ".join(rng.choices(WORDS, k=rng.randint(3, 14))) for _ in range(references)] for _ in range(n)
    ]
    noisy = [
        " ".join(rng.choice(WORDS) if rng.random() < 0.25 else word for word in refs[0].split())
        for refs in known
    ]
    return noisy, known


def chinese(n: int = 40, seed: int = 0) -> tuple[list[str], list[list[str]]]:
    rng = random.Random(seed)
    known = ["".join(rng.choices(HAN, k=rng.randint(4, 12))) + "。" for _ in range(n)]
    noisy = ["".join(rng.choice(HAN) if rng.random() < 0.3 else c for c in text) for text in known]
    return noisy, [[text] for text in known]


def scored(hypotheses: list[str], references: list[list[str]], **options: Any) -> TextScores:
    scores = TextScores(**options)
    for start in range(0, len(hypotheses), 16):
        scores.update(hypotheses[start : start + 16], references[start : start + 16])
    return scores


def streams(references: list[list[str]]) -> list[list[str]]:
    """References as sacrebleu wants them: one stream per reference."""
    return [list(stream) for stream in zip(*references, strict=True)]


@pytest.mark.parametrize(("seed", "references"), [(0, 1), (1, 1), (2, 3)])
def test_bleu_and_chrf_agree_with_sacrebleu(seed: int, references: int) -> None:
    hypotheses, known = texts(seed=seed, references=references)
    point = scored(hypotheses, known, metrics=("bleu", "chrf")).point()
    assert point["bleu"] == pytest.approx(sacrebleu.corpus_bleu(hypotheses, streams(known)).score)
    assert point["chrf"] == pytest.approx(sacrebleu.corpus_chrf(hypotheses, streams(known)).score)
    assert 10 < point["bleu"] < 90


def test_chinese_is_tokenised_as_chinese() -> None:
    hypotheses, known = chinese()
    point = scored(hypotheses, known, metrics=("bleu",)).point()
    expected = sacrebleu.corpus_bleu(hypotheses, streams(known), tokenize="zh").score
    assert point["bleu"] == pytest.approx(expected) and expected > 20
    assert scored(hypotheses, known, metrics=("bleu",), language="zh").point() == point
    assert scored(hypotheses, known, metrics=("bleu",), language="en").point()["bleu"] < 5


def test_japanese_is_tokenised_by_characters() -> None:
    hypotheses, known = ["これは本です", "猫がいます"], [["それは本です"], ["犬がいます"]]
    expected = sacrebleu.corpus_bleu(hypotheses, streams(known), tokenize="char").score
    assert scored(hypotheses, known, metrics=("bleu",)).point()["bleu"] == pytest.approx(expected)


@given(
    st.lists(st.tuples(st.text("ab c.", max_size=12), st.text("ab c.", max_size=12)), min_size=1, max_size=4)
)
@settings(max_examples=150, deadline=None)
def test_short_and_empty_texts_agree_with_sacrebleu(pairs: list[tuple[str, str]]) -> None:
    hypotheses, known = [pair[0] for pair in pairs], [[pair[1]] for pair in pairs]
    point = scored(hypotheses, known, metrics=("bleu", "chrf")).point()
    assert point["bleu"] == pytest.approx(sacrebleu.corpus_bleu(hypotheses, streams(known)).score, abs=1e-9)
    assert point["chrf"] == pytest.approx(sacrebleu.corpus_chrf(hypotheses, streams(known)).score, abs=1e-9)


def test_many_sums_at_once_are_scored_one_by_one() -> None:
    rng = np.random.default_rng(0)
    totals = rng.integers(0, 30, (50, 4))
    hits = rng.integers(0, totals + 1)
    sums = np.concatenate([rng.integers(1, 40, (50, 2)), hits, totals], axis=1).astype(float)
    counter = sacrebleu.metrics.BLEU()
    expected = [counter._compute_score_from_stats(row).score for row in sums.tolist()]
    np.testing.assert_allclose(bleu(sums), expected, atol=1e-9)
    sides = rng.integers(0, 20, (50, 6, 2))
    grams = np.concatenate([sides, rng.integers(0, sides.min(axis=2, keepdims=True) + 1)], axis=2)
    grams = grams.reshape(50, 18).astype(float)
    known = [sacrebleu.metrics.CHRF()._compute_f_score(row) for row in grams.tolist()]
    np.testing.assert_allclose(chrf(grams), known, atol=1e-9)


@pytest.mark.parametrize("stem", [False, True])
@pytest.mark.parametrize("references", [1, 2])
def test_rouge_agrees_with_rouge_score_on_ascii(stem: bool, references: int) -> None:
    hypotheses, known = texts(references=references)
    hypotheses = [text.replace("ö", "o") for text in hypotheses]
    known = [[text.replace("ö", "o") for text in refs] for refs in known]
    library = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=stem)
    each = [library.score_multi(refs, text) for text, refs in zip(hypotheses, known, strict=True)]
    point = scored(hypotheses, known, metrics=("rouge1", "rouge2", "rougel"), stem=stem).point()
    for name, kind in (("rouge1", "rouge1"), ("rouge2", "rouge2"), ("rougel", "rougeL")):
        assert point[name] == pytest.approx(np.mean([one[kind].fmeasure for one in each]))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("The U.S. state-of-the-art, 3.5!", ["the", "u", "s", "state", "of", "the", "art", "3", "5"]),
        ("für Übung_1", ["für", "übung", "1"]),
        ("今天很好 OK。", ["今", "天", "很", "好", "ok"]),
        ("用GPU训练", ["用", "gpu", "训", "练"]),
        ("Москва", ["москва"]),
        ("", []),
    ],
)
def test_rouge_tokens(text: str, tokens: list[str]) -> None:
    assert RougeTokenizer().tokenize(text) == tokens


def test_stemming_is_porters_and_leaves_other_alphabets_alone() -> None:
    assert RougeTokenizer(stem=True).tokenize("running the houses übungen") == [
        "run",
        "the",
        "hous",
        "übungen",
    ]


def test_chinese_rouge_counts_characters() -> None:
    point = scored(["今天很好"], [["今天很坏"]], metrics=("rouge1", "rouge2", "rougel")).point()
    assert point == pytest.approx({"rouge1": 0.75, "rouge2": 2 / 3, "rougel": 0.75})


def test_result_is_json_with_intervals_around_the_points() -> None:
    scores = scored(*texts())
    result = json.loads(json.dumps(scores.result(seed=1)))
    assert [*result] == [*GENERATION_METRICS, "n"] and result["n"] == 60 and all(GENERATION_METRICS.values())
    for name, value in scores.point().items():
        assert result[name]["value"] == pytest.approx(value)
        top = 100 if name in ("bleu", "chrf") else 1
        assert 0 < result[name]["low"] < value < result[name]["high"] < top


def test_the_interval_is_sacrebleus_bootstrap() -> None:
    hypotheses, known = texts(120)
    interval = scored(hypotheses, known, metrics=("bleu",)).result()["bleu"]
    library = sacrebleu.metrics.BLEU().corpus_score(hypotheses, streams(known), n_bootstrap=400)
    assert (interval["high"] - interval["low"]) / 2 == pytest.approx(library._ci, rel=0.15)


def test_perfect_texts_have_an_interval_that_is_not_empty() -> None:
    _, known = texts(20)
    result = scored([refs[0] for refs in known], known).result()
    assert result["bleu"]["value"] == pytest.approx(100) and 70 < result["bleu"]["low"] < 90
    assert result["rouge1"]["value"] == 1 and 0.7 < result["rouge1"]["low"] < 0.9


def test_the_number_of_references_may_differ() -> None:
    scores = TextScores(metrics=("bleu", "chrf", "rouge1"))
    scores.update(["a cat sat here", "a dog ran off"], [["no", "a cat sat here"], ["a dog ran off"]])
    assert scores.point() == pytest.approx({"bleu": 100, "chrf": 100, "rouge1": 1})


def test_only_counts_are_kept() -> None:
    scores = scored(*texts())
    assert all(part.shape[1] == 1 + 10 + 18 + 3 and part.dtype == float for part in scores._parts)


@pytest.mark.parametrize(
    ("hypotheses", "references", "says"),
    [(["a"], [], "per reference"), (["a"], [[]], "at least 1"), (["a"], ["a"], "Wrap a single")],
)
def test_bad_input_is_an_error_and_changes_nothing(hypotheses: list, references: list, says: str) -> None:
    scores = TextScores(metrics=("bleu",))
    with pytest.raises(DataError, match=says):
        scores.update(hypotheses, references)
    assert scores.n == 0


def test_misuse_is_an_error() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'rouge1'"):
        TextScores(metrics=("rogue1",))
    with pytest.raises(ConfigError, match="Unknown metrics"):
        TextScores(metrics=())
    with pytest.raises(ConfigError, match="Unknown language"):
        TextScores(language="fr")
    scores = TextScores()
    scores.update([], [])
    with pytest.raises(DataError, match="no examples"):
        scores.result()


@pytest.mark.parametrize(("metric", "package"), [("bleu", "sacrebleu"), ("rougel", "rouge_score")])
def test_a_missing_package_names_the_extra(
    metric: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == package else name)
    with pytest.raises(ConfigError, match=r"foretune\[generation\]"):
        TextScores(metrics=(metric,))
    TextScores(metrics=("chrf" if metric == "rougel" else "rouge1",))  # the others need it not
