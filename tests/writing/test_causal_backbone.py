"""Causal language models: no text sees another, nothing later, and nothing is predicted twice."""

import numpy as np
import pytest

from foretune.data.columns import Columns
from foretune.data.windows import LABELS
from foretune.errors import BackboneError, ConfigError
from foretune.tasks.base import Examples
from foretune.tasks.prompts import Prompts

KINDS = ("llama", "tied", "gpt2")


def _load(folder, target=None, running=False, **options):
    from foretune.backbones.loading import load
    from foretune.tasks.text_generation import TextGeneration, TextGenerationOptions

    task = TextGeneration(Columns("text", target, ""), TextGenerationOptions(**options), running)
    backbone = load(folder, task, offline=True)
    backbone.model.eval()
    return backbone, task


def _examples(texts, targets=None):
    targets = np.array(texts if targets is None else targets, dtype=object)
    return Examples(texts, targets, np.arange(1, len(texts) + 1))


@pytest.mark.parametrize("kind", KINDS)
def test_texts_of_a_batch_do_not_see_each_other(folder_of, sentences, kind):
    """The logits of every text in a batch are those of the text alone: nothing is packed, padding is unseen."""
    import torch

    backbone, task = _load(folder_of(kind))
    texts = sentences(9)[0]
    store = task.encode(backbone, _examples(texts), max_length=32, truncation="head").store
    with torch.no_grad():
        together = backbone.forward(backbone.collate(store, np.arange(9)))
        for row in range(9):
            ids = torch.from_numpy(store[row].astype(np.int64))[None]
            alone = backbone.model(ids).logits[0]
            torch.testing.assert_close(together[row, : ids.shape[1]], alone, atol=1e-4, rtol=1e-4)


def test_batches_of_near_equal_length_leave_hardly_any_padding():
    """Why nothing is packed: of texts whose lengths vary as those of real ones do, few places are padding."""
    from foretune.training.batching import BatchPlan

    lengths = np.random.default_rng(0).lognormal(4, 0.8, 4000).astype(np.int64).clip(2, 512)
    plan = BatchPlan(lengths, 4096, 0)
    rows = [plan.rows(step) for step in range(plan.steps_per_epoch)]
    padded = sum(int(lengths[row].max()) * len(row) for row in rows)
    assert 1 - lengths.sum() / padded < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_loss_is_that_of_transformers(folder_of, sentences, kind):
    import torch

    backbone, task = _load(folder_of(kind))
    encoded = task.encode(backbone, _examples(sentences(5)[0]), max_length=32, truncation="head")
    total = count = 0.0
    with torch.no_grad():
        for row in range(5):
            batch, targets = (
                backbone.collate(encoded.store, np.array([row])),
                encoded.targets[np.array([row])],
            )
            own = float(task.loss(backbone.forward(batch), torch.from_numpy(targets)))
            ids = torch.cat([batch["input_ids"], batch[LABELS][:, -1:]], dim=1)
            assert own / task.normaliser(targets) == pytest.approx(
                float(backbone.model(ids, labels=ids).loss), rel=1e-5
            )
            total, count = total + own, count + task.normaliser(targets)
        whole = task.activate(backbone.forward(backbone.collate(encoded.store, np.arange(5))),
                              backbone.collate(encoded.store, np.arange(5)))  # fmt: skip
    assert whole.sum(0).tolist() == pytest.approx([total, count], rel=1e-5)


def test_windows_of_a_long_text_predict_all_of_it(folder_of, sentences):
    backbone, task = _load(folder_of("llama"), running=True)
    texts = [f"{line}\n" for line in sentences(30)[0]]
    encoded = task.encode(backbone, _examples(texts), max_length=16, truncation="head")
    words = sum(len(text.split()) for text in texts)
    labels = encoded.store.extras[LABELS]
    assert (labels != -100).all() and len(labels) == words
    assert encoded.info[1].sum() == pytest.approx(len("".join(texts).encode()))
    assert (np.diff(encoded.owner) >= 0).all() and encoded.owner[0] == 0 and encoded.owner[-1] >= 27


def test_only_responses_are_predicted(folder_of):
    backbone, task = _load(folder_of("llama"), target="b")
    examples = _examples(["one two three", "cat"], ["red green", "dog"])
    encoded = task.encode(backbone, examples, max_length=32, truncation="head")
    decode = backbone.tokenizer.decode
    for row, response in enumerate(["red green </s>", "dog </s>"]):
        counted = encoded.targets[np.array([row])][0]
        assert decode(counted[counted >= 0].tolist()) == response
    assert task.normaliser(encoded.targets[np.arange(2)]) == 5


def test_prompts_end_as_those_of_training_do(folder_of):
    """What is read before writing is what stood before the response in training, to the id."""
    backbone, task = _load(folder_of("llama"), target="b")
    trained = task.encode(backbone, _examples(["one two"], ["red"]), max_length=32, truncation="head").store[
        0
    ]
    asked = task.encode(backbone, task.from_inputs(["one two"]), max_length=96, truncation="head").store[0]
    assert trained[: len(asked)].tolist() == asked.tolist() and len(trained) == len(asked) + 1


