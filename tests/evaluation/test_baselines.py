from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from foretune.errors import ConfigError, DataError
from foretune.evaluation import baselines as room
from foretune.evaluation.baselines import baselines, needs_characters

DATA = Path(__file__).parents[3] / "shared" / "data" / "text"
GOOD, BAD = (
    ["a fine and moving film", "truly great acting"],
    ["a dull waste of time", "boring and awful plot"],
)
HAO, HUAI = ["房间很干净，服务也好", "位置好，早餐不错"], ["太吵了，卫生很差", "服务差，再也不来"]


def corpus(good: list[str], bad: list[str], copies: int = 5) -> tuple[list[str], np.ndarray]:
    return (good + bad) * copies, np.array([1] * len(good) + [0] * len(bad)).repeat(1).tolist() * copies


def run(good: list[str] = GOOD, bad: list[str] = BAD, **options: object) -> dict:
    texts, labels = corpus(good, bad)
    return baselines(texts, np.array(labels), texts, np.array(labels), 2, **options)


def test_words_that_tell_the_class_beat_the_majority() -> None:
    found = run()
    assert found["majority"]["accuracy"]["value"] == 0.5
    assert found["tfidf_logreg"]["accuracy"]["value"] == 1.0
    assert found["tfidf_logreg"]["rows"] == 20 and found["tfidf_logreg"]["seconds"] > 0
    assert found["tfidf_logreg"]["features"] == "words 1-2-grams" and "note" not in found["tfidf_logreg"]
    for scores in found.values():
        for name in ("accuracy", "macro_f1"):
            assert scores[name]["low"] <= scores[name]["value"] <= scores[name]["high"]


def test_chinese_is_read_by_characters() -> None:
    found = run(HAO, HUAI)["tfidf_logreg"]
    assert found["features"].startswith("characters") and found["accuracy"]["value"] == 1.0


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (GOOD, False),
        (HAO, True),
        (["これはとても面白い映画です"], True),
        (["อาหารอร่อยมาก"], True),
        (["이 영화는 정말 재미있어요"], True),
        (["Это очень хороший фильм", "C'est très bon"], False),
        (["1234", "", "!?"], False),
        (["very good 好"], False),
        (GOOD * 10 + HAO[:1], False),  # 1 of 21 is under 10 %
        (GOOD * 4 + HAO[:1], True),  # 1 of 9 is over
    ],
)
def test_which_texts_need_characters(texts: list[str], expected: bool) -> None:
    assert needs_characters(texts) is expected


def test_it_is_deterministic_by_seed() -> None:
    first, second = (run(max_rows=9, seed=4) for _ in range(2))
    for found in (first, second):
        found["tfidf_logreg"].pop("seconds")
    assert first == second and first["tfidf_logreg"]["rows"] == 9


def test_a_choice_of_rows_keeps_every_class() -> None:
    labels = np.array([0] * 500 + [1] * 2 + [2])
    rows = room._choose_rows(labels, 10, seed=0)
    assert len(rows) == len(set(rows.tolist())) == 10 and set(labels[rows]) == {0, 1, 2}
    assert len(room._choose_rows(labels, 2, seed=0)) == 2


def test_a_class_missing_in_training_is_simply_never_predicted() -> None:
    texts, labels = corpus(GOOD, BAD)
    found = baselines(texts, np.array(labels), ["a fine film", "other"], np.array([1, 2]), 3)
    assert found["tfidf_logreg"]["accuracy"]["value"] == 0.5


@pytest.mark.parametrize(
    ("texts", "labels", "says"),
    [
        (["", "  "], [0, 1], "no words"),
        (["!!", "??"], [0, 1], "no words"),
        (["good", "fine"], [1, 1], "only one class"),
        (["one"], [0], "only one class"),
    ],
)
def test_what_cannot_be_fitted_falls_back_to_the_majority_and_says_so(
    texts: list, labels: list, says: str
) -> None:
    found = baselines(texts, np.array(labels), ["good", "bad"], np.array([0, 1]), 2)
    assert says in found["tfidf_logreg"]["note"]
    assert found["tfidf_logreg"]["accuracy"] == found["majority"]["accuracy"]


def test_two_rows_and_mixed_empty_texts_are_enough() -> None:
    found = baselines(["good", ""], np.array([1, 0]), ["good", "", "unseen 词"], np.array([1, 0, 0]), 2)
    assert found["tfidf_logreg"]["accuracy"]["value"] >= 2 / 3


def test_many_classes_bound_the_features(monkeypatch: pytest.MonkeyPatch) -> None:
    assert room._vectorizer(False, 2).max_features == room.MAX_FEATURES
    assert room._vectorizer(False, 400).max_features == 5000
    halves = [part.max_features for _, part in room._vectorizer(True, 400).transformer_list]
    assert halves == [2500, 2500]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"train_labels": np.array([0])}, "one each"),
        ({"train_labels": np.array([0, 5])}, "from 0 to 1"),
        ({"train_labels": np.array([0.0, 1.0])}, "whole numbers"),
        ({"test_texts": [], "test_labels": np.array([], dtype=int)}, "test split has 0"),
        ({"train_texts": ["good", None]}, "NoneType"),
        ({"test_texts": ["good", 3.5]}, "float"),
    ],
)
def test_data_that_do_not_fit_are_errors(changed: dict, says: str) -> None:
    good = {
        "train_texts": ["good", "bad"],
        "train_labels": np.array([1, 0]),
        "test_texts": ["good", "bad"],
        "test_labels": np.array([1, 0]),
    }
    with pytest.raises(DataError, match=says):
        baselines(**{**good, **changed}, n_classes=2)


def test_a_bad_option_is_an_error() -> None:
    with pytest.raises(ConfigError, match="max_rows"):
        run(max_rows=0)


def read(path: Path) -> tuple[list[str], list[str]]:
    if not path.exists():
        pytest.skip(f"needs {path.name} of {path.parent.name} in shared/data, which is not here")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row["text"] for row in rows], [row["label"] for row in rows]


@pytest.mark.parametrize(("name", "test", "reference"), [("trec6", "test", 0.882), ("sst2", "dev", 0.735)])
def test_real_texts_score_as_this_method_is_known_to(name: str, test: str, reference: float) -> None:
    texts, labels = read(DATA / name / "train.csv")
    test_texts, test_labels = read(DATA / name / f"{test}.csv")
    names = sorted(set(labels))
    ids, test_ids = (np.array([names.index(x) for x in found]) for found in (labels, test_labels))
    rows = 6000 if name == "trec6" else 2000
    found = baselines(texts, ids, test_texts, test_ids, len(names), max_rows=rows)["tfidf_logreg"]
    assert found["accuracy"]["value"] == pytest.approx(reference, abs=0.03)
