"""A tiny random backbone, small data, and candidates assembled from them as a fit would."""

import random

import pytest

_TEXT = "good bad great awful film plot room staff food clean dirty slow fast kind rude warm cold the a was"
WORDS = _TEXT.split()
MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def _save_tokenizer(folder):
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordPiece({w: i for i, w in enumerate(MARKS + WORDS)}, unk_token="[UNK]"))
    inner.normalizer, inner.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad", "unk", "cls", "sep", "mask"), MARKS, strict=True))
    PreTrainedTokenizerFast(
        tokenizer_object=inner, model_max_length=64, **{f"{k}_token": v for k, v in names.items()}
    ).save_pretrained(folder)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Return a folder with a random BERT of four narrow layers."""
    import torch
    from transformers import BertConfig, BertModel

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("backbone")
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(MARKS + WORDS), hidden_size=32, num_hidden_layers=4, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64, pad_token_id=0,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    _save_tokenizer(folder)
    return str(folder)


@pytest.fixture(scope="session")
def rows():
    """Return a function: number -> that many learnable rows of unequal length."""

    def make(number=60, seed=0):
        draw = random.Random(seed)
        return [
            {"text": " ".join([mood, *draw.choices(WORDS, k=draw.randint(1, 20))]), "label": mood}
            for mood in draw.choices(["good", "bad"], k=number)
        ]

    return make


@pytest.fixture
def assembled(tiny, rows, tmp_path, monkeypatch):
    """Return a function: options of the recipe -> (job, prepared), as a fit has them before its first step."""
    from foretune import api
    from foretune.assemble import assemble, load_backbone
    from foretune.prepare import prepare
    from foretune.recipe import Recipe
    from foretune.strategies.base import STRATEGIES
    from foretune.training import machine

    monkeypatch.setenv(
        "OMP_NUM_THREADS", "1"
    )  # small work on several threads of a busy machine takes for ever
    monkeypatch.setattr(machine, "gemm_peak", lambda *args, **options: 1e9)
    api.import_strategies()
    jobs = []

    def make(data=None, **options):
        given = {
            "backbone": tiny, "device": "cpu", "precision": "fp32", "offline": True, "epochs": 2.0, "lr": 1e-3,
            "dropout": 0.1, "batch_tokens": 120, "micro_tokens": 50, "dev_fraction": 0.2, "test_fraction": 0.2,
        }  # fmt: skip
        recipe = Recipe(**(given | options))
        prepared = prepare(data if data is not None else rows(), None, None, recipe)
        folder = tmp_path / f"run-{len(jobs)}"
        jobs.append(
            assemble(
                recipe, prepared, "accuracy", api._runtime(recipe, {}), load_backbone(recipe, prepared),
                STRATEGIES[recipe.strategy](recipe.options), folder, [], None,
            )
        )  # fmt: skip
        return jobs[-1], prepared

    yield make
    for job in jobs:
        job.events.close()


@pytest.fixture
def started(monkeypatch):
    """Let the minimal fit cost 2 seconds, 0.5 of them at its end, and 500 MB, instead of running it."""
    from foretune.forecast import study
    from foretune.forecast.startup import StartUp

    found = StartUp(2.0, 500 << 20, 0.5)
    monkeypatch.setattr(study, "start_up", lambda profile: found)
    monkeypatch.setattr(study, "machine_profile", lambda device: None)
    return found
