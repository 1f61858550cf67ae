"""Stands in for cached features while steps are timed: what they hold does not matter, how they are read does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from foretune.training.feed import HEAD, Feed, HeadFeed, HiddenFeed

if TYPE_CHECKING:
    import numpy as np

    from foretune.training.job import Job


@dataclass(frozen=True)
class RandomFeatures:
    """Random rows of the lengths, width and number format of a feature store, read and converted alike."""

    lengths: np.ndarray  # (n,) rows of every example
    values: torch.Tensor  # (longest, …) in the store's format

    @classmethod
    def like(cls, lengths: np.ndarray, tail: Sequence[int], dtype: str) -> RandomFeatures:
        """Make enough rows for the longest example; the random state of the process is left alone."""
        generator = torch.Generator().manual_seed(0)
        values = torch.randn(int(lengths.max()), *tail, generator=generator)
        return cls(lengths, values.bfloat16() if dtype == "bf16" else values)

    def rows(self, examples: np.ndarray) -> torch.Tensor:
        """Return the rows of `examples`, one after another: (sum of lengths, …) float32."""
        return torch.cat([self.values[: int(n)] for n in self.lengths[examples]]).float()

    def padded(self, examples: np.ndarray) -> torch.Tensor:
        """Return the rows of `examples`, zeros behind the end: (batch, longest, …) float32."""
        parts = [self.values[: int(n)] for n in self.lengths[examples]]
        return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True).float()


def cached_feed(job: Job, start: int, tail: Sequence[int]) -> Feed:
    """Return a feed of the training examples that starts at `start`, as from a full cache.

    `tail`: the shape of what one token (behind k layers) or one example (HEAD) has in the cache.
    """
    import numpy as np

    store = job.train_store
    lengths = np.ones(len(store), dtype=np.int64) if start == HEAD else store.lengths
    features = RandomFeatures.like(lengths, tail, job.recipe.cache)
    if start == HEAD:
        return HeadFeed(job.backbone, job.runtime, features)  # type: ignore[arg-type]
    return HiddenFeed(job.backbone, store, job.runtime, features, start)  # type: ignore[arg-type]
