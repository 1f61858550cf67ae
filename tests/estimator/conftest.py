"""A tiny random BERT and a toy problem that it can learn: the words decide the label."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TOPICS = (
    ["refund", "invoice", "payment", "card", "charge"],
    ["crash", "error", "bug", "freeze", "broken"],
    ["login", "password", "account", "locked", "reset"],
)
FILLERS = ["please", "the", "my", "is", "with", "today", "again", "help", "and", "now"]
ROWS = [*(f"f{number}" for number in range(10)), "lowest", "low", "middle", "high", "highest"]
LONGEST = 30  # tokens; below 32 the FLOPs of a step are not counted, which would take half of a fit


@pytest.fixture(scope="session", autouse=True)
def surroundings(tmp_path_factory):
    """A cache of its own, and one thread: more are slower for a model this small."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORETUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("OMP_NUM_THREADS", "1")
        torch.set_num_threads(1)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Return the folder of a BERT of 2 layers and 32 hidden units with random weights."""
    folder = tmp_path_factory.mktemp("backbone") / "tiny-bert"
    letters = "abcdefghijklmnopqrstuvwxyz0123456789-."
    words = [*SPECIAL, *TOPICS[0], *TOPICS[1], *TOPICS[2], *FILLERS, *ROWS, *letters]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=LONGEST,
        initializer_range=0.2,
    )
    BertModel(config).save_pretrained(folder)
    _tokenizer(vocabulary).save_pretrained(folder)
    return str(folder)


def _tokenizer(vocabulary):
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = dict(zip(("pad", "unk", "cls", "sep", "mask"), SPECIAL, strict=True))
    special = {f"{name}_token": token for name, token in names.items()}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=LONGEST, **special)


@pytest.fixture(scope="session")
def toy():
    """Return a function of the number of rows and of classes that gives texts and class numbers."""

    def make(rows=48, classes=2, seed=0):
        generator = np.random.default_rng(seed)
        numbers = np.arange(rows) % classes
        texts = []
        for number in numbers:
            words = [
                *generator.choice(TOPICS[number], 2),
                *generator.choice(FILLERS, generator.integers(1, 8)),
            ]
            texts.append(" ".join(generator.permutation(words)))
        return texts, numbers

    return make


@pytest.fixture(scope="session")
def make(tiny):
    """Return a function that makes a small, fast, seeded estimator."""
    from foretune.sklearn import TransferClassifier

    def classifier(**changes):
        quick = {"epochs": 3, "lr": 0.002, "batch_tokens": 128, "validation_fraction": 0.0}
        fixed = {"precision": "fp32", "device": "cpu", "random_state": 0}
        return TransferClassifier(tiny, **{**quick, **fixed, **changes})

    return classifier


@pytest.fixture(scope="session")
def fitted(make, toy):
    """Return a fitted estimator; tests must not change it."""
    texts, numbers = toy()
    return make().fit(texts, np.array(["money", "fault"])[numbers])
