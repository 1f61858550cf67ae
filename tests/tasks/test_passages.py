"""Questions and texts as a model reads them, and the best answers over all windows."""

import numpy as np
import pytest

from foretune.backbones.passages import encode_passages
from foretune.backbones.text import load_text_backbone
from foretune.errors import ConfigError
from foretune.tasks.answer_outputs import BestAnswers, best_threshold
from foretune.tasks.base import Encoded, Examples
from foretune.tasks.question_answering import _places

from .conftest import tokenizer

TEXT = "the good film was not slow and we love it here again never always one two three four five"
PAIRS = [("is it good ?", TEXT), ("room ?", "the great room"), ("a ?", "好房间")]


@pytest.fixture(scope="module")
def backbone(tiny):
    return load_text_backbone(
        tiny, auto_class="AutoModelForQuestionAnswering", options={"num_labels": 2}, offline=True
    )


def test_short_texts_are_encoded_as_the_tokenizer_itself_would(backbone):
    store, owner, where = encode_passages(backbone, PAIRS, 64, 16)
    assert owner.tolist() == [0, 1, 2] and store.cuts.cut_examples == 0
    for row, pair in enumerate(PAIRS):
        wanted = tokenizer()(*pair)
        assert store[row].tolist() == wanted["input_ids"]
        types = store.extras["token_type_ids"][store.offsets[row] : store.offsets[row + 1]]
        assert types.tolist() == wanted["token_type_ids"]
        assert where.characters(row, 0, int(where.count[row]) - 1) == (0, len(pair[1]))


@pytest.mark.parametrize(("length", "overlap"), [(24, 0), (24, 4), (24, 100), (22, 8)])
def test_windows_hold_every_token_and_know_its_characters(backbone, length, overlap):
    store, owner, where = encode_passages(backbone, PAIRS, length, overlap)
    assert store.lengths.max() <= length and (owner == 0).sum() > 1
    ids = tokenizer()(TEXT, add_special_tokens=False)["input_ids"]
    read = np.zeros(len(ids), dtype=int)
    for row in np.flatnonzero(owner == 0):
        first, shift, count = where.first[row], where.shift[row], where.count[row]
        assert store[row][first : first + count].tolist() == ids[shift : shift + count]
        assert shift <= where.low[row] <= where.high[row] <= shift + count
        read[where.low[row] : where.high[row]] += 1
    assert (read == 1).all()
    words = [TEXT[slice(*where.characters(0, i, i))] for i in range(len(ids))]
    assert "".join(words) == TEXT.replace(" ", "")


def test_characters_and_tokens(backbone):
    _, _, where = encode_passages(backbone, PAIRS, 64, 16)
    start = TEXT.index("not")
    tokens = where.tokens(0, start, start + len("not slow"))
    assert TEXT[slice(*where.characters(0, *tokens))] == "not slow"
    assert where.tokens(1, 4, 6) == (1, 1)  # part of a word is the word
    assert where.tokens(1, 3, 4) is None  # a blank is none
    assert where.tokens(2, 1, 3) == (1, 2)


def test_long_questions_are_cut_and_counted(backbone):
    store, _, where = encode_passages(backbone, [("good " * 50, "the room")], 32, 4)
    assert store.cuts.cut_examples == 1 and store.cuts.cut_tokens == 50 - 14
    assert where.count.tolist() == [2] and store.lengths[0] == 3 + 14 + 2
    with pytest.raises(ConfigError, match="leaves no room"):
        encode_passages(backbone, PAIRS, 18, 4)


def test_targets_are_the_answers_tokens_or_cls(backbone):
    store, owner, where = encode_passages(backbone, PAIRS, 24, 4)
    answers = [[(TEXT.index("five"), "five")], [], [(0, "好房")]]
    places = _places(answers, owner, where)
    own = tokenizer()
    for row, (first, last) in enumerate(places.tolist()):
        if first:
            ids = store[row][first : last + 1].tolist()
            assert own.convert_ids_to_tokens(ids) in (["five"], ["好", "房"])
    assert [bool(first) for first, _ in places.tolist()] == [False] * int((owner == 0).sum() - 1) + [
        True,
        False,
        True,
    ]


