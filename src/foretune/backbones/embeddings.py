"""A text model as an encoder of sentences: two texts in, two vectors out, compared by their cosine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foretune.backbones.sentence_files import write_sentence_files
from foretune.backbones.text import TextBackbone
from foretune.data.store import RaggedStore, Store
from foretune.errors import ConfigError

SNIPPET = """from sentence_transformers import SentenceTransformer

model = SentenceTransformer(".")
vectors = model.encode(["a query", "a document"])  # at unit length, so that products are cosines
"""
PART = "part"  # the store's array that says of every token whether it is the first (0) or second text's (1)


class EmbeddingBackbone(TextBackbone):
    """The mean of a model's last hidden states over the real tokens, at unit length (Reimers and Gurevych 2019).

    A batch of b pairs is run as 2 b texts: the first ones, then the second ones.
    """

    pools = False
    library = "sentence-transformers"
    snippet = SNIPPET

    def preprocess(self, inputs: Sequence[Any], *, max_length: int, truncation: str) -> RaggedStore:
        """Tokenise pairs of texts, each text on its own and of at most `max_length` tokens, or single texts."""
        if not len(inputs) or isinstance(inputs[0], str):
            return super().preprocess(inputs, max_length=max_length, truncation=truncation)
        parts = [
            super(EmbeddingBackbone, self).preprocess(
                list(texts), max_length=max_length, truncation=truncation
            )
            for texts in zip(*inputs, strict=True)
        ]
        return joined(*parts)

    def collate(self, store: Store, rows: np.ndarray) -> dict[str, Tensor]:
        """Return input_ids and attention_mask of the first texts, then the second: (2 batch, tokens)."""
        assert isinstance(store, RaggedStore)
        if PART not in store.extras:
            return super().collate(store, rows)
        ids, kinds = [store[row] for row in rows], [store.extra(PART, row) for row in rows]
        texts = [i[kind == part] for part in (0, 1) for i, kind in zip(ids, kinds, strict=True)]
        longest = max(map(len, texts))
        padded = np.full((len(texts), longest), self.padding, dtype=np.int64)
        mask = np.zeros((len(texts), longest), dtype=np.int64)
        for row, text in enumerate(texts):
            padded[row, : len(text)], mask[row, : len(text)] = text, 1
        return {"input_ids": torch.from_numpy(padded), "attention_mask": torch.from_numpy(mask)}

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the embeddings of b pairs, (b, 2, hidden)."""
        return self.embed(batch).unflatten(0, (2, -1)).transpose(0, 1)

    def embed(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the embeddings (texts, hidden) of texts, float32 at unit length."""
        hidden = self._run(batch).last_hidden_state.float()
        mask = batch.get("attention_mask")
        weights = torch.ones_like(hidden[..., :1]) if mask is None else mask[..., None].to(hidden.dtype)
        mean = (hidden * weights).sum(dim=1) / weights.sum(dim=1)
        return torch.nn.functional.normalize(mean, dim=-1)

    def save_beside(self, folder: Path, max_length: int) -> None:
        """Write the files with which sentence-transformers gives the same vectors."""
        write_sentence_files(folder, self.model.config.hidden_size, max_length)

    def linear_head(self) -> tuple[list[Any], float]:
        """Raise ConfigError: there is no head that could train alone."""
        raise ConfigError(
            "similarity has no head: embeddings are compared as they are. Choose --strategy full, top-layers or lora; "
            "what the backbone does untrained stands beside the score as a baseline."
        )

    def split_points(self) -> tuple[int, ...]:
        """Return none: the store's rows are pairs, whose hidden states are not one sequence."""
        return ()

    def sample_batch(self, length: int) -> dict[str, Tensor]:
        """Return one pair of `length` tokens together."""
        device = next(self.model.parameters()).device
        return {"input_ids": torch.ones(2, max(length // 2, 1), dtype=torch.int64, device=device)}


def joined(first: RaggedStore, second: RaggedStore) -> RaggedStore:
    """Return the store whose rows are the tokens of both texts, one after the other, with the array `PART`."""
    rows = range(len(first))
    flat = [np.concatenate([first[row], second[row]]) for row in rows]
    kinds = [np.repeat(np.array([0, 1], np.int32), [len(first[row]), len(second[row])]) for row in rows]
    offsets = first.offsets + second.offsets
    one, two = first.cuts, second.cuts
    cuts = replace(
        one, examples=one.examples, tokens=one.tokens + two.tokens,
        cut_examples=one.cut_examples + two.cut_examples, cut_tokens=one.cut_tokens + two.cut_tokens,
        unknown_tokens=one.unknown_tokens + two.unknown_tokens,
    )  # fmt: skip
    empty = np.zeros(0, np.int32)
    extras = {PART: np.concatenate([empty, *kinds])}
    return RaggedStore(np.concatenate([empty, *flat]), offsets, cuts, extras)
