"""Trivial writers: a copy of the source, its first sentences, the target of the most similar training source."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretune.evaluation.baselines import MAX_CHARACTERS, MAX_FEATURES, needs_characters
from foretune.evaluation.generation import TextScores, all_references

MOST_ROWS = 20_000  # training sources that are looked through
CHUNK = 256  # held-out texts compared at once
#: A sentence with its mark: full stops and the like before white space, or the marks of Chinese and Japanese.
_SENTENCE = re.compile(r".+?(?:[.!?][\"'”’)\]]*(?=\s|$)|[。！？]+[”’」』）]*|\n|$)", re.DOTALL)


def sentences(text: str) -> list[str]:
    """Return the sentences of a text, told by their marks alone."""
    return [part.strip() for part in _SENTENCE.findall(text) if part.strip()]


def lead(text: str, number: int) -> str:
    """Return the first `number` sentences of a text."""
    return " ".join(sentences(text)[:number])


def nearest(train: Sequence[str], texts: Sequence[str], seed: int = 0) -> NDArray[Any]:
    """Return the row (texts,) of the training text most similar to each text: cosine of TF-IDF vectors.

    Looks through at most `MOST_ROWS` training texts, drawn at random.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    rows = np.arange(len(train))
    if len(rows) > MOST_ROWS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MOST_ROWS, replace=False))
    known = [train[row][:MAX_CHARACTERS] for row in rows.tolist()]
    kind: dict[str, Any] = (
        {"analyzer": "char", "ngram_range": (1, 3)} if needs_characters(known) else {"ngram_range": (1, 2)}
    )
    kind |= {} if "analyzer" in kind else {"token_pattern": r"(?u)\b\w+\b"}
    vectors = TfidfVectorizer(max_features=MAX_FEATURES, dtype=np.float32, sublinear_tf=True, **kind)
    try:
        table = vectors.fit_transform(known).T
    except ValueError:  # no words in any of them
        return np.zeros(len(texts), dtype=np.int64)
    found = [
        (vectors.transform([text[:MAX_CHARACTERS] for text in texts[start : start + CHUNK]]) @ table)
        .toarray()
        .argmax(axis=1)
        for start in range(0, len(texts), CHUNK)
    ]
    return np.asarray(rows[np.concatenate(found)])


def score_texts(
    written: Sequence[str], references: Sequence[str | Sequence[str]], metrics: Sequence[str], seed: int
) -> dict[str, Any]:
    """Return the metrics of texts beside one reference each, or a list of several, with intervals."""
    scores = TextScores(metrics)
    scores.update(list(written), [all_references(each) for each in references])
    result = scores.result(seed)
    return {name: result[name] for name in metrics}
