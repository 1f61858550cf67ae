"""Average precision against pycocotools, on random boxes and by hand, and its intervals."""

import contextlib
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretune.errors import ConfigError, DataError
from foretune.evaluation import average_precision
from foretune.evaluation.detection import DETECTION_METRICS, NOTHING, DetectionScores
from foretune.evaluation.matching import Boxes, match, overlaps


def pictures(n=15, classes=3, seed=0, crowds=0.0, ties=False, most=8):
    """Return true boxes and detections of each picture: displaced ones, doubled ones, and false ones."""
    draw = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        number = int(draw.integers(0, most))
        boxes = np.c_[draw.uniform(0, 80, (number, 2)), draw.uniform(5, 40, (number, 2))]
        true = np.c_[draw.integers(0, classes, number), draw.random(number) < crowds, boxes]
        again = np.repeat(np.arange(number), draw.integers(0, 3, number))
        moved = boxes[again] + draw.normal(0, 3, (len(again), 4))
        moved[:, 2:] = np.maximum(moved[:, 2:], 1)
        false = np.c_[draw.uniform(0, 80, (4, 2)), draw.uniform(5, 40, (4, 2))]
        labels = np.r_[true[again, 0], draw.integers(0, classes, 4)]
        scores = draw.random(len(labels))
        scores = np.round(scores, 1) if ties else scores
        guess = np.c_[labels, scores, np.r_[moved, false]]
        made.append((guess[np.argsort(-scores, kind="stable")], true))
    return made


def padded(arrays):
    filled = np.full((len(arrays), max(map(len, arrays), default=0), 6), float(NOTHING))
    for row, array in zip(filled, arrays, strict=True):
        row[: len(array)] = array
    return filled


def scored(made, classes=3, batch=4, order=None):
    scores = DetectionScores(classes)
    order = np.arange(len(made)) if order is None else order
    for start in range(0, len(made), batch):
        rows = order[start : start + batch]
        chosen = [made[row] for row in rows]
        scores.update(padded([g for g, _ in chosen]), padded([t for _, t in chosen]), rows)
    return scores