def best(backbone, pairs, length, logits_of, longest=30):
    """Return the best answers of a model that gives logits_of(row, store, where)."""
    store, owner, where = encode_passages(backbone, pairs, length, 4)
    encoded = Encoded(store, None, owner, where)
    found = BestAnswers(encoded, longest)
    outputs = [logits_of(row, store, where) for row in range(len(store))]
    for row in np.random.default_rng(0).permutation(len(store)):
        found.update(np.array([row]), [outputs[row]])
    return found, outputs, encoded


def random_logits(row, store, where):
    return np.random.default_rng(row).normal(size=(int(store.lengths[row]), 2)).astype(np.float32)


@pytest.mark.parametrize("longest", [1, 3, 30])
def test_the_best_answer_is_the_best_of_all_spans(backbone, longest):
    """Compared with a search over every span that begins in the tokens a window reads best."""
    found, outputs, encoded = best(backbone, PAIRS, 24, random_logits, longest)
    where = encoded.info
    for example in range(len(PAIRS)):
        scores = {}
        for row in np.flatnonzero(encoded.owner == example):
            for start in range(where.low[row], where.high[row]):
                for end in range(start, min(start + longest, int(where.shift[row] + where.count[row]))):
                    first = int(where.first[row] - where.shift[row])
                    span = where.characters(example, start, end)
                    scores[span] = outputs[row][first + start, 0] + outputs[row][first + end, 1]
        wanted = max(scores, key=scores.get)
        own = found.best(example)
        assert (own.start, own.end) == wanted and own.score == pytest.approx(scores[wanted])
        rows = np.flatnonzero(encoded.owner == example)
        assert found.nothing[example] == pytest.approx(min(outputs[row][0].sum() for row in rows))


def test_shares_sum_to_one_and_nothing_counts_only_where_it_may(backbone):
    found, *_ = best(backbone, PAIRS[1:2], 24, random_logits)
    with_none, without = found.probability(0, True), found.probability(0, False)
    assert without[1] == 0 and 0 < with_none[0] < without[0] <= 1 and with_none[1] > 0


def examples_of(pairs, answers):
    targets = np.empty(len(pairs), dtype=object)
    for number, known in enumerate(answers):
        targets[number] = known
    return Examples(pairs, targets, np.arange(1, len(pairs) + 1))


def test_a_text_without_a_token_has_no_answer(backbone):
    found, *_ = best(backbone, [("good ?", "\u200b")], 24, random_logits)
    assert found.best(0) is None and found.answers(examples_of([("good ?", "\u200b")], [[]]), None) == [""]
    assert found.probability(0, True) == (0.0, 1.0)


def test_the_threshold_is_the_best_of_all(backbone):
    pairs = [("room ?", f"the {word} room") for word in ("great", "good", "bad", "awful", "old", "new")]
    answers = [[(4, "great")], [(4, "good")], [(4, "bad")], [], [(0, "the")], []]

    def logits(row, store, where):
        """Answer with the second word; the margin of no answer is that of the list, three of them are right."""
        made = np.full((int(store.lengths[row]), 2), -9.0)
        made[int(where.first[row]) + 1] = 0.0
        made[0] = [-3.0, -2.0, -1.0, 4.0, 2.0, 3.0][row]
        return made

    found, *_ = best(backbone, pairs, 24, logits)
    threshold, f1 = best_threshold(found, examples_of(pairs, answers))
    given = found.answers(examples_of(pairs, answers), threshold)
    assert given == ["great", "good", "bad", "", "", ""] and -1 < threshold < 2 and f1 == pytest.approx(5 / 6)
