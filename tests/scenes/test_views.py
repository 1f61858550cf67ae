"""Pictures, masks and boxes stay together whatever a view does to them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretune.data.scene_views import GREY, Jitter, View, rounded_up
from foretune.errors import ConfigError


def scene(height=40, width=60, box=(12, 8, 20, 16)):
    x, y, w, h = box
    pixels, mask = np.full((height, width, 3), 10, np.uint8), np.zeros((height, width), np.int16)
    pixels[y : y + h, x : x + w], mask[y : y + h, x : x + w] = 250, 1
    return pixels, mask, np.array([box], dtype=np.float64)


def test_a_plain_view_pads_below_and_on_the_right():
    pixels, mask, boxes = scene()
    view = View((40, 60), (0, 0), (64, 64))
    canvas, seen = view.picture(pixels), view.mask(mask)
    np.testing.assert_array_equal(canvas[:40, :60], pixels)
    assert (canvas[40:] == GREY).all() and (canvas[:, 60:] == GREY).all()
    np.testing.assert_array_equal(seen[:40, :60], mask)
    assert (seen[40:] == -1).all() and (seen[:, 60:] == -1).all()
    corners, kept = view.boxes(boxes, (40, 60))
    assert corners.tolist() == [[12, 8, 32, 24]] and kept.all()


def test_mirrored_and_shifted():
    pixels, mask, boxes = scene()
    view = View((40, 60), (5, -10), (48, 40), mirrored=True)
    corners, kept = view.boxes(boxes, (40, 60))
    assert corners.tolist() == [[18, 13, 38, 29]] and kept.all()
    assert (view.mask(mask)[13:29, 18:38] == 1).all() and (view.mask(mask) == 1).sum() == 16 * 20
    assert (view.picture(pixels)[13:29, 18:38] == 250).all()


@pytest.mark.parametrize(
    ("corner", "kept"), [((0, -11), True), ((0, -26), True), ((0, -27), False), ((0, -40), False)]
)
def test_a_box_cropped_to_less_than_a_third_is_gone(corner, kept):
    _, _, boxes = scene()
    corners, found = View((40, 60), corner, (64, 64)).boxes(boxes, (40, 60))
    assert found.tolist() == [kept] and (corners >= 0).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 100_000))
def test_boxes_lie_where_the_mask_does(seed):
    pixels, mask, boxes = scene(80, 100, (30, 20, 40, 30))
    view = Jitter(low=0.6, high=1.8).view((80, 100), (96, 128), np.random.default_rng(seed))
    seen, (corners, kept) = view.mask(mask), view.boxes(boxes, (80, 100))
    assert seen.shape == (96, 128) and view.picture(pixels).shape == (96, 128, 3)
    rows, columns = np.nonzero(seen == 1)
    if not kept[0]:
        assert len(rows) < 40 * 30 * 1.8**2 * 0.35
        return
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(found, corners[0], atol=1.5)


def test_masks_are_resized_by_the_nearest_place():
    mask = np.array([[0, 1], [2, 3]])
    assert View((4, 4), (0, 0), (4, 4)).mask(mask).tolist() == np.kron(mask, np.ones((2, 2))).tolist()
    assert View((1, 1), (0, 0), (1, 1)).mask(np.arange(9).reshape(3, 3)).tolist() == [[4]]


def test_scales_lie_within_their_range_and_half_are_mirrored():
    jitter, chance = Jitter(low=0.5, high=2), np.random.default_rng(0)
    views = [jitter.view((100, 100), (100, 100), chance) for _ in range(400)]
    sides = np.array([view.size[0] for view in views])
    assert sides.min() >= 50 and sides.max() <= 200 and 85 < np.median(sides) < 118
    assert 150 < sum(view.mirrored for view in views) < 250
    for view in views:  # inside where it fits, covering where it does not
        side, (top, left) = view.size[0], view.corner
        assert (min(top, left) >= 0 and max(top, left) + side <= 100) if side <= 100 else max(top, left) <= 0


def test_canvases_are_multiples_of_32():
    assert rounded_up((180, 240)) == (192, 256) and rounded_up((64, 1)) == (64, 32)


@pytest.mark.parametrize("wrong", [{"low": 0.0}, {"low": 3, "high": 2}, {"high": 9}, {"flip": 2}])
def test_options_out_of_range(wrong):
    with pytest.raises(ConfigError, match="expected"):
        Jitter(**wrong)