def coco(made, classes=3):
    """Return pycocotools' map, map50, map75 and the precision of each class."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = [
        {
            "id": 0,
            "image_id": i,
            "category_id": int(c),
            "iscrowd": int(k),
            "bbox": [x, y, w, h],
            "area": w * h,
        }
        for i, (_, true) in enumerate(made)
        for c, k, x, y, w, h in true.tolist()
    ]
    for number, annotation in enumerate(truth, start=1):
        annotation["id"] = number
    found = [
        {"image_id": i, "category_id": int(c), "score": s, "bbox": [x, y, w, h]}
        for i, (guess, _) in enumerate(made)
        for c, s, x, y, w, h in guess.tolist()
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = COCO()
        dataset.dataset = {
            "images": [{"id": i} for i in range(len(made))],
            "annotations": truth,
            "categories": [{"id": c} for c in range(classes)],
        }
        dataset.createIndex()
        judged = COCOeval(dataset, dataset.loadRes(found), "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    precision = judged.eval["precision"][:, :, :, 0, -1]  # (thresholds, recalls, classes)
    by_class = np.where(precision > -1, precision, np.nan).mean(axis=(0, 1))
    return dict(zip(DETECTION_METRICS, judged.stats[:3], strict=True)), by_class


@pytest.mark.parametrize("ties", [False, True], ids=["scores", "ties"])
@pytest.mark.parametrize("crowds", [0.0, 0.3])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_pycocotools_agrees(seed, crowds, ties):
    made = pictures(seed=seed, crowds=crowds, ties=ties)
    expected, by_class = coco(made)
    found = scored(made).result()
    assert {name: found[name]["value"] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert [each["ap"]["value"] for each in found["classes"]] == pytest.approx(
        np.nan_to_num(by_class).tolist()
    )


def test_pycocotools_agrees_on_more_than_100_boxes_and_a_class_without_any():
    made = pictures(n=3, seed=5, most=90)
    expected, by_class = coco(made, classes=4)
    assert scored(made, classes=4).point() == pytest.approx(expected, abs=1e-9)
    assert np.isnan(by_class[3])


def test_order_and_batches_change_nothing():
    made = pictures(seed=4, ties=True)
    whole = scored(made).result()
    shuffled = np.random.default_rng(0).permutation(len(made))
    assert scored(made, batch=2, order=shuffled).result() == whole


def test_by_hand():
    true = [[0, 0, 10, 10, 20, 20]]
    exact, half = [0, 0.9, 10, 10, 20, 20], [0, 0.8, 10, 10, 20, 12]  # an IoU of 0.6
    assert scored([(np.array([exact]), np.array(true))], 1).point() == {"map": 1, "map50": 1, "map75": 1}
    found = scored([(np.array([half]), np.array(true))], 1).point()
    assert found == pytest.approx({"map": 0.3, "map50": 1, "map75": 0})  # right at 0.5, 0.55 and 0.6
    both = scored([(np.array([half, exact]), np.array(true))], 1).point()
    assert both["map50"] == 1  # the second is false, but recall 1 was reached at precision 1


def test_nothing_found_and_nothing_there():
    true, none = np.array([[1, 0, 10, 10, 20, 20]]), np.zeros((0, 6))
    result = scored([(none, true)], 2).result()
    assert result["map"]["value"] == 0 and result["map"]["high"] < 1 and result["classes"][1]["support"] == 1
    assert result["classes"][0]["ap"] == {"value": 0, "low": 0, "high": 1}
    assert scored([(none, none)], 2).point() == {"map": 0, "map50": 0, "map75": 0}


def test_a_crowd_takes_any_number_of_boxes_without_counting():
    true = np.array([[0, 1, 0, 0, 50, 50], [0, 0, 60, 60, 20, 20]])
    inside = np.array([[0, 0.99, 5, 5, 9, 9], [0, 0.98, 20, 20, 9, 9], [0, 0.9, 60, 60, 20, 20]])
    assert scored([(inside, true)], 1).point()["map"] == 1
    right, skipped = match(Boxes(inside[:, 2:]), Boxes(true[:, 2:]), true[:, 1] > 0)
    assert right.sum(axis=0).tolist() == [0, 0, 10] and skipped.sum(axis=0).tolist() == [10, 10, 0]


def test_the_interval_is_that_of_drawn_pictures():
    made = pictures(n=40, seed=7, most=5)
    found = scored(made).result()["map50"]
    draw, values = np.random.default_rng(1), []
    for _ in range(60):
        values.append(scored([made[i] for i in draw.integers(0, 40, 40)], batch=40).point()["map50"])
    low, high = np.quantile(values, [0.025, 0.975])
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=0.06)
    assert found["low"] < found["value"] < found["high"]


def test_a_perfect_class_is_not_certain():
    true = np.array([[0, 0, 10, 10, 20, 20], [1, 0, 40, 40, 9, 9]])
    exact = np.c_[true[:, 0], [0.9, 0.8], true[:, 2:]]
    first, second = scored([(exact, true)] * 6, 2).result()["classes"]
    assert first["ap50"] == second["ap"] == {"value": 1, "low": pytest.approx(0.5407, abs=1e-3), "high": 1}


def test_many_boxes_mean_fewer_resamples(monkeypatch):
    made, seen = pictures(seed=3), []
    drawn = average_precision.resample_weights
    monkeypatch.setattr(average_precision, "WORK", 1)
    monkeypatch.setattr(
        average_precision, "resample_weights", lambda n, seed, r, c: seen.append(r) or drawn(n, seed, r, c)
    )
    result = scored(made).result()
    assert seen == [100] and result["map"]["low"] < result["map"]["value"] < result["map"]["high"]


def test_results_are_json_and_repeat():
    scores = scored(pictures())
    assert json.loads(json.dumps(scores.result())) == scores.result() != scores.result(seed=1)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_overlaps_are_symmetric_and_within_0_and_1(seed):
    draw = np.random.default_rng(seed)
    a, b = (Boxes(np.c_[draw.uniform(0, 9, (5, 2)), draw.uniform(0, 9, (5, 2))]) for _ in range(2))
    shared = overlaps(a, b)
    np.testing.assert_allclose(shared, overlaps(b, a).T)
    assert (shared >= 0).all() and (shared <= 1).all()
    np.testing.assert_allclose(np.diag(overlaps(a, a)), 1)


@pytest.mark.parametrize(
    ("predicted", "true", "message"),
    [
        (np.zeros((2, 3, 5)), np.zeros((2, 3, 6)), r"shape \(batch, most, 6\), found \(2, 3, 5\)"),
        (np.full((1, 1, 6), np.nan), np.zeros((1, 1, 6)), "detections are not finite"),
        (np.full((1, 1, 6), 7.0), np.zeros((1, 1, 6)), "detections hold the class number 7; expected 0 to 2"),
        (np.zeros((1, 1, 6)), np.full((1, 1, 6), 3.0), "boxes hold the class number 3; expected 0 to 2"),
    ],
)
def test_wrong_batches_are_refused(predicted, true, message):
    with pytest.raises(DataError, match=message):
        DetectionScores(3).update(predicted, true)


def test_errors_of_nothing():
    with pytest.raises(ConfigError, match="found n_classes=0"):
        DetectionScores(0)
    with pytest.raises(DataError, match="no examples to score"):
        DetectionScores(2).point()
