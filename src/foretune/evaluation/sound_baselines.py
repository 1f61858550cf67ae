"""Trivial baselines for sounds: what the majority class, and cepstra with a linear model, already score."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretune.errors import DataError
from foretune.evaluation.intervals import count_intervals
from foretune.evaluation.sound_features import CEPSTRA, RATE, sound_features

SECONDS = 30.0  # read of a sound
REGULARISATION_C = 1.0  # of standardised features


def read_features(sounds: Sequence[Any]) -> NDArray[np.float32]:
    """Return the features of sounds, paths or waves: (n, 81). Raises BrokenMediaError."""
    from foretune.data.image_store import in_order
    from foretune.data.sound_store import build

    store = build(sounds, RATE, lambda n: np.ones_like(n), limit=int(SECONDS * RATE), frame=SECONDS, least=1)
    return np.stack(in_order(lambda row: sound_features(store.waves(np.array([row]))[0]), range(len(sounds))))


def sound_baselines(
    train: Sequence[Any],
    train_labels: NDArray[Any],
    test: Sequence[Any],
    test_labels: NDArray[Any],
    n_classes: int,
    *,
    seed: int = 0,
    max_rows: int = 5_000,
) -> dict[str, dict[str, Any]]:
    """Return accuracy and macro F1, with 95 % intervals, of two baselines on the test sounds.

    `majority` always says the most frequent training class. `mfcc_logreg` is logistic regression on the mean and
    deviation of cepstra and their changes, trained on at most `max_rows` sounds; it adds `rows`, `features` and
    `seconds`. Labels are class ids (rows,). Raises DataError where sounds and labels differ in number or there
    are none.
    """
    for sounds, labels, split in ((train, train_labels, "training"), (test, test_labels, "test")):
        if len(sounds) != len(labels) or not len(sounds):
            raise DataError(
                f"The {split} split has {len(sounds)} sounds and {len(labels)} labels; expected one each, >= 1."
            )
    majority = np.full(len(test), np.bincount(train_labels).argmax())
    start = time.perf_counter()
    rows = np.random.default_rng(seed).permutation(len(train))[:max_rows]
    predicted = _fit_predict([train[row] for row in rows], train_labels[rows], test)
    logreg: dict[str, Any] = {
        "seconds": time.perf_counter() - start,
        "rows": len(rows),
        "features": f"mean and deviation of {CEPSTRA} cepstra and their changes",
        **_scores(test_labels, predicted, n_classes, seed),
    }
    return {"majority": _scores(test_labels, majority, n_classes, seed), "mfcc_logreg": logreg}


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
