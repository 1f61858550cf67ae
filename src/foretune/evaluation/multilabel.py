"""Scores of a classifier that gives each example any number of labels, and the thresholds it decides by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from foretune.errors import ConfigError, DataError
from foretune.evaluation.counts import Floats, _ratio
from foretune.evaluation.intervals import _f1_interval
from foretune.evaluation.summed import SummedScores, check_any, resampled_sums

#: Metric name -> True when greater is better.
MULTILABEL_METRICS: dict[str, bool] = {
    "micro_f1": True,
    "macro_f1": True,
    "samples_f1": True,
    "subset_accuracy": True,
    "hamming_loss": False,
}

#: A label with fewer positives keeps the threshold 0.5: their F1 hangs on single examples.
MIN_POSITIVES = 5
#: How many standard errors of the best F1 are given up for a threshold nearer to 0.5. Measured on simulated
#: labels (rates 3 to 30 %, three separations, three miscalibrations; mean F1 on 20,000 fresh examples) with
#: 0 / 0.25 / 0.5 / 1 after tuning on 100 examples: 0.450 / 0.451 / 0.451 / 0.443; on 400: 0.490 / 0.489 /
#: 0.486 / 0.477; untuned, at 0.5, it is 0.366.
SLACK = 0.25
#: Columns of `rows` before those of the labels.
HEAD = 6


def check_multilabel(
    probabilities: NDArray[Any], targets: NDArray[Any], n_labels: int | None = None
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return both as arrays (batch, labels), targets as booleans.

    Raises DataError for other shapes, targets other than 0 and 1, or probabilities outside 0..1.
    """
    probabilities, targets = np.asarray(probabilities), np.asarray(targets)
    width = probabilities.shape[-1] if n_labels is None and probabilities.ndim else n_labels
    if probabilities.ndim != 2 or probabilities.shape != targets.shape or probabilities.shape[1] != width:
        raise DataError(
            f"Expected probabilities and targets (batch, {width}), found {probabilities.shape} and"
            f" {targets.shape}. Encode labels as one 0/1 column per label the model was trained on."
        )
    if not np.isin(targets, (0, 1)).all():
        raise DataError("Multi-label targets are 0 or 1 in each column; found other values.")
    inside = (probabilities >= 0) & (probabilities <= 1)  # NaN is not inside either
    if not inside.all():
        raise DataError(
            f"{int(np.sum(~inside))} of {inside.size} probabilities lie outside 0 to 1 or are not finite."
            " Apply a sigmoid to logits first; where they are not finite, lower the learning rate."
        )
    return probabilities, targets.astype(bool)


