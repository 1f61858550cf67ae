"""Which models can write: encoder-decoders and causal language models, told by their configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from foretune.backbones.source import Source, hub_closed, resolve
from foretune.errors import BackboneError

if TYPE_CHECKING:
    from foretune.backbones.text import TextBackbone

_WANTED = {
    "AutoModelForSeq2SeqLM": "an encoder-decoder, such as Marian (Helsinki-NLP/opus-mt-…), T5, BART, mBART or NLLB",
    "AutoModelForCausalLM": "a causal language model, such as SmolLM2, GPT-2, Qwen or Llama",
}


def language_backbone(auto_class: str) -> type[TextBackbone]:
    """Return the backbone's class."""
    if auto_class == "AutoModelForSeq2SeqLM":
        from foretune.backbones.seq2seq import Seq2SeqBackbone

        return Seq2SeqBackbone
    from foretune.backbones.causal import CausalBackbone

    return CausalBackbone


def check_writes(name: str, auto_class: str, task: str, offline: bool) -> None:
    """Raise BackboneError where the model `name` is of another kind than `task` needs.

    A model whose configuration cannot be read is left to the loading, whose errors say why.
    """
    source = resolve(name)
    config = _config(source, offline)
    if config is None:
        return
    both = auto_class == "AutoModelForCausalLM" and config.is_encoder_decoder
    if type(config) in _known(auto_class) and not both:
        return
    raise BackboneError(
        f"Backbone {name!r} ({config.model_type}) cannot write texts as {task} needs it. "
        f"Give {_WANTED[auto_class]}, as --backbone FOLDER or a hub id."
    )


def _config(source: Source, offline: bool) -> Any:
    from transformers import AutoConfig

    closed = source.local or offline
    try:
        with hub_closed(closed):
            return AutoConfig.from_pretrained(
                source.location, local_files_only=closed, trust_remote_code=False
            )
    except (OSError, ValueError):
        return None


def _known(auto_class: str) -> Any:
    import transformers

    return getattr(transformers, auto_class)._model_mapping
