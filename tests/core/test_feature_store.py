"""The feature store: what was written comes back, in any order and batch; what was damaged never does."""

import itertools
import json
import os
import shutil

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foretune.backbones import feature_drafts, feature_files, feature_layout
from foretune.backbones import feature_store as fs

ODD = [3, 0, 1, 17, 0, 0, 5, 1, 9, 30, 2, 0]
TAILS = [(4,), (3, 2)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FORETUNE_CACHE", str(tmp_path))
    monkeypatch.setenv("FORETUNE_CACHE_BYTES", "1GB")
    return tmp_path / "features"


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(feature_layout, "CHUNK_BYTES", 100)


@pytest.fixture
def no_sync(monkeypatch):
    """Leave out what only a failing machine needs and what takes most of the time."""
    monkeypatch.setattr(feature_files, "_sync", lambda path: None)


def features(layout, seed=0):
    """Return one float32 tensor of rows for every example."""
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(length, *layout.tail, generator=draw) for length in layout.lengths.tolist()]


def rounded(layout, rows):
    return rows.to(torch.bfloat16).float() if layout.dtype == "bf16" else rows


def write(key, layout, values, batch=5, seed=0, kind=torch.float32):
    order = np.random.default_rng(seed).permutation(len(values))
    with fs.create(key, layout) as writer:
        for begin in range(0, len(order), batch):
            examples = order[begin : begin + batch]
            writer.write(examples, torch.cat([values[i] for i in examples]).to(kind))
        return writer.finish()


def equals(store, values, examples):
    """Compare bit by bit with the plainest way to put a batch together."""
    layout = store.layout
    rows = [rounded(layout, values[i]) for i in examples] or [torch.zeros(0, *layout.tail)]
    longest = max((len(row) for row in rows), default=0) if len(examples) else 0
    padded = torch.zeros(len(examples), longest, *layout.tail)
    for target, row in zip(padded, rows, strict=False):
        target[: len(row)] = row
    found = store.rows(np.array(examples)), store.padded(np.array(examples))
    assert [part.dtype for part in found] == [torch.float32] * 2
    return all(
        a.shape == b.shape and torch.equal(a.view(torch.int32), b.view(torch.int32))
        for a, b in zip(found, (torch.cat(rows), padded), strict=True)
    )


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("lengths", [ODD, [1] * 40, [0, 0], [7], []])
def test_round_trip_in_any_order(small_chunks, cache, dtype, tail, lengths):
    layout = fs.Layout(np.array(lengths), tail, dtype)
    values = features(layout)
    made = write("key", layout, values)
    feature_files._CHECKED.clear()
    loaded = fs.load("key")
    everyone = list(range(len(lengths)))
    for store in (made, loaded):
        assert store.layout == layout and len(store) == len(lengths)
        assert store.nbytes == layout.bytes == sum(lengths) * np.prod(tail) * (2 if dtype == "bf16" else 4)
        for examples in (everyone, everyone[::-1], everyone[::3] * 2, []):
            assert equals(store, values, examples)
    assert not list(cache.glob(".*"))


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_any_float_type_is_taken(kind):
    layout = fs.Layout(np.array(ODD), (4,), "fp32")
    values = [row.to(kind).float() for row in features(layout)]
    assert equals(write("key", layout, values, kind=kind), values, range(len(ODD)))


def test_all_numbers_of_bfloat16_survive():
    bits = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(torch.bfloat16).float()
    layout = fs.Layout(np.full(256, 4), (64,), "bf16")
    store = write("key", layout, list(bits.reshape(256, 4, 64)))
    found = store.rows(np.arange(256)).flatten()
    assert torch.equal(found.isnan(), bits.isnan())
    assert torch.equal(found[~found.isnan()].view(torch.int32), bits[~bits.isnan()].view(torch.int32))


