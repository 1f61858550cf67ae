from __future__ import annotations

import json
import random

import numpy as np
import pytest
from seqeval import metrics as seqeval
from seqeval.scheme import IOB2
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from foretune.errors import ConfigError, DataError
from foretune.evaluation import summed
from foretune.evaluation.entities import (
    ENTITY_METRICS,
    TAG_METRICS,
    EntityScores,
    TagScores,
    spans_of_tags,
)
from foretune.evaluation.intervals import clopper_pearson

TAGS = ["O", "O", "O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-MISC", "I-MISC"]


def sentences(n: int = 150, seed: int = 0, noise: float = 0.15) -> tuple[list[list[str]], list[list[str]]]:
    """Predicted and true tags."""
    rng = random.Random(seed)
    true = [[rng.choice(TAGS) for _ in range(rng.randint(1, 15))] for _ in range(n)]
    predicted = [[rng.choice(TAGS) if rng.random() < noise else tag for tag in sentence] for sentence in true]
    return predicted, true


def scored(predicted: list[list[str]], true: list[list[str]], strict: bool = False) -> EntityScores:
    scores = EntityScores()
    for start in range(0, len(true), 40):
        part = slice(start, start + 40)
        decoded = ([spans_of_tags(tags, "BIO", strict) for tags in side[part]] for side in (predicted, true))
        scores.update(*decoded)
    return scores


@pytest.mark.parametrize("seed", range(3))
def test_default_spans_give_seqevals_default_scores(seed: int) -> None:
    predicted, true = sentences(seed=seed)
    expected = {
        "f1": seqeval.f1_score(true, predicted),
        "precision": seqeval.precision_score(true, predicted),
        "recall": seqeval.recall_score(true, predicted),
    }
    assert scored(predicted, true).point() == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_strict_spans_give_seqevals_strict_scores(seed: int) -> None:
    predicted, true = sentences(seed=seed)
    strict = seqeval.f1_score(true, predicted, mode="strict", scheme=IOB2)
    found = scored(predicted, true, strict=True).point()["f1"]
    assert found == pytest.approx(strict) and found != scored(predicted, true).point()["f1"]


def test_types_agree_with_seqevals_report() -> None:
    predicted, true = sentences()
    report = seqeval.classification_report(true, predicted, output_dict=True)
    result = scored(predicted, true).result()
    assert [row["label"] for row in result["per_type"]] == ["LOC", "MISC", "PER"]
    for row in result["per_type"]:
        known = report[row["label"]]
        assert [row["precision"], row["recall"], row["f1"]["value"], row["support"]] == pytest.approx(
            [known["precision"], known["recall"], known["f1-score"], known["support"]]
        )
        assert row["f1"]["low"] < row["f1"]["value"] < row["f1"]["high"]
    assert result["entities"] == report["micro avg"]["support"] and result["n"] == 150


def test_entity_result_is_json_with_intervals_around_the_points() -> None:
    scores = scored(*sentences())
    result = json.loads(json.dumps(scores.result()))
    assert [*result] == [*ENTITY_METRICS, "per_type", "entities", "n"]
    for name, value in scores.point().items():
        assert result[name]["value"] == pytest.approx(value)
        assert result[name]["low"] < value < result[name]["high"]


def test_the_interval_is_that_of_resampled_sentences() -> None:
    predicted, true = sentences(60)
    rng, by_hand = random.Random(1), []
    for _ in range(150):
        rows = [rng.randrange(60) for _ in range(60)]
        by_hand.append(scored([predicted[i] for i in rows], [true[i] for i in rows]).point()["f1"])
    interval = scored(predicted, true).result()["f1"]
    assert interval["high"] - interval["low"] == pytest.approx(
        np.subtract(*np.quantile(by_hand, [0.975, 0.025])), rel=0.2
    )


def test_start_end_and_label_must_all_be_right() -> None:
    scores = EntityScores()
    truth = (2, 4, "PER")
    scores.update([[(2, 4, "LOC")], [(2, 3, "PER")], [(1, 4, "PER")], [truth, truth], []], [[truth]] * 5)
    assert scores.point() == pytest.approx({"precision": 1 / 4, "recall": 1 / 5, "f1": 2 / 9})


def test_overlapping_spans_count_each() -> None:
    scores = EntityScores()
    scores.update([[(0, 3, "ORG"), (1, 2, "LOC")]], [[(0, 3, "ORG"), (1, 2, "LOC"), (0, 1, "LOC")]])
    assert scores.point()["recall"] == pytest.approx(2 / 3)


