"""Scores of speech recognition: the share of words, and of characters, to correct."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any, ClassVar

from foretune.errors import DataError
from foretune.evaluation.counts import Floats, _ratio
from foretune.evaluation.extras import require
from foretune.evaluation.language import CJK, script_of
from foretune.evaluation.summed import SummedScores, check_paired

#: Metric name -> True when greater is better.
TRANSCRIPTION_METRICS: dict[str, bool] = {"wer": False, "cer": False}

_EDITS = ("substitutions", "insertions", "deletions")
_APOSTROPHES = str.maketrans("", "", "'’ʼ`")
_AROUND_CJK = re.compile(rf"(?<={CJK.pattern}) | (?={CJK.pattern})")


def normalise_transcript(text: str) -> str:
    """Return `text` as transcripts are compared: what is said, not how it is written.

    Unicode NFKC (full-width forms become plain ones), case folded, apostrophes taken out (`don't` is one
    word), all other punctuation and symbols (Unicode categories P and S) made blanks, blanks folded, and
    none beside a Chinese or Japanese character. Numbers are not spelt out.
    """
    folded = unicodedata.normalize("NFKC", text).casefold().translate(_APOSTROPHES)
    spoken = "".join(" " if unicodedata.category(c)[0] in "PS" else c for c in folded)
    return _AROUND_CJK.sub("", " ".join(spoken.split()))


def edits(hypothesis: Sequence[str], reference: Sequence[str]) -> list[int]:
    """Return substitutions, insertions, deletions and hits that turn `reference` into `hypothesis`.

    The counts are those of a shortest way (Levenshtein 1966), found by rapidfuzz as jiwer does it.
    """
    from rapidfuzz.distance import Levenshtein

    tags = [step.tag for step in Levenshtein.editops(reference, hypothesis)]
    counts = [tags.count(tag) for tag in ("replace", "insert", "delete")]
    return [*counts, len(reference) - counts[0] - counts[2]]


class TranscriptionScores(SummedScores):
    """Streaming word and character error rates: edits per word, or character, of all references.

    Both may exceed 1. Characters include blanks between words, as in jiwer. Chinese and Japanese have no
    blanks between words, so that a whole sentence is one "word" and `wer` says next to nothing: `headline`
    names `cer` where they are the most, else `wer`. `normalise=False` compares the texts as they are.
    Without any error the interval's upper end is that of the share of utterances with an error. Holds ten
    numbers per utterance. Raises ConfigError where jiwer is not installed.
    """

    tops: ClassVar[dict[str, float]] = dict.fromkeys(TRANSCRIPTION_METRICS, 1.0)  # as good as always

    def __init__(self, normalise: bool = True) -> None:
        super().__init__()
        require("rapidfuzz", "audio", "The word error rate")
        self.normalise = normalise

    def update(self, hypotheses: Sequence[str], references: Sequence[str]) -> None:
        """Count utterances: what was recognised, and what was said. Raises DataError where they do not pair up."""
        check_paired(hypotheses, references, "utterance")
        if isinstance(references, str) or isinstance(hypotheses, str):
            raise DataError("Expected lists of texts, found one text. Put it into a list.")
        rows = [self._row(*pair) for pair in zip(hypotheses, references, strict=True)]
        if rows:
            self._add(rows)

    def _row(self, hypothesis: str, reference: str) -> list[float]:
        """Return edits and hits of words, then of characters, and whether the reference has no blanks."""
        if self.normalise:
            hypothesis, reference = normalise_transcript(hypothesis), normalise_transcript(reference)
        unspaced = float(script_of([reference]) != "en")
        return [*edits(hypothesis.split(), reference.split()), *edits(hypothesis, reference), unspaced]

    def metrics(self, sums: Floats) -> dict[str, Floats]:
        """Return each metric of `TRANSCRIPTION_METRICS` (...) of the sums (..., 10)."""
        return {"wer": _rate(sums[..., 1:5]), "cer": _rate(sums[..., 5:9])}

    def point(self) -> dict[str, float]:
        """Return each metric without interval. Raises DataError when the references hold no words."""
        self._check_words()
        return super().point()

    def result(self, seed: int = 0) -> dict[str, Any]:
        """Return all scores, ready for JSON. Raises DataError when the references hold no words."""
        self._check_words()
        return super().result(seed)

    def details(self, sums: Floats, resampled: Floats) -> dict[str, Any]:
        """Return `headline`, and the counts of edits and references in `words` and `characters`."""
        return {
            "headline": self.headline,
            "words": _counts(sums[1:5]),
            "characters": _counts(sums[5:9]),
        }

    @property
    def headline(self) -> str:
        """The metric that means something for this language: cer where most references are unspaced."""
        sums = self.sums()
        return "cer" if sums[9] > sums[0] / 2 else "wer"

    def _check_words(self) -> None:
        sums = self.sums()
        if sums[1] + sums[3] + sums[4] == 0:
            raise DataError(
                f"The {self.n} references hold no words, so that no error rate exists. Check the text column"
                + (", or score with normalise=False." if self.normalise else ".")
            )


def _rate(counts: Floats) -> Floats:
    """Return the error rate (...) of substitutions, insertions, deletions and hits (..., 4)."""
    substitutions, insertions, deletions, hits = (counts[..., i] for i in range(4))
    return _ratio(substitutions + insertions + deletions, substitutions + deletions + hits)


def _counts(counts: Floats) -> dict[str, int]:
    """Return the edits (4,) by name, and the length of the references."""
    named = {name: int(count) for name, count in zip((*_EDITS, "hits"), counts, strict=True)}
    return {**named, "reference": int(counts[0] + counts[2] + counts[3])}
