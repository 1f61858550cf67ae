"""Causal language models behind the Backbone's face: GPT-2, Llama, SmolLM, Qwen …

Sequences are never packed into one row. A row holds one text, or one window of a long one, and batches are
made of rows of near-equal length, so that hardly anything is padded; what packing would save is lost again
on masks that keep the texts of a row apart. So no text can see another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from foretune.backbones.split import evaluating
from foretune.backbones.text import TextBackbone
from foretune.backbones.writing import NO_PROBE, Generation, configure, pass_tokens, write
from foretune.data.paired_store import IGNORED
from foretune.data.store import RaggedStore, Store
from foretune.data.windows import LABELS
from foretune.errors import BackboneError, ConfigError

TOLERANCE = 1e-5  # relative to the largest logit, between two texts that differ only later


class CausalBackbone(TextBackbone):
    """A Hugging Face causal language model. Outputs are logits (batch, tokens, vocabulary).

    Batches of stores with labels hold `labels` (batch, tokens): the next id, or -100. Batches without are
    prompts, padded on the left, that `write` goes on with.
    """

    new_head = False
    _beams = 1
    _causal: bool | None = None

    def collate(self, store: Store, rows: np.ndarray) -> dict[str, Tensor]:
        """Return input_ids, attention_mask where something is padded, and labels where the store has them."""
        assert isinstance(store, RaggedStore)
        ids, mask = store.padded(rows, self.padding)
        if LABELS not in store.extras:
            ids, mask = _to_the_right(ids, mask, self.padding)
            return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask).long()}
        batch = {"input_ids": torch.from_numpy(ids)}
        if not mask.all():
            batch["attention_mask"] = torch.from_numpy(mask).long()
        return batch | {LABELS: torch.from_numpy(store.padded(rows, IGNORED, LABELS)[0])}

    def _run(self, batch: dict[str, Tensor]) -> Any:
        given = {name: tensor for name, tensor in batch.items() if name != LABELS}
        return self.model(**given, use_cache=False)

    def configure(self, generation: Generation) -> None:
        """Settle how the model writes. Raises BackboneError where it sees what comes later."""
        if self._causal is None:
            self._causal = self._looks_back_only()
        if not self._causal:
            raise BackboneError(
                f"{self.name} sees the words that it should predict: it is no causal language model. Give one, such "
                "as SmolLM2, GPT-2 or Qwen, with --backbone."
            )
        configure(self.model, generation, pad_token_id=self.padding, eos_token_id=self._ends())
        self._beams = generation.beams

    def _ends(self) -> list[int] | int | None:
        """Return the ids that end a text: the model's own, and the tokenizer's."""
        own = self.model.generation_config.eos_token_id
        known = {*(own if isinstance(own, list) else [own]), self.tokenizer.eos_token_id} - {None}
        return sorted(known) or None

    @torch.no_grad()
    def _looks_back_only(self) -> bool:
        """Change the last of six tokens and see whether the logits before it stay as they were."""
        ids = self._sample()["input_ids"][:1]
        other = ids.clone()
        other[0, -1] = (other[0, -1] + 1) % self.model.config.vocab_size
        with evaluating(self.model):
            first, second = (self.forward({"input_ids": each})[:, :-1] for each in (ids, other))
        return float((first - second).abs().max()) <= TOLERANCE * float(first.abs().max())

    @property
    def pass_limit(self) -> int:  # type: ignore[override]
        """Return what the lengths of one pass without gradients add up to at most."""
        return pass_tokens(self.model, self._beams)

    def write(self, batch: dict[str, Tensor], limit: int, seed: int = 0, **options: Any) -> Tensor:
        """Return what the model writes after prompts: ids (batch, at most `limit`), padded."""
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        read = inputs["input_ids"].shape[1]
        limit = max(min(limit, self.max_length - read), 1)
        return write(self.model, inputs, limit, seed, **options)[:, read:]

    def room(self, limit: int) -> int:
        """Return how many tokens of a prompt can be read where so many may be written: half of all at least."""
        return max(self.max_length - limit, self.max_length // 2)

    def train_seen_embeddings(self, store: Store) -> None:
        """Do nothing: the table is often the output layer too, which reads every row of it."""

    def learn_vocabulary(self, inputs: Sequence[Any]) -> int:
        """Add nothing: what is written has to come from the vocabulary that was pretrained."""
        return 0

    def linear_head(self) -> tuple[list[nn.Parameter], float]:
        """Raise ConfigError: there is no head that could be trained alone."""
        raise ConfigError(NO_PROBE.format(name=self.name))


def _to_the_right(ids: np.ndarray, mask: np.ndarray, padding: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ids and mask (batch, tokens) with the padding on the left."""
    moved, seen = np.full_like(ids, padding), mask[:, ::-1].copy()
    moved[seen] = ids[mask]
    return moved, seen
