"""Batches by a token budget, tokenising, and the cache of tokens."""

import dataclasses
import itertools
import json
import multiprocessing
import os
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretune.backbones import tokenize as tokens_module
from foretune.backbones.text import load_text_backbone
from foretune.backbones.tokenize import cut, special_tokens, tokenize
from foretune.data import store as stores
from foretune.data.store import CutReport, build
from foretune.errors import ConfigError
from foretune.training.batching import BatchPlan, cut_by_budget, order_by_length, split_rows

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=60).map(np.array)


@given(lengths=LENGTHS, budget=st.integers(1, 300), seed=st.integers(0, 9))
def test_each_epoch_covers_each_row_once_within_the_budget(lengths, budget, seed):
    plan = BatchPlan(lengths, budget, seed)
    for epoch in range(3):
        n = plan.steps_per_epoch
        batches = [plan.rows(step) for step in range(epoch * n, (epoch + 1) * n)]
        assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
        for rows in batches:
            assert len(rows) == 1 or lengths[rows].max() * len(rows) <= budget


@given(lengths=LENGTHS, budget=st.integers(20, 300), seed=st.integers(0, 9), step=st.integers(0, 200))
def test_any_step_is_found_without_walking_there(lengths, budget, seed, step):
    walked = BatchPlan(lengths, budget, seed)
    for number in range(step % 40 + 1):
        rows = walked.rows(number)
    assert BatchPlan(lengths, budget, seed).rows(step % 40).tolist() == rows.tolist()
    far = BatchPlan(lengths, budget, seed).rows(step * 1000)
    walked.rows(3)
    assert walked.rows(step * 1000).tolist() == far.tolist()


def test_epochs_and_seeds_differ():
    lengths = np.random.default_rng(0).integers(3, 40, 200)
    plan = BatchPlan(lengths, 200, 0)
    n = plan.steps_per_epoch
    epochs = [[plan.rows(e * n + s).tolist() for s in range(n)] for e in range(3)]
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert {tuple(sorted(b)) for b in epochs[0]} != {tuple(sorted(b)) for b in epochs[1]}  # other company too
    assert [BatchPlan(lengths, 200, 1).rows(s).tolist() for s in range(n)] != epochs[0]
    means = [lengths[np.array(b)].mean() for b in epochs[0]]
    assert means != sorted(means)  # not from short to long
    plan = BatchPlan(np.arange(3, 90), 200, 0)  # no two of equal length: the same batches, in another order
    n = plan.steps_per_epoch
    epochs = [[plan.rows(e * n + s).tolist() for s in range(n)] for e in range(2)]
    assert epochs[0] != epochs[1] and sorted(epochs[0]) == sorted(epochs[1])


def test_little_is_padded():
    lengths = np.random.default_rng(0).lognormal(3, 0.7, 5000).astype(int).clip(3, 512)
    plan = BatchPlan(lengths, 2048, 0)
    padded = sum(lengths[rows].max() * len(rows) for rows in map(plan.rows, range(plan.steps_per_epoch)))
    assert 1 - lengths.sum() / padded < 0.03


@given(lengths=LENGTHS, budget=st.integers(1, 300))
def test_cuts_are_as_long_as_the_budget_allows(lengths, budget):
    ordered = np.sort(lengths)
    runs = cut_by_budget(ordered, budget)
    assert [a for a, _ in runs] == [0, *[b for _, b in runs[:-1]]] and runs[-1][1] == len(ordered)
    for (start, stop), _ in itertools.pairwise(runs):
        assert ordered[stop] * (stop + 1 - start) > budget


