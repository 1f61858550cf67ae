"""Pictures as a store: read in order, varied repeatably, recognised by their contents."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from foretune.data import image_store
from foretune.data.image_augment import Augmentation
from foretune.data.image_store import ImageStore, digests
from foretune.errors import DataError


@dataclass(frozen=True)
class Corner:
    """The left upper corner."""

    size: tuple[int, int] = (8, 12)
    interpolation: str = "bilinear"

    def key(self):
        return f"corner {self.size}"

    def __call__(self, picture):
        return picture[: self.size[0], : self.size[1]]


def test_pictures_are_read_in_the_order_asked_for(pictures):
    from PIL import Image

    store = ImageStore(pictures, Corner())
    pixels = store.pixels(np.array([4, 0, 4]))
    expected = [np.asarray(Image.open(pictures[n]))[:8, :12] for n in (4, 0, 4)]
    assert pixels.dtype == np.uint8 and np.array_equal(pixels, np.stack(expected))
    assert len(store) == 6 and store.lengths.tolist() == [1] * 6 and store.cuts.sentence(1) is None


def test_arrays_stand_for_files():
    array = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    store = ImageStore([array], Corner())
    assert np.array_equal(store.pixels(np.array([0]))[0], array[:8, :12])
    assert store.key() != ImageStore([array[::-1].copy()], Corner()).key()


def test_augmented_pictures_vary_and_can_be_repeated(pictures):
    store = ImageStore(pictures, Corner()).augmented(Augmentation(rand_augment=1))
    rows = np.arange(6)
    torch.manual_seed(1)
    first, second = store.pixels(rows), store.pixels(rows)
    torch.manual_seed(1)
    assert np.array_equal(first, store.pixels(rows)) and not np.array_equal(first, second)
    assert store.varies and not store.plain().varies and not ImageStore(pictures, Corner()).varies
    assert first.shape == (6, 8, 12, 3)


def test_the_order_in_which_threads_finish_does_not_matter(pictures, monkeypatch):
    store = ImageStore(pictures, Corner()).augmented(Augmentation(rand_augment=2))
    torch.manual_seed(2)
    threaded = store.pixels(np.arange(6))

    def backwards(function, items):
        return [function(item) for item in reversed(items)][::-1]

    monkeypatch.setattr(image_store, "in_order", backwards)
    torch.manual_seed(2)
    assert np.array_equal(threaded, store.pixels(np.arange(6)))


def test_without_augmentation_no_random_number_is_drawn(pictures):
    state = torch.get_rng_state()
    ImageStore(pictures, Corner()).pixels(np.arange(6))
    assert torch.equal(state, torch.get_rng_state())


def test_what_people_are_shown_does_not_move_the_run(pictures):
    store, state = ImageStore(pictures, Corner()).augmented(Augmentation()), torch.get_rng_state()
    assert np.array_equal(store.shown(2), store.shown(2)) and store.shown(2).shape == (8, 12, 3)
    assert np.array_equal(store.plain().shown(2), ImageStore(pictures, Corner()).pixels(np.array([2]))[0])
    assert torch.equal(state, torch.get_rng_state())


def test_the_key_is_of_contents_and_not_of_places(pictures, tmp_path):
    store = ImageStore(pictures, Corner())
    copies = [shutil.copy(path, tmp_path / f"copy{n}.png") for n, path in enumerate(pictures)]
    assert ImageStore(copies, Corner()).key() == store.key()
    assert ImageStore(pictures[::-1], Corner()).key() != store.key()
    assert ImageStore(pictures, Corner(size=(8, 8))).key() != store.key()


def test_files_of_equal_size_and_time_are_told_apart(tmp_path, paint):
    paths = [paint(tmp_path / f"{n}.bmp", (100, 100, 100), seed=n) for n in range(2)]
    for path in paths:
        os.utime(path, ns=(10**18, 10**18))
    assert Path(paths[0]).stat().st_size == Path(paths[1]).stat().st_size
    first, second = digests(paths)
    assert first != second and digests(paths) == [first, second]


def test_a_changed_file_is_hashed_again(tmp_path, paint):
    path = paint(tmp_path / "a.png", (9, 9, 9))
    before = digests([path])
    paint(tmp_path / "a.png", (200, 9, 9), seed=1)
    assert digests([path]) != before


def test_broken_and_missing_files_are_named(pictures, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes((tmp_path / "pictures" / "1.png").read_bytes()[:200])
    with pytest.raises(DataError, match=r"broken\.png"):
        ImageStore([*pictures, str(broken)], Corner()).pixels(np.array([0, 6]))
    with pytest.raises(DataError, match=r"nowhere\.png"):
        ImageStore([str(tmp_path / "nowhere.png")], Corner()).key()
