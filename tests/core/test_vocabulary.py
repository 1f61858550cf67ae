"""Characters that a vocabulary lacks become tokens of their own, and stay with the saved model."""

import numpy as np
import pytest
import torch

from foretune import artifact
from foretune.backbones import vocabulary
from foretune.backbones.text import load_text_backbone
from foretune.strategies.base import NEW_TOKENS_RATE, Settings, layerwise_groups

CHINESE = {"neg": "退货慢糟", "pos": "发货快棒"}


@pytest.fixture
def backbone(tiny):
    return load_text_backbone(
        tiny, auto_class="AutoModelForSequenceClassification", options={"num_labels": 2}, offline=True
    )


@pytest.fixture
def chinese_rows():
    """Rows that differ only in characters which the tiny vocabulary does not have."""
    draw = np.random.default_rng(0)
    return [
        {
            "text": " ".join(draw.permutation(["the", "room", *draw.choice(list(CHINESE[label]), 3)])),
            "label": label,
        }
        for label in ["neg", "pos"] * 40
    ]


def test_unknown_characters_are_found_by_frequency(backbone):
    texts = ["退退退货货 good 好", "退货 x1 ☃", "☃ 房"]
    assert vocabulary.unknown_characters(backbone.tokenizer, texts) == ["退", "货", "☃"]


def test_characters_seen_once_and_known_ones_are_left(backbone):
    assert vocabulary.unknown_characters(backbone.tokenizer, ["退 good 好 好 bad"]) == []
    assert backbone.learn_vocabulary(["good bad"]) == 0


def test_tokenizers_without_an_unknown_token_need_nothing(backbone):
    class Bytes:
        unk_token_id = None

    assert vocabulary.unknown_characters(Bytes(), ["退退"]) == []


def test_new_tokens_get_distinct_rows_like_the_table_and_old_ones_stay(backbone):
    before = backbone.model.get_input_embeddings().weight.detach().clone()
    assert backbone.learn_vocabulary(["退货☃"] * 2) == 3
    after = backbone.model.get_input_embeddings().weight
    assert after.shape[0] == before.shape[0] + 3
    assert torch.equal(after[: len(before)], before)
    new = after[len(before) :]
    assert (torch.pdist(new) > 0.01).all() and new.std() < 3 * before.std()
    ids = backbone.tokenizer("退货☃", add_special_tokens=False)["input_ids"]
    assert ids == [len(before), len(before) + 1, len(before) + 2]


def test_the_rows_of_new_tokens_have_a_rate_of_their_own(backbone):
    backbone.learn_vocabulary(["退货"] * 2)
    store = backbone.preprocess(["good 退货", "bad 退"], max_length=16, truncation="head")
    backbone.train_seen_embeddings(store)
    groups = layerwise_groups(backbone, Settings(lr=1e-3, epochs=1, batch_tokens=8, layer_decay=0.5), 0.1)
    new = [group for group in groups if any(name.endswith(".new") for name in group.names)]
    assert len(new) == 1 and new[0].lr == pytest.approx(1e-3 * NEW_TOKENS_RATE) and new[0].weight_decay == 0
    assert dict(backbone.model.named_parameters())[new[0].names[0]].shape[0] == 2


def test_a_language_the_backbone_cannot_read_is_learnt(fit, chinese_rows, tmp_path, monkeypatch):
    options = {"data": chinese_rows, "epochs": 12.0, "lr": 2e-3, "dropout": 0.0, "checkpoint_seconds": 60.0}
    learnt = fit(tmp_path / "with", **options)
    assert learnt.record["metrics"]["dev"]["accuracy"]["value"] == 1.0
    monkeypatch.setattr(vocabulary, "unknown_characters", lambda tokenizer, texts: [])
    blind = fit(tmp_path / "without", **options)
    assert blind.record["metrics"]["dev"]["accuracy"]["value"] < 0.9
    assert any("unknown" in text for text in blind.record["warnings"])


def test_the_saved_model_keeps_the_new_tokens(fit, chinese_rows, tmp_path):
    model = fit(tmp_path / "run", data=chinese_rows, epochs=1.0, checkpoint_seconds=60.0)
    again = artifact.load(tmp_path / "run")
    texts = ["退 慢 room", "快 棒 the"]
    np.testing.assert_allclose(model.predict_proba(texts), again.predict_proba(texts), atol=1e-5)
    assert again.backbone.tokenizer.unk_token_id not in again.backbone.tokenizer("退慢快棒")["input_ids"]


def test_a_frozen_backbone_keeps_its_vocabulary(fit, chinese_rows, tmp_path):
    model = fit(tmp_path / "run", data=chinese_rows, strategy="linear-probe", epochs=1.0)
    assert model.backbone.tokenizer.unk_token_id in model.backbone.tokenizer("退")["input_ids"]
