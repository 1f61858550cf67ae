"""Words and their tokens: bounds, first tokens, windows that lose nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretune.backbones.text import load_text_backbone
from foretune.backbones.words import (
    Pieces,
    best_window,
    encode_words,
    joined,
    pieces,
    window_starts,
    word_bounds,
)
from foretune.errors import BackboneError, ConfigError

from .conftest import tokenizer


@pytest.fixture(scope="module")
def backbone(tiny):
    return load_text_backbone(
        tiny, auto_class="AutoModelForTokenClassification", options={"num_labels": 3}, offline=True
    )


def texts_of(text):
    return [text[start:end] for start, end in word_bounds(text)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Obama's U.S. visit", ["Obama", "'", "s", "U", ".", "S", ".", "visit"]),
        ("2015年去北京。", ["2015", "年", "去", "北", "京", "。"]),
        ("हिन्दी में, cafe\u0301!", ["हिन्दी", "में", ",", "cafe\u0301", "!"]),
        ("ไทย", ["ไ", "ท", "ย"]),
        ("snake_case 3.5", ["snake_case", "3", ".", "5"]),
        ("  \n\t ", []),
        ("", []),
    ],
)
def test_words_of_a_text(text, words):
    assert texts_of(text) == words


@given(st.text(max_size=60))
@settings(max_examples=50, deadline=None)
def test_no_character_but_blanks_lies_outside_a_word(text):
    covered = "".join(texts_of(text))
    assert covered.split() == "".join(text.split()).split() or "".join(covered.split()) == "".join(
        text.split()
    )


def test_joined_words_stand_where_they_are_said_to():
    words = ["我", "爱", "U.S.", ",", "the", "the", "a"]
    text, bounds = joined(words)
    assert text == "我爱 U.S. , the the a" or " ".join(text.split()) == text
    assert [text[start:end] for start, end in bounds] == words
    assert (np.diff(bounds.ravel()) >= 0).all()


def test_first_tokens_begin_in_their_word():
    text = "the goodish film, 好房"
    (found,) = pieces(tokenizer(), [text])
    bounds = word_bounds(text)
    first = found.first_of(bounds)
    assert found.starts[first].tolist() == bounds[:, 0].tolist()
    assert len(found.ids) > len(bounds)  # goodish is cut into letters


def test_a_word_inside_a_token_has_that_token_and_a_dropped_one_has_none():
    found = Pieces(np.array([5, 6]), np.array([0, 6]), np.array([4, 8]))
    bounds = np.array([[0, 2], [2, 4], [4, 5], [6, 8]])
    assert found.first_of(bounds).tolist() == [0, 0, -1, 1]
    none = Pieces(np.array([5]), np.array([0]), np.array([0]))
    assert none.first_of(bounds).tolist() == [-1] * 4


def test_blanks_before_a_token_are_not_its_own():
    class Metaspace:
        is_fast = True

        def __call__(self, texts, **_):
            return {"input_ids": [[1, 2]], "offset_mapping": [[(0, 3), (3, 7)]]}

    (found,) = pieces(Metaspace(), ["the  it"])
    assert found.starts.tolist() == [0, 5] and found.ends.tolist() == [3, 7]


def test_a_tokenizer_without_offsets_is_refused():
    class Slow:
        is_fast = False

    with pytest.raises(BackboneError, match="no fast tokenizer"):
        list(pieces(Slow(), ["a"]))


@pytest.mark.parametrize(
    ("length", "room", "overlap"), [(5, 10, 2), (10, 10, 2), (11, 10, 2), (99, 10, 3), (100, 7, 1)]
)
def test_windows_cover_everything(length, room, overlap):
    starts = window_starts(length, room, overlap)
    assert starts[0] == 0 and (np.diff(starts) > 0).all() and starts[-1] == max(length - room, 0)
    assert (np.diff(starts) <= room - overlap).all()
    places = np.arange(length)
    chosen = best_window(places, starts, room, length)
    inside = places - starts[chosen]
    assert (inside >= 0).all() and (inside < room).all()


def test_a_token_is_read_where_it_sees_most_around_it():
    starts = window_starts(20, 10, 4)  # 0, 6, 10
    assert starts.tolist() == [0, 6, 10]
    chosen = best_window(np.arange(20), starts, 10, 20)
    # The text's own ends lack nothing; between two windows the border lies in the middle of their overlap.
    assert chosen.tolist() == [0] * 8 + [1] * 5 + [2] * 7


@pytest.mark.parametrize("length", [8, 16, 64])
def test_every_word_is_read_once_at_its_own_token(backbone, length):
    texts = ["the good film was not slow and we love it here again", "bad", "好房间 here", ""]
    bounds = [word_bounds(text) for text in texts]
    store, owner, words = encode_words(backbone, texts, bounds, length)
    assert store.lengths.max() <= length and len(owner) == len(store)
    assert set(owner.tolist()) == {0, 1, 2, 3} and (np.diff(owner) >= 0).all()
    own = backbone.tokenizer
    for number, text in enumerate(texts):
        part = words.of(number)
        for (start, end), row, place in zip(
            words.bounds[part], words.rows[part], words.places[part], strict=True
        ):
            assert owner[row] == number
            token = own.convert_ids_to_tokens([int(store[row][place])])[0]
            assert text[start:end].startswith(token)
    assert not words.shared.any() and store.cuts.cut_examples == 0


def test_unknown_words_are_counted_and_lengths_checked(backbone):
    texts = ["good \u2603 film"]
    store, _, words = encode_words(backbone, texts, [word_bounds(texts[0])], 16)
    assert store.cuts.unknown_tokens == 1 and (words.rows == 0).all()
    for length, message in ((65, "takes at most 64"), (2, "leaves no room")):
        with pytest.raises(ConfigError, match=message):
            encode_words(backbone, texts, [word_bounds(texts[0])], length)
