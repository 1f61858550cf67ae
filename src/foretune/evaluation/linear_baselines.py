"""Linear models on word counts for one text or two: for numbers, for several labels, and for pairs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretune.evaluation.baselines import MAX_CHARACTERS, REGULARISATION_C, _vectorizer, needs_characters

MOST_ROWS = 20_000  # of the training rows
RIDGE = 1.0  # penalty of the squared weights, on standardised targets


def features(train: Sequence[Any], other: Sequence[Any], n_outputs: int = 2) -> tuple[Any, Any]:
    """Return sparse features of the training inputs and of the others: (rows, columns) each.

    Of a text its TF-IDF; of a pair |u - v| and u * v of both texts' TF-IDF, and how alike they are: cosine, shared
    words, shared characters, ratio of lengths. Raises ValueError where no text holds a word.
    """
    if isinstance(train[0], str):
        vectorizer = _vectorizer(needs_characters(list(train)), n_outputs)
        return vectorizer.fit_transform(_cut(train)), vectorizer.transform(_cut(other))
    firsts, seconds = zip(*train, strict=True)
    both = _cut([*firsts, *seconds])
    vectorizer = _vectorizer(needs_characters(both), n_outputs)
    vectorizer.fit(both)
    return _pairs(vectorizer, train), _pairs(vectorizer, other)


def _cut(texts: Sequence[str]) -> list[str]:
    return [text[:MAX_CHARACTERS] for text in texts]


def _pairs(vectorizer: Any, pairs: Sequence[tuple[str, str]]) -> Any:
    from scipy import sparse

    u = vectorizer.transform(_cut([first for first, _ in pairs]))
    v = vectorizer.transform(_cut([second for _, second in pairs]))
    product = u.multiply(v)
    cosine = np.asarray(product.sum(axis=1)).ravel() / np.maximum(_norm(u) * _norm(v), 1e-9)
    alike = np.column_stack([cosine, *_overlaps(pairs)]).astype(np.float32)
    return sparse.hstack([abs(u - v), product, sparse.csr_matrix(alike)], format="csr")


def _norm(matrix: Any) -> NDArray[Any]:
    return np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())


def _overlaps(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
    """Return Jaccard similarity of words and of characters, and the ratio of lengths."""
    words = [_jaccard(set(a.lower().split()), set(b.lower().split())) for a, b in pairs]
    characters = [_jaccard(set(a.lower()), set(b.lower())) for a, b in pairs]
    ratios = [min(len(a), len(b)) / max(len(a), len(b), 1) for a, b in pairs]
    return [words, characters, ratios]


def _jaccard(a: set[str], b: set[str]) -> float:
    return len(a & b) / max(len(a | b), 1)


def _rows(n: int, seed: int) -> NDArray[Any]:
    """Return at most `MOST_ROWS` row numbers, drawn at random."""
    return np.sort(np.random.default_rng(seed).permutation(n)[:MOST_ROWS])


def predict_numbers(
    train: Sequence[Any], targets: NDArray[Any], other: Sequence[Any], seed: int
) -> dict[str, Any]:
    """Return ridge regression's predictions (rows,), and the seconds it took."""
    from sklearn.linear_model import Ridge
    from threadpoolctl import threadpool_limits

    started, rows = time.perf_counter(), _rows(len(train), seed)
    mean, spread = float(targets[rows].mean()), float(targets[rows].std()) or 1.0
    try:
        x, z = features([train[row] for row in rows], other)
    except ValueError:  # no words
        return {"predictions": np.full(len(other), mean), "seconds": time.perf_counter() - started}
    with threadpool_limits(1):
        model = Ridge(alpha=RIDGE).fit(x, (targets[rows] - mean) / spread)
    return {"predictions": model.predict(z) * spread + mean, "seconds": time.perf_counter() - started}


def predict_classes(
    train: Sequence[Any], labels: NDArray[Any], other: Sequence[Any], seed: int
) -> dict[str, Any]:
    """Return logistic regression's class ids (rows,), and the seconds it took."""
    started, rows = time.perf_counter(), _rows(len(train), seed)
    found = np.full(len(other), np.bincount(labels).argmax())
    if len(np.unique(labels[rows])) > 1:
        try:
            x, z = features([train[row] for row in rows], other, int(labels.max()) + 1)
        except ValueError:
            return {"predictions": found, "seconds": time.perf_counter() - started}
        found = _logistic(x, labels[rows]).predict(z)
    return {"predictions": found, "seconds": time.perf_counter() - started}


def predict_labels(
    train: Sequence[Any], flags: NDArray[Any], other: Sequence[Any], seed: int
) -> dict[str, Any]:
    """Return one logistic regression's probability per label, (rows, labels), and the seconds it took."""
    started, rows = time.perf_counter(), _rows(len(train), seed)
    found = np.tile(flags[rows].mean(axis=0), (len(other), 1))
    try:
        x, z = features([train[row] for row in rows], other)
    except ValueError:
        return {"predictions": found, "seconds": time.perf_counter() - started}
    for label in range(flags.shape[1]):
        if 0 < flags[rows, label].sum() < len(rows):
            found[:, label] = _logistic(x, flags[rows, label]).predict_proba(z)[:, 1]
    return {"predictions": found, "seconds": time.perf_counter() - started}


def _logistic(x: Any, labels: NDArray[Any]) -> Any:
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=REGULARISATION_C, max_iter=300).fit(x, labels)


def text_vectors(known: Sequence[str], texts: Sequence[str]) -> Any:
    """Return the TF-IDF of texts fitted on `known` ones: (texts, columns) sparse, at unit length; 0 without words."""
    from scipy import sparse

    vectorizer = _vectorizer(needs_characters(list(known)), 2)
    try:
        vectorizer.fit(_cut(known))
    except ValueError:
        return sparse.csr_matrix((len(texts), 1), dtype=np.float32)
    return vectorizer.transform(_cut(texts))