def test_sentences_without_entities_score_nothing_and_pass() -> None:
    scores = EntityScores()
    scores.update([[], []], [[], []])
    result = scores.result()
    assert result["f1"]["value"] == 0 and result["per_type"] == [] and result["n"] == 2


def test_a_perfect_tagger_has_an_interval_that_is_not_empty() -> None:
    _, true = sentences(30)
    interval = scored(true, true).result()["f1"]
    assert interval["value"] == 1 and interval["low"] == pytest.approx(clopper_pearson(30, 30)[0])


def test_groups_of_sentences_change_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    entities, tags = scored(*sentences(90)), tag_scores(*tagged(90))
    whole = [(scores.point(), scores.result()) for scores in (entities, tags)]
    monkeypatch.setattr(summed, "GROUPS", 40)
    for scores, (point, result) in zip((entities, tags), whole, strict=True):
        assert scores.rows().shape[0] == 40 and scores.rows()[:, 0].tolist() == [3] * 10 + [2] * 30
        assert scores.point() == point
        ours, theirs = scores.result(), result
        for name in point:
            assert ours[name]["low"] == pytest.approx(theirs[name]["low"], abs=0.03)


def test_bad_spans_are_errors_and_change_nothing() -> None:
    scores = EntityScores()
    for predicted, says in (
        ([], "per sentence"),
        ([[(3, 3, "PER")]], "covers nothing"),
        ([[(-1, 2, "A")]], "-1"),
    ):
        with pytest.raises(DataError, match=says):
            scores.update(predicted, [[(0, 1, "PER")]])
    assert scores.n == 0 and scores.labels == []
    for call in (scores.result, scores.point):
        with pytest.raises(DataError, match="no examples"):
            call()


def tagged(n: int = 120, classes: int = 6, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    true = [rng.integers(0, classes, rng.integers(1, 20)) for _ in range(n)]
    predicted = [np.where(rng.random(len(t)) < 0.8, t, rng.integers(0, classes, len(t))) for t in true]
    return predicted, true


def tag_scores(predicted: list[np.ndarray], true: list[np.ndarray], classes: int = 6) -> TagScores:
    scores = TagScores(classes)
    for start in range(0, len(true), 50):
        scores.update(predicted[start : start + 50], true[start : start + 50])
    return scores


def test_tags_agree_with_sklearn() -> None:
    predicted, true = tagged()
    scores = tag_scores(predicted, true)
    words, known = np.concatenate(predicted), np.concatenate(true)
    assert scores.point() == pytest.approx(
        {"accuracy": accuracy_score(known, words), "macro_f1": f1_score(known, words, average="macro")}
    )
    result = json.loads(json.dumps(scores.result()))
    assert [*result] == [*TAG_METRICS, "per_class", "confusion", "words", "n"]
    assert result["confusion"] == confusion_matrix(known, words).tolist()
    assert result["words"] == len(words) == sum(row["support"] for row in result["per_class"])
    each = [result["accuracy"], result["macro_f1"], *(row["f1"] for row in result["per_class"])]
    assert all(i["low"] < i["value"] < i["high"] for i in each) and result["n"] == 120


def test_words_of_a_sentence_do_not_count_as_independent() -> None:
    # Each sentence is wholly right or wholly wrong: 40 observations, not 400.
    true = [np.zeros(10, dtype=int)] * 40
    predicted = [np.full(10, i % 4 == 0, dtype=int) for i in range(40)]
    interval = tag_scores(predicted, true).result()["accuracy"]
    assert interval["value"] == 0.75 and interval["high"] - interval["low"] == pytest.approx(
        2 * 1.96 * (0.75 * 0.25 / 40) ** 0.5, rel=0.2
    )


@pytest.mark.parametrize(
    ("predicted", "true", "says"),
    [
        ([[0, 1]], [[0]], "one prediction per word"),
        ([[0]], [[0], [1]], "per sentence"),
        ([[0]], [[-100]], "Leave ignored"),
        ([[9]], [[0]], "0 to 5"),
        ([[0.5]], [[0]], "tag ids"),
    ],
)
def test_bad_tags_are_errors_and_change_nothing(predicted: list, true: list, says: str) -> None:
    scores = TagScores(6)
    with pytest.raises(DataError, match=says):
        scores.update(predicted, true)
    assert scores.n == scores.words == 0


def test_misuse_of_tags_is_an_error() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        TagScores(0)
    scores = TagScores(2)
    scores.update([[]], [[]])
    for call in (scores.result, scores.point):
        with pytest.raises(DataError, match="no examples"):
            call()
