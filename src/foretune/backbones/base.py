"""The Backbone seam: one face for every pretrained model, whatever library it comes from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from foretune.backbones.layers import LayerMap
    from foretune.data.store import Store


class Backbone(ABC):
    """A pretrained model with a task's head, its preprocessing, and its ordered layers.

    Adding a library of models means writing one subclass; tasks, strategies and the loop only use what
    stands here.
    """

    name: str
    model: nn.Module
    unit = "tokens"  # what the lengths of a store count
    pass_limit = (
        1 << 62
    )  # what the lengths of one pass without gradients add up to at most, besides its budget
    snippet = (
        ""  # Python that runs the saved folder, where it is no pipeline of transformers: for the model card
    )
    library = "transformers"  # that loads the saved folder, by its name on the hub: for the model card
    new_head = True  # False: the head was pretrained with the model, as a language model's output layer is
    pools = True  # False: the task's head reads every token, so `use_mean_pooling` does nothing

    @property
    @abstractmethod
    def layers(self) -> LayerMap:
        """Return the layers in order and the depth of every parameter."""

    @abstractmethod
    def layers_changed(self) -> None:
        """Look at the layers anew: a strategy has changed the modules."""

    @property
    @abstractmethod
    def max_length(self) -> int:
        """Return the longest input the model takes, special tokens included (tokens)."""

    @abstractmethod
    def preprocess(self, inputs: Sequence[Any], *, max_length: int, truncation: str) -> Store:
        """Turn raw inputs into stored arrays of known lengths, in the inputs' order."""

    @abstractmethod
    def collate(self, store: Store, rows: np.ndarray) -> dict[str, Tensor]:
        """Return the model's input for the examples `rows`: (batch, tokens) tensors on the CPU."""

    @abstractmethod
    def sample_batch(self, length: int) -> dict[str, Tensor]:
        """Return the model's input for one example of this length, on the model's device, to count its work."""

    @property
    def sample_lengths(self) -> tuple[int, ...]:
        """Return lengths at which the work is counted; one where all examples are equally long."""
        return tuple(t for t in (8, 16, 32) if t <= self.max_length)

    @abstractmethod
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the head's output, for classification logits (batch, classes)."""

    @property
    @abstractmethod
    def linear(self) -> bool:
        """Return whether the head is a linear map of `features`."""

    @abstractmethod
    def split_points(self) -> tuple[int, ...]:
        """Return every k at which the model can be split behind its first k layers, checked on this model."""

    @abstractmethod
    def hidden(self, batch: dict[str, Tensor], points: Sequence[int]) -> list[Tensor]:
        """Return the output of the first k layers, (batch, tokens, hidden), for every k of `points`."""

    @abstractmethod
    def forward_from(self, k: int, hidden: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Return the head's output, given that of the first k layers: (batch, tokens, hidden)."""

    @abstractmethod
    def layer_means(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the mean over an example's tokens of every layer's input and output: (batch, n + 1, hidden)."""

    @abstractmethod
    def train_above(self, k: int) -> None:
        """Put what lies above layer k into training mode, and the rest, which is frozen, into evaluation mode."""

    @abstractmethod
    def features(self, batch: dict[str, Tensor]) -> Tensor | None:
        """Return what the linear head reads, (batch, hidden); None where the model has no such head."""

    @abstractmethod
    def head(self, features: Tensor) -> Tensor:
        """Return the head's output of `features`: `head(features(batch))` is `forward(batch)`."""

    @abstractmethod
    def train_seen_embeddings(self, store: Store) -> None:
        """Train only the embedding rows that `store` uses, where the model allows it."""

    @property
    def learnt(self) -> str:
        """Return what `learn_vocabulary` added; empty where it was nothing."""
        return ""

    @abstractmethod
    def learn_vocabulary(self, inputs: Sequence[Any]) -> int:
        """Add what the preprocessing does not know in `inputs` to the vocabulary; return how much that was."""

    @abstractmethod
    def fold_embeddings(self) -> None:
        """Undo `train_seen_embeddings`, keeping what was learnt."""

    @abstractmethod
    def use_mean_pooling(self) -> bool:
        """Make the head read the mean of all tokens; return False where this model cannot."""

    @abstractmethod
    def linear_head(self) -> tuple[list[nn.Parameter], float]:
        """Make the head linear in the features where possible.

        Returns its trainable parameters, and the size of the features they see relative to the backbone's.
        """

    def label_names(self) -> tuple[str, ...]:
        """Return the names of the head's classes; empty where it has none."""
        named = getattr(self.model, "config", None)
        return tuple(getattr(named, "id2label", {}).values()) if getattr(named, "num_labels", 1) > 1 else ()

    def scale_outputs(self, scale: float, shift: float) -> bool:
        """Make the head give `scale` times its output plus `shift`; return False, changing nothing, where it cannot."""
        return False

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a hash (hex) of the pretrained weights, to tell whether a resumed run fits."""

    @abstractmethod
    def state_key(self) -> str:
        """Return what decides the frozen layers' output for given tokens: weights, and what was added to them."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write a folder that the model's own library loads, without pickle."""

    def save_beside(self, folder: Path, max_length: int) -> None:  # noqa: B027
        """Write what other libraries need beside what `save` wrote; inputs are cut at `max_length`."""
