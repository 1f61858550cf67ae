"""Train only the embedding rows that the training data use: the same result, a fraction of the work.

A row of the table whose token never occurs gets a zero gradient; with no weight decay on embeddings Adam
leaves it as it is (its moments stay 0). So training the table of the rows that do occur, and putting
them back, gives the weights that training the whole table gives, without a dense gradient and optimizer
state of vocabulary x hidden.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    import numpy as np


class SeenRowsEmbedding(nn.Embedding):
    """An embedding table of which only the rows `seen` train; those from `first_new` on stand apart.

    The new rows (see `vocabulary`) are the parameter `new`, so that they can have a rate of their own.
    `forward`: ids (batch, tokens) -> (batch, tokens, hidden). While training, every id must be among
    `seen`; in evaluation any id may come.
    """

    lookup: Tensor
    rows: Tensor

    def __init__(self, table: nn.Embedding, seen: np.ndarray, first_new: int | None = None) -> None:
        super().__init__(
            table.num_embeddings, table.embedding_dim, table.padding_idx, _weight=table.weight.data
        )
        self.weight.requires_grad_(False)
        rows = torch.from_numpy(seen.astype("int64")).to(table.weight.device)
        lookup = torch.zeros(table.num_embeddings, dtype=torch.int64, device=table.weight.device)
        lookup[rows] = torch.arange(len(rows), device=lookup.device)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("lookup", lookup, persistent=False)
        old = int((rows < first_new).sum()) if first_new is not None else len(rows)
        self.seen = nn.Parameter(table.weight.data[rows[:old]].clone())  # (rows, hidden)
        self.new = nn.Parameter(table.weight.data[rows[old:]].clone()) if old < len(rows) else None
        padding = table.padding_idx
        self.compact_padding = int(lookup[padding]) if padding is not None and padding in seen else None

    def trained(self) -> Tensor:
        """Return the rows that train, old before new: (rows, hidden)."""
        return self.seen if self.new is None else torch.cat([self.seen, self.new])

    def forward(self, input: Tensor) -> Tensor:
        """Look up ids (batch, tokens)."""
        if self.training:
            return nn.functional.embedding(self.lookup[input], self.trained(), self.compact_padding)
        return nn.functional.embedding(input, self.weight, self.padding_idx)

    def train(self, mode: bool = True) -> SeenRowsEmbedding:
        """Change the mode; for evaluation the trained rows are put into the whole table."""
        if not mode and hasattr(self, "seen"):
            with torch.no_grad():
                self.weight[self.rows] = self.trained()
        super().train(mode)
        return self

    def fold(self) -> nn.Embedding:
        """Return a plain embedding with the trained rows put back."""
        plain = nn.Embedding(
            self.num_embeddings, self.embedding_dim, self.padding_idx, _weight=self.weight.data
        )
        plain.weight.data[self.rows] = self.trained().data
        return plain
