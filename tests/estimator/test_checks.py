"""scikit-learn's own checks: as they are, and with their numbers written as words."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import (
    check_estimator,
    estimator_checks_generator,
    parametrize_with_checks,
)
from sklearn.utils.validation import check_is_fitted, validate_data

from foretune.sklearn import TransferClassifier

NUMBERS = "feeds rows of numbers where the estimator wants texts"
FLAT = "the check itself indexes columns of an X that it made 1-d because of the one_d_array tag"
NUMERIC_CHECKS = {
    "check_fit_score_takes_y": NUMBERS,
    "check_estimators_overwrite_params": NUMBERS,
    "check_dont_overwrite_parameters": FLAT,
    "check_estimators_fit_returns_self": NUMBERS,
    "check_readonly_memmap_input": NUMBERS,
    "check_n_features_in_after_fitting": NUMBERS,
    "check_positive_only_tag_during_fit": "feeds negative numbers and demands that they are accepted",
    "check_estimators_dtypes": "feeds numbers of several dtypes and demands that they are accepted",
    "check_dtype_object": "feeds numbers in an object array and demands that they are accepted",
    "check_pipeline_consistency": NUMBERS,
    "check_estimators_nan_inf": "demands that finite numbers are accepted, others refused by name",
    "check_estimator_sparse_array": "the check itself cannot make a 1-d sparse array",
    "check_estimators_pickle": NUMBERS,
    "check_f_contiguous_array_estimator": FLAT,
    "check_classifier_data_not_an_array": NUMBERS,
    "check_classifiers_one_label": "feeds rows of numbers, whose refusal does not mention the class",
    "check_classifiers_classes": NUMBERS,
    "check_classifiers_train": NUMBERS,
    "check_supervised_y_2d": NUMBERS,
    "check_class_weight_classifiers": "feeds two columns of numbers",
    "check_methods_sample_order_invariance": FLAT,
    "check_methods_subset_invariance": FLAT,
    "check_fit2d_1sample": FLAT,
    "check_fit2d_1feature": FLAT,
    "check_dict_unchanged": FLAT,
    "check_fit_idempotent": NUMBERS,
    "check_fit_check_is_fitted": NUMBERS,
    "check_n_features_in": NUMBERS,
    "check_fit2d_predict1d": FLAT,
}
LEVELS = ("lowest", "low", "middle", "high", "highest")
BACKBONE = {}  # its folder exists only once the tests run


@pytest.fixture(scope="module", autouse=True)
def backbone(tiny):
    BACKBONE["folder"] = tiny


class Quick(TransferClassifier):
    """The estimator on the tiny backbone, with the tag without which scikit-learn skips nearly all checks."""

    def _recipe(self, classes):
        return {**super()._recipe(classes), "backbone": BACKBONE["folder"]}

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        return tags


class InWords(Quick):
    """The estimator behind a step that writes each row of numbers as a text."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = tags.input_tags.string = False
        tags.classifier_tags.poor_score = True
        return tags

    def fit(self, X, y):
        X = validate_data(self, X)
        super().fit(words(X), y)
        self.n_features_in_ = X.shape[1]
        return self

    def predict_proba(self, X):
        check_is_fitted(self)
        return super().predict_proba(words(validate_data(self, X, reset=False)))


def words(X):
    levels = np.digitize(X, [-1.5, -0.5, 0.5, 1.5])
    return [" ".join(f"f{column} {LEVELS[level]}" for column, level in enumerate(row)) for row in levels]


SETTINGS = {
    "epochs": 1,
    "batch_tokens": 1024,
    "precision": "fp32",
    "device": "cpu",
    "validation_fraction": 0.0,
}


def test_the_estimator_as_it_is(make):
    with pytest.warns(match="Can't test estimator"):  # as for scikit-learn's own text vectorizers
        results = check_estimator(make(), on_skip=None)
    assert {result["status"] for result in results} == {"passed"}


@parametrize_with_checks(
    [Quick(random_state=0, **SETTINGS)], expected_failed_checks=lambda _: NUMERIC_CHECKS, xfail_strict=True
)
def test_on_numbers(estimator, check):
    check(estimator)


def _in_words():
    """Yield every check; those that run above, and variants of others with other arrays, are slow tests."""
    estimator = InWords(random_state=0, **SETTINGS)
    for _, check in estimator_checks_generator(estimator):
        name, variant = check.func.__name__, ", ".join(map(str, check.keywords.items()))
        marks = [] if name in NUMERIC_CHECKS and not variant else [pytest.mark.slow]
        yield pytest.param(estimator, check, id=f"{name} {variant}".strip(), marks=marks)


@pytest.mark.parametrize(("estimator", "check"), list(_in_words()))
def test_in_words(estimator, check):
    check(clone(estimator))
