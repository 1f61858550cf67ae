"""Trivial models of masks and boxes, the worst pictures, and what the report draws."""

import numpy as np
import pytest

from foretune.evaluation.scene_baselines import box_baselines, mask_baselines
from foretune.evaluation.scene_pictures import colour, dashes, overlay, picture_uri, with_boxes
from foretune.evaluation.scene_sections import box_sections, mask_sections
from foretune.evaluation.scene_worst import SHOWN, WorstBoxes, WorstMasks
from foretune.tasks.base import Examples


def layers(height=40, width=60, sky=0.5):
    mask = np.ones((height, width), dtype=np.int16)
    mask[: int(sky * height)] = 0
    return mask


def test_the_usual_class_at_each_place():
    train = [layers(sky=s) for s in (0.4, 0.5, 0.5, 0.6)]
    found = mask_baselines(train, [layers(80, 50), layers(40, 60, 0.25)], 2)
    usual, majority = (found[name]["pixel_accuracy"]["value"] for name in ("position_majority", "majority"))
    # Half of the first is sky and 4 of 10 rows... of both the usual border is wrong on a quarter of the second.
    assert usual == pytest.approx((4000 + 0.75 * 2400) / 6400, abs=0.01) and majority < 0.7
    perfect = mask_baselines([layers()], [layers(20, 30)], 2)["position_majority"]["miou"]
    assert perfect["value"] == pytest.approx(1) and perfect["low"] < 1


def test_masks_are_looked_at_one_by_one():
    """Generators will do: a data set's masks do not fit into memory."""
    train, held_out = [layers(sky=s) for s in (0.4, 0.6)], [layers(80, 50), layers(40, 60, 0.25)]
    assert mask_baselines(iter(train), iter(held_out), 2) == mask_baselines(train, held_out, 2)


def test_places_never_seen_take_the_majority():
    ignored = layers()
    ignored[:, :30] = -1
    found = mask_baselines([ignored], [layers()], 2)["position_majority"]["pixel_accuracy"]["value"]
    assert found == pytest.approx(0.75, abs=0.02)


def test_usual_boxes_at_usual_places():
    boxes = [np.array([[0, 0, 20, 10, 10, 10], [1, 0, 60, 60, 30, 20]], dtype=np.float32) for _ in range(5)]
    sizes = np.array([[100, 100]] * 5)
    found = box_baselines(boxes, sizes, boxes[:2], sizes[:2], 3)["usual_boxes"]
    assert found["map50"]["value"] > 0.4 and found["map"]["value"] < 1
    none = box_baselines([np.zeros((0, 6))], sizes[:1], boxes[:1], sizes[:1], 2)["usual_boxes"]
    assert none["map"]["value"] == 0
    double = [each * np.array([1, 1, 2, 2, 2, 2]) for each in boxes[:2]]  # of pictures twice as large
    scaled = box_baselines(boxes, sizes, double, 2 * sizes[:2], 3)["usual_boxes"]
    assert scaled["map"]["value"] == pytest.approx(found["map"]["value"])


def examples(n):
    pictures = [np.full((20, 30, 3), 8 * i, np.uint8) for i in range(n)]
    return Examples(pictures, None, np.arange(1, n + 1))


def test_masks_with_most_wrong_pixels_come_first():
    worst = WorstMasks(examples(10), 30)
    true = np.zeros((10, 25, 35), dtype=np.int16)
    true[:, 20:], true[:, :, 30:] = -1, -1
    guess = true.astype(float)
    for row in range(10):
        guess[row, : 2 * row, :30] = 1
    worst.update(np.arange(10), guess, true)
    top = worst.top()
    assert [found["row"] for found in top] == [10, 9, 8, 7, 6, 5] and len(top) == SHOWN
    assert top[0]["score"] == pytest.approx(0.1) and top[0]["predicted"].shape == (20, 30)


