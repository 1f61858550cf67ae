"""A similarity model as sentence-transformers reads it: the layout of its files, and the same vectors."""

import json

import numpy as np
import pytest
import torch

import foretune
from foretune.backbones.loading import load
from foretune.backbones.sentence_files import write_sentence_files
from foretune.data.columns import Columns
from foretune.errors import ArtifactError
from foretune.model import Model
from foretune.recipe import Recipe
from foretune.tasks.similarity import Similarity
from foretune.training.inference import Runtime

MAX_TOKENS = 12
TEXTS = ["good film", "一 好 film", "the " * 40 + "end", "bad"]  # some longer than the limit


@pytest.fixture(scope="module")
def model(tiny, tmp_path_factory):
    """An untrained model and its artefact."""
    task, device = Similarity(Columns("query", None, "", second="document")), torch.device("cpu")
    recipe = Recipe(task="similarity", backbone=str(tiny), max_tokens=MAX_TOKENS, offline=True)
    made = Model(load(str(tiny), task, offline=True), task, recipe, Runtime(device, "fp32"))
    made.save(tmp_path_factory.mktemp("sentences") / "run")
    return made


def read(folder, name):
    return json.loads((folder / name).read_text())


def test_the_layout(tmp_path):
    write_sentence_files(tmp_path, 384, 256)
    steps = [
        (step["idx"], step["path"], step["type"].rpartition(".")[2])
        for step in read(tmp_path, "modules.json")
    ]
    assert steps == [(0, "", "Transformer"), (1, "1_Pooling", "Pooling"), (2, "2_Normalize", "Normalize")]
    pooling = read(tmp_path, "1_Pooling/config.json")
    assert pooling.pop("word_embedding_dimension") == 384
    assert [kind for kind, used in pooling.items() if used] == ["pooling_mode_mean_tokens"]
    assert read(tmp_path, "sentence_bert_config.json") == {"max_seq_length": 256, "do_lower_case": False}
    assert read(tmp_path, "config_sentence_transformers.json")["similarity_fn_name"] == "cosine"


def test_the_artefact_holds_and_checks_them(model, tmp_path):
    assert read(model.path, "sentence_bert_config.json")["max_seq_length"] == MAX_TOKENS
    assert read(model.path, "1_Pooling/config.json")["word_embedding_dimension"] == 32
    listed = read(model.path, "foretune.json")["files"]
    assert {"modules.json", "1_Pooling/config.json"} <= set(listed) and "README.md" not in listed
    copy = foretune.load(model.path).save(tmp_path / "copy")
    foretune.load(model.path).save(copy)  # once more into the same folder
    assert np.allclose(foretune.load(copy).embed(TEXTS), model.embed(TEXTS), atol=1e-6)
    (copy / "1_Pooling" / "config.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"1_Pooling/config\.json is damaged"):
        foretune.load(copy)


def test_the_card(model):
    card = (model.path / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: sentence-transformers\npipeline_tag: sentence-similarity\n")
    assert "from sentence_transformers import SentenceTransformer" in card


def test_sentence_transformers_gives_the_same_vectors(model):
    pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    from sentence_transformers import SentenceTransformer

    plain = SentenceTransformer(str(model.path), device="cpu", local_files_only=True)
    assert plain.max_seq_length == MAX_TOKENS and len(plain) == 3
    vectors = plain.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), 32)
    np.testing.assert_allclose(vectors, model.embed(TEXTS), atol=1e-5)
