"""Tiny backbones, small data, and a process from which runs are forked and killed."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

_TEXT = (
    "good bad great awful film plot room staff food clean dirty slow fast kind rude love hate warm cold "
    "fresh old new long short very not the a is was and but it we they here there again never always "
    "好 坏 房 间 大"
)
WORDS = _TEXT.split()
LETTERS = [mark + letter for letter in "abcdefghijklmnopqrstuvwxyz.," for mark in ("", "##")]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = list(dict.fromkeys(SPECIAL + WORDS + LETTERS))
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def _tokenizer(template=True):
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(VOCABULARY)}
    inner = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if template:
        inner.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    names = dict(zip(("pad", "unk", "cls", "sep", "mask"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, model_max_length=64, **{f"{k}_token": v for k, v in names.items()}
    )


def _config(kind):
    import transformers

    size = len(VOCABULARY)
    common = {"vocab_size": size, "pad_token_id": 0}
    made = {
        "bert": lambda: transformers.BertConfig(**SMALL, **common, max_position_embeddings=64),
        "roberta": lambda: transformers.RobertaConfig(**SMALL, **common, max_position_embeddings=66),
        "roformer": lambda: transformers.RoFormerConfig(
            **SMALL, **common, embedding_size=32, max_position_embeddings=64
        ),
        "distilbert": lambda: transformers.DistilBertConfig(
            **common, dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=64
        ),
        "modernbert": lambda: transformers.ModernBertConfig(
            **SMALL, **common, max_position_embeddings=64, local_attention=8, global_attn_every_n_layers=2,
            bos_token_id=2, cls_token_id=2, eos_token_id=3, sep_token_id=3,
        ),
        "gpt2": lambda: transformers.GPT2Config(
            vocab_size=size, n_embd=32, n_layer=2, n_head=2, n_positions=64, bos_token_id=2, eos_token_id=3
        ),
        "llama": lambda: transformers.LlamaConfig(
            **{**SMALL, "num_attention_heads": 4}, **common, num_key_value_heads=2, max_position_embeddings=64,
            bos_token_id=2, eos_token_id=3,
        ),
    }  # fmt: skip
    return made[kind]()


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Every run here and in child processes uses one thread, so that results can be compared bit by bit."""
    import torch

    before, os.environ["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS"), "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)
    yield
    if before is None:
        del os.environ["OMP_NUM_THREADS"]


@pytest.fixture(scope="session")
def backbone_folder(tmp_path_factory):
    """Return a function: kind of model -> folder with a tiny, randomly initialised one."""
    base, made = tmp_path_factory.mktemp("backbones"), {}

    def make(kind="bert"):
        if kind not in made:
            import torch
            from transformers import AutoModel

            torch.manual_seed(1)
            AutoModel.from_config(_config(kind)).save_pretrained(base / kind)
            _tokenizer(template=kind not in ("gpt2", "llama")).save_pretrained(base / kind)
            made[kind] = str(base / kind)
        return made[kind]

    return make


@pytest.fixture(scope="session")
def tiny(backbone_folder):
    return backbone_folder("bert")


@pytest.fixture(scope="session")
def rows():
    """Return a function: number -> that many learnable rows of unequal length."""

    def make(number=40, seed=0):
        draw = random.Random(seed)
        made = []
        for _ in range(number):
            label = draw.choice(["neg", "pos"])
            mood = ["good", "great", "love", "kind"] if label == "pos" else ["bad", "awful", "hate", "rude"]
            words = draw.choices(WORDS[4:], k=draw.randint(2, 20))
            words.insert(draw.randrange(len(words)), draw.choice(mood))
            made.append({"text": " ".join(words), "label": label})
        return made

    return make


@pytest.fixture
def fast(monkeypatch):
    """Leave out what is slow and not under test: the peak's measurement, baselines, the report."""
    from foretune import outcome
    from foretune.tasks.text_classification import TextClassification
    from foretune.training import loop, machine
    from foretune.training.flops import FlopModel

    monkeypatch.setattr(machine, "gemm_peak", lambda *args, **options: 1e9)
    monkeypatch.setattr(loop, "fit_flops", lambda *args: FlopModel(1.0, 0.0, 0.0))
    monkeypatch.setattr(TextClassification, "baselines", lambda *args, **options: {})
    monkeypatch.setattr(outcome, "write_report", lambda path, data: path.write_text("report"))


@pytest.fixture
def options(tiny):
    """Return the options of a short run with dropout and partly accumulated steps."""
    return {
        "backbone": tiny, "device": "cpu", "precision": "fp32", "offline": True, "epochs": 3.0, "lr": 1e-3,
        "dropout": 0.1, "batch_tokens": 120, "micro_tokens": 50, "dev_fraction": 0.2, "test_fraction": 0.0,
        "checkpoint_seconds": 0.0, "seed": 3,
    }  # fmt: skip


@pytest.fixture
def fit(fast, options, rows):
    """Return a function that fits with the options above; keyword arguments override them."""
    from foretune import api

    def run(output, data=None, **changes):
        given = {key: value for key, value in (options | changes).items() if value is not ...}
        return api.fit(data if data is not None else rows(), output=output, **given)

    return run


@pytest.fixture(scope="session")
def forked(tmp_path_factory, rows):
    """Return a function that fits in a process of its own and returns its exit code and error."""
    data = tmp_path_factory.mktemp("forked") / "rows.json"
    data.write_text(json.dumps(rows()))
    script = str(Path(__file__).with_name("runner.py"))
    server = subprocess.Popen([sys.executable, script], stdin=-1, stdout=-1, text=True, env=dict(os.environ))

    def run(output, options, *, resume=False, hooks=(), data=data):
        job = {"data": str(data), "output": str(output), "options": options, "resume": resume, "hooks": hooks}
        server.stdin.write(json.dumps(job) + "\n")
        server.stdin.flush()
        answer = json.loads(server.stdout.readline())
        return answer["code"], answer["error"]

    yield run
    server.stdin.close()
    server.wait(timeout=30)
    server.stdout.close()


class StopAt:
    """A listener that interrupts the run at the n-th event of a kind."""

    def __init__(self, kind, number):
        self.kind, self.left = kind, number

    def on(self, kind, values):
        self.left -= kind == self.kind
        if kind == self.kind and self.left == 0:
            raise KeyboardInterrupt

    def close(self):
        pass


@pytest.fixture(scope="session")
def stop_at():
    """Return a function: kind of event, number -> a listener that interrupts the run there."""
    return StopAt


@pytest.fixture(scope="session")
def events():
    """Return a function: run's folder -> the events in its file, of one kind if given."""

    def read(folder, kind=None):
        lines = [json.loads(line) for line in (Path(folder) / "events.jsonl").read_text().splitlines()]
        return [line for line in lines if kind in (None, line["event"])]

    return read


@pytest.fixture
def prepared():
    """Return a function that prepares data as a fit does; keyword arguments are the recipe's."""
    from foretune.prepare import prepare
    from foretune.recipe import Recipe

    def make(data, **options):
        return prepare(data, None, None, Recipe(offline=True, **options))

    return make
