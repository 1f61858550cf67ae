"""Boxes are clipped to their pictures; those that cannot be are refused with their ids."""

import numpy as np
import pytest

from foretune.data.boxes import clean_boxes
from foretune.errors import DataError


def clean(*boxes, size=(100, 50), ids=None):
    sizes = np.array([size] * len(boxes), dtype=np.int64).reshape(-1, 2)
    return clean_boxes(list(boxes), sizes, ids or list(range(1, len(boxes) + 1)), "a.json")


def refused(*boxes, **options):
    with pytest.raises(DataError, match=r"^a\.json: ") as caught:
        clean(*boxes, **options)
    return str(caught.value)


def test_boxes_inside_stay_as_they_are():
    found = clean([0, 0, 100, 50], (10.5, 20, 1, 2.25))
    assert found.boxes.tolist() == [[0, 0, 100, 50], [10.5, 20, 1, 2.25]]
    assert found.keep.all() and found.warnings == ()


def test_boxes_over_the_edge_are_cut_off_and_counted():
    inside = [[10, 10, 5, 5]] * 8
    found = clean(*inside, [-10, -5, 30, 20], [90, 40, 30, 30], ids=list("abcdefghij"))
    assert found.boxes[8:].tolist() == [[0, 0, 20, 15], [90, 40, 10, 10]]
    assert found.warnings == ("a.json: 2 boxes cut off at the edge of the picture (annotation i, j).",)


def test_rounding_is_no_warning():
    found = clean([-0.6, 0, 101, 50.9])
    assert found.warnings == () and found.boxes.tolist() == [[0, 0, 100, 50]]


def test_boxes_without_area_are_left_out_and_counted():
    found = clean([5, 5, 0, 10], [5, 5, 3, 3], [200, 5, 0, 0])
    assert found.keep.tolist() == [False, True, False]
    assert found.warnings == ("a.json: 2 boxes without area left out (annotation 1, 3).",)


@pytest.mark.parametrize("box", [[100, 10, 5, 5], [10, 60, 5, 5], [-20, 10, 20, 5], [10, -9, 5, 4]])
def test_boxes_wholly_outside_are_named(box):
    found = refused([1, 1, 5, 5], box)
    assert "1 box has no part in the picture: annotation 2." in found and "[x, y, width, height]" in found


@pytest.mark.parametrize(
    "box",
    [[1, 2, 3], "1234", None, [1, 2, 3, "4"], [1, 2, 3, float("nan")], [1, 2, 3, float("inf")], [True] * 4],
)
def test_what_is_no_box_is_named(box):
    assert "no box of four finite numbers: annotation 1" in refused(box, [1, 1, 2, 2])


def test_negative_sizes_are_named():
    assert "2 boxes have a negative width or height: annotation 1, 3" in refused(
        [9, 9, -3, 4], [1, 1, 2, 2], [9, 9, 3, -4]
    )


def test_corners_are_recognised():
    found = refused([10, 10, 95, 45], [50, 20, 90, 30], [1, 1, 20, 20])
    assert "67% of the boxes pass the edge" in found and "corners x1, y1, x2, y2" in found


def test_fractions_are_recognised():
    assert "fractions" in refused([0.1, 0.2, 0.5, 0.5], [0.0, 0.0, 1.0, 1.0])


def test_no_boxes():
    found = clean()
    assert found.boxes.shape == (0, 4) and found.warnings == ()
