from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from foretune.errors import DataError
from foretune.evaluation.counts import check_confusion, class_counts, point_metrics


def confusion_of(true: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    matrix = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(matrix, (true, predicted), 1)
    return matrix


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=40))
def test_agrees_with_sklearn_even_where_classes_are_absent(pairs: list[tuple[int, int]]) -> None:
    true, predicted = np.array(pairs).T
    ours = point_metrics(confusion_of(true, predicted, 9))
    for average in ("macro", "weighted"):
        theirs = precision_recall_fscore_support(true, predicted, average=average, zero_division=0)
        names = (
            ("macro_precision", "macro_recall", "macro_f1")
            if average == "macro"
            else (None, None, "weighted_f1")
        )
        for name, value in zip(names, theirs[:3], strict=True):
            assert name is None or ours[name] == pytest.approx(value, abs=1e-12)
    each = precision_recall_fscore_support(true, predicted, labels=range(9), zero_division=0)
    for name, values in zip(("precision", "recall", "f1", "support"), each, strict=True):
        np.testing.assert_allclose(ours[name], values, atol=1e-12)
    assert ours["accuracy"] == pytest.approx(accuracy_score(true, predicted), abs=1e-12)


def test_leading_dimensions_are_independent() -> None:
    stack = np.random.default_rng(0).integers(0, 9, size=(2, 3, 4, 4))
    together = point_metrics(stack)
    assert together["macro_f1"].shape == (2, 3) and together["f1"].shape == (2, 3, 4)
    for i, j in np.ndindex(2, 3):
        for name, values in point_metrics(stack[i, j]).items():
            np.testing.assert_allclose(together[name][i, j], values)


def test_an_empty_matrix_scores_zero_without_a_warning() -> None:
    scores = point_metrics(np.zeros((3, 3), dtype=int))
    assert scores["accuracy"] == 0 and scores["macro_f1"] == 0


def test_rows_are_true_and_columns_predicted() -> None:
    correct, true, predicted = class_counts(np.array([[3, 2], [0, 5]]))
    assert correct.tolist() == [3, 5] and true.tolist() == [5, 5] and predicted.tolist() == [3, 7]


@pytest.mark.parametrize(
    "wrong", [np.zeros(3), np.zeros((2, 3)), np.array([[1, -1], [0, 1]]), np.array([[0.5]])]
)
def test_anything_but_counts_is_an_error(wrong: np.ndarray) -> None:
    with pytest.raises(DataError, match="confusion matrix"):
        check_confusion(wrong)
