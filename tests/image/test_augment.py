"""Random variation of pictures: what it may do, and that its chance can be repeated."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foretune.data.image_augment import OPERATIONS, Augmentation, contact_sheet, crop_box, operate
from foretune.errors import ConfigError

OFF = {"min_area": 1.0, "flip": 0.0}


def picture(height=30, width=50, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@given(
    height=st.integers(1, 500), width=st.integers(1, 500), area=st.floats(0.01, 1), seed=st.integers(0, 2**32)
)
def test_crops_lie_inside_and_are_large_enough(height, width, area, seed):
    left, top, right, bottom = crop_box(height, width, area, 1.0, np.random.default_rng(seed))
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    share = (right - left) * (bottom - top) / (height * width)
    square = min(height, width) ** 2 / (height * width)
    assert share >= min(area, square) - 1e-9
    assert 3 / 4 - 1e-6 <= (right - left) / (bottom - top) <= 4 / 3 + 1e-6


def test_without_a_random_crop_the_middle_is_taken():
    assert crop_box(30, 50, 1.0, 1.0, np.random.default_rng(0)) == (10, 0, 40, 30)
    assert crop_box(40, 20, 1.0, 2.0, np.random.default_rng(0)) == (0, 15, 20, 25)


def test_nothing_left_to_chance_is_a_plain_resize():
    from PIL import Image

    image = picture(20, 20)
    found = Augmentation(**OFF)(image, np.random.default_rng(0), (10, 10), "bilinear")
    expected = Image.fromarray(image).resize((10, 10), Image.Resampling.BILINEAR)
    assert np.array_equal(found, np.asarray(expected))
    assert not Augmentation(**OFF).varies and Augmentation().varies


def test_flips_left_and_right():
    image = picture(16, 16)
    found = Augmentation(min_area=1.0, flip=1.0)(image, np.random.default_rng(0), (16, 16), "nearest")
    assert np.array_equal(found, image[:, ::-1])


def test_the_same_seed_gives_the_same_picture_and_another_another():
    change = Augmentation(rand_augment=2)
    first, again, other = (
        change(picture(), np.random.default_rng(seed), (24, 32), "bicubic") for seed in (3, 3, 4)
    )
    assert first.shape == (24, 32, 3) and np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("strength", [-1.0, 0.5])
def test_every_operation_keeps_the_shape(name, strength):
    from PIL import Image

    image = Image.fromarray(picture() // 2 + 60)
    found = operate(image, name, strength)
    assert (found.size, found.mode) == (image.size, "RGB")
    assert np.array_equal(np.asarray(found), np.asarray(image)) is (name == "nothing")


@pytest.mark.parametrize(
    "name", ["rotate", "color", "contrast", "brightness", "shear_x", "shift_y", "posterize"]
)
def test_no_strength_changes_nothing(name):
    from PIL import Image

    image = Image.fromarray(picture())
    assert np.array_equal(np.asarray(operate(image, name, 0.0)), np.asarray(image))


def test_seeds_follow_the_global_generator():
    torch.manual_seed(5)
    first, state = Augmentation().seeds(4), torch.get_rng_state()
    second = Augmentation().seeds(4)
    torch.set_rng_state(state)
    assert second == Augmentation().seeds(4) and first != second and len(set(first)) == 4


def test_mixup_pairs_every_picture_with_one():
    torch.manual_seed(0)
    np.random.seed(0)
    found = Augmentation(mixup=0.4).mixing(8)
    assert sorted(found["mix_order"].tolist()) == list(range(8))
    assert found["mix_share"].shape == (1,) and 0 <= float(found["mix_share"]) <= 1
    assert found["mix_share"].dtype == torch.float32 and Augmentation().mixing(8) == {}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("min_area", 0), ("min_area", 1.1), ("flip", -0.1), ("flip", "often"), ("rand_augment", 1.5),
        ("rand_augment", -1), ("magnitude", 11), ("mixup", -1), ("mixup", True),
    ],
)  # fmt: skip
def test_wrong_options_are_named(option, value):
    with pytest.raises(ConfigError, match=option):
        Augmentation(**{option: value})


def test_a_contact_sheet_shows_the_first_pictures():
    from PIL import Image

    shades = [np.full((8, 10, 3), 20 * n, dtype=np.uint8) for n in range(5)]
    sheet = np.asarray(
        Image.open(io.BytesIO(contact_sheet([0, 1, 2, 3, 4], shades.__getitem__, n=4, columns=3)))
    )
    assert sheet.shape == (16, 30, 3)
    assert [sheet[0, 5, 0], sheet[0, 15, 0], sheet[0, 25, 0], sheet[10, 5, 0]] == [0, 20, 40, 60]
    assert (sheet[8:, 10:] == 255).all()
    with pytest.raises(ConfigError, match="at least one"):
        contact_sheet([], shades.__getitem__)
