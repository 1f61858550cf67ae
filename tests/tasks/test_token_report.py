"""Token labelling's part of the report, and its baselines on counts done by hand."""

import numpy as np
import pytest

from foretune.backbones.words import WordMap, joined
from foretune.tasks.base import Examples
from foretune.tasks.token_baselines import baselines
from foretune.tasks.token_labels import Entities, Tags
from foretune.tasks.token_outputs import LabellingScores, TokenTargets, WordTags, token_targets
from foretune.tasks.token_report import WorstSentences, marked, sentences_section


def examples(inputs, targets):
    array = np.empty(len(inputs), dtype=object)
    for number, target in enumerate(targets):
        array[number] = target
    return Examples(inputs, array, np.arange(1, len(inputs) + 1))


def word_map(inputs):
    """One row per sentence, one token per word, after one special token."""
    bounds = [joined(words)[1] for words in inputs]
    sizes = [len(each) for each in bounds]
    rows = np.repeat(np.arange(len(sizes)), sizes).astype(np.int32)
    places = np.concatenate([np.arange(1, size + 1) for size in sizes]).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    return WordMap(np.concatenate(bounds), offsets, rows, places, np.zeros(len(rows), dtype=bool))


@pytest.fixture
def data():
    inputs = [["Ann", "saw", "Rome"], ["nothing"], ["<b>", "Rome", "Rome"]]
    return examples(inputs, [[(0, 1, "PER"), (2, 3, "LOC")], [], [(1, 3, "LOC")]])


def outputs(*rows):
    """Outputs (tokens, 2) with a special token before and behind, and padding."""
    return [np.array([[9, 0.1], *([number, 0.5] for number in row), [9, 0.1]]) for row in rows]


def test_words_take_their_tokens_output_and_others_the_fallback(data):
    words = word_map(data.inputs)
    words.rows[1], words.places[1] = -1, -1
    found = WordTags(words, fallback=7)
    found.update(np.array([2, 0]), outputs([4, 5, 6], [1, 2, 3]))
    assert found.of(0)[0].tolist() == [1, 7, 3] and found.of(2)[0].tolist() == [4, 5, 6]
    assert found.of(0)[1].tolist() == [0.5, 0.0, 0.5] and found.of(1)[0].tolist() == [7]


def test_targets_stand_at_first_tokens_only(data):
    from foretune.data import store as stores
    from foretune.data.store import CutReport

    words = word_map(data.inputs)
    store = stores.build([np.zeros(5), np.zeros(3), np.zeros(5)], CutReport())
    words.shared[2] = True
    targets = token_targets(store, words, np.array([3, 0, 1, 0, 2, -1, 2]))
    assert isinstance(targets, TokenTargets)
    assert targets[np.array([0, 1])].tolist() == [[-100, 3, 0, -100, -100], [-100, 0, -100, -100, -100]]
    assert targets[np.array([2])].tolist() == [[-100, 2, -100, 2, -100]]


def test_scores_do_not_depend_on_the_order_of_batches(data):
    labels, parts = Entities(["LOC", "PER"]), outputs([3, 0, 1], [0], [0, 1, 0])
    results = []
    for order in ([0, 1, 2], [2, 0, 1]):
        scores = LabellingScores(labels, data, word_map(data.inputs))
        for row in order:
            scores.update(np.stack([parts[row]]), np.zeros(1), np.array([row]))
        results.append(scores.result())
        assert scores.point()["f1"] == scores.result()["f1"]["value"]
    assert results[0] == results[1]
    assert results[0]["precision"]["value"] == results[0]["recall"]["value"] == pytest.approx(2 / 3)


def test_the_worst_sentences_come_first_and_are_marked(data):
    worst = WorstSentences(Entities(["LOC", "PER"]), data, word_map(data.inputs), 2)
    worst.update(np.arange(3), outputs([0, 0, 1], [0], [3, 1, 0]), np.zeros(3))
    first, second = worst.top()
    assert (first["row"], first["errors"], second["row"], second["errors"]) == (3, 3, 1, 1)
    assert second["true"] == [[0, 3, "PER"], [8, 12, "LOC"]] and second["predicted"] == [[8, 12, "LOC"]]
    (html,) = sentences_section({}, [first, second])
    assert "<b>&lt;b&gt;</b>" in html and "<u>Rome</u>" in html and "<b>Rome Rome</b>" in html
    assert sentences_section({}, []) == []


def test_wrong_tags_are_marked():
    words = [["the", "cat"]]
    worst = WorstSentences(Tags(["DET", "NOUN"], 0), examples(words, [[0, 1]]), word_map(words), 5)
    worst.update(np.array([0]), outputs([1, 1]), np.zeros(1))
    (found,) = worst.top()
    assert (found["true"], found["predicted"]) == ([[0, 3, "DET"]], [[0, 3, "NOUN"]])


def test_long_texts_are_shown_from_shortly_before_the_error():
    text = "a" * 500 + " Rome " + "b" * 1000
    html = marked(text, [(0, 1, "X"), (501, 505, "LOC")], set(), 380)
    assert html.startswith("… aaa") and html.endswith(" …") and "<b>Rome</b>" in html and "X" not in html
    assert marked("ab", [(0, 2, "X"), (1, 2, "Y")], {(0, 2, "X")}, 0) == '<u>ab</u><sub class="soft">X</sub>'


def test_baselines_by_hand():
    train = examples(
        [["New", "York", "is"], ["New", "York"], ["Rome", "is", "Rome", "Rome"], ["new", "is"]],
        [[(0, 2, "LOC")], [(0, 2, "LOC")], [(0, 1, "PER"), (2, 3, "LOC"), (3, 4, "LOC")], []],
    )
    test = examples([["New", "York", "Rome"], ["New", "is"]], [[(0, 2, "LOC"), (2, 3, "PER")], []])
    found = baselines(Entities(["LOC", "PER"]), train, test, 0)
    assert found["majority"]["f1"]["value"] == 0
    # Rome was mostly a LOC, and the longest phrase counts; New without York is no phrase.
    assert [found["seen_entities"][name]["value"] for name in ("precision", "recall")] == [0.5, 0.5]
    # Word by word, New alone begins an entity.
    assert found["word_tag"]["precision"]["value"] == pytest.approx(1 / 3)
    assert found["word_tag"]["recall"]["value"] == 0.5


def test_baselines_of_tags():
    train = examples([["a", "b", "b"], ["b"]], [[0, 1, 1], [0]])
    test = examples([["b", "c"]], [[1, 0]])
    found = baselines(Tags(["X", "Y"], 0), train, test, 0)
    assert found["majority"]["accuracy"]["value"] == 0.5 and found["word_tag"]["accuracy"]["value"] == 1.0
    assert set(found) == {"majority", "word_tag"} and set(found["word_tag"]) == {"accuracy", "macro_f1"}
