"""Tiny encoder-decoders and causal models that know a few words, and runs that leave out what is slow."""

import os
import random

import pytest

_ENGLISH = "one two three four five red green blue cat dog bird house sees likes has the a and not"
_OTHER = "un deux trois quatre cinq rouge vert bleu chat chien oiseau maison voit aime a le une et pas"
ENGLISH, OTHER = _ENGLISH.split(), _OTHER.split()
LETTERS = [mark + letter for letter in "abcdefghijklmnopqrstuvwxyz0123456789.,?!" for mark in ("", "##")]
SPECIAL = ["[PAD]", "[UNK]", "<s>", "</s>"]
VOCABULARY = list(dict.fromkeys(SPECIAL + ENGLISH + OTHER + LETTERS))
PAD, START, END = 0, 2, 3
CHAT = (
    "{% for m in messages %}{{ '<s> ' + m['role'] + ' ' + m['content'] + ' </s> ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s> assistant ' }}{% endif %}"
)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Runs of one thread can be compared bit by bit."""
    import torch

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)


def make_tokenizer(ends=True, chat=False):
    """Return a WordPiece tokenizer that can be decoded; with `ends` it puts an end behind every text."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordPiece({w: i for i, w in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    if ends:
        inner.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", END)])
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner, model_max_length=64, pad_token="[PAD]", unk_token="[UNK]", bos_token="<s>",
        eos_token="</s>", model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
    if chat:
        made.chat_template = CHAT
    return made


def _model(kind):
    import transformers

    ids = {"pad_token_id": PAD, "bos_token_id": START, "eos_token_id": END}
    size = len(VOCABULARY)
    if kind == "bart":
        config = transformers.BartConfig(
            vocab_size=size, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=64,
            decoder_start_token_id=END, forced_eos_token_id=None, forced_bos_token_id=None, **ids,
        )  # fmt: skip
        return transformers.BartForConditionalGeneration(config)
    if kind == "t5":
        config = transformers.T5Config(
            vocab_size=size, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_decoder_layers=2, num_heads=2,
            decoder_start_token_id=PAD, **ids,
        )  # fmt: skip
        return transformers.T5ForConditionalGeneration(config)
    if kind == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=size, n_embd=32, n_layer=2, n_head=2, n_positions=64, **ids
        )
        return transformers.GPT2LMHeadModel(config)
    config = transformers.LlamaConfig(
        vocab_size=size, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=64, max_position_embeddings=64, tie_word_embeddings=kind == "tied", **ids,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory):
    """Return a function: kind of model -> folder with a tiny, randomly initialised one."""
    base, made = tmp_path_factory.mktemp("writers"), {}

    def make(kind):
        if kind not in made:
            import torch

            torch.manual_seed(1)
            _model(kind).save_pretrained(base / kind)
            make_tokenizer(ends=kind in ("bart", "t5"), chat=kind == "llama").save_pretrained(base / kind)
            made[kind] = str(base / kind)
        return made[kind]

    return make


@pytest.fixture(scope="session")
def sentences():
    """Return a function: number, seed -> (texts of known words, their translations word by word)."""

    def make(number, seed=0):
        draw = random.Random(seed)
        picked = [draw.choices(range(len(ENGLISH)), k=draw.randint(2, 9)) for _ in range(number)]
        return [" ".join(ENGLISH[i] for i in row) for row in picked], [
            " ".join(OTHER[i] for i in row) for row in picked
        ]

    return make


@pytest.fixture
def quick(monkeypatch):
    """The options of a short run; the machine's peak and the count of operations are not measured."""
    from foretune.training import loop, machine
    from foretune.training.flops import FlopModel

    monkeypatch.setattr(machine, "gemm_peak", lambda *args, **options: 1e9)
    monkeypatch.setattr(loop, "fit_flops", lambda *args: FlopModel(1.0, 0.0, 0.0))
    return {
        "device": "cpu", "precision": "fp32", "offline": True, "epochs": 2.0, "lr": 3e-3, "batch_tokens": 256,
        "max_tokens": 32, "seed": 3,
    }  # fmt: skip


class StopAt:
    """A listener that interrupts the run at the n-th step."""

    def __init__(self, number):
        self.left = number

    def on(self, kind, values):
        self.left -= kind == "step"
        if kind == "step" and self.left == 0:
            raise KeyboardInterrupt

    def close(self):
        pass


@pytest.fixture(scope="session")
def stop_at():
    """Return a function: number of a step -> a listener that interrupts the run there."""
    return StopAt
