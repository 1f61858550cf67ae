"""Semantic segmentation: one of several classes for every pixel of a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from foretune.data.columns import Columns
from foretune.data.image_store import in_order
from foretune.data.mask_classes import MaskClasses
from foretune.data.mask_folders import classes_beside, listed_classes
from foretune.data.masks import check_masks, open_mask
from foretune.data.scene_store import Masks, SceneStore
from foretune.data.scene_views import Jitter
from foretune.data.text import listed
from foretune.errors import DataError
from foretune.evaluation.scene_baselines import mask_baselines
from foretune.evaluation.scene_sections import mask_sections
from foretune.evaluation.scene_worst import WorstMasks
from foretune.evaluation.segmentation import SEGMENTATION_METRICS, SegmentationScores
from foretune.tasks.base import TASKS, Encoded, Examples
from foretune.tasks.image_classification import picture_paths
from foretune.tasks.inputs import columns_of, columns_state
from foretune.tasks.scenes import SceneTask

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from foretune.backbones.scene import SceneBackbone
    from foretune.recipe import Recipe


@TASKS.register("segmentation")
class Segmentation(SceneTask):
    """Cross-entropy of every pixel that counts; masks at the full size of the pictures.

    A prediction's `mask` is (height, width) of the ids that the training masks have, uint8 (uint16 where ids are
    larger), and `shares` says which part of the picture each class takes.
    """

    name = "segmentation"
    auto_class = "AutoModelForSemanticSegmentation"
    metrics = SEGMENTATION_METRICS
    default_metric = "miou"
    headline = "mask"
    file_key = "mask"
    jitter = Jitter(low=0.6, high=1.8)
    ignored: ClassVar[int] = MaskClasses.IGNORED

    def __init__(self, classes: MaskClasses, columns: Columns, side: int = 0) -> None:
        self.classes, self.columns, self.side = classes, columns, side
        self.names = classes.labels

    @classmethod
    def from_table(cls, table: pd.DataFrame, columns: Columns, recipe: Recipe) -> Segmentation:
        """Take the classes that the table's reader found, else every id that the masks hold."""
        return cls(_classes(table, columns), columns, cls.options_of(recipe).side)

    def state(self) -> dict[str, Any]:
        """Return classes, columns and the pictures' side."""
        return {"classes": asdict(self.classes), "columns": columns_state(self.columns), "side": self.side}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Segmentation:
        """Make the task of a saved model."""
        kept = state["classes"]
        colours = tuple((int(r), int(g), int(b)) for r, g, b in kept["colours"])
        void = kept["ignore_colour"]
        classes = MaskClasses(
            tuple(kept["labels"]), tuple(kept["ids"]), kept["ignore"], colours, tuple(void) if void else None
        )
        return cls(classes, columns_of(state["columns"]), state["side"])

    @classmethod
    def check_targets(cls, table: pd.DataFrame, columns: Columns, where: str) -> Sequence[str]:
        """Raise DataError naming the masks of other sizes or classes, and those that are broken."""
        paths = {
            "path": picture_paths(table, columns.text),
            "mask": picture_paths(table, str(columns.target)),
        }
        named = table.assign(**paths)
        named.attrs = {**table.attrs, **_classes(table, columns).attrs()}
        try:
            check_masks(named)
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        return ()

    def examples(self, table: pd.DataFrame, *, where: str, need_targets: bool = True) -> Examples:
        """Read the paths of pictures and, where needed, of masks. Raises DataError where ids mean other classes."""
        targets = None
        if need_targets:
            wrong = self.classes.renamed(listed_classes(table) or self.classes)
            if wrong:
                raise DataError(
                    f"{where}: classes are called otherwise than in the training data: {listed(wrong)}. Write masks "
                    f"in the ids of the training data, or correct classes.json."
                )
            targets = np.array(picture_paths(table, str(self.columns.target)), dtype=object)
        return Examples(picture_paths(table, self.columns.text), targets, np.arange(1, len(table) + 1))

    def annotations(self, targets: np.ndarray) -> Masks:
        """Return the masks of these paths."""
        return Masks(targets.tolist(), self.classes)

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
        """Return the pictures as a store; in training the masks come with the batch, on its canvas."""
        encoded = super().encode(
            backbone, examples, max_length=max_length, truncation=truncation, training=training, seed=seed
        )
        store = encoded.store
        if not training or not isinstance(store, SceneStore) or store.canvas is None:
            return encoded
        return Encoded(store, np.full(len(store), store.canvas[0] * store.canvas[1], dtype=np.int64))

    def model_options(self) -> dict[str, Any]:
        """Return the label names for `id2label` and `label2id`."""
        return {
            "num_labels": len(self.names),
            "id2label": dict(enumerate(self.names)),
            "label2id": {name: number for number, name in enumerate(self.names)},
        }

    def normaliser(self, targets: np.ndarray) -> float:
        """Return the pixels that count; of random views, which are not drawn yet, all pixels of the canvas."""
        pixels = targets.sum() if targets.ndim == 1 else (targets != self.ignored).sum()
        return float(max(pixels, 1))

    def loss(self, outputs: Tensor, targets: Tensor, batch: dict[str, Tensor] | None = None) -> Tensor:
        """Return the summed cross-entropy of logits (batch, classes, h, w), upsampled, over pixels that count."""
        from torch.nn.functional import cross_entropy, interpolate

        assert batch is not None
        masks = batch["masks"]
        logits = interpolate(outputs, masks.shape[1:], mode="bilinear", align_corners=False)
        return cross_entropy(logits, masks, ignore_index=self.ignored, reduction="sum")

    def activate(self, outputs: Tensor, batch: dict[str, Tensor] | None = None) -> Tensor:
        """Return class numbers (batch, height, width) at the pictures' full size, filled up with `IGNORED`."""
        import torch

        from foretune.backbones.scene import restored

        assert batch is not None
        sizes, canvas = batch["sizes"].tolist(), (batch["pixels"].shape[2], batch["pixels"].shape[3])
        height, width = max(size[2] for size in sizes), max(size[3] for size in sizes)
        numbers = torch.full((len(sizes), height, width), float(self.ignored), device=outputs.device)
        for whole, logits, size in zip(numbers, outputs, sizes, strict=True):
            whole[: size[2], : size[3]] = restored(logits, size, canvas).argmax(dim=0)
        return numbers

    def decode(
        self, outputs: Sequence[np.ndarray], examples: Examples, encoded: Encoded
    ) -> list[dict[str, Any]]:
        """Return the mask of every picture in the training masks' ids, and the share of each class in it."""
        ids = np.array(self.classes.ids, dtype=np.uint8 if max(self.classes.ids) < 256 else np.uint16)
        found = []
        for output in outputs:
            numbers = cut(output)
            shares = np.bincount(numbers.ravel(), minlength=len(ids)) / numbers.size
            named = {name: float(share) for name, share in zip(self.names, shares, strict=True) if share}
            found.append({"mask": ids[numbers], "shares": named})
        return found

    def scores(self, examples: Examples, encoded: Encoded) -> SegmentationScores:
        """Return an empty accumulator."""
        return SegmentationScores(len(self.names))

    def worst(self, examples: Examples, encoded: Encoded, k: int) -> WorstMasks | None:
        """Return a keeper of pictures whose masks are wrong in most pixels."""
        return WorstMasks(examples, k) if k else None

    def sections(self, result: dict[str, Any], worst: list[dict[str, Any]]) -> list[str]:
        """Return the IoU of every class, and pictures with true and predicted masks."""
        return mask_sections(result, worst, self.names)

    def baselines(self, train: Examples, held_out: Examples, seed: int) -> dict[str, Any]:
        """Return the scores of the majority class, everywhere and at each place of the picture."""
        return mask_baselines(self._opened(train), self._opened(held_out), len(self.names), seed)

    def _opened(self, examples: Examples) -> Iterator[np.ndarray]:
        """Yield the masks of examples, of which a few at a time are held."""
        assert examples.targets is not None
        paths = examples.targets.tolist()
        for start in range(0, len(paths), self.chunk):
            yield from in_order(lambda path: open_mask(path, self.classes), paths[start : start + self.chunk])


def cut(output: np.ndarray) -> np.ndarray:
    """Return class numbers (height, width) int64 without what fills up a batch."""
    inside = output >= 0
    return output[: int(inside[:, 0].sum()), : int(inside[0].sum())].astype(np.int64)


def _classes(table: pd.DataFrame, columns: Columns) -> MaskClasses:
    if "ids" in table.attrs:  # without looking for every file
        return MaskClasses.of(table)
    return classes_beside(table, picture_paths(table, str(columns.target)))