class MultiLabelScores(SummedScores):
    """Streaming scores of a multi-label classifier with `n_labels` labels, called at p >= threshold.

    `macro_f1` is the mean over the labels that occur among the targets or the predictions. `samples_f1` is
    the mean over examples; one that has no label and gets none counts 1 (scikit-learn's `zero_division=1`).
    `hamming_loss` is the share of wrong decisions, `subset_accuracy` that of examples without any. Holds two
    bits per example and label. Raises ConfigError for fewer than 1 label or unfit thresholds.
    """

    tops: ClassVar[dict[str, float]] = dict.fromkeys(MULTILABEL_METRICS, 1.0)

    def __init__(self, n_labels: int, thresholds: float | Sequence[float] | NDArray[Any] = 0.5) -> None:
        super().__init__()
        if n_labels < 1:
            raise ConfigError(f"A multi-label classifier needs at least 1 label, found n_labels={n_labels}.")
        given = np.asarray(thresholds, dtype=np.float64)
        if given.shape not in ((), (n_labels,)) or not np.all((given >= 0) & (given <= 1)):
            raise ConfigError(
                f"Expected one threshold, or one for each of the {n_labels} labels, each from 0 to 1; found"
                f" the shape {given.shape}."
            )
        self.n_labels = n_labels
        self.thresholds = np.broadcast_to(given, (n_labels,))

    def update(
        self, probabilities: NDArray[Any], targets: NDArray[Any], rows: NDArray[Any] | None = None
    ) -> None:
        """Count one batch: probabilities (batch, labels), targets (batch, labels) of 0 and 1.

        Raises DataError for wrong shapes, other targets, logits or non-finite probabilities.
        """
        probabilities, true = check_multilabel(probabilities, targets, self.n_labels)
        predicted = probabilities >= self.thresholds
        self._parts.append(np.packbits(np.stack([predicted, true], axis=1), axis=2))
        self.n += len(true)

    def _bits(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return predicted and true labels as 0 and 1, each (n, labels)."""
        check_any(self.n)
        bits = np.unpackbits(np.concatenate(self._parts), axis=2, count=self.n_labels)
        return bits[:, 0], bits[:, 1]

    def rows(self) -> Floats:
        """Return per example (n, 6): 1, hits, predicted + true labels, F1, right as a whole, wrong decisions."""
        predicted, true = self._bits()
        hits, both = (predicted & true).sum(axis=1), predicted.sum(axis=1) + true.sum(axis=1)
        f1 = np.where(both > 0, _ratio(2 * hits, both), 1.0)
        wrong = both - 2 * hits
        return np.column_stack([np.ones(self.n), hits, both, f1, wrong == 0, wrong]).astype(np.float64)

    def _label_rows(self) -> NDArray[np.uint8]:
        """Return per example and label (n, 3 labels): hit, predicted, true."""
        predicted, true = self._bits()
        return np.concatenate([predicted & true, predicted, true], axis=1)

    def sums(self) -> Floats:
        """Return the sums of `rows`, then hits, predictions and truths of each label."""
        return np.concatenate([self.rows().sum(axis=0), self._label_rows().sum(axis=0, dtype=np.int64)])

    def resampled(self, seed: int) -> Floats:
        """Return `sums` for each resample of the examples; the labels' columns stay bytes until they are summed."""
        parts = [resampled_sums(rows, seed=seed) for rows in (self.rows(), self._label_rows())]
        return np.concatenate(parts, axis=1)

    def _per_label(self, sums: Floats) -> tuple[Floats, Floats, Floats]:
        """Return hits, predictions and truths, each (..., labels)."""
        hits, predicted, true = np.split(sums[..., HEAD:], 3, axis=-1)
        return hits, predicted, true

    def metrics(self, sums: Floats) -> dict[str, Floats]:
        """Return each metric of `MULTILABEL_METRICS` (...) of the sums (..., 6 + 3 labels)."""
        n, hits, both, f1, right, wrong = np.moveaxis(sums[..., :HEAD], -1, 0)
        label_hits, predicted, true = self._per_label(sums)
        occurring = (predicted + true > 0).sum(axis=-1)
        return {
            "micro_f1": _ratio(2 * hits, both),
            "macro_f1": _ratio(_ratio(2 * label_hits, predicted + true).sum(axis=-1), occurring),
            "samples_f1": f1 / n,
            "subset_accuracy": right / n,
            "hamming_loss": wrong / (n * self.n_labels),
        }

    def details(self, sums: Floats, resampled: Floats) -> dict[str, Any]:
        """Return `per_label`: precision, recall, f1 (with interval), support and threshold of each label."""
        hits, predicted, true = self._per_label(sums)
        precision, recall, f1 = (
            _ratio(hits, predicted),
            _ratio(hits, true),
            _ratio(2 * hits, predicted + true),
        )
        drawn_hits, drawn_predicted, drawn_true = self._per_label(resampled)
        both = drawn_predicted + drawn_true
        drawn = np.where(both > 0, _ratio(2 * drawn_hits, both), np.nan)
        union = predicted + true - hits
        return {
            "per_label": [
                {
                    "precision": float(precision[i]),
                    "recall": float(recall[i]),
                    "f1": _f1_interval(float(f1[i]), drawn[:, i], int(hits[i]), int(union[i])),
                    "support": int(true[i]),
                    "threshold": float(self.thresholds[i]),
                }
                for i in range(self.n_labels)
            ]
        }


def _threshold(probabilities: NDArray[Any], true: NDArray[np.bool_]) -> float:
    """Return the threshold of one label from probabilities (n,) and truths (n,)."""
    positives = int(true.sum())
    if positives < MIN_POSITIVES or not probabilities.any():
        return 0.5
    order = np.argsort(-probabilities, kind="stable")
    upper = probabilities[order].astype(np.float64)
    lower = np.append(upper[1:], 0.0)  # the last cut calls everything
    cuts = np.flatnonzero(upper > lower)
    hits, called = np.cumsum(true[order])[cuts], cuts + 1
    f1 = 2 * hits / (called + positives)
    best = int(np.argmax(f1))
    # F1 = 2 J / (1 + J) of the Jaccard index J, a share of the examples that are or were called positive.
    union = called[best] + positives - hits[best]
    share = hits[best] / union
    error = 2 / (1 + share) ** 2 * np.sqrt(share * (1 - share) / union)
    good = f1 >= f1[best] - SLACK * error
    middle = (upper + lower)[cuts] / 2
    middle = np.where((lower[cuts] < 0.5) & (upper[cuts] >= 0.5), 0.5, middle)
    return float(middle[good][np.argmin(np.abs(middle[good] - 0.5))])


def tune_thresholds(probabilities: NDArray[Any], targets: NDArray[Any]) -> Floats:
    """Return for each label (labels,) the threshold with the best F1 on these rows: use dev, never test.

    Arguments are (n, labels). The best cut of few examples is largely luck: it favours thresholds near 0,
    where everything is called (Lipton et al. 2014, *Optimal thresholding of classifiers to maximize F1
    measure*). So of all cuts within `SLACK` standard errors of the best we take the one nearest to 0.5 (the
    rule of Breiman et al. 1984, §3.4.3, with less than their one error), and a label with fewer than `MIN_POSITIVES`
    positives keeps 0.5. Raises DataError for wrong shapes, targets or probabilities.
    """
    probabilities, true = check_multilabel(probabilities, targets)
    check_any(len(true))
    return np.array([_threshold(probabilities[:, i], true[:, i]) for i in range(true.shape[1])])
