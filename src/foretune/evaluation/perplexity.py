"""Scores of a language model: how surprised it is by held-out text."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from foretune.errors import DataError
from foretune.evaluation.counts import Floats, _ratio
from foretune.evaluation.summed import SummedScores

#: Metric name -> True when greater is better.
PERPLEXITY_METRICS: dict[str, bool] = {"perplexity": False, "nats_per_token": False, "bits_per_byte": False}

#: exp(700) is the largest that float64 holds, roughly; a perplexity is capped there to stay a number.
MAX_NATS = 700.0


class PerplexityScores(SummedScores):
    """Streaming perplexity: exp of the nats per token, over all tokens and not per text.

    `bits_per_byte` (where byte counts are given) compares models with different tokenisers, which
    perplexity cannot. Intervals resample texts (or windows of one text), since tokens of one text are not
    independent; a single one gives an empty interval. Holds three numbers per text.
    """

    tops: ClassVar[dict[str, float]] = {}

    def __init__(self) -> None:
        super().__init__()
        self._bytes: bool | None = None

    def update(
        self, nll_sums: NDArray[Any], tokens: NDArray[Any], byte_counts: NDArray[Any] | None = None
    ) -> None:
        """Count texts: negative log-likelihoods (batch,) in nats, tokens predicted (batch,), bytes (batch,).

        Raises DataError for other shapes, no tokens, non-finite sums, or bytes in some updates only.
        """
        given = [np.asarray(nll_sums), np.asarray(tokens)]
        given += [] if byte_counts is None else [np.asarray(byte_counts)]
        if given[0].ndim != 1 or any(values.shape != given[0].shape for values in given):
            raise DataError(
                f"Expected one sum and one count per text (batch,), found {[v.shape for v in given]}."
            )
        if not len(given[0]):
            return
        if not all(np.isfinite(values).all() for values in given):
            raise DataError("The model's losses are not finite. Lower the learning rate, or use float32.")
        if any((values <= 0).any() for values in given[1:]):
            raise DataError(
                "Every text needs at least 1 predicted token and byte; found 0. Drop empty texts."
            )
        if self._bytes not in (None, byte_counts is not None):
            raise DataError("Byte counts were given for some updates only: expected all or none.")
        self._bytes = byte_counts is not None
        self._add(*given, *([] if self._bytes else [np.zeros(len(given[0]))]))

    def metrics(self, sums: Floats) -> dict[str, Floats]:
        """Return each metric of `PERPLEXITY_METRICS` that is known (...) of the sums (..., 4)."""
        _, nats, tokens, size = np.moveaxis(sums, -1, 0)
        per_token = nats / tokens
        known = {"perplexity": np.exp(np.minimum(per_token, MAX_NATS)), "nats_per_token": per_token}
        return {**known, "bits_per_byte": _ratio(nats / math.log(2), size)} if self._bytes else known

    def details(self, sums: Floats, resampled: Floats) -> dict[str, Any]:
        """Return the number of predicted `tokens`."""
        return {"tokens": int(sums[2])}
