"""Object detection: boxes around the objects in a picture, each with a label and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.data.cells import is_list
from foretune.data.coco import check_coco_sizes
from foretune.data.columns import Columns
from foretune.data.objects import LABELS, clean_rows
from foretune.data.scene_store import NOTHING, BoxLists
from foretune.data.scene_views import Jitter
from foretune.data.text import is_missing, listed
from foretune.errors import ConfigError, DataError, did_you_mean
from foretune.evaluation.detection import DETECTION_METRICS, DetectionScores
from foretune.evaluation.matching import MOST_BOXES
from foretune.evaluation.scene_baselines import box_baselines
from foretune.evaluation.scene_sections import box_sections
from foretune.evaluation.scene_worst import WorstBoxes
from foretune.tasks.base import TASKS, Encoded, Examples
from foretune.tasks.image_classification import picture_paths
from foretune.tasks.inputs import columns_of, columns_state
from foretune.tasks.scenes import SceneOptions, SceneTask

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from foretune.recipe import Recipe
    from foretune.strategies.base import Settings, Workload

LEAST_SCORE = 0.05  # findings that are less sure are dropped, as torchvision's detectors do
CANDIDATES = 1000  # the surest findings of a picture that doubles are looked for in
DETR_RATE = 2e-4  # RT-DETR's is 1e-4 for pretrained trunks in batches of 16
DETR_PATIENCE = 3  # as many times FCOS's epochs
HEADS = ("auto", "fcos", "detr")
SHOWN_SCORE = 0.3  # of the boxes in predictions: below, most are false; scores look at all


@dataclass(frozen=True, kw_only=True)
class DetectionOptions(SceneOptions):
    """`side` as of `SceneOptions`; `head` of a network of timm: auto and fcos are FCOS, detr is RT-DETR."""

    head: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head not in HEADS:
            raise ConfigError(
                f"Option head is {self.head!r}; expected {' or '.join(HEADS)}.{did_you_mean(self.head, HEADS)}"
            )


@TASKS.register("detection")
class Detection(SceneTask):
    """Boxes are left, top, width, height in pixels of the original picture.

    A prediction's `boxes` is a list of {"label", "score", "box": [x, y, w, h]}, the surest first.
    """

    name = "detection"
    auto_class = "AutoModelForObjectDetection"
    metrics = DETECTION_METRICS
    default_metric = "map"
    headline = "boxes"
    jitter = Jitter(low=0.8, high=1.3)
    Options = DetectionOptions

    def __init__(self, names: tuple[str, ...], columns: Columns, side: int = 0, head: str = "auto") -> None:
        self.names, self.columns, self.side, self.head = names, columns, side, head

    @classmethod
    def from_table(cls, table: pd.DataFrame, columns: Columns, recipe: Recipe) -> Detection:
        """Take the label names of the table's reader, else those that boxes have, sorted."""
        names = table.attrs.get("labels") or sorted(
            {str(name) for row in table[LABELS] if is_list(row) for name in row}
        )
        if not names or not any(is_list(row) and row for row in table[columns.target]):
            raise DataError(
                "The training pictures hold no boxes. Expected at least some objects with their labels."
            )
        options = cls.options_of(recipe)
        return cls(tuple(map(str, names)), columns, options.side, options.head)

    def state(self) -> dict[str, Any]:
        """Return label names, columns and the pictures' side."""
        return {"labels": list(self.names), "columns": columns_state(self.columns), "side": self.side}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Detection:
        """Make the task of a saved model."""
        return cls(tuple(state["labels"]), columns_of(state["columns"]), state["side"])

    @classmethod
    def check_targets(cls, table: pd.DataFrame, columns: Columns, where: str) -> Sequence[str]:
        """Return warnings of boxes that were cut or left out.

        Raises DataError for boxes that cannot be or are not named, and pictures of other sizes.
        """
        *_, warnings = _cleaned(table, columns, where)
        if {"width", "height"} <= set(table.columns):
            check_coco_sizes(table.assign(path=picture_paths(table, columns.text)))
        return warnings

    def examples(self, table: pd.DataFrame, *, where: str, need_targets: bool = True) -> Examples:
        """Read the paths of pictures and, where needed, their boxes: (boxes, 6) each, see `BoxLists`."""
        targets = None
        if need_targets:
            targets = np.empty(len(table), dtype=object)
            boxes, labels, _ = _cleaned(table, self.columns, where)
            for row, (own, names) in enumerate(zip(boxes, labels, strict=True)):
                targets[row] = self._boxes(own, names, 0, where)
            if "crowd_boxes" in table:
                crowds = zip(table["crowd_boxes"], table["crowd_labels"], strict=True)
                for row, (own, names) in enumerate(crowds):
                    targets[row] = np.r_[targets[row], self._boxes(own, names, 1, where)]
        return Examples(picture_paths(table, self.columns.text), targets, np.arange(1, len(table) + 1))

    def _boxes(self, boxes: Sequence[Any], labels: Sequence[str], crowd: int, where: str) -> np.ndarray:
        unknown = [label for label in labels if label not in self.names]
        if unknown:
            hint = did_you_mean(unknown[0], self.names)
            raise DataError(
                f"{where}: the label {unknown[0]!r} does not occur in the training data.{hint} Known: "
                f"{listed(list(self.names), 10)}."
            )
        numbers = np.array([self.names.index(label) for label in labels], dtype=np.float32)
        places = np.array(boxes, dtype=np.float32).reshape(-1, 4)
        return np.c_[numbers, np.full(len(numbers), crowd, np.float32), places].astype(np.float32)

    def annotations(self, targets: np.ndarray) -> BoxLists:
        """Return the boxes of these pictures."""
        return BoxLists(targets.tolist())

    def model_options(self) -> dict[str, Any]:
        """Return the label names for `id2label` and `label2id`."""
        own = {} if self.head == "auto" else {"head": self.head}
        return own | {
            "num_labels": len(self.names),
            "id2label": dict(enumerate(self.names)),
            "label2id": {name: number for number, name in enumerate(self.names)},
        }

    def adjusted(self, settings: Settings, work: Workload) -> Settings:
        """Return settings for these heads; a decoder of DETR's kind learns at a fifth of the rate, thrice as long."""
        found = super().adjusted(settings, work)
        if self.head != "detr":
            return found
        return replace(found, lr=DETR_RATE, epochs=DETR_PATIENCE * found.epochs)

    def normaliser(self, targets: np.ndarray) -> float:
        """Return the number of objects."""
        return float(max(((targets[..., 0] != NOTHING) & (targets[..., 1] == 0)).sum(), 1))

    def loss(self, outputs: Tensor, targets: Tensor, batch: dict[str, Tensor] | None = None) -> Tensor:
        """Return the network's own loss, a mean over objects, times their number."""
        assert batch is not None
        objects = ((targets[..., 0] != NOTHING) & (targets[..., 1] == 0)).sum()
        return batch["loss"] * objects.clamp(min=1)

    def activate(self, outputs: Tensor, batch: dict[str, Tensor] | None = None) -> Tensor:
        """Return the surest boxes, (batch, 100, 6): class, score, left, top, width, height in the original.

        `outputs`: (batch, places, classes + 4), see `Detector.forward`. Of two boxes of a class that overlap by
        more than the batch says, the less sure is dropped.
        """
        import torch

        assert batch is not None
        found = outputs.new_full((len(outputs), MOST_BOXES, 6), 0.0, dtype=torch.float32)
        found[..., 0] = NOTHING
        overlap = float(batch["overlap"])
        for rows, output, size in zip(found, outputs, batch["sizes"].tolist(), strict=True):
            best = surest(output.float(), size, overlap)
            rows[: len(best)] = best
        return found

    def decode(
        self, outputs: Sequence[np.ndarray], examples: Examples, encoded: Encoded
    ) -> list[dict[str, Any]]:
        """Return the boxes of every picture, those that are sure enough."""
        return [
            {
                "boxes": [
                    {"label": self.names[int(c)], "score": score, "box": box}
                    for c, score, *box in output.astype(float).tolist()
                    if c != NOTHING and score >= SHOWN_SCORE
                ]
            }
            for output in outputs
        ]

    def scores(self, examples: Examples, encoded: Encoded) -> DetectionScores:
        """Return an empty accumulator."""
        return DetectionScores(len(self.names))

    def worst(self, examples: Examples, encoded: Encoded, k: int) -> WorstBoxes | None:
        """Return a keeper of pictures with most boxes missing or too many."""
        return WorstBoxes(examples, k, SHOWN_SCORE) if k else None

    def sections(self, result: dict[str, Any], worst: list[dict[str, Any]]) -> list[str]:
        """Return the average precision of every class, and pictures with true and found boxes."""
        return box_sections(result, worst, self.names)

    def baselines(self, train: Examples, held_out: Examples, seed: int) -> dict[str, Any]:
        """Return the scores of boxes of usual size at the usual places, the same in every picture."""
        sizes = [SceneSizes(part).sizes for part in (train, held_out)]
        assert train.targets is not None and held_out.targets is not None
        return box_baselines(
            train.targets.tolist(), sizes[0], held_out.targets.tolist(), sizes[1], len(self.names), seed
        )


