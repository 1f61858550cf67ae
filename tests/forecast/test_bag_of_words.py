"""What counted words tell of the labels, and of the texts only what a backbone reads."""

import numpy as np
import pytest

from foretune.data.store import CutReport
from foretune.forecast.bag_of_words import as_read, bag_of_words


def made(n, known):
    """Texts of six common words; of a share `known` the label stands in the text."""
    rng, targets = np.random.default_rng(0), np.arange(n) % 3
    rows = rng.choice(["one", "two", "three", "four", "five", "six"], (n, 6))
    told = rng.random(n) < known
    texts = [
        " ".join([*row, f"label{t}" if k else "none"]) for row, t, k in zip(rows, targets, told, strict=True)
    ]
    return texts, targets


def test_words_that_tell_the_label_are_found():
    assert bag_of_words(*made(150, 1.0)) > 0.95
    assert 0.2 < bag_of_words(*made(150, 0.0)) < 0.47  # a third by chance


def test_held_out_texts_are_scored():
    texts = [f"only{n} once{n}" for n in range(90)]  # each text has words of its own: nothing can be learnt
    assert bag_of_words(texts, np.arange(90) % 3) < 0.45


def test_the_same_texts_score_alike_by_seed_and_class_numbers():
    texts, targets = made(120, 0.5)
    assert bag_of_words(texts, targets) == bag_of_words(texts, targets)
    assert bag_of_words(texts, targets) == bag_of_words(texts, 2 * targets + 5)
    assert bag_of_words(texts, targets, metric="macro_f1") == pytest.approx(
        bag_of_words(texts, targets), abs=0.1
    )


def test_no_words_are_the_commonest_class():
    assert bag_of_words(["…"] * 40, np.arange(40) % 4 // 3) == 0.75


def test_a_class_with_one_text():
    texts, targets = made(60, 1.0)
    assert bag_of_words([*texts, "odd"], np.append(targets, 9)) > 0.9


@pytest.mark.parametrize(
    ("truncation", "expected"),
    [("head", "abcdefgh"), ("tail", "mnopqrst"), ("head+tail", "ab" + "opqrst")],
)
def test_of_long_texts_what_is_kept_counts(truncation, expected):
    cuts = CutReport(examples=2, tokens=12, cut_examples=1, cut_tokens=6)  # 2 characters a token
    texts = ["abcdefghijklmnopqrst", "abcd"]
    assert as_read(texts, cuts, 4, truncation) == [expected, "abcd"]
    assert as_read(texts, CutReport(examples=2, tokens=12), 4, truncation) == texts
