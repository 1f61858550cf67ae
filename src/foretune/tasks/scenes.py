"""What segmentation and detection share: pictures of any size in, a store of them, rates and epochs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from foretune.data.image_store import digests
from foretune.data.scene_store import Annotations, SceneStore
from foretune.data.scene_views import Jitter
from foretune.errors import ConfigError
from foretune.tasks.base import Encoded, Examples, Task
from foretune.tasks.image_classification import ImageClassification, check_readable, picture_paths

if TYPE_CHECKING:
    import pandas as pd

    from foretune.backbones.scene import SceneBackbone
    from foretune.data.columns import Columns
    from foretune.strategies.base import Settings, Workload


@dataclass(frozen=True, kw_only=True)
class SceneOptions:
    """`side`: pixels that the longest side of every picture is brought to; 0: as it is, up to 640."""

    side: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.side, int) or not (self.side == 0 or 32 <= self.side <= 8192):
            raise ConfigError(
                f"Option side is {self.side!r}; expected pixels from 32 to 8192, or 0 for the pictures' own."
            )


class SceneTask(Task):
    """A task on pictures of any size; inputs are paths or RGB arrays (h, w, 3) uint8."""

    modality = "image"
    pools = False
    example = '"picture.jpg"'
    chunk = 64  # masks and findings of that many pictures are held at a time
    Options = SceneOptions
    jitter: ClassVar[Jitter]
    names: tuple[str, ...]
    side: int

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the label names in the order of their numbers."""
        return self.names

    @classmethod
    def audit(cls, table: pd.DataFrame, columns: Columns, *, where: str) -> list[str]:
        """Return what the table's reader and its targets warn of. Raises DataError for broken files, wrong targets."""
        check_readable(picture_paths(table, columns.text), where)
        found = () if columns.target is None else cls.check_targets(table, columns, where)
        return [*found, *(f"{where}: {text}" for text in table.attrs.get("warnings", ()))]

    @classmethod
    def check_targets(cls, table: pd.DataFrame, columns: Columns, where: str) -> Sequence[str]:
        """Return warnings about targets. Raises DataError where they cannot be used."""
        raise NotImplementedError

    @classmethod
    def overlap(cls, train: pd.DataFrame, other: pd.DataFrame, columns: Columns, where: str) -> list[str]:
        """Return a warning about files of `train` whose copies also stand in `other`, called `where`."""
        return ImageClassification.overlap(train, other, columns, where)

    def from_inputs(self, inputs: Any) -> Examples:
        """Return one picture or several, as paths or RGB arrays. Raises DataError for anything else."""
        return ImageClassification.from_inputs(self, inputs)  # type: ignore[arg-type]

    def probes(self) -> Examples:
        """Return two pictures of noise, of different sizes."""
        chance = np.random.default_rng(0)
        sizes = ((96, 128), (64, 64))
        return self.from_inputs([chance.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes])

    def texts(self, examples: Examples) -> list[str]:
        """Return nothing: pictures hold no characters."""
        return []

    def groups(self, examples: Examples) -> list[str]:
        """Return the hash of every file: copies stay on one side of a split."""
        return digests(examples.inputs)

    def annotations(self, targets: np.ndarray) -> Annotations:
        """Return the targets of examples as the store reads them."""
        raise NotImplementedError

    def encode(  # type: ignore[override]
        self,
        backbone: SceneBackbone,
        examples: Examples,
        *,
        max_length: int,
        truncation: str,
        training: bool = False,
        seed: int = 0,
    ) -> Encoded:
        """Return the pictures as a store; for training as random views, with the targets on them."""
        targets = None if examples.targets is None else self.annotations(examples.targets)
        store = SceneStore(list(examples.inputs), self.side or None, targets)
        store = store.varied(self.jitter) if training else store
        if targets is not None:
            backbone.like(store)  # training rows come first
        return Encoded(store, targets)

    def adjusted(self, settings: Settings, work: Workload) -> Settings:
        """Return settings for these heads: pictures are few and large, so batches are small.

        Measured with ResNet-18 on CamVid and BCCD. A new head starts at random, its trunk does not: the lower
        stages take far smaller rates. Whole models of transformers take the rate that DETR and SegFormer were
        trained at (Carion et al. 2020; Xie et al. 2021).
        """
        batch = 8 if work.examples >= 64 else 4
        epochs = float(np.clip(round(1200 / max(work.examples, 1)), 4, 40))
        whole = work.unit == "pretrained scenes"
        lr, decay = (1e-4, 0.9) if whole else (1e-3, 0.6)
        return replace(settings, lr=lr, epochs=epochs, batch_tokens=batch, layer_decay=decay)
