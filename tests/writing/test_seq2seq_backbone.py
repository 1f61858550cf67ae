"""Encoder-decoders behind the Backbone's face."""

import numpy as np
import pytest

from foretune.data.columns import Columns
from foretune.errors import BackboneError, ConfigError
from foretune.tasks.base import Examples

KINDS = ("bart", "t5")


def _load(folder, **options):
    from foretune.backbones.loading import load
    from foretune.tasks.seq2seq import Seq2SeqOptions, Translation

    task = Translation(Columns("source", "target", ""), Seq2SeqOptions(**options))
    backbone = load(folder, task, offline=True)
    backbone.model.eval()
    return backbone, task


@pytest.fixture(scope="module")
def pairs(sentences):
    sources, targets = sentences(7)
    return Examples(sources, np.array(targets, dtype=object), np.arange(1, 8))


@pytest.mark.parametrize("kind", KINDS)
def test_layers_of_the_decoder_lie_above_those_of_the_encoder(folder_of, kind):
    backbone, _ = _load(folder_of(kind))
    depth = backbone.layers.depth
    assert backbone.layers.count == 4 and len(backbone.layers.layers) == 4
    assert set(depth) == {name for name, _ in backbone.model.named_parameters()}
    part = {"bart": "layers", "t5": "block"}[kind]
    for name, level in depth.items():
        for side, base in (("encoder", 0), ("decoder", 2)):
            for number in (0, 1):
                if f"{side}.{part}.{number}." in name:
                    assert level == base + number + 1, name
    shared = backbone.model.get_input_embeddings().weight
    assert [depth[name] for name, p in backbone.model.named_parameters() if p is shared] == [0]
    assert backbone.split_points() == (2,)


@pytest.mark.parametrize("kind", KINDS)
def test_loss_is_that_of_transformers(folder_of, pairs, kind):
    import torch

    backbone, task = _load(folder_of(kind))
    encoded = task.encode(backbone, pairs, max_length=32, truncation="head")
    rows = np.arange(len(pairs))
    batch, targets = backbone.collate(encoded.store, rows), encoded.targets[rows]
    with torch.no_grad():
        own = task.loss(backbone.forward(batch), torch.from_numpy(targets)) / task.normaliser(targets)
        theirs = backbone.model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"]
        ).loss
    assert float(own) == pytest.approx(float(theirs), rel=1e-5)
    assert task.normaliser(targets) == sum(len(row) for row in (encoded.store.target[i] for i in rows))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_a_batch_score_as_they_do_alone(folder_of, pairs, kind):
    import torch

    backbone, task = _load(folder_of(kind))
    encoded = task.encode(backbone, pairs, max_length=32, truncation="head")

    def scored(rows):
        batch = backbone.collate(encoded.store, np.asarray(rows))
        with torch.no_grad():
            return task.activate(backbone.forward(batch), batch).numpy()

    alone = np.concatenate([scored([row]) for row in range(len(pairs))])
    np.testing.assert_allclose(scored(range(len(pairs))), alone, rtol=1e-4)


def test_lengths_count_both_sides_and_the_key_depends_on_both(folder_of, pairs):
    backbone, task = _load(folder_of("bart"))
    store = task.encode(backbone, pairs, max_length=32, truncation="head").store
    expected = [
        len(s.split()) + 1 + len(t.split()) + 1 for s, t in zip(pairs.inputs, pairs.targets, strict=True)
    ]
    assert store.lengths.tolist() == expected and len(store) == 7 and not store.varies
    other = Examples(pairs.inputs, pairs.targets[::-1], pairs.rows)
    assert task.encode(backbone, other, max_length=32, truncation="head").store.key() != store.key()


