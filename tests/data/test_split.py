"""Splits: a partition, no text on two sides, in proportion, the same for a seed everywhere."""

import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretune.data import split
from foretune.data.text import fold
from foretune.errors import ConfigError, DataError

FRACTIONS = {"dev": 0.1, "test": 0.2}


@st.composite
def data(draw):
    classes = draw(st.integers(1, 5))
    rows = draw(st.integers(40, 200))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=rows, max_size=rows))
    # Few distinct numbers give many copies, some with conflicting labels.
    numbers = draw(
        st.lists(st.integers(0, draw(st.sampled_from([30, 200, 10**6]))), min_size=rows, max_size=rows)
    )
    texts = [draw(st.sampled_from(["Text {}", "text  {} ", "TEXT {}"])).format(n) for n in numbers]
    return texts, np.array(labels)


def parts_or_empty(texts, labels, seed=0):
    try:
        return split(texts, labels, fractions=FRACTIONS, seed=seed)
    except DataError as error:
        assert "nothing is left for" in str(error)
        return {}


@settings(max_examples=30, deadline=None)
@given(data(), st.integers(0, 2**32))
def test_partition_without_shared_texts(sample, seed):
    texts, labels = sample
    parts = parts_or_empty(texts, labels, seed)
    if not parts:
        assert len(set(map(fold, texts))) < 60  # copies may leave nothing to set aside, distinct texts never
        return
    assert list(parts) == ["train", "dev", "test"]
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(len(texts)))
    sides = [{fold(texts[row]) for row in rows} for rows in parts.values()]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    for rows in parts.values():
        assert rows.dtype == np.int64 and (np.diff(rows) > 0).all()


@settings(max_examples=30, deadline=None)
@given(data(), st.integers(0, 2**32))
def test_every_class_is_in_train(sample, seed):
    texts, labels = sample
    parts = parts_or_empty(texts, labels, seed)
    if parts:
        assert set(labels[parts["train"]]) == set(labels)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=20, max_size=300), st.integers(0, 2**32))
def test_distinct_texts_keep_proportions_to_the_row(labels, seed):
    labels = np.array(labels)
    parts = parts_or_empty([str(i) for i in range(len(labels))], labels, seed)
    for name, fraction in FRACTIONS.items():
        if not parts:
            return
        for label, count in Counter(labels.tolist()).items():
            assert abs(np.sum(labels[parts[name]] == label) - fraction * count) <= 1
        if min(Counter(labels.tolist()).values()) > 3:
            assert len(parts[name]) == round(fraction * len(labels))


@settings(max_examples=25, deadline=None)
@given(data())
def test_with_copies_a_part_misses_its_share_by_less_than_a_group(sample):
    texts, _ = sample
    labels = np.array([hash_free(fold(text)) % 3 for text in texts])
    largest = max(Counter(map(fold, texts)).values())
    parts = parts_or_empty(texts, labels)
    for name in parts and FRACTIONS:
        for label, count in Counter(labels.tolist()).items():
            taken = np.sum(labels[parts[name]] == label)
            assert -largest - 1 < taken - FRACTIONS[name] * count <= 1


def hash_free(text):
    """A number for a text that is the same in every process."""
    return sum(text.encode())


PINNED_DEV = [6, 23, 32, 37]


def test_the_split_is_pinned():
    texts, labels = [f"t{i}" for i in range(40)], np.arange(40) % 2
    parts = split(texts, labels, fractions=FRACTIONS, seed=7)
    assert parts["dev"].tolist() == PINNED_DEV
    other = split(texts, labels, fractions=FRACTIONS, seed=8)
    assert other["dev"].tolist() != PINNED_DEV


def test_the_same_in_another_process():
    code = (
        "import numpy as np; from foretune.data import split;"
        "print(split([f't{i%37}' for i in range(60)], np.array([i%37%3 for i in range(60)]),"
        " fractions={'dev': .2}, seed=3)['dev'].tolist())"
    )
    environment = {"PYTHONPATH": ":".join(sys.path)}
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**environment, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_without_labels_and_without_parts():
    texts = [f"t{i}" for i in range(50)]
    assert len(split(texts, None, fractions={"dev": 0.1}, seed=0)["dev"]) == 5
    assert split(texts, None, fractions={}, seed=0)["train"].tolist() == list(range(50))


def test_labels_need_not_be_counted_from_zero():
    parts = split([f"t{i}" for i in range(40)], np.array([-5, 900] * 20), fractions={"dev": 0.5}, seed=0)
    assert len(parts["dev"]) == 20


def test_a_giant_group_goes_to_train_and_the_parts_are_filled_nonetheless():
    texts = ["same"] * 500 + [f"t{i}" for i in range(500)]
    parts = split(texts, None, fractions=FRACTIONS, seed=0)
    assert (len(parts["dev"]), len(parts["test"])) == (100, 200)
    assert set(range(500)) <= set(parts["train"].tolist())


def test_singleton_classes_stay_in_train():
    labels = np.array([0] * 20 + list(range(1, 21)))
    parts = split([f"t{i}" for i in range(40)], labels, fractions={"dev": 0.25}, seed=0)
    assert set(range(20, 40)) <= set(parts["train"].tolist())


def test_a_class_hidden_behind_another_label_is_brought_back():
    # Both texts of class 1 begin with a row of class 0.
    texts = ["a", "b", "a", "b"] + [f"t{i}" for i in range(16)]
    labels = np.array([0, 0, 1, 1] + [0] * 16)
    for seed in range(20):
        parts = split(texts, labels, fractions={"dev": 0.6}, seed=seed)
        assert 1 in labels[parts["train"]]


@pytest.mark.parametrize(
    ("fractions", "found"),
    [
        ({"dev": 0}, "above 0"),
        ({"dev": 1.0}, "below 1"),
        ({"dev": 0.5, "test": 0.5}, "below 1"),
        ({"train": 0.5}, "rest"),
    ],
)
def test_wrong_fractions(fractions, found):
    with pytest.raises(ConfigError, match=found):
        split(["a", "b"], None, fractions=fractions, seed=0)


def test_wrong_number_of_labels():
    with pytest.raises(ConfigError, match="2 texts but 1 labels"):
        split(["a", "b"], np.array([0]), fractions={}, seed=0)


@pytest.mark.parametrize("rows", [0, 1, 4])
def test_too_few_rows(rows):
    with pytest.raises(DataError, match=f"{rows} rows? cannot be split.*dev.*Add rows"):
        split([str(i) for i in range(rows)], np.zeros(rows, int), fractions={"dev": 0.1}, seed=0)


def test_speed():
    texts = [f"a sentence about thing {i % 90_000}" for i in range(100_000)]
    labels = np.arange(100_000) % 77
    start = time.perf_counter()
    split(texts, labels, fractions=FRACTIONS, seed=0)
    assert time.perf_counter() - start < 1


def test_rows_left_over_by_rounding_go_where_most_is_missing():
    labels = np.array([1] * 19 + [0] * 11)
    parts = split([f"t{i}" for i in range(30)], labels, fractions={"dev": 0.1}, seed=0)
    assert np.bincount(labels[parts["dev"]]).tolist() == [1, 2]