def _cleaned(
    table: pd.DataFrame, columns: Columns, where: str
) -> tuple[Sequence[Any], Sequence[Any], tuple[str, ...]]:
    """Return the boxes and labels of every row, and warnings; the reader of COCO's json has cleaned its own.

    Raises DataError for rows whose boxes and labels differ in number, and for boxes that cannot be.
    """
    if LABELS not in table:
        raise DataError(
            f"{where}: there is no column labels beside the boxes. Expected a list of names per row."
        )
    boxes, labels = (
        [[] if is_missing(cell) else cell for cell in table[name]] for name in (columns.target, LABELS)
    )
    pairs = zip(boxes, labels, strict=True)
    wrong = [
        row
        for row, pair in enumerate(pairs, start=1)
        if not all(map(is_list, pair)) or len(pair[0]) != len(pair[1])
    ]
    if wrong:
        raise DataError(f"{where}: rows {listed(wrong)} have another number of labels than of boxes.")
    if table.attrs.get("format") == "coco":
        return boxes, labels, ()
    return clean_rows(picture_paths(table, columns.text), boxes, labels, where)


class SceneSizes:
    """The sizes of examples' pictures."""

    def __init__(self, examples: Examples) -> None:
        from foretune.data.scene_store import SceneStore

        self.sizes = SceneStore(list(examples.inputs)).sizes


def surest(output: Tensor, size: Sequence[int], overlap: float) -> Tensor:
    """Return one picture's surest boxes (at most 100, 6), without doubles.

    `output`: (places, classes + 4): probabilities and corners on the canvas; `size`: height and width on the
    canvas, and of the original.
    """
    import torch
    from torchvision.ops import batched_nms

    height, width, full_height, full_width = size
    scores, corners = output[:, :-4], output[:, -4:]
    place, label = (scores > LEAST_SCORE).nonzero(as_tuple=True)
    sure = scores[place, label]
    sure, order = sure.sort(descending=True, stable=True)
    sure, place, label = sure[:CANDIDATES], place[order[:CANDIDATES]], label[order[:CANDIDATES]]
    limits = corners.new_tensor([width, height] * 2)
    boxes = torch.minimum(corners[place].clamp(min=0), limits)
    kept = batched_nms(boxes, sure, label, overlap)[:MOST_BOXES]
    boxes = boxes[kept] * corners.new_tensor([full_width / width, full_height / height] * 2)
    columns = [label[kept, None].float(), sure[kept, None], boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]
    return torch.cat(columns, dim=1)