def test_long_targets_are_cut_before_their_end_token(folder_of):
    backbone, task = _load(folder_of("bart"), max_target_tokens=4)
    examples = Examples(["one two"], np.array(["un deux trois quatre cinq"], dtype=object), np.array([1]))
    store = task.encode(backbone, examples, max_length=32, truncation="head").store
    assert backbone.tokenizer.decode(store.target[0].tolist()) == "un deux trois </s>"
    assert (store.cuts.cut_examples, store.cuts.cut_tokens, store.cuts.examples) == (1, 2, 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "options", [{"num_beams": 1}, {"num_beams": 3}, {"num_beams": 3, "no_repeat_ngram_size": 1}]
)
def test_what_is_written_is_what_plain_transformers_writes(folder_of, pairs, kind, options):
    import torch
    from transformers import AutoModelForSeq2SeqLM

    backbone, task = _load(folder_of(kind), **options)
    encoded = task.encode(backbone, pairs, max_length=32, truncation="head")
    batch = backbone.collate(encoded.store, np.arange(len(pairs)))
    with torch.no_grad():
        outputs = task.infer(backbone, batch)
    plain = AutoModelForSeq2SeqLM.from_pretrained(folder_of(kind))
    theirs = plain.generate(
        batch["input_ids"], attention_mask=batch["attention_mask"], max_length=None, do_sample=False,
        max_new_tokens=task.limit(batch["input_ids"].shape[1]), **options,
    )  # fmt: skip
    assert outputs[:, 2:].long().tolist() == theirs[:, 1:].tolist()
    assert (outputs[:, 1] > 0).all()


def test_drawing_at_random_is_seeded_and_leaves_the_random_state(folder_of, pairs):
    import torch

    backbone, task = _load(folder_of("bart"), temperature=1.0, max_new_tokens=8)
    batch = backbone.collate(
        task.encode(backbone, pairs, max_length=32, truncation="head").store, np.arange(len(pairs))
    )
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = backbone.write(batch, 8, seed=1)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(backbone.write(batch, 8, seed=1), first)
    assert not torch.equal(backbone.write(batch, 8, seed=2), first)
    assert backbone.model.generation_config.temperature == 1.0


def test_beams_share_the_budget_of_a_pass(folder_of, pairs):
    backbone, task = _load(folder_of("bart"), num_beams=8)
    task.encode(backbone, pairs, max_length=32, truncation="head")
    assert backbone.pass_limit == 128


class _Multilingual:
    """What a multilingual tokenizer shows of its languages."""

    src_lang = tgt_lang = None
    all_special_tokens = ("<s>", "__en__", "__de__", "zh_CN", "[PAD]")


@pytest.mark.parametrize(
    ("source", "target", "found"),
    [(None, None, "source_language is missing"), ("en", "xx", "target_language 'xx' is unknown")],
)
def test_multilingual_models_need_their_languages(folder_of, source, target, found):
    backbone, _ = _load(folder_of("bart"))
    backbone.tokenizer = _Multilingual()
    with pytest.raises(ConfigError, match=found):
        backbone.set_languages(source, target)
    backbone.set_languages("en", "zh_CN")
    assert (backbone.tokenizer.src_lang, backbone.tokenizer.tgt_lang) == ("en", "zh_CN")


def test_models_of_one_language_take_no_codes(folder_of):
    backbone, _ = _load(folder_of("bart"))
    with pytest.raises(ConfigError, match="knows no language codes"):
        backbone.set_languages("en", "de")


def test_nothing_is_added_to_the_vocabulary_and_no_head_trains_alone(folder_of):
    backbone, _ = _load(folder_of("bart"))
    assert backbone.learn_vocabulary(["好好"]) == 0
    assert not backbone.use_mean_pooling()
    with pytest.raises(ConfigError, match="top-layers"):
        backbone.linear_head()


def test_other_kinds_of_models_are_refused(folder_of, tmp_path):
    with pytest.raises(BackboneError, match=r"llama.*cannot write.*encoder-decoder"):
        _load(folder_of("llama"))
    with pytest.raises(BackboneError, match="no such folder"):
        _load(str(tmp_path / "nowhere"))


def test_a_base_model_without_its_output_layer_is_refused(folder_of, tmp_path):
    from transformers import AutoTokenizer, T5Config, T5EncoderModel

    config = T5Config.from_pretrained(folder_of("t5"), tie_word_embeddings=False)
    T5EncoderModel(config).save_pretrained(tmp_path)
    config.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(folder_of("t5")).save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match="lacks"):
        _load(str(tmp_path))