def test_rows_of_a_graph_of_inference_and_of_another_order_are_taken():
    layout = fs.Layout(np.array([2, 3]), (4,), "fp32")
    values = features(layout)
    with fs.create("key", layout) as writer:
        writer.write([1], values[1].T.contiguous().T.requires_grad_())
        with torch.inference_mode():
            writer.write(torch.tensor([0]), values[0] + 0)
        store = writer.finish()
    assert equals(store, values, [0, 1])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_batches_are_those_of_a_naive_store(monkeypatch, cache, no_sync, data):
    lengths = data.draw(st.lists(st.integers(0, 12), min_size=1, max_size=25))
    tail, dtype = data.draw(st.sampled_from([*TAILS, (1,), ()])), data.draw(st.sampled_from(["bf16", "fp32"]))
    batch = st.lists(st.integers(0, len(lengths) - 1), max_size=30)
    monkeypatch.setattr(feature_layout, "CHUNK_BYTES", data.draw(st.sampled_from([1, 40, 300, 10**6])))
    monkeypatch.setattr(feature_drafts, "OPEN_FILES", data.draw(st.sampled_from([1, 2, 64])))
    layout = fs.Layout(np.array(lengths), tail, dtype)
    values = features(layout, seed=len(lengths))
    shutil.rmtree(cache, ignore_errors=True)  # of the example before
    store = write(
        "key", layout, values, batch=data.draw(st.integers(1, 30)), seed=data.draw(st.integers(0, 9))
    )
    for examples in data.draw(st.lists(batch, min_size=1, max_size=3)):
        assert equals(store, values, examples)


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 80))
@settings(max_examples=100, deadline=None)
def test_chunks_end_at_examples_and_are_no_larger_than_they_must(lengths, limit):
    layout = fs.Layout(np.array(lengths, dtype=np.int64), (1,), "fp32")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_layout, "CHUNK_BYTES", limit)
        borders = layout.borders.tolist()
    assert borders[0] == 0 and borders[-1] == len(lengths) and borders == sorted(set(borders))
    sizes = [4 * sum(lengths[a:b]) for a, b in itertools.pairwise(borders)]
    for (a, b), size in zip(itertools.pairwise(borders), sizes, strict=True):
        assert size <= limit or b == a + 1
        assert b == len(lengths) or size + 4 * lengths[b] > limit


def test_files_are_cut_as_planned(cache, small_chunks):
    layout = fs.Layout(np.array([3, 3, 3, 40, 0, 1]), (4,), "bf16")  # 8 bytes a row
    write("key", layout, features(layout))
    assert layout.borders.tolist() == [0, 3, 4, 6]
    (folder,) = cache.iterdir()
    assert [path.stat().st_size for path in sorted(folder.glob("chunk-*"))] == [72, 320, 8]


def test_what_is_read_may_be_changed_without_changing_the_store():
    layout = fs.Layout(np.array([2, 1]), (4,), "fp32")
    values = features(layout)
    store = write("key", layout, values)
    for part in (store.rows(np.array([0])), store.padded(np.array([0, 1]))):
        part.zero_()
    assert equals(store, values, [0, 1])
    with pytest.raises(ValueError, match="read-only"):
        store._arrays[0][0] = 0


def test_a_missing_example_is_refused(cache):
    layout = fs.Layout(np.array([2, 0, 1]), (4,), "fp32")
    writer = fs.create("key", layout)
    writer.write([0], torch.ones(2, 4))
    with pytest.raises(ValueError, match="2 examples were not written, the first is 1"):
        writer.finish()
    assert list(cache.iterdir()) == [] and fs.load("key") is None
    with pytest.raises(ValueError, match="finished or abandoned"):
        writer.write([1, 2], torch.ones(1, 4))


@pytest.mark.parametrize(
    ("examples", "shape", "message"),
    [
        ([0], (2, 4), "written twice"),
        ([1, 1], (6, 4), "written twice"),
        ([3], (1, 4), "numbers from 0 to 2"),
        ([-1], (1, 4), "numbers from 0 to 2"),
        ([[1, 2]], (4, 4), "numbers from 0 to 2"),
        ([1], (2, 4), r"rows are \(2, 4\), expected \(3, 4\)"),
        ([1], (3, 5), r"expected \(3, 4\)"),
        ([1], (12,), r"expected \(3, 4\)"),
    ],
)
def test_rows_that_do_not_fit_are_refused(examples, shape, message):
    layout = fs.Layout(np.array([2, 3, 1]), (4,), "fp32")
    values = features(layout)
    with fs.create("key", layout) as writer:
        writer.write([0], values[0])
        with pytest.raises(ValueError, match=message):
            writer.write(examples, torch.ones(shape))
        writer.write([2, 1], torch.cat([values[2], values[1]]))
        assert equals(writer.finish(), values, [0, 1, 2])


@pytest.mark.parametrize(
    ("lengths", "tail", "dtype"),
    [
        ([1, -1], (4,), "fp32"),
        ([1.5], (4,), "fp32"),
        ([[1]], (4,), "fp32"),
        ([1], (0,), "fp32"),
        ([1], (4,), "fp16"),
    ],
)
def test_a_layout_that_cannot_be_is_refused(lengths, tail, dtype):
    with pytest.raises(ValueError, match=r"expected|must be"):
        fs.Layout(np.array(lengths), tail, dtype)


def test_layouts_are_equal_where_all_of_them_is():
    layout = fs.Layout(np.array([1, 2]), (4,), "fp32")
    assert layout == fs.Layout(np.array([1, 2], dtype=np.int32), (4,), "fp32")
    for other in (
        ([1, 3], (4,), "fp32"),
        ([1], (4,), "fp32"),
        ([1, 2], (2, 2), "fp32"),
        ([1, 2], (4,), "bf16"),
    ):
        assert layout != fs.Layout(np.array(other[0]), *other[1:])


