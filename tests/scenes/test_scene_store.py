"""Batches of pictures of unequal size with their masks or boxes."""

import numpy as np
import pytest
from PIL import Image

from foretune.data.mask_classes import MaskClasses
from foretune.data.media import BrokenMediaError
from foretune.data.scene_store import LONGEST, BoxLists, Masks, SceneStore
from foretune.data.scene_views import Jitter


@pytest.fixture
def masked(masks_table):
    masks = Masks(masks_table["mask"].tolist(), MaskClasses.of(masks_table))
    return SceneStore(masks_table["path"].tolist(), annotations=masks), masks


def test_plain_batches_are_the_pictures_themselves(masked, masks_table):
    store, masks = masked
    batch = store.batch(np.array([0, 1]))
    assert batch["pixels"].shape == (2, 64, 96, 3)  # 48 x 80 and 64 x 64, on multiples of 32
    assert batch["sizes"].tolist() == [[48, 80, 48, 80], [64, 64, 64, 64]]
    for row, path in enumerate(masks_table["path"][:2]):
        pixels = np.asarray(Image.open(path))
        np.testing.assert_array_equal(batch["pixels"][row, : len(pixels), : pixels.shape[1]], pixels)
    true = masks[np.array([0, 1])]
    assert true.shape == (2, 64, 80)
    np.testing.assert_array_equal(batch["masks"][0, :48, :80], true[0, :48])
    assert (batch["masks"][0, 48:] == -1).all() and set(np.unique(true)) == {-1, 0, 1, 2}


def test_a_side_brings_all_to_one_scale():
    pictures = [np.zeros((100, 50, 3), np.uint8), np.zeros((40, 80, 3), np.uint8)]
    store = SceneStore(pictures, side=64, annotations=BoxLists([np.array([[1, 0, 10, 20, 30, 40.0]])] * 2))
    batch = store.batch(np.array([0, 1]))
    assert batch["sizes"].tolist() == [[64, 32, 100, 50], [32, 64, 40, 80]]
    np.testing.assert_allclose(batch["boxes"][0, 0], [1, 6.4, 12.8, 25.6, 38.4], rtol=1e-6)
    large = SceneStore([np.zeros((LONGEST // 2, 2 * LONGEST, 3), np.uint8)])
    assert large.batch(np.array([0]))["sizes"][0].tolist() == [
        LONGEST // 4,
        LONGEST,
        LONGEST // 2,
        2 * LONGEST,
    ]


def test_boxes_are_filled_up_and_crowds_are_no_objects():
    lists = BoxLists(
        [np.zeros((0, 6), np.float32), np.array([[0, 0, 1, 2, 3, 4], [1, 1, 0, 0, 9, 9]], np.float32)]
    )
    true = lists[np.array([0, 1])]
    assert true.shape == (2, 2, 6) and true[0, :, 0].tolist() == [-1, -1] and true[1, 1, 1] == 1
    store = SceneStore([np.zeros((32, 32, 3), np.uint8)] * 2, annotations=lists)
    assert store.batch(np.array([0, 1]))["boxes"].tolist() == [[[-1, 0, 0, 0, 0]], [[0, 1, 2, 4, 6]]]


def test_varied_batches_follow_torchs_generator(masked):
    import torch

    store = masked[0].varied(Jitter())
    assert store.canvas == (64, 64) and store.varies and not masked[0].varies
    torch.manual_seed(3)
    first, second = store.batch(np.array([0, 1, 2])), store.batch(np.array([0, 1, 2]))
    torch.manual_seed(3)
    again = store.batch(np.array([0, 1, 2]))
    for name in ("pixels", "masks", "sizes"):
        np.testing.assert_array_equal(first[name], again[name])
    assert (first["pixels"] != second["pixels"]).any()
    assert first["sizes"].tolist() == [[64, 64, *size] for size in masked[0].sizes[:3].tolist()]


def test_keys_tell_contents_and_size(masked, tmp_path):
    store, _ = masked
    copies = []
    for path in store.pictures[:2]:
        copies.append(str(tmp_path / f"{len(copies)}.png"))
        Image.open(path).save(copies[-1])
    own = SceneStore(copies).key()
    assert own == SceneStore(copies).key() != SceneStore(copies, side=64).key()
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(copies[0])
    assert SceneStore(copies).key() != own
    assert len(store) == 12 and store.lengths.tolist() == [1] * 12 and store.cuts.cut_examples == 0


def test_broken_files_name_themselves(tmp_path):
    file = tmp_path / "broken.png"
    file.write_bytes(b"no picture")
    with pytest.raises(BrokenMediaError, match=r"broken\.png"):
        SceneStore([str(file)]).batch(np.array([0]))
