from __future__ import annotations

import numpy as np
import pytest

from foretune.evaluation.text_baselines import lead, nearest, score_texts, sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("It costs 3.5 dollars. Fine.", ["It costs 3.5 dollars.", "Fine."]),
        ('He said "go." She went', ['He said "go."', "She went"]),
        ("今天很好。我们走吧！好", ["今天很好。", "我们走吧！", "好"]),
        ("no mark at all", ["no mark at all"]),
        ("a title\nThe text.", ["a title", "The text."]),
        ("", []),
    ],
)
def test_sentences_end_at_their_marks(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def test_lead_takes_what_there_is() -> None:
    assert lead("One. Two. Three.", 2) == "One. Two."
    assert lead("One.", 3) == "One."


@pytest.mark.parametrize(
    ("train", "texts", "expected"),
    [
        (["a red cat", "a blue dog", "green birds"], ["two blue dogs and a dog", "green"], [1, 2]),
        (["今天下雨", "我喜欢猫"], ["猫很可爱", "雨下大了"], [1, 0]),
        (["!", "?"], ["anything"], [0]),
    ],
)
def test_the_nearest_text_shares_the_most_telling_words(
    train: list[str], texts: list[str], expected: list[int]
) -> None:
    assert nearest(train, texts).tolist() == expected


def test_many_training_texts_are_sampled_with_a_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    from foretune.evaluation import text_baselines

    monkeypatch.setattr(text_baselines, "MOST_ROWS", 5)
    train = [f"word{number}" for number in range(50)]
    found = nearest(train, train, seed=1)
    assert len(set(found[np.isin(np.arange(50), found)].tolist())) == 5
    assert (nearest(train, train, seed=1) == found).all()
    assert (nearest(train, train, seed=2) != found).any()


def test_scores_have_intervals() -> None:
    written = ["the cat sat on the mat today"] * 9 + ["nothing of it"]
    result = score_texts(written, ["the cat sat on the mat today"] * 10, ("bleu", "chrf"), 0)
    assert list(result) == ["bleu", "chrf"]
    assert 0 < result["bleu"]["low"] < result["bleu"]["value"] < 100


def test_several_references_all_count():
    written = ["the cat sat on the mat today"] * 2
    several = [["a dog ran", written[0]], written[1]]
    assert score_texts(written, several, ("bleu", "rouge1"), 0)["bleu"]["value"] == pytest.approx(100)
    one = score_texts(written, ["a dog ran", written[1]], ("bleu", "rouge1"), 0)
    assert one["rouge1"]["value"] == pytest.approx(0.5)