def test_keys_differ_in_every_part():
    key = fs.store_key(layer=3, data="abc")
    assert key == fs.store_key(data="abc", layer=3) and len(key) == 64 and int(key, 16)
    others = [
        {"layer": 4, "data": "abc"},
        {"layer": "3", "data": "abc"},
        {"layer": 3, "data": "abd"},
        {"layer": 3},
    ]
    assert len({key, *(fs.store_key(**parts) for parts in others)}) == 5


def test_nothing_there_is_nothing_made(cache):
    assert fs.load("key") is None and not cache.exists()


# --- damage


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def shorten(path):
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"\0")


def empty(path):
    path.write_bytes(b"")


def make_folder(path):
    path.unlink()
    path.mkdir()


def delete(path):
    path.unlink()


@pytest.mark.parametrize("harm", [flip, shorten, lengthen, empty, make_folder, delete])
def test_damage_to_any_file_is_found_and_made_good(cache, small_chunks, no_sync, harm):
    layout = fs.Layout(np.array(ODD[:8]), (4,), "bf16")  # in three chunks
    values = features(layout)
    for number in itertools.count():
        write("key", layout, values)
        (folder,) = cache.iterdir()
        names = sorted(path.name for path in folder.iterdir())
        if number == len(names):
            break
        harm(folder / names[number])
        assert fs.load("key") is None, names[number]
        assert list(cache.iterdir()) == []
    assert len(names) == 5 and equals(fs.load("key"), values, range(8))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"sha256": 1, "content": 2}',
        b'{"content": {}}',
    ],
)
def test_garbage_is_no_store(cache, content):
    layout = fs.Layout(np.array([1, 2]), (4,), "fp32")
    write("key", layout, features(layout))
    (folder,) = cache.iterdir()
    (folder / "about.json").write_bytes(content)
    assert fs.load("key") is None and list(cache.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [{"format": 0}, {"key": "other"}, {"tail": [2, 2, 2]}, {"tail": [2]}, {"tail": 4}, {"dtype": "fp16"},
     {"borders": [0, 1]}, {"borders": []}, {"borders": [0, 1, 2]}, {"borders": "x"}, {"files": {}},
     {"files": {"lengths.npy": [1]}}],
)  # fmt: skip
def test_an_about_of_another_store_is_not_trusted(cache, change):
    layout = fs.Layout(np.array([1, 2]), (4,), "fp32")
    write("key", layout, features(layout))
    (folder,) = cache.iterdir()
    content = json.loads((folder / "about.json").read_text())["content"] | change
    text = json.dumps({"sha256": feature_files._json_sum(content), "content": content})
    (folder / "about.json").write_text(text)
    assert fs.load("key") is None and list(cache.iterdir()) == []


def test_an_about_that_would_fit_but_was_changed_is_not_trusted(cache):
    layout = fs.Layout(np.array([1, 2]), (3, 2), "fp32")
    write("key", layout, features(layout))
    (about,) = cache.glob("*/about.json")
    about.write_text(about.read_text().replace("[3, 2]", "[2, 3]"))
    assert fs.load("key") is None


def test_a_store_under_the_name_of_another_is_not_trusted(cache):
    layout = fs.Layout(np.array([1, 2]), (4,), "fp32")
    write("key", layout, features(layout))
    (folder,) = cache.iterdir()
    folder.rename(cache / "other-00000000")
    assert fs.load("other") is None and fs.load("key") is None


def test_a_store_that_cannot_be_read_now_is_not_deleted(cache, monkeypatch):
    layout = fs.Layout(np.array([1, 2]), (4,), "fp32")
    values = features(layout)
    write("key", layout, values)

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(feature_files, "_sha256", refuse)
        assert fs.load("key") is None
    assert equals(fs.load("key"), values, [0, 1])


def test_an_unchanged_file_is_checked_once(cache, monkeypatch, small_chunks):
    layout = fs.Layout(np.array(ODD), (4,), "fp32")
    write("key", layout, features(layout))
    read, original = [], feature_files._sha256
    monkeypatch.setattr(feature_files, "_sha256", lambda path: read.append(path.name) or original(path))
    fs.load("key")
    (folder,) = cache.iterdir()
    assert sorted(read) == sorted(path.name for path in folder.iterdir() if path.name != "about.json")
    read.clear()
    assert fs.load("key") is not None and read == []
    os.utime(folder / "chunk-00001.bin", (1, 1))
    assert fs.load("key") is not None and read == ["chunk-00001.bin"]
