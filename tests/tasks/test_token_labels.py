"""What tags mean: schemes into BIO2 and back, words and characters, decoding, errors."""

import numpy as np
import pytest

from foretune.backbones.words import word_bounds
from foretune.data.tagged import Tagged
from foretune.errors import DataError
from foretune.tasks.token_labels import Entities, Tags, labels_from_state, learn_labels, tag_scheme
from foretune.tasks.token_outputs import WordSlice

NONE = np.zeros(0, dtype=bool)
SENTENCES = {  # one sentence, in every scheme: two places side by side, and a person of three words
    "BIO2": "O B-LOC B-LOC O B-PER I-PER I-PER",
    "IOB1": "O I-LOC B-LOC O I-PER I-PER I-PER",
    "BIOES": "O S-LOC S-LOC O B-PER I-PER E-PER",
    "BILOU": "O U-LOC U-LOC O B-PER I-PER L-PER",
}
SPANS = [(1, 2, "LOC"), (2, 3, "LOC"), (4, 7, "PER")]


def in_words(*rows):
    return Tagged([["w"] * len(row.split()) for row in rows], tags=[row.split() for row in rows])


@pytest.mark.parametrize("scheme", SENTENCES)
def test_every_scheme_becomes_bio2(scheme):
    data = in_words(SENTENCES[scheme])
    labels = learn_labels(data, "auto", "train")
    assert labels.names == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER") and labels.shown == ("LOC", "PER")
    (target,) = labels.targets(data, "train")
    assert target == SPANS
    classes = labels.word_classes(target, 7, None)
    assert " ".join(labels.names[number] for number in classes) == SENTENCES["BIO2"]
    assert labels.predicted(classes, np.zeros(7, dtype=bool), None) == SPANS


def test_plain_labels_with_o_are_entities_and_without_are_tags():
    assert learn_labels(in_words("PER PER O LOC"), "auto", "train").names == (
        "O",
        "B-LOC",
        "I-LOC",
        "B-PER",
        "I-PER",
    )
    tags = learn_labels(in_words("DET NOUN NOUN X"), "auto", "train")
    assert tags.names == ("DET", "NOUN", "X") and tags.names[tags.fallback] == "NOUN"
    assert learn_labels(in_words("PER PER O"), "tags", "train").names == ("O", "PER")
    assert learn_labels(in_words("B M E S"), "auto", "train").names == (
        "O",
        "B-_",
        "I-_",
    )  # words of a segmenter


def test_characters_to_words_and_back():
    text = "Ann-Lee saw New York."
    bounds, labels = word_bounds(text), Entities(["LOC", "PER"])
    spans = [(0, 7, "PER"), (12, 20, "LOC")]
    classes = labels.word_classes(spans, len(bounds), bounds)
    assert [labels.names[number] for number in classes] == [
        "B-PER",
        "I-PER",
        "I-PER",
        "O",
        "B-LOC",
        "I-LOC",
        "O",
    ]
    assert labels.predicted(classes, np.zeros(len(bounds), dtype=bool), bounds) == spans


def test_part_of_a_word_is_learnt_as_the_word_and_of_overlapping_spans_the_longest():
    text = "iPhone6 Bank of Rome"
    bounds, labels = word_bounds(text), Entities(["A", "B"])
    classes = labels.word_classes([(0, 6, "A"), (8, 20, "B"), (16, 20, "A")], len(bounds), bounds)
    assert [labels.names[number] for number in classes] == ["B-A", "B-B", "I-B", "I-B"]


def test_an_unknown_type_is_not_learnt():
    classes = Entities(["A"]).word_classes([(0, 2, "NEW"), (3, 4, "A")], 4, None)
    assert classes.tolist() == [-1, -1, 0, 1]


def test_malformed_predictions_are_repaired():
    labels = Entities(["A", "B"])
    ids = np.array([labels.names.index(tag) for tag in ["I-A", "I-A", "I-B", "O", "I-B", "B-B"]])
    assert labels.predicted(ids, np.zeros(6, dtype=bool), None) == [
        (0, 2, "A"),
        (2, 3, "B"),
        (4, 5, "B"),
        (5, 6, "B"),
    ]


def test_words_that_share_a_token_are_one_entity():
    labels = Entities(["A"])
    ids, shared = np.array([1, 1, 1]), np.array([False, True, False])
    assert labels.predicted(ids, shared, None) == [(0, 2, "A"), (2, 3, "A")]


def test_a_type_may_look_like_a_prefix():
    """The second word of a token keeps its type, whatever letters this holds."""
    labels = Entities(["HLA-B-27"])
    assert labels.predicted(np.array([1, 2, 2]), np.array([False, False, True]), None) == [(0, 3, "HLA-B-27")]


def test_entities_for_people():
    labels, text = Entities(["LOC"]), "in New York ."
    words = WordSlice(
        word_bounds(text), np.array([0, 1, 2, 0]), np.array([1.0, 0.5, 0.75, 1.0]), np.zeros(4, bool)
    )
    entity = {"start": 3, "end": 11, "label": "LOC", "text": "New York", "probability": 0.625}
    assert labels.decode(text, words, False) == {"entities": [entity]}
    found = labels.decode(text, words, True)
    assert found == {"entities": [entity | {"first_word": 1, "end_word": 3}], "text": text}


def test_tags_for_people():
    labels, text = Tags(["DET", "NOUN"], 1), "the cat"
    words = WordSlice(word_bounds(text), np.array([0, 1]), np.array([0.5, 1.0]), np.zeros(2, bool))
    found = labels.decode(text, words, False)
    assert found == {
        "tags": ["DET", "NOUN"], "words": ["the", "cat"], "probabilities": [0.5, 1.0], "offsets": [[0, 3], [4, 7]]
    }  # fmt: skip
    assert "offsets" not in labels.decode(text, words, True)
    assert (
        labels.errors([0, 1, 1], [0, 0, 0]) == 2 and Entities(["A"]).errors([(0, 1, "A")], [(0, 2, "A")]) == 2
    )


def test_labels_survive_being_saved():
    for labels in (Entities(["A", "B"]), Tags(["X", "Y"], 1)):
        again = labels_from_state(labels.state())
        assert (
            type(again) is type(labels) and again.names == labels.names and again.fallback == labels.fallback
        )


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: learn_labels(in_words("O O"), "auto", "train"), "train: not one entity"),
        (
            lambda: tag_scheme([["B-X", "I-X", "PER"], ["O"]], "dev"),
            r"the tags PER stand beside tags such as 'B-X' .row 1.",
        ),
        (
            lambda: Tags(["NOUN", "VERB"], 0).targets(in_words("NOUN", "NUON VERB"), "test"),
            "NUON .first in row 2..*NOUN",
        ),
        (lambda: Tags(["NOUN"], 0).targets(Tagged(["a"], spans=[[]]), "test"), "texts with spans"),
    ],
)
def test_tags_that_do_not_fit_are_named(act, message):
    with pytest.raises(DataError, match=message):
        act()
