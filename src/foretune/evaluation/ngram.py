"""n-gram language models of token ids: what counting alone already knows of a text."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
UNSEEN = 0.5  # occurrences that each id of the vocabulary is given besides its own


class KneserNey:
    """Interpolated Kneser-Ney smoothing (Chen and Goodman 1999, section 3) with one discount per order.

    p(w | h) = (max(c(h w) - D, 0) + D n(h) p(w | h')) / c(h): h' is h without its first id, n(h) the number of
    ids seen behind h, D = n1 / (n1 + 2 n2) of the n-grams seen once and twice. Below the highest order c counts
    the ids seen before an n-gram, not its occurrences; at the bottom stand frequencies, with half an
    occurrence more for every id. Order 1 is those frequencies alone. Holds a few numbers per distinct n-gram.
    """

    def __init__(self, ids: NDArray[np.integer], vocabulary: int, order: int = 3) -> None:
        self.vocabulary, self.order = vocabulary, order
        text = np.asarray(ids, dtype=np.int64)
        self._grams: list[tuple[Ints, Ints]] = []  # of each order from 2 on: sorted keys and their counts
        for size in range(2, order + 1):
            if size <= len(text):
                self._grams.append(np.unique(self._keys(text, size), return_counts=True))
        self._levels = [self._level(number) for number in range(len(self._grams))]
        below = self._grams[0][0] % vocabulary if self._grams else text  # ids by what stands before them
        counts = np.bincount(below, minlength=vocabulary) + UNSEEN
        self._frequencies = counts / counts.sum()

    def losses(self, ids: NDArray[np.integer]) -> NDArray[np.float64]:
        """Return -log p (nats) of every id given those before it: (ids,)."""
        text = np.asarray(ids, dtype=np.int64)
        chances = self._frequencies[text]
        for number, level in enumerate(self._levels):
            size = number + 2
            if len(text) >= size:
                keys = self._keys(text, size)
                chances[size - 1 :] = level.chances(keys, keys // self.vocabulary, chances[size - 1 :])
        return -np.log(chances)

    def _keys(self, text: Ints, size: int) -> Ints:
        """Return one number per n-gram of the text; three ids of vocabularies up to two million fit."""
        keys = np.zeros(len(text) - size + 1, dtype=np.int64)
        for place in range(size):
            keys = keys * self.vocabulary + text[place : len(text) - size + 1 + place]
        return keys

    def _level(self, number: int) -> _Level:
        keys, counts = self._grams[number]
        if number + 1 < len(self._grams):  # below the highest: how many different ids stand before it
            longer = self._grams[number + 1][0] % self.vocabulary ** (number + 2)
            counts = np.bincount(np.searchsorted(keys, longer), minlength=len(keys))
            keys, counts = keys[counts > 0], counts[counts > 0]
        return _Level(keys, counts, self.vocabulary)


class _Level:
    """The counts of one order, and what is known of each history."""

    def __init__(self, keys: Ints, counts: Ints, vocabulary: int) -> None:
        self.keys, self.counts = keys, counts
        once, twice = int((counts == 1).sum()), int((counts == 2).sum())
        self.discount = once / (once + 2 * twice) if once and twice else 0.75
        self.histories, self.first = np.unique(keys // vocabulary, return_index=True)
        self.totals = np.add.reduceat(counts, self.first)
        self.kinds = np.diff([*self.first, len(keys)])

    def chances(self, keys: Ints, histories: Ints, below: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return p of n-grams (n,), given that of the same ids without the first: (n,)."""
        counts, _ = _look_up(self.keys, keys, self.counts)
        totals, known = _look_up(self.histories, histories, self.totals)
        kinds, _ = _look_up(self.histories, histories, self.kinds)
        mixed = np.maximum(counts - self.discount, 0) + self.discount * kinds * below
        return np.where(known, mixed / np.maximum(totals, 1), below)


def _look_up(keys: Ints, wanted: Ints, values: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """Return the values of `wanted` keys, 0 for unknown ones, and which are known."""
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    known = keys[places] == wanted
    return np.where(known, values[places], 0), known
