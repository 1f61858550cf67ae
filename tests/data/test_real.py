"""The whole way from file to split on real data sets where they are at hand, with the published counts."""

from pathlib import Path

import numpy as np
import pytest

from foretune.data import audit, encode_labels, infer_columns, inspect_data, overlap, read_table, split
from foretune.errors import DataError

SHARED = Path(__file__).parents[3] / "shared" / "data" / "text"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are not on this machine")


@pytest.mark.parametrize(
    ("name", "rows", "classes", "cjk"),
    [
        ("sst2/train.csv", 67_349, 2, False),
        ("trec6/train.csv", 5_452, 6, False),
        ("ag_news/train.csv", 6_000, 4, False),
        ("imdb/train.csv.gz", 5_000, 2, False),
        ("amazon/kitchen.csv", 1_978, 2, False),
        ("chnsenticorp/train.csv", 8_913, 2, True),
    ],
)
def test_inspection(name, rows, classes, cjk):
    found = inspect_data(SHARED / name)
    assert (found["rows"], found["text"], found["target"]) == (rows, "text", "label")
    assert len(found["classes"]) == classes and sum(found["classes"].values()) == rows
    assert (found["cjk_share"] > 0.99) is cjk and (found["cjk_share"] < 0.01) is not cjk


@pytest.mark.parametrize(("name", "repeats"), [("sst2", 371), ("chnsenticorp", 1_324)])
def test_published_repeats_are_found(name, repeats):
    table = read_table(SHARED / name / "train.csv")
    assert audit(table, infer_columns(table)).duplicates == repeats


# trec6: 10 are published as exactly equal; one more differs only by case.
@pytest.mark.parametrize(
    ("name", "other", "texts"), [("sst2", "test", 2), ("trec6", "test", 11), ("chnsenticorp", "test", 0)]
)
def test_published_overlaps_are_found(name, other, texts):
    tables = [read_table(SHARED / name / f"{part}.csv") for part in ("train", other)]
    warnings = overlap(*tables, "text", other)
    assert [f"{other}: {texts} texts" in warning for warning in warnings] == [True] * (texts > 0)


def test_split_of_six_uneven_classes():
    table = read_table(SHARED / "trec6" / "train.csv")
    texts, labels = table["text"].tolist(), encode_labels(table["label"].tolist()).ids
    parts = split(texts, labels, fractions={"dev": 0.1, "test": 0.1}, seed=0)
    assert len(parts["dev"]) == len(parts["test"]) == 545
    whole = np.bincount(labels)
    assert np.abs(np.bincount(labels[parts["dev"]]) - 0.1 * whole).max() <= 1


def test_similarity_scores_are_recognised_as_regression():
    with pytest.raises(DataError, match="'score' looks like regression"):
        infer_columns(read_table(SHARED / "stsb" / "dev.csv"))


def test_token_lists_are_words_to_be_labelled_or_texts_of_a_class():
    found = inspect_data(SHARED / "snips" / "dev.jsonl")
    assert (found["task"], found["text"], found["target"]) == ("token-labelling", "tokens", "tags")
    intents = inspect_data(SHARED / "snips" / "dev.jsonl", target="intent")
    assert intents["task"] == "text-classification" and len(intents["classes"]) == 7


def test_pairs_repeat_only_as_pairs():
    found = inspect_data(SHARED / "stsb" / "dev.csv")
    assert (found["task"], found["second"]) == ("pair-regression", "text_b")
    assert found["duplicates"] < 15 and found["lengths"]["median"] > 80