def test_pictures_with_most_wrong_boxes_come_first():
    worst = WorstBoxes(examples(3), 2, 0.3)
    true = np.array([[[0, 0, 1, 1, 9, 9]]] * 3, dtype=float)
    guess = np.array([[[0, 0.9, 1, 1, 9, 9]], [[0, 0.2, 1, 1, 9, 9]], [[1, 0.9, 1, 1, 9, 9]]])
    worst.update(np.arange(3), guess, true)
    assert [(found["row"], found["score"], len(found["predicted"])) for found in worst.top()] == [
        (2, 0, 0),
        (3, 0, 1),
    ]


def test_colours_are_far_apart():
    colours = np.array([colour(number) for number in range(20)], dtype=int)
    apart = np.abs(colours[:, None] - colours[None]).sum(axis=-1) + 1000 * np.eye(20, dtype=int)
    assert apart.min() > 60 and colour(-1) == (255, 255, 255)


def test_overlays_leave_ignored_pixels():
    pixels, mask = np.full((2, 2, 3), 100, np.uint8), np.array([[0, 1], [-1, 1]])
    found = overlay(pixels, mask)
    assert (found[1, 0] == 100).all() and (found[0, 1] == found[1, 1]).all() and (found[0, 0] != 100).any()


def test_boxes_are_drawn_whole_and_dashed():
    pixels = np.zeros((60, 60, 3), np.uint8)
    whole = with_boxes(pixels, np.zeros((0, 6)), np.array([[0, 0.9, 10, 10, 40, 40]]))
    dashed = with_boxes(pixels, np.array([[0, 0, 10, 10, 40, 40]]), np.zeros((0, 6)))
    assert (whole[10, 10:50] == colour(0)).all() and not whole[30, 30].any()
    share = (dashed[10, 10:50] == colour(0)).all(axis=-1).mean()
    assert 0.3 < share < 0.75 and len(list(dashes((0, 0, 24, 12)))) == 6
    assert not pixels.any() and picture_uri(whole).startswith("data:image/jpeg;base64,")


def test_boxes_on_large_pictures_can_be_seen():
    """A photograph is shown at a tenth of its size: its lines are not drawn at ten times that."""
    shown = with_boxes(
        np.zeros((2400, 3200, 3), np.uint8),
        np.array([[0, 0, 2000, 400, 800, 800]]),
        np.array([[1, 0.9, 320, 640, 960, 800]]),
    )
    assert shown.shape == (240, 320, 3)
    assert (shown[64, 33:128] == colour(1)).all() and (shown[65:144, 33] == colour(1)).all()
    assert 0.3 < (shown[40, 200:280] == colour(0)).all(axis=-1).mean() < 0.75


def test_sections_escape_names_and_leave_missing_files_out():
    interval = {"value": 0.5, "low": 0.25, "high": 0.75}
    names = ["<b>cat</b>", "dog"]
    classes = [{"iou": interval, "ap": interval, "ap50": interval, "support": 1200} for _ in names]
    found = {"row": 3, "picture": np.zeros((8, 8, 3), np.uint8), "score": 0.5}
    masks = {"true": np.zeros((8, 8), int), "predicted": np.ones((8, 8), int)}
    boxes = {"true": np.zeros((1, 6)), "predicted": np.zeros((0, 6))}
    gone = {"picture": "/nowhere/x.png"}
    result = {"per_class": classes, "classes": classes}
    for sections in (
        mask_sections(result, [{**found, **masks}, {**found, **masks, **gone}], names),
        box_sections(result, [{**found, **boxes}, {**found, **boxes, **gone}], names),
    ):
        page = "".join(sections)
        assert len(sections) == 2 and "<b>" not in page and "&lt;b&gt;cat" in page and "nowhere" not in page
        assert "50.0 (25.0 – 75.0)" in page and "1,200" in page and "row 3" in page
    assert len(mask_sections(result, [], names)) == 1
