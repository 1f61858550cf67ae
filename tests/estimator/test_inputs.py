"""What `fit` and `predict` take, and what they refuse."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.exceptions import NotFittedError

from foretune import ForetuneError

FORMS = {
    "list": list,
    "tuple": tuple,
    "strings": lambda texts: np.array(texts),
    "objects": lambda texts: np.array(texts, dtype=object),
    "series": lambda texts: pd.Series(texts, index=range(100, 100 + len(texts))),
    "string series": lambda texts: pd.Series(texts, dtype="string"),
    "index": pd.Index,
    "column": lambda texts: np.array(texts, dtype=object)[:, None],
    "frame": lambda texts: pd.DataFrame({"any name": texts}),
    "lists of one": lambda texts: [[text] for text in texts],
}
REFUSED = {
    "numbers": ([1.0, 2.0], "must hold texts; found float in rows 1, 2"),
    "an array of numbers": (np.ones(3), "must hold texts"),
    "bytes": ([b"one", b"two"], "found bytes"),
    "one number": (["a text", 3], "found int in row 2"),
    "None": (["a text", None], "missing"),
    "NaN": (["a text", float("nan")], "missing"),
    "NA": (pd.Series(["a text", pd.NA], dtype="string"), "missing"),
    "blank": (["a text", "  "], "blank"),
    "half a surrogate pair": (["a text", "\ud800"], "surrogate"),
    "two columns": (pd.DataFrame({"a": ["x", "y"], "b": ["x", "y"]}), r"shape \(2, 2\)"),
    "no column": (np.empty((2, 0)), "0 feature"),
    "three dimensions": (np.full((2, 1, 1), "x", dtype=object), "shape"),
    "unequal lists": ([["a"], ["b", "c"]], "found list"),
    "sparse": (scipy.sparse.csr_matrix(np.eye(2)), "Sparse"),
    "a string": ("a text", "is a str; expected a sequence"),
    "nothing": (None, "NoneType"),
    "a generator": ((text for text in ["a"]), "generator"),
    "a dict": ({"text": ["a", "b"]}, "is a dict"),
    "no rows": ([], "0 sample"),
}
TARGETS = {
    "none": (None, "requires y to be passed, but the target y is None"),
    "continuous": (np.linspace(0.1, 0.9, 48), "Unknown label type: continuous"),
    "one class": (["same"] * 48, "1 class"),
    "missing": ([None, *["a", "b"] * 23, "a"], r"NaN or None \(row 1\)"),
    "NaN": ([float("nan"), *[0.0, 1.0] * 23, 0.0], "NaN"),
    "two columns": (np.zeros((48, 2), int), "1d array"),
    "too short": (["a", "b"], "inconsistent numbers of samples"),
    "several labels": ([["a", "b"]] * 48, "1d array"),
    "blank": ([" ", *["a", "b"] * 23, "a"], "missing"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_texts_predicts_the_same(fitted, toy, form):
    texts, _ = toy()
    np.testing.assert_array_equal(fitted.predict_proba(FORMS[form](texts)), fitted.predict_proba(texts))


@pytest.mark.parametrize("form", ["frame", "strings"])
def test_every_form_of_texts_fits_the_same(make, toy, form):
    texts, numbers = toy()
    one, other = (
        make(epochs=1).fit(texts, numbers),
        make(epochs=1).fit(FORMS[form](texts), pd.Series(numbers)),
    )
    np.testing.assert_array_equal(one.predict_proba(texts), other.predict_proba(texts))
    assert other.n_features_in_ == 1


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("method", ["fit", "predict", "predict_proba"])
def test_what_is_no_text_is_refused(make, fitted, case, method):
    X, message = REFUSED[case]
    with pytest.raises((ValueError, TypeError), match=message):
        if method == "fit":
            make().fit(X, ["a", "b"])
        else:
            getattr(fitted, method)(X)


@pytest.mark.parametrize("case", TARGETS)
def test_wrong_targets_are_refused(make, toy, case):
    y, message = TARGETS[case]
    with pytest.raises(ValueError, match=message):
        make().fit(toy()[0], y)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": -1.0}, "lr is -1"),
        ({"backbone": "minilm-l7"}, "Did you mean 'minilm-l6'"),
        ({"strategy": "fulll"}, "fulll"),
        ({"truncation": "middle"}, "truncation"),
        ({"options": {"poling": "mean"}}, "poling"),
        ({"class_weight": "auto"}, "class_weight is 'auto'"),
        ({"class_weight": {0: 1.0, 7: 2.0}}, "class_weight names 7"),
        ({"class_weight": {0: -1.0}}, "weight of '0'"),
        ({"validation_fraction": 1.5}, "fraction"),
        ({"random_state": "seed"}, "seed"),
        ({"max_tokens": 100}, "at most 30"),
    ],
)
def test_wrong_parameters_are_value_errors_of_fit(make, toy, changes, message):
    estimator = make().set_params(**changes)
    with pytest.raises(ValueError, match=message):
        estimator.fit(*toy())
    with pytest.raises(NotFittedError):
        estimator.predict(["a text"])


def test_own_refusals_are_both_families_of_errors(make):
    with pytest.raises(ForetuneError, match="found int"):
        make().fit([1, 2], ["a", "b"])


@pytest.mark.parametrize("method", ["predict", "predict_proba"])
def test_not_fitted(make, method):
    with pytest.raises(NotFittedError):
        getattr(make(), method)(["a text"])


def test_a_failed_fit_leaves_the_last_one(make, toy):
    estimator = make(epochs=1).fit(*toy())
    before = estimator.predict_proba(["my card"])
    with pytest.raises(ValueError, match="1 class"):
        estimator.fit(["a", "b"], ["same", "same"])
    np.testing.assert_array_equal(estimator.predict_proba(["my card"]), before)


def test_a_column_vector_of_labels_is_flattened_with_a_warning(make, toy):
    texts, numbers = toy()
    with pytest.warns(match="column-vector y was passed"):
        assert make(epochs=1).fit(texts, numbers[:, None]).predict(texts).shape == (48,)


def test_numpy_scalars_are_fine_as_parameters(make, toy):
    estimator = make(
        epochs=np.int64(1), lr=np.float32(0.001), offline=np.bool_(True), random_state=np.int64(3)
    )
    assert estimator.fit(*toy()).model_.recipe.seed == 3