@given(lengths=LENGTHS, budget=st.integers(1, 300), seed=st.integers(0, 5))
def test_micro_batches_split_a_batch(lengths, budget, seed):
    rows = np.random.default_rng(seed).permutation(len(lengths))[: max(len(lengths) // 2, 1)]
    parts = split_rows(rows, lengths, budget)
    assert sorted(np.concatenate(parts).tolist()) == sorted(rows.tolist())
    assert all(len(p) == 1 or lengths[p].max() * len(p) <= budget for p in parts)
    order = order_by_length(lengths)
    assert (np.diff(lengths[order]) >= 0).all()


@pytest.fixture(scope="module")
def backbone(backbone_folder):
    options = {"num_labels": 2}
    return load_text_backbone(
        backbone_folder("bert"),
        auto_class="AutoModelForSequenceClassification",
        options=options,
        offline=True,
    )


@given(ids=st.lists(st.integers(0, 99), min_size=9, max_size=40).map(np.array), room=st.integers(1, 8))
def test_head_tail_and_both(ids, room):
    assert cut(ids, room, "head").tolist() == ids[:room].tolist()
    assert cut(ids, room, "tail").tolist() == ids[len(ids) - room :].tolist()
    both = cut(ids, room, "head+tail")
    head = max(round(room / 4), 1)
    assert both.tolist() == ids[:head].tolist() + ids[len(ids) - (room - head) :].tolist()
    assert len(both) == room


@pytest.mark.parametrize("truncation", ["head", "tail", "head+tail"])
def test_what_is_cut_is_counted(backbone, truncation):
    texts = ["good film", "good bad great awful film plot room staff food clean", "zzz ☃ ☃"]
    store = tokenize(backbone.tokenizer, texts, max_length=8, truncation=truncation)
    assert store.lengths.tolist() == [4, 8, 7]  # zzz is three letters
    assert store.cuts == CutReport(
        examples=3, tokens=4 + 12 + 7, cut_examples=1, cut_tokens=4, unknown_tokens=2
    )
    assert "1 of 3 texts (33.3%) are longer than 8 tokens" in store.cuts.sentence(8)
    assert store[1][0] == backbone.tokenizer.cls_token_id and store[1][-1] == backbone.tokenizer.sep_token_id
    whole = backbone.tokenizer(texts[1])["input_ids"][1:-1]
    assert store[1][1:-1].tolist() == cut(np.array(whole), 6, truncation).tolist()
    assert store.cuts.unknown_share == pytest.approx(2 / 23)


def test_ids_are_those_of_the_tokenizer(backbone, rows):
    texts = [row["text"] for row in rows(30)]
    store = tokenize(backbone.tokenizer, texts, max_length=12)
    expected = backbone.tokenizer(texts, truncation=True, max_length=12)["input_ids"]
    assert [store[n].tolist() for n in range(30)] == expected
    assert (
        store.cuts.sentence(12) is not None
        and tokenize(backbone.tokenizer, ["a"], max_length=9).cuts.sentence(9) is None
    )


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_special_tokens_are_found(backbone_folder, kind):
    found = load_text_backbone(
        backbone_folder(kind), auto_class="AutoModelForSequenceClassification", options={}, offline=True
    )
    before, after = special_tokens(found.tokenizer)
    assert (before.tolist(), after.tolist()) == (([2], [3]) if kind == "bert" else ([], []))
    store = tokenize(found.tokenizer, ["good", "\u200b"], max_length=5)
    assert store.lengths.min() >= 1  # a text of nothing is still something to run the model on
    assert np.isfinite(found.forward(found.collate(store, np.array([0, 1]))).detach().numpy()).all()


def test_no_room_for_a_text(backbone):
    with pytest.raises(ConfigError, match="special tokens"):
        backbone.preprocess(["good film"], max_length=2, truncation="head")


def test_padding_and_mask():
    store = build([np.array([5, 6, 7]), np.array([8])], CutReport(2))
    ids, mask = store.padded(np.array([1, 0]), padding=0)
    assert ids.tolist() == [[8, 0, 0], [5, 6, 7]] and mask.tolist() == [[True, False, False], [True] * 3]
    assert store.seen_ids().tolist() == [5, 6, 7, 8] and len(store) == 2
    assert len(build([], CutReport())) == 0 and build([], CutReport()).cuts.unknown_share == 0


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FORETUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tokens_module, "CACHED_FROM", 5)
    return tmp_path / "cache" / "tokens"


def same(one, two):
    return (
        one.flat.tolist() == two.flat.tolist()
        and one.lengths.tolist() == two.lengths.tolist()
        and one.cuts == two.cuts
    )


def test_a_hit_equals_a_miss(backbone, rows, cache, monkeypatch):
    texts = [row["text"] for row in rows(20)]
    plain = tokens_module._tokenize(backbone.tokenizer, texts, 12, "head")
    missed = tokenize(backbone.tokenizer, texts, max_length=12)
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(tokens_module, "_tokenize", lambda *args: pytest.fail("not from the cache"))
    hit = tokenize(backbone.tokenizer, texts, max_length=12)
    assert isinstance(hit.flat, np.memmap) and same(plain, missed) and same(plain, hit)


def test_other_texts_lengths_cuts_and_tokenizers_are_other_entries(backbone, backbone_folder, rows, cache):
    texts = [row["text"] for row in rows(20)]
    bare = load_text_backbone(
        backbone_folder("gpt2"), auto_class="AutoModelForSequenceClassification", options={}, offline=True
    )
    tokenize(backbone.tokenizer, texts, max_length=12)
    tokenize(backbone.tokenizer, texts[::-1], max_length=12)
    tokenize(backbone.tokenizer, texts, max_length=13)
    tokenize(backbone.tokenizer, texts, max_length=12, truncation="tail")
    tokenize(bare.tokenizer, texts, max_length=12)
    assert len(list(cache.iterdir())) == 5


@pytest.mark.parametrize("name", ["flat.npy", "offsets.npy", "about.json"])
@pytest.mark.parametrize("harm", ["truncate", "empty", "flip", "delete"])
def test_a_damaged_entry_is_made_again(backbone, rows, cache, name, harm):
    texts = [row["text"] for row in rows(20)]
    good = tokens_module._tokenize(backbone.tokenizer, texts, 12, "head")
    tokenize(backbone.tokenizer, texts, max_length=12)
    path = next(cache.iterdir()) / name
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    if harm == "delete":
        path.unlink()
    else:
        path.write_bytes({"truncate": bytes(content[:-5]), "empty": b"", "flip": bytes(content)}[harm])
    key = path.parent.name
    assert stores.load(key) is None
    assert same(tokenize(backbone.tokenizer, texts, max_length=12), good)
    assert same(stores.load(key), good)


def _write_and_check(folder, start, results):
    os.environ["FORETUNE_CACHE"] = folder
    arrays = [np.arange(n % 50 + 1) for n in range(400)]
    fine = True
    while time.time() < start:
        pass
    for _ in range(30):
        found = stores.save("key", build(arrays, CutReport(400)))
        fine &= found.lengths.tolist() == [n % 50 + 1 for n in range(400)] and int(found.flat.sum()) > 0
    results.put(fine)


def test_two_processes_write_the_same_entry_at_once(cache):
    context = multiprocessing.get_context("fork")
    results, start = context.Queue(), time.time() + 0.3
    folder = str(cache.parent)
    workers = [context.Process(target=_write_and_check, args=(folder, start, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    assert [results.get(timeout=60) for _ in workers] == [True, True]
    for worker in workers:
        worker.join(timeout=10)
    left = stores.load("key")
    assert left is None or len(left) == 400
    assert [path.name for path in cache.iterdir()] in ([], ["key"])


def test_a_cache_that_cannot_be_written_is_no_error(backbone, rows, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("FORETUNE_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(tokens_module, "CACHED_FROM", 5)
    assert len(tokenize(backbone.tokenizer, [row["text"] for row in rows(9)], max_length=12)) == 9


def test_the_entry_unused_for_longest_goes_first(cache, monkeypatch):
    part = build([np.zeros(1000, np.int32)], CutReport(1))
    for number, key in enumerate("abc"):
        stores.save(key, part)
        os.utime(cache / key, (1000 + number, 1000 + number))
    assert stores.load("a") is not None  # used just now
    monkeypatch.setattr(stores, "CACHE_LIMIT_BYTES", 15_000)
    stores.save("d", part)
    assert {path.name for path in cache.iterdir()} == {"a", "c", "d"}


def test_the_cut_report_is_plain(cache):
    report = CutReport(1, 2, 1, 1, 0)
    assert CutReport(**json.loads(json.dumps(dataclasses.asdict(report)))) == report


@settings(max_examples=30)
@given(st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=8), max_size=12))
def test_stores_keep_what_they_are_given(parts):
    store = build([np.array(part, dtype=np.int64) for part in parts], CutReport(len(parts)))
    assert [store[n].tolist() for n in range(len(store))] == parts


class Multilingual:
    """A tokenizer without a fast backend that begins every text with the code of its language, as M2M100's does."""

    src_lang, pad_token_id, unk_token_id = "en", 0, 1

    def get_vocab(self):
        return {"a": 5, "en": 7, "de": 8}

    def __call__(self, texts, add_special_tokens=True, **options):
        before = [self.get_vocab()[self.src_lang]] if add_special_tokens else []
        if isinstance(texts, str):
            return {"input_ids": [*before, *[5] * len(texts)]}
        return {"input_ids": [[*before, *[5] * len(text)] for text in texts]}


def test_the_cache_tells_source_languages_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("FORETUNE_CACHE", str(tmp_path))
    monkeypatch.setattr(tokens_module, "CACHED_FROM", 2)
    tokenizer = Multilingual()
    first = tokenize(tokenizer, ["aa", "a"], max_length=8)
    tokenizer.src_lang = "de"
    second = tokenize(tokenizer, ["aa", "a"], max_length=8)
    assert first[0].tolist() == [7, 5, 5] and second[0].tolist() == [8, 5, 5]
