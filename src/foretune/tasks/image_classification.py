"""Image classification: one of two or more labels for every picture."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.data.audit import _label_warnings as label_warnings
from foretune.data.columns import Columns
from foretune.data.image_augment import Augmentation, contact_sheet
from foretune.data.image_store import ImageStore, digests
from foretune.data.images import find_broken
from foretune.data.labels import encode_labels, label_texts
from foretune.data.media import IMAGE, Media, located
from foretune.data.text import counted, listed, row_list
from foretune.errors import DataError
from foretune.evaluation.image_baselines import image_baselines
from foretune.evaluation.image_scores import IMAGE_METRICS, TOP, ImageScores
from foretune.evaluation.metrics import CLASSIFICATION_METRICS
from foretune.tasks.base import TASKS, Encoded, Examples
from foretune.tasks.text_classification import TextClassification, class_weights

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from foretune.backbones.base import Backbone
    from foretune.recipe import Recipe
    from foretune.strategies.base import Settings, Workload

BATCH, LEAST_BATCH = 32, 8  # pictures of a step, in large and in the smallest sets
EPOCH_STEPS = 12  # of small sets, as far as `LEAST_BATCH` lets them have so many
STEPS, MOST_EPOCHS = 125, 10  # that layers train for at least, within so many epochs
SHEET = 12  # pictures on the report's contact sheet


@TASKS.register("image-classification")
class ImageClassification(TextClassification):
    """Classification as of texts; inputs are paths of pictures or RGB arrays (h, w, 3) uint8.

    `augmentation` is what chance does to training pictures of backbones that train.
    """

    name = "image-classification"
    modality = "image"
    auto_class = "AutoModelForImageClassification"
    metrics = IMAGE_METRICS
    pipeline = "image-classification"
    example = '"picture.jpg"'
    pools = False
    forecasts = True
    Options = Augmentation

    augmentation = Augmentation()
    _varied: ImageStore | None = None

    def __init__(self, names: tuple[str, ...], columns: Columns, weights: tuple[float, ...] | None) -> None:
        super().__init__(names, columns, weights)
        if len(names) <= TOP:
            self.metrics = CLASSIFICATION_METRICS  # type: ignore[misc]

    @classmethod
    def varying_options(cls) -> set[str]:
        """Return the names of the options of augmentation."""
        return {field.name for field in fields(Augmentation)}

    @classmethod
    def from_table(cls, table: pd.DataFrame, columns: Columns, recipe: Recipe) -> ImageClassification:
        """Learn the label names (sorted) and weights of the training table, and how its pictures shall vary."""
        encoding = encode_labels(table[columns.target].tolist())
        counts = np.bincount(encoding.ids, minlength=len(encoding.names))
        task = cls(encoding.names, columns, class_weights(recipe.class_weights, encoding.names, counts))
        task.augmentation = cls.options_of(recipe)
        return task

    @classmethod
    def audit(cls, table: pd.DataFrame, columns: Columns, *, where: str) -> list[str]:
        """Return warnings: copies, copies with other labels, rare classes. Raises DataError for broken files."""
        paths = picture_paths(table, columns.text)
        check_readable(paths, where)
        if columns.target is None:
            return []
        labels = label_texts(table[columns.target].tolist(), where)
        hashes = digests(paths)
        return label_warnings(labels, where) + _copy_warnings(hashes, labels, where)

    @classmethod
    def overlap(cls, train: pd.DataFrame, other: pd.DataFrame, columns: Columns, where: str) -> list[str]:
        """Return a warning about files of `train` whose copies also stand in `other`, called `where`."""
        known = set(digests(picture_paths(train, columns.text)))
        found = digests(picture_paths(other, columns.text))
        rows = [row for row, each in enumerate(found) if each in known]
        if not rows:
            return []
        return [
            f"{where}: {counted(len(rows), 'picture')} of {len(other):,} also in the training data "
            f"({row_list(rows)}); the score will be too good; fix: drop them there"
        ]

    def adjusted(self, settings: Settings, work: Workload) -> Settings:
        """Return the settings with steps of at most `BATCH` pictures: a strategy's batch is made for tokens.

        Small sets take smaller steps, and more epochs. Fine-tuning all of ResNet-18 on 200 pictures, 112 pixels wide,
        for 35 steps of 32 stayed below its frozen probe (CIFAR-10 49.2, flowers5 60.5; probes 58.5, 62.5); 130 steps
        of 16 did not (60.0, 62.3).
        """
        batch = min(max(work.examples // EPOCH_STEPS, LEAST_BATCH), BATCH, settings.batch_tokens)
        enough = math.ceil(STEPS / math.ceil(max(work.examples, 1) / batch))
        epochs = max(settings.epochs, min(enough, MOST_EPOCHS)) if settings.epochs else 0.0
        return replace(settings, batch_tokens=batch, epochs=epochs)

    def examples(self, table: pd.DataFrame, *, where: str, need_targets: bool = True) -> Examples:
        """Read paths and, where needed, label ids."""
        found = super().examples(table, where=where, need_targets=need_targets)
        return replace(found, inputs=picture_paths(table, self.columns.text))

    def from_inputs(self, inputs: Any) -> Examples:
        """Return one picture or several, as paths or RGB arrays. Raises DataError for anything else."""
        if isinstance(inputs, str | os.PathLike) or (isinstance(inputs, np.ndarray) and inputs.ndim == 3):
            inputs = [inputs]
        if hasattr(inputs, "columns"):
            raise DataError("Found a table; expected pictures. Give one column of it, such as table['path'].")
        pictures: list[Any] = [
            each if isinstance(each, np.ndarray) else _path(each, row) for row, each in enumerate(inputs)
        ]
        wrong = [
            row for row, each in enumerate(pictures) if isinstance(each, np.ndarray) and not _is_rgb(each)
        ]
        if wrong:
            found = pictures[wrong[0]]
            raise DataError(
                f"Arrays must be RGB pictures, (height, width, 3) of uint8; found {found.shape} of {found.dtype} "
                f"({row_list(wrong)})."
            )
        return Examples(pictures, None, np.arange(1, len(pictures) + 1))

    def probes(self) -> Examples:
        """Return two pictures of noise."""
        chance = np.random.default_rng(0)
        return self.from_inputs([chance.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(2)])

    def texts(self, examples: Examples) -> list[str]:
        """Return nothing: pictures hold no characters."""
        return []

    def groups(self, examples: Examples) -> list[str]:
        """Return the hash of every file: copies stay on one side of a split."""
        return digests(examples.inputs)

    def encode(
        self,
        backbone: Backbone,
        examples: Examples,
        *,
        max_length: int,
        truncation: str,
        training: bool = False,
        seed: int = 0,
    ) -> Encoded:
        """Return the pictures as a store, augmented for training."""
        store = backbone.preprocess(examples.inputs, max_length=max_length, truncation=truncation)
        if training:
            assert isinstance(store, ImageStore)
            store = self._varied = store.augmented(self.augmentation)
        return Encoded(store, examples.targets)

    def loss(self, outputs: Tensor, targets: Tensor, batch: dict[str, Tensor] | None = None) -> Tensor:
        """Return the summed cross-entropy; of pictures mixed by mixup that of both labels, by their shares."""
        own = super().loss(outputs, targets)
        if not batch or "mix_order" not in batch:
            return own
        share = batch["mix_share"][0]
        return share * own + (1 - share) * super().loss(outputs, targets[batch["mix_order"]])

    def scores(self, examples: Examples, encoded: Encoded) -> ImageScores:
        """Return an empty accumulator."""
        return ImageScores(len(self.names))

    def sections(self, result: dict[str, Any], worst: list[dict[str, Any]]) -> list[str]:
        """Return the mistaken pictures and, of an augmented run, what augmentation made of some."""
        from foretune.evaluation.image_sections import mistaken_pictures, sheet

        found = [mistaken_pictures(worst)]
        if self._varied is not None and self._varied.varies:
            found.append(sheet(contact_sheet(list(range(len(self._varied))), self._varied.shown, SHEET)))
        return [section for section in found if section]

    def baselines(self, train: Examples, held_out: Examples, seed: int) -> dict[str, Any]:
        """Return the scores of the majority class and of logistic regression on colours."""
        assert train.targets is not None and held_out.targets is not None
        return image_baselines(
            train.inputs, train.targets, held_out.inputs, held_out.targets, len(self.names), seed=seed
        )


def picture_paths(table: pd.DataFrame, column: str) -> list[str]:
    """Return the paths of a column, absolute. Raises DataError naming rows without one, or whose file is missing."""
    return located(table, Media(column, IMAGE))[column].tolist()


def check_readable(paths: Sequence[str], where: str) -> None:
    """Raise DataError naming the files that are no pictures, by their headers."""
    broken = find_broken(paths)
    if broken:
        named = [f"{path} ({reason})" for path, reason in broken.items()]
        raise DataError(
            f"{where}: {counted(len(broken), 'picture')} of {len(paths):,} cannot be read: {listed(named)}. "
            "Replace these files or drop their rows."
        )


def _path(value: Any, row: int) -> str:
    if not isinstance(value, str | os.PathLike):
        raise DataError(
            f"Row {row + 1} holds {type(value).__name__}; expected the path of a picture or an RGB array. "
            "Name the column of paths with --text."
        )
    return os.fspath(value)


def _is_rgb(picture: np.ndarray) -> bool:
    return picture.ndim == 3 and picture.shape[2] == 3 and picture.dtype == np.uint8 and picture.size > 0


def _copy_warnings(hashes: Sequence[str], labels: Sequence[str], where: str) -> list[str]:
    """Return warnings about files of equal bytes, and those of them whose labels differ."""
    first: dict[str, int] = {}
    copies = [row for row, found in enumerate(hashes) if first.setdefault(found, row) != row]
    kinds = Counter(found for found, _ in set(zip(hashes, labels, strict=True)))  # labels of each picture
    disputed = [row for row, found in enumerate(hashes) if kinds[found] > 1]
    warnings = []
    if copies:
        warnings.append(
            f"{where}: {counted(len(copies), 'picture')} of {len(hashes):,} the same as an earlier one "
            f"({row_list(copies)}); fix: drop the copies"
        )
    if disputed:
        warnings.append(
            f"{where}: {counted(len(disputed), 'picture')} with different labels in different rows "
            f"({row_list(disputed)}); fix: decide on one label for each"
        )
    return warnings
