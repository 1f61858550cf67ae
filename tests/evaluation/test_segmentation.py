"""Mean IoU and pixel accuracy against scikit-learn and by hand, and their intervals."""

import json

import numpy as np
import pytest

from foretune.errors import ConfigError, DataError
from foretune.evaluation.segmentation import SEGMENTATION_METRICS, SegmentationScores, confusion_of, iou_of


def scored(predicted, true, classes=3):
    scores = SegmentationScores(classes)
    scores.update(np.asarray(predicted), np.asarray(true))
    return scores


def noisy(n=12, side=16, classes=4, right=0.7, seed=0):
    draw = np.random.default_rng(seed)
    true = draw.integers(0, classes, (n, side, side))
    guess = np.where(draw.random(true.shape) < right, true, draw.integers(0, classes, true.shape))
    true[draw.random(true.shape) < 0.1] = -1
    return guess, true


def test_by_hand():
    scores = scored([[[0, 0, 1, 1]]], [[[0, 1, 1, -1]]], classes=2)
    # Class 0: 1 of 2; class 1: 1 of 2; the last pixel does not count.
    assert scores.point() == pytest.approx({"miou": 0.5, "pixel_accuracy": 2 / 3})
    assert scores.confusion.tolist() == [[1, 0], [1, 1]]


def test_a_class_that_is_nowhere_is_left_out_and_a_phantom_one_counts():
    assert scored([[[0, 1]]], [[[0, 1]]], classes=5).point()["miou"] == 1
    assert scored([[[0, 2]]], [[[0, 1]]], classes=5).point()["miou"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("classes", [2, 4, 7])
def test_scikit_learn_agrees(classes):
    from sklearn.metrics import accuracy_score, jaccard_score

    guess, true = noisy(classes=classes)
    found = scored(guess, true, classes).point()
    pair = true[true >= 0], guess[true >= 0]
    assert found["miou"] == pytest.approx(jaccard_score(*pair, average="macro"))
    assert found["pixel_accuracy"] == pytest.approx(accuracy_score(*pair))


def test_batches_and_pictures_of_any_size_add_up():
    guess, true = noisy()
    whole, parts = scored(guess, true, 4), SegmentationScores(4)
    parts.update(guess[:5], true[:5])
    parts.update(guess[5:5], true[5:5])
    for g, t in zip(guess[5:], true[5:], strict=True):  # padded, as in a batch with a larger picture
        parts.update(np.pad(g, ((0, 3), (0, 9)))[None], np.pad(t, ((0, 3), (0, 9)), constant_values=-1)[None])
    assert parts.result() == whole.result() and parts.n == 12


def test_the_interval_is_that_of_drawn_pictures():
    guess, true = noisy(n=30, right=0.6)
    guess[:10] = np.where(true[:10] < 0, 0, true[:10])  # some pictures are much easier
    found = scored(guess, true, 4).result()["miou"]
    draw, values = np.random.default_rng(9), []
    for _ in range(400):
        rows = draw.integers(0, 30, 30)
        values.append(scored(guess[rows], true[rows], 4).point()["miou"])
    low, high = np.quantile(values, [0.025, 0.975])
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=0.03)
    assert found["low"] < found["value"] < found["high"]


def test_perfect_masks_have_an_exact_interval():
    _, true = noisy(n=8)
    found = scored(np.maximum(true, 0), true, 4).result()
    for name in SEGMENTATION_METRICS:
        assert found[name]["value"] == found[name]["high"] == 1 and 0.5 < found[name]["low"] < 1
    assert all(0.5 < entry["iou"]["low"] < entry["f1"]["low"] < 1 for entry in found["per_class"])


def test_details_of_each_class():
    guess, true = noisy()
    found = scored(guess, true, 5).result(seed=3)
    assert json.loads(json.dumps(found)) == found and found["n"] == 12
    matrix = np.asarray(found["confusion"])
    for c, entry in enumerate(found["per_class"][:4]):
        assert entry["support"] == matrix[c].sum()
        assert entry["recall"] == pytest.approx(matrix[c, c] / matrix[c].sum())
        dice = 2 * entry["iou"]["value"] / (1 + entry["iou"]["value"])
        assert entry["f1"]["value"] == pytest.approx(dice)
        assert entry["f1"]["low"] < dice < entry["f1"]["high"]
    assert found["per_class"][4]["iou"] == {"value": 0, "low": 0, "high": 1}  # never seen: nothing is known


def test_iou_over_leading_dimensions():
    counts = np.array([[1, 0], [2, 0]]), np.array([[2, 0], [2, 1]]), np.array([[1, 0], [4, 0]])
    np.testing.assert_allclose(iou_of(*counts), [[0.5, np.nan], [0.5, 0]])


def test_errors_name_what_was_found():
    with pytest.raises(ConfigError, match="at least 1 class, found n_classes=0"):
        SegmentationScores(0)
    with pytest.raises(DataError, match=r"shape \(2, 2\) and the true one \(2, 3\)"):
        confusion_of(np.zeros((2, 2)), np.zeros((2, 3)), 2)
    with pytest.raises(DataError, match="The true masks hold the class numbers 0 to 5; expected 0 to 2"):
        confusion_of(np.zeros(2), np.array([0, 5]), 3)
    with pytest.raises(DataError, match="The predicted masks hold the class numbers -2 to 0"):
        confusion_of(np.array([-2, 0]), np.array([0, 1]), 3)
    with pytest.raises(DataError, match="no examples to score"):
        SegmentationScores(3).point()
