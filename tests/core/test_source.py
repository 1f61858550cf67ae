"""Where backbones come from, and the fingerprint by which a changed one is noticed."""

import shutil
from pathlib import Path

import pytest

from foretune.backbones import source
from foretune.backbones.source import Source, cached_commit, resolve
from foretune.errors import BackboneError

OLD, NEW = "0" * 39 + "1", "0" * 39 + "2"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return a function that puts a repository into an empty hub cache, as the hub's library lays it out."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def put(name, commit, *, config=True):
        folder = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        snapshot = folder / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (snapshot / ("config.json" if config else "README.md")).write_text("{}")
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / "main").write_text(commit)

    return put


def test_a_hub_id_stands_for_the_commit_in_the_cache(cache):
    assert cached_commit("acme/tiny") == ""
    cache("acme/tiny", OLD)
    cache("acme/other", NEW)
    assert cached_commit("acme/tiny") == OLD and cached_commit("acme/other") == NEW
    cache("acme/tiny", NEW)
    assert cached_commit("acme/tiny") == NEW
    cache("acme/broken", OLD, config=False)
    assert cached_commit("acme/broken") == ""


def test_the_fingerprint_changes_with_the_commit_and_the_id(cache):
    seen = [resolve("acme/tiny").fingerprint()]
    for name, commit in (("acme/tiny", OLD), ("acme/twin", OLD), ("acme/tiny", NEW)):
        cache(name, commit)
        seen.append(resolve(name).fingerprint())
        assert seen[-1] == resolve(name).fingerprint()
    assert len(set(seen)) == 4 and all(len(one) == 64 for one in seen)


def test_a_name_of_the_catalogue_is_fingerprinted_like_its_hub_id(cache):
    before = resolve("bge-small-en").fingerprint()
    cache("BAAI/bge-small-en-v1.5", OLD)
    after = resolve("bge-small-en").fingerprint()
    assert before != after == resolve("BAAI/bge-small-en-v1.5").fingerprint()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_is_fingerprinted_by_what_it_holds(tiny, tmp_path, name):
    folder = shutil.copytree(tiny, tmp_path / "copy")
    first = resolve(str(folder)).fingerprint()
    assert first == resolve(tiny).fingerprint() == Source("x", tiny, local=True).fingerprint()
    (folder / "README.md").write_text("says nothing of the weights")
    assert resolve(str(folder)).fingerprint() == first
    with (folder / name).open("ab") as file:
        file.write(b" ")
    changed = resolve(str(folder)).fingerprint()
    assert changed != first
    (folder / name).rename(folder / f"old-{name}")
    assert resolve(str(folder)).fingerprint() not in (first, changed)


def test_what_a_name_may_be(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve(tiny) == Source("bert", str(Path(tiny).resolve()), local=True)
    assert resolve("acme/tiny") == Source("acme--tiny", "acme/tiny", local=False)
    shutil.copytree(tiny, tmp_path / "acme" / "tiny")
    assert resolve("acme/tiny") == Source("tiny", str(tmp_path.resolve() / "acme" / "tiny"), local=True)
    bundled = resolve("minilm-l6")
    assert bundled.local and source._file_sha256(Path(bundled.location) / "model.safetensors") == (
        source.MINILM_SHA256
    )
    for wrong in ("", "minilm", "./acme/none", "/acme/none", "a/b/c"):
        with pytest.raises(BackboneError, match="no such folder and no such name"):
            resolve(wrong)
