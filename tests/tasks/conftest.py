"""A tiny BERT that knows a few words, letters and characters, and fits that leave out what is slow."""

import os
import random

import pytest

_TEXT = (
    "good bad great awful film plot room staff food clean dirty slow fast kind rude love hate warm cold fresh old new "
    "long short very not the a is was and but it we they here there again never always one two three four five 好 坏 "
    "房 间 大 小 我 你"
)
WORDS = _TEXT.split()
LETTERS = [mark + letter for letter in "abcdefghijklmnopqrstuvwxyz0123456789.,?!" for mark in ("", "##")]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = list(dict.fromkeys(SPECIAL + WORDS + LETTERS))


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Runs of one thread can be compared bit by bit."""
    import torch

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)


def tokenizer():
    """Return a WordPiece tokenizer with BERT's templates for one text and for two."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(VOCABULARY)}
    inner = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = dict(zip(("pad", "unk", "cls", "sep", "mask"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, model_max_length=64, **{f"{k}_token": v for k, v in names.items()},
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The folder of a tiny, randomly initialised BERT."""
    import torch
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("tiny-bert")
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64, pad_token_id=0,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def quick(tiny, monkeypatch):
    """The options of a short run; the machine's peak and the count of operations are not measured."""
    from foretune.training import loop, machine
    from foretune.training.flops import FlopModel

    monkeypatch.setattr(machine, "gemm_peak", lambda *args, **options: 1e9)
    monkeypatch.setattr(loop, "fit_flops", lambda *args: FlopModel(1.0, 0.0, 0.0))
    return {
        "backbone": tiny, "device": "cpu", "precision": "fp32", "offline": True, "epochs": 4.0, "lr": 3e-3,
        "batch_tokens": 256, "seed": 3,
    }  # fmt: skip


@pytest.fixture(scope="session")
def sentences():
    """Return a function: number -> that many random texts of known words, of unequal length."""

    def make(number, seed=0):
        draw = random.Random(seed)
        return [" ".join(draw.choices(WORDS, k=draw.randint(2, 12))) for _ in range(number)]

    return make
