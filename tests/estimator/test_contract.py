"""The estimator's contract, with texts: what `fit` sets and leaves alone, labels, seeds, copies."""

from __future__ import annotations

import copy
import random
import signal
import tempfile
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone, is_classifier
from sklearn.utils import get_tags

import foretune
from foretune.sklearn import TransferClassifier

TARGETS = {
    "strings": np.array(["money", "fault"]),
    "objects": np.array(["zeta", "alpha"], dtype=object),
    "integers": np.array([10, 9]),
    "unsigned": np.array([2, 1], dtype=np.uint8),
    "negative": np.array([-1, 1]),
    "whole floats": np.array([2.0, -3.0]),
    "booleans": np.array([True, False]),
}


def test_it_learns(make, toy):
    estimator = make(epochs=8).fit(*toy(rows=96))
    assert estimator.score(*toy(seed=1)) > 0.7
    assert is_classifier(estimator)


def test_arguments_are_stored_unchanged_and_cloned():
    options, weights, seed = {"pooling": "mean"}, {"a": 2.0}, np.random.RandomState(0)
    estimator = TransferClassifier(
        "folder", options=options, class_weight=weights, random_state=seed, lr=None
    )
    assert estimator.options is options and estimator.class_weight is weights
    assert estimator.random_state is seed and estimator.backbone == "folder" and estimator.lr is None
    assert clone(estimator).get_params().keys() == estimator.get_params().keys()
    assert clone(estimator).options == options


def test_tags_say_texts():
    tags = get_tags(TransferClassifier())
    assert tags.input_tags.string and tags.input_tags.one_d_array and not tags.input_tags.two_d_array
    assert tags.target_tags.required and tags.classifier_tags.multi_class and not tags.input_tags.sparse


@pytest.mark.parametrize("kind", TARGETS)
def test_labels_keep_their_dtype_and_order(make, toy, kind):
    texts, numbers = toy()
    target = TARGETS[kind][numbers]
    estimator = make(epochs=6).fit(texts, target)
    probabilities = estimator.predict_proba(texts)
    np.testing.assert_array_equal(estimator.classes_, np.unique(target))
    assert estimator.classes_.dtype == estimator.predict(texts).dtype == target.dtype
    np.testing.assert_array_equal(estimator.predict(texts), estimator.classes_[probabilities.argmax(axis=1)])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert estimator.score(texts, target) > 0.7  # fails where columns and classes are in different orders


def test_integers_that_sort_differently_as_strings(make, toy):
    texts, numbers = toy(rows=60, classes=3)
    target = np.array([100, 9, -20])[numbers]
    estimator = make(epochs=6).fit(texts, target)
    assert estimator.classes_.tolist() == [-20, 9, 100]
    assert estimator.score(texts, target) > 0.7


def test_a_categorical_series_is_fine(make, toy):
    texts, numbers = toy()
    target = pd.Series(np.array(["money", "fault"])[numbers], dtype="category")
    assert make(epochs=1).fit(pd.Series(texts), target).classes_.tolist() == ["fault", "money"]


def test_a_seed_gives_the_same_probabilities_bit_for_bit(make, toy):
    texts, numbers = toy()
    first, second, other = (make(epochs=1, dropout=0.1, random_state=seed) for seed in (5, 5, 6))
    expected = first.fit(texts, numbers).predict_proba(texts)
    np.testing.assert_array_equal(second.fit(texts, numbers).predict_proba(texts), expected)
    assert not np.array_equal(other.fit(texts, numbers).predict_proba(texts), expected)


def test_fitting_again_starts_afresh(make, toy):
    texts, numbers = toy()
    estimator = make(epochs=1).fit(texts, numbers)
    expected = estimator.predict_proba(texts)
    estimator.fit(texts, 1 - numbers)
    np.testing.assert_array_equal(estimator.fit(texts, numbers).predict_proba(texts), expected)


def test_a_generator_moves_on_and_the_global_one_is_used_for_none(make, toy):
    generator = np.random.RandomState(0)
    estimator = make(epochs=1, random_state=generator)
    seeds = [estimator.fit(*toy()).model_.recipe.seed for _ in range(2)]
    assert seeds == np.random.RandomState(0).randint(2**31 - 1, size=2).tolist()
    np.random.seed(1)
    expected = np.random.RandomState(1).randint(2**31 - 1)
    assert make(epochs=1, random_state=None).fit(*toy()).model_.recipe.seed == expected


def test_random_states_of_the_process_are_left_alone(make, fitted, toy):
    def states():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before = states()
    make(epochs=1).fit(*toy())
    copy.deepcopy(fitted)
    assert states() == before


def test_fit_and_predict_change_no_parameters_and_no_attributes(make, toy):
    estimator = make(epochs=1, options={"pooling": "mean"}, class_weight="balanced")
    before = copy.deepcopy(estimator.get_params())
    assert estimator.fit(*toy()) is estimator
    assert estimator.get_params() == before
    attributes = dict(vars(estimator))
    assert {name for name in attributes if name.endswith("_")} == {"model_", "classes_", "n_features_in_"}
    estimator.predict(toy()[0])
    assert vars(estimator) == attributes