def test_chat_templates_stand_around_prompts_and_responses(folder_of):
    backbone, task = _load(folder_of("llama"), target="b", chat=True)
    encoded = task.encode(backbone, _examples(["one two"], ["red cat"]), max_length=32, truncation="head")
    counted = encoded.targets[np.array([0])][0]
    assert backbone.tokenizer.decode(counted[counted >= 0].tolist()) == "red cat </s>"
    asked = task.encode(backbone, task.from_inputs(["one two"]), max_length=96, truncation="head").store[0]
    trained = encoded.store[0]
    assert trained[: len(asked)].tolist() == asked.tolist()
    with pytest.raises(ConfigError, match="no chat template"):
        Prompts(_load(folder_of("gpt2"))[0].tokenizer, chat=True)


def test_windows_longer_than_the_model_takes_are_refused(folder_of):
    backbone, task = _load(folder_of("llama"))
    with pytest.raises(ConfigError, match="max_tokens is 65"):
        task.encode(backbone, _examples(["one two"]), max_length=65, truncation="head")


def test_writing_ends_where_the_model_ends(folder_of):
    backbone, task = _load(folder_of("gpt2"), max_new_tokens=60, temperature=0.0, top_p=1.0)
    encoded = task.encode(backbone, task.from_inputs(["one two " * 30]), max_length=64, truncation="head")
    batch = backbone.collate(encoded.store, np.arange(1))
    assert batch["input_ids"].shape == (1, 32) and task.infer(backbone, batch).shape[1] <= 32


def test_long_prompts_keep_their_end(folder_of):
    backbone, _ = _load(folder_of("llama"))
    store = Prompts(backbone.tokenizer).prompts(["one two three four", "cat"], 2)
    assert backbone.tokenizer.decode(store[0].tolist()) == "three four"
    assert (store.cuts.cut_examples, store.cuts.cut_tokens) == (1, 3)


def test_long_texts_are_tokenised_in_parts(folder_of, monkeypatch):
    from foretune.tasks import prompts

    tokenizer = _load(folder_of("llama"))[0].tokenizer
    whole = Prompts(tokenizer).texts(["one two three four", "", "cat"])
    monkeypatch.setattr(prompts, "PART", 4)
    parts = Prompts(tokenizer).texts(["one two three four", "", "cat"])
    assert whole[2].ids.tolist() == parts[2].ids.tolist() == [2, tokenizer.convert_tokens_to_ids("cat"), 3]
    assert whole[1].ids.tolist() == parts[1].ids.tolist() == [2, 3]
    assert len(parts) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_what_plain_transformers_writes(folder_of, kind):
    """Alone and unpadded, as prompts of unequal length in a batch must not change each other."""
    import torch
    from transformers import AutoModelForCausalLM

    backbone, task = _load(folder_of(kind), temperature=0.0, top_p=1.0, max_new_tokens=6)
    encoded = task.encode(
        backbone, task.from_inputs(["one two three", "cat"]), max_length=32, truncation="head"
    )
    outputs = task.infer(backbone, backbone.collate(encoded.store, np.arange(2)))
    plain = AutoModelForCausalLM.from_pretrained(folder_of(kind))
    for row in range(2):
        ids = torch.from_numpy(encoded.store[row].astype(np.int64))[None]
        theirs = plain.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False)
        written = theirs[0, ids.shape[1] :].tolist()
        assert outputs[row, : len(written)].long().tolist() == written
    texts = task.decode([row.numpy() for row in outputs], task.from_inputs(["a", "b"]), encoded)
    assert [set(text) for text in texts] == [{"text"}, {"text"}]


def test_samples_are_the_same_each_time_and_leave_the_run_alone(folder_of, sentences):
    import torch

    backbone, task = _load(folder_of("llama"))
    examples = _examples(sentences(3)[0])
    encoded = task.encode(backbone, examples, max_length=32, truncation="head")
    backbone.model.train()
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    first = task.samples(backbone, examples, encoded)
    assert torch.equal(torch.rand(2), expected) and backbone.model.training
    assert task.samples(backbone, examples, encoded) == first
    assert [set(each) for each in first] == [{"prompt", "text"}] * 2
    assert all(examples.inputs[i].startswith(each["prompt"]) for i, each in enumerate(first))


def test_models_that_see_what_comes_later_are_refused(folder_of, tmp_path):
    from transformers import AutoTokenizer, BertConfig, BertLMHeadModel

    tokenizer = AutoTokenizer.from_pretrained(folder_of("llama"))
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
    )
    BertLMHeadModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    backbone, task = _load(str(tmp_path))
    with pytest.raises(BackboneError, match="sees the words that it should predict"):
        task.encode(backbone, _examples(["one two"]), max_length=16, truncation="head")


def test_encoder_decoders_are_refused(folder_of):
    with pytest.raises(BackboneError, match="causal language model"):
        _load(folder_of("t5"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("one two", "one two"), ("a b c d e f g h i j", "a b c d e f g h"), ("字" * 200, "字" * 16), ("", "")],
)
def test_samples_begin_with_the_first_words(text, expected):
    from foretune.tasks.text_generation import beginning

    assert beginning(text) == expected


def test_blocks_of_losses_add_up():
    from foretune.tasks.text_generation import BLOCK, in_blocks

    losses = np.arange(2 * BLOCK + 3, dtype=float)
    sums, counts, sizes = in_blocks(losses, 1000)
    assert counts.tolist() == [BLOCK, BLOCK, 3] and sums.sum() == losses.sum()
    assert sums[0] == losses[:BLOCK].sum() and sizes.sum() == pytest.approx(1000)
    assert [len(part) for part in in_blocks(np.zeros(0), 5)] == [0, 0, 0]
