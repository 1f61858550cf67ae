"""Trivial baselines for text: what the majority class, and word counts with a linear model, already score."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretune.errors import ConfigError, DataError
from foretune.evaluation.intervals import count_intervals

# Measured by 5-fold cross-validation on the training rows, accuracy in % for C = 1 / 3 / 10 / 30:
#   TREC-6 81.9 / 84.9 / 85.8 / 86.1, SST-2 (2,000 rows) 68.8 / 70.1 / 70.6 / 70.9,
#   ChnSentiCorp (2,000 rows) 85.3 / 85.9 / 86.2 / 86.3 with characters, 61.0 to 61.6 with words alone.
# `class_weight="balanced"` at C = 10 gives 85.7, 70.9 and 86.3: no difference beyond noise, so it is left
# out. C = 10 on the held-out rows: TREC-6 test 88.4, SST-2 dev 73.6, ChnSentiCorp test 85.8.
REGULARISATION_C = 10.0
#: Coefficients (classes x features) at most: L-BFGS keeps some 25 copies, of 16 MB each at this bound.
MAX_COEFFICIENTS = 2_000_000
MAX_FEATURES = 200_000
#: Characters read of each text; a guard against whole books, far above the length of reviews or news.
MAX_CHARACTERS = 10_000
#: Texts looked at, characters of each, and the share of them that calls for character n-grams.
SAMPLE, SAMPLE_CHARACTERS, UNSPACED_SHARE = 1000, 500, 0.1

# Thai, Lao, Myanmar, Khmer; Hangul (spaced, but its particles stick to words); kana; Han with extensions.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1100-\u11ff\u3040-\u30ff\u3130-\u318f"
    "\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003134f]"
)
_WORD = r"(?u)\b\w+\b"  # scikit-learn's own pattern drops one-letter words, "I" and "a" among them


def _mainly_unspaced(text: str) -> bool:
    """Say whether more than half of the letters belong to scripts written without spaces."""
    unspaced = len(_UNSPACED.findall(text))
    other = sum(c.isalpha() for c in _UNSPACED.sub("", text))
    return unspaced > other


def needs_characters(texts: Sequence[str]) -> bool:
    """Return True when more than 10 % of the texts are mainly Chinese, Japanese, Korean, Thai or the like."""
    step = max(1, len(texts) // SAMPLE)
    sample = texts[::step]
    return sum(_mainly_unspaced(text[:SAMPLE_CHARACTERS]) for text in sample) > UNSPACED_SHARE * len(sample)


def _vectorizer(characters: bool, n_classes: int) -> Any:
    """Return an unfitted TF-IDF: words 1-2, or those united with characters 1-3."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    limit = max(1000, min(MAX_FEATURES, MAX_COEFFICIENTS // n_classes))
    shared = {"sublinear_tf": True, "dtype": np.float32}
    if not characters:
        return TfidfVectorizer(ngram_range=(1, 2), token_pattern=_WORD, max_features=limit, **shared)
    half = limit // 2
    return make_union(
        TfidfVectorizer(analyzer="char", ngram_range=(1, 3), max_features=half, **shared),
        TfidfVectorizer(ngram_range=(1, 2), token_pattern=_WORD, max_features=half, **shared),
    )


