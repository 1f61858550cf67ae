"""How a language model writes: beam search or sampling, and what it thinks of a text that is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from foretune.data.paired_store import IGNORED
from foretune.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

# Tokens of one pass while writing, shared by its beams. On 2 cores 64 sentences took 19 s by 1024, 24 s by 4096.
PASS_TOKENS = {"cpu": 1024}
PASS_TOKENS_ELSE = 16_384
NO_PROBE = (
    "{name} has no new head that could be trained alone: its head is pretrained. Take --strategy top-layers, "
    "lora or full."
)
CHUNK = 1 << 26  # logits (tokens x vocabulary) of which the losses are computed at once


@dataclass(frozen=True, kw_only=True)
class Generation:
    """How texts are written.

    `num_beams`: of beam search, 1 is greedy. `max_new_tokens`: at most so many, 0 for the task's own limit.
    `temperature` above 0 draws at random instead, from the likeliest tokens that hold `top_p` of the
    probability (Holtzman et al. 2020). `no_repeat_ngram_size`: no n-gram twice; 0 leaves it to the model.
    """

    num_beams: int = 4
    max_new_tokens: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    no_repeat_ngram_size: int = 0

    def __post_init__(self) -> None:
        for name, least in (("num_beams", 1), ("max_new_tokens", 0), ("no_repeat_ngram_size", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f"Option {name} is {value!r}; expected a whole number of {least} or more.")
        if not _number(self.temperature) or not 0 <= self.temperature < float("inf"):
            raise ConfigError(f"Option temperature is {self.temperature!r}; expected 0 (no drawing) or more.")
        if not _number(self.top_p) or not 0 < self.top_p <= 1:
            raise ConfigError(f"Option top_p is {self.top_p!r}; expected a number above 0, at most 1.")
        if self.top_p < 1 and self.temperature == 0:
            raise ConfigError("Option top_p says how to draw at random: set temperature too, such as 0.8.")

    @property
    def beams(self) -> int:
        """Return how many texts are followed at once for each that is written."""
        return 1 if self.temperature > 0 else self.num_beams

    def settings(self) -> dict[str, Any]:
        """Return the entries of transformers' generation configuration."""
        drawn = self.temperature > 0
        found: dict[str, Any] = {"do_sample": drawn, "num_beams": self.beams}
        found |= {"temperature": self.temperature, "top_p": self.top_p, "top_k": 0} if drawn else {}
        if self.no_repeat_ngram_size:
            found["no_repeat_ngram_size"] = self.no_repeat_ngram_size
        return found


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def pass_tokens(model: Any, beams: int) -> int:
    """Return how many tokens one pass may hold while `model` follows so many beams."""
    device = next(model.parameters()).device.type
    return max(PASS_TOKENS.get(device, PASS_TOKENS_ELSE) // beams, 1)


def configure(model: Any, generation: Generation, **own: Any) -> None:
    """Write how to generate into the model's own generation configuration, which is saved with it.

    `own`: further entries. What only drawing at random reads is reset where nothing is drawn.
    """
    config = model.generation_config
    plain = {"temperature": None, "top_p": None, "top_k": None, "typical_p": None, "min_p": None}
    entries = {**plain, "max_length": None, **generation.settings(), **own}
    for name, value in entries.items():
        setattr(config, name, value)


def write(model: Any, inputs: Mapping[str, Tensor], limit: int, seed: int = 0, **options: Any) -> Tensor:
    """Return what the model writes for a batch: ids (batch, at most `limit`), padded behind their ends.

    What is drawn at random depends on `seed` and the inputs alone, and leaves torch's random state as it was.
    """
    ids = inputs["input_ids"]
    devices = [ids.device] if ids.device.type == "cuda" else []
    # On a CPU autocast turns all weights into bf16 anew for every token: three times slower with Marian.
    precise = torch.autocast("cpu", enabled=False)
    with torch.random.fork_rng(devices), precise:
        torch.manual_seed(seed + int(ids.sum()))
        written: Tensor = model.generate(**inputs, max_new_tokens=limit, **options)
    return written


def token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the negative log-likelihood (nats) of every label, 0 where it does not count: (batch, tokens).

    logits: (batch, tokens, vocabulary); labels: (batch, tokens), -100 where they do not count. A few rows at a
    time, as the logits of a large vocabulary are what fills the memory.
    """
    rows = max(CHUNK // max(logits[0].numel(), 1), 1)
    parts = [
        nn.functional.cross_entropy(some.transpose(1, 2).float(), own, reduction="none", ignore_index=IGNORED)
        for some, own in zip(logits.split(rows), labels.split(rows), strict=True)
    ]
    return torch.cat(parts)


def summed_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the sum of the losses and the number of labels that count, per row: (batch, 2) float32."""
    counts = (labels != IGNORED).sum(dim=1)
    return torch.stack([token_losses(logits, labels).sum(dim=1), counts.float()], dim=1)


def smoothed_loss(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the summed cross-entropy; `smoothing` as in Szegedy et al. 2016, section 7."""
    return nn.functional.cross_entropy(
        logits.flatten(0, 1),
        labels.flatten(),
        ignore_index=IGNORED,
        reduction="sum",
        label_smoothing=smoothing,
    )