def test_inputs_are_not_changed(make, toy):
    texts, numbers = toy()
    table, target = pd.DataFrame({"x": texts}), pd.Series(numbers)
    kept = table.copy(), target.copy()
    make(epochs=1).fit(table, target).predict(table)
    pd.testing.assert_frame_equal(table, kept[0])
    pd.testing.assert_series_equal(target, kept[1])


def test_the_order_of_samples_does_not_matter(fitted, toy):
    texts, _ = toy(seed=2)
    order = np.random.default_rng(0).permutation(len(texts))
    shuffled = [texts[row] for row in order]
    np.testing.assert_array_equal(fitted.predict(shuffled), fitted.predict(texts)[order])
    np.testing.assert_allclose(fitted.predict_proba(shuffled), fitted.predict_proba(texts)[order], atol=1e-5)


def test_a_part_of_the_samples_gets_the_same_answers(fitted, toy):
    texts, _ = toy(seed=2)
    alone = np.concatenate([fitted.predict_proba([text]) for text in texts])
    np.testing.assert_allclose(fitted.predict_proba(texts), alone, atol=1e-5)


def test_nothing_stays_on_the_disk(make, toy, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    copy.deepcopy(make(epochs=1).fit(*toy())).predict(["my card"])
    assert not list(tmp_path.iterdir())


def test_the_model_can_be_saved_and_read_as_an_artefact(make, toy, tmp_path):
    texts, numbers = toy()
    estimator = make(epochs=1).fit(texts, np.array(["money", "fault"])[numbers])
    saved = foretune.load(estimator.model_.save(tmp_path / "saved"), device="cpu")
    assert saved.labels == ("fault", "money")
    np.testing.assert_array_equal(saved.predict_proba(texts), estimator.predict_proba(texts))
    copy.deepcopy(estimator)
    assert estimator.model_.path == tmp_path / "saved"


def test_validation_holds_rows_out(make, toy):
    model = make(epochs=1, validation_fraction=0.25).fit(*toy()).model_
    assert model.record["data"]["sizes"] == {"train": 36, "dev": 12}
    assert set(model.record["metrics"]) == {"dev"}


def test_without_validation_nothing_is_measured(fitted):
    record = fitted.model_.record
    assert record["data"]["sizes"] == {"train": 48} and record["metrics"] == record["baselines"] == {}


@pytest.mark.parametrize("rows", [2, 3, 4])
def test_so_few_rows_are_fitted_without_validation(make, toy, rows):
    texts, numbers = toy(rows=rows)
    with pytest.warns(UserWarning, match="without validation"):
        estimator = make(epochs=1, validation_fraction=0.1).fit(texts, numbers)
    assert estimator.predict(texts).shape == (rows,)


def test_class_weights(make, toy):
    texts, numbers = toy(rows=48)
    target = np.array([10, 9])[numbers]
    weights = {
        None: None,
        "balanced": (2.0, 2 / 3),
        "one": (1.0, 4.0),
    }
    skewed = [row for row in range(48) if numbers[row] == 0 or row % 3 == 0]  # 24 of 10, 8 of 9
    X, y = [texts[row] for row in skewed], target[skewed]
    given = {None: None, "balanced": "balanced", "one": {np.int64(10): 4}}
    for name, expected in weights.items():
        fitted = make(epochs=1, class_weight=given[name]).fit(X, y)
        found = fitted.model_.task.state()["class_weights"]
        assert found == expected if expected is None else found == pytest.approx(expected)


def test_a_stop_is_a_keyboard_interrupt(make, toy):
    """Only that ends a grid search; an Exception would count as a failed fit."""
    timer = threading.Timer(1.0, signal.raise_signal, [signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        make(epochs=10_000).fit(*toy())
    timer.join()


@pytest.mark.parametrize("copied", [False, True])
def test_a_deep_copy_predicts_the_same_and_is_independent(fitted, toy, copied):
    texts, _ = toy(seed=3)
    twin = copy.deepcopy(fitted)
    twin = copy.deepcopy(twin) if copied else twin
    np.testing.assert_array_equal(twin.predict_proba(texts), fitted.predict_proba(texts))
    np.testing.assert_array_equal(twin.predict(texts), fitted.predict(texts))
    assert twin.model_.record["train"] == fitted.model_.record["train"]
    assert twin.model_.backbone.model is not fitted.model_.backbone.model and twin.model_.path is None


def test_the_state_is_plain_and_the_same_every_time(fitted):
    state = fitted.__getstate__()
    assert isinstance(state["model_"]["artefact"], bytes) and state == fitted.__getstate__()
    assert fitted.__getstate__()["model_"]["device"] == "cpu"


def test_a_device_that_is_missing_here_is_replaced(fitted, toy):
    if torch.backends.mps.is_available():
        pytest.skip("this machine has the device")
    state = fitted.__getstate__()
    twin = TransferClassifier.__new__(TransferClassifier)
    twin.__setstate__({**state, "model_": {**state["model_"], "device": "mps"}})
    assert twin.predict(toy()[0]).shape == (48,)


def test_no_pickle_in_the_source():
    import foretune.sklearn as module

    assert "pickle" not in Path(module.__file__).read_text(encoding="utf-8")