def _fit_predict(
    train_texts: list[str], labels: NDArray[Any], test_texts: list[str], characters: bool, n_classes: int
) -> NDArray[Any]:
    """Return predicted class ids of the test texts. Raises ValueError for an empty vocabulary."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    vectorizer = _vectorizer(characters, n_classes)
    features = vectorizer.fit_transform(train_texts)
    model = LogisticRegression(C=REGULARISATION_C, max_iter=300)
    # A few steps short of convergence is no matter here, so the solver's warning would only alarm.
    # One thread: the sparse products have no more, and for the solver's small vectors a second BLAS thread
    # only waits (TREC-6 on 2 shared cores: 2.0 s with one thread, 12.7 s with two).
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features, labels)
    return np.asarray(model.predict(vectorizer.transform(test_texts)))


def _scores(labels: NDArray[Any], predicted: NDArray[Any], n_classes: int, seed: int) -> dict[str, Any]:
    confusion = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    overall, _ = count_intervals(confusion, seed=seed)
    return {name: overall[name] for name in ("accuracy", "macro_f1")}


def _check(texts: Sequence[str], labels: NDArray[Any], n_classes: int, split: str) -> NDArray[Any]:
    """Return `labels` as an array (rows,). Raises DataError when it does not fit the texts."""
    ids = np.asarray(labels)
    if ids.shape != (len(texts),) or not len(texts):
        raise DataError(
            f"The {split} split has {len(texts)} texts and labels {ids.shape}; expected one each, >= 1."
        )
    if not np.issubdtype(ids.dtype, np.integer) or ids.min() < 0 or ids.max() >= n_classes:
        raise DataError(
            f"Labels of the {split} split must be whole numbers from 0 to {n_classes - 1}; found {ids.dtype}"
            f" from {ids.min()} to {ids.max()}. Encode them with the task's classes."
        )
    wrong = next((text for text in texts if not isinstance(text, str)), "")
    if not isinstance(wrong, str):
        raise DataError(
            f"Texts of the {split} split must be strings, found {type(wrong).__name__}. Fill empty cells."
        )
    return ids


def _choose_rows(labels: NDArray[Any], max_rows: int, seed: int) -> NDArray[Any]:
    """Return up to `max_rows` row numbers: all, or a random choice that keeps one row of every class."""
    if len(labels) <= max_rows:
        return np.arange(len(labels))
    order = np.random.default_rng(seed).permutation(len(labels))
    first = np.unique(labels[order], return_index=True)[1]
    rest = np.setdiff1d(np.arange(len(order)), first)
    return np.sort(order[np.concatenate([first, rest])[:max_rows]])


def tfidf_predictions(
    train_texts: Sequence[str], labels: NDArray[Any], test_texts: Sequence[str], n_classes: int
) -> tuple[NDArray[Any], str, str | None]:
    """Return (predictions, features in words, why it fell back to the majority or None)."""
    train, test = ([text[:MAX_CHARACTERS] for text in texts] for texts in (train_texts, test_texts))
    characters = needs_characters(train)
    features = "characters 1-3-grams and words 1-2-grams" if characters else "words 1-2-grams"
    majority = np.full(len(test), np.bincount(labels).argmax())
    if len(np.unique(labels)) < 2:
        return majority, features, "only one class among the training rows: predicts the majority"
    if not any(re.search(_WORD, text) for text in train):
        return majority, features, "no words in the training texts: predicts the majority"
    return _fit_predict(train, labels, test, characters, n_classes), features, None


def baselines(
    train_texts: Sequence[str],
    train_labels: NDArray[Any],
    test_texts: Sequence[str],
    test_labels: NDArray[Any],
    n_classes: int,
    *,
    seed: int = 0,
    max_rows: int = 20_000,
) -> dict[str, dict[str, Any]]:
    """Return accuracy and macro F1, with 95 % intervals, of two baselines on the test texts.

    `majority` always says the most frequent training class. `tfidf_logreg` is logistic regression on
    sublinear TF-IDF of word n-grams, and of character n-grams for scripts without spaces, trained on at
    most `max_rows` rows; it adds `rows`, `features`, `seconds` (fit and predict) and, where it could not be
    fitted, a `note`. Labels are class ids (rows,). Raises DataError for data that do not fit together and
    ConfigError for `max_rows` or `n_classes` below 1.
    """
    if max_rows < 1 or n_classes < 1:
        raise ConfigError(
            f"Baselines need max_rows and n_classes of 1 or more; found {max_rows} and {n_classes}."
        )
    train_ids = _check(train_texts, train_labels, n_classes, "training")
    test_ids = _check(test_texts, test_labels, n_classes, "test")
    majority = np.full(len(test_ids), np.bincount(train_ids).argmax())
    rows = _choose_rows(train_ids, max_rows, seed)
    start = time.perf_counter()
    chosen = [train_texts[i] for i in rows]
    predicted, features, note = tfidf_predictions(chosen, train_ids[rows], test_texts, n_classes)
    tfidf: dict[str, Any] = {
        "seconds": time.perf_counter() - start,
        "rows": len(rows),
        "features": features,
        **({"note": note} if note else {}),
        **_scores(test_ids, predicted, n_classes, seed),
    }
    return {"majority": _scores(test_ids, majority, n_classes, seed), "tfidf_logreg": tfidf}
