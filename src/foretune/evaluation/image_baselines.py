"""Trivial baselines for pictures: what the majority class, and colours with a linear model, already score."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretune.errors import DataError
from foretune.evaluation.intervals import count_intervals

SIDE = 8  # of the picture that the linear model sees (pixels)
BINS = 8  # of the histogram of each colour
REGULARISATION_C = 0.01  # of standardised features; 216 of them overfit small data at scikit-learn's 1.0


def pixel_features(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the picture at 8 x 8 pixels and the histogram of each colour: (216,) between 0 and 1."""
    from PIL import Image

    small = np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float32)
    shares = [np.bincount(picture[..., c].ravel() // (256 // BINS), minlength=BINS) for c in range(3)]
    histogram = np.concatenate(shares) / picture[..., 0].size
    return np.concatenate([small.ravel() / 255, histogram]).astype(np.float32)


def read_features(pictures: Sequence[Any]) -> NDArray[np.float32]:
    """Return the features of pictures, paths or RGB arrays (h, w, 3): (n, 216). Raises BrokenMediaError."""
    from foretune.data.image_store import in_order
    from foretune.data.images import open_image

    def features(picture: Any) -> NDArray[np.float32]:
        # Large pictures are decoded small: their colours hardly change.
        return pixel_features(
            picture if isinstance(picture, np.ndarray) else open_image(picture, shortest=8 * SIDE)
        )

    return np.stack(in_order(features, pictures))


def image_baselines(
    train: Sequence[Any],
    train_labels: NDArray[Any],
    test: Sequence[Any],
    test_labels: NDArray[Any],
    n_classes: int,
    *,
    seed: int = 0,
    max_rows: int = 5_000,
) -> dict[str, dict[str, Any]]:
    """Return accuracy and macro F1, with 95 % intervals, of two baselines on the test pictures.

    `majority` always says the most frequent training class. `pixels_logreg` is logistic regression on
    `pixel_features`, trained on at most `max_rows` pictures; it adds `rows`, `features` and `seconds`. Labels
    are class ids (rows,). Raises DataError where pictures and labels differ in number or there are none.
    """
    for pictures, labels, split in ((train, train_labels, "training"), (test, test_labels, "test")):
        if len(pictures) != len(labels) or not len(pictures):
            raise DataError(
                f"The {split} split has {len(pictures)} pictures and {len(labels)} labels; expected one each, >= 1."
            )
    majority = np.full(len(test), np.bincount(train_labels).argmax())
    start = time.perf_counter()
    rows = np.random.default_rng(seed).permutation(len(train))[:max_rows]
    predicted = _fit_predict([train[row] for row in rows], train_labels[rows], test)
    logreg: dict[str, Any] = {
        "seconds": time.perf_counter() - start,
        "rows": len(rows),
        "features": f"{SIDE} x {SIDE} pixels and colour histograms",
        **_scores(test_labels, predicted, n_classes, seed),
    }
    return {"majority": _scores(test_labels, majority, n_classes, seed), "pixels_logreg": logreg}


def _fit_predict(train: Sequence[Any], labels: NDArray[Any], test: Sequence[Any]) -> NDArray[Any]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    if len(np.unique(labels)) < 2:
        return np.full(len(test), labels[0])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=REGULARISATION_C, max_iter=300))
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(read_features(train), labels)
        return np.asarray(model.predict(read_features(test)))


def _scores(labels: NDArray[Any], predicted: NDArray[Any], n_classes: int, seed: int) -> dict[str, Any]:
    confusion = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    overall, _ = count_intervals(confusion, seed=seed)
    return {name: overall[name] for name in ("accuracy", "macro_f1")}
