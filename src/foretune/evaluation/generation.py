"""Scores of written text against references: BLEU, chrF and ROUGE, with intervals over the examples.

BLEU and chrF are corpus scores in 0..100, as sacrebleu prints them; ROUGE is a mean of F-measures in 0..1, as
rouge-score returns them. Those are the scales of the field, and the only ones kept here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, ClassVar

import numpy as np

from foretune.errors import ConfigError, DataError, did_you_mean
from foretune.evaluation.counts import Floats, _ratio
from foretune.evaluation.extras import require
from foretune.evaluation.language import CJK, check_language, script_of
from foretune.evaluation.summed import SummedScores, check_paired

#: Metric name -> True when greater is better.
GENERATION_METRICS: dict[str, bool] = {
    "bleu": True,
    "chrf": True,
    "rouge1": True,
    "rouge2": True,
    "rougel": True,
}

#: Longest n-grams: of words in BLEU (Papineni et al. 2002), of characters in chrF (Popović 2015); its beta.
BLEU_ORDER, CHRF_ORDER, CHRF_BETA = 4, 6, 2
#: Columns of `rows` per metric.
_WIDTH = {"bleu": 2 + 2 * BLEU_ORDER, "chrf": 3 * CHRF_ORDER}
_ROUGE = {"rouge1": "rouge1", "rouge2": "rouge2", "rougel": "rougeL"}
#: sacrebleu's tokenisers: it knows no Japanese words without MeCab, so characters stand in for them.
_BLEU_TOKENISER = {"zh": "zh", "ja": "char", "en": "13a"}
_ROUGE_TOKEN = re.compile(rf"{CJK.pattern}|(?:(?!{CJK.pattern})[^\W_])+")


def bleu(sums: Floats) -> Floats:
    """Return BLEU (...), 0..100, of the sums (..., 10): lengths of hypotheses and references, hits, n-grams.

    Corpus BLEU with sacrebleu's default `exp` smoothing: the k-th order without hits counts 2^-k hits.
    """
    ours, theirs = sums[..., 0], sums[..., 1]
    hits, totals = sums[..., 2 : 2 + BLEU_ORDER], sums[..., 2 + BLEU_ORDER :]
    halvings = np.cumsum((hits == 0) & (totals > 0), axis=-1)
    precisions = _ratio(np.where(hits > 0, hits, 0.5**halvings), totals)
    known = (hits.sum(axis=-1) > 0) & (totals > 0).all(axis=-1)
    logs = np.log(np.where(precisions > 0, precisions, 1)).mean(axis=-1)
    brevity = np.minimum(0, 1 - _ratio(theirs, ours))
    return np.where(known, 100 * np.exp(logs + brevity), 0.0)


def chrf(sums: Floats) -> Floats:
    """Return chrF2 (...), 0..100, of the sums (..., 18): n-grams of hypotheses, references, hits per order.

    Precision and recall are means over the orders that occur on both sides, as in sacrebleu.
    """
    ours, theirs, hits = (sums[..., i::3] for i in range(3))
    occurs = (ours > 0) & (theirs > 0)
    precision, recall = (
        _ratio(np.where(occurs, _ratio(hits, side), 0).sum(axis=-1), occurs.sum(axis=-1))
        for side in (ours, theirs)
    )
    weight = CHRF_BETA**2
    return 100 * _ratio((1 + weight) * precision * recall, weight * precision + recall)


def all_references(target: str | Sequence[str]) -> list[str]:
    """Return the references of a text, of which a task's target is either one or a list."""
    return [target] if isinstance(target, str) else list(target)


class RougeTokenizer:
    """Words in lower case for rouge-score; Chinese and Japanese characters stand for themselves.

    On ASCII text it is rouge-score's own, which drops every other letter (`für` is `f r` there, Russian is
    nothing). `stem` reduces ASCII words of more than three letters by Porter's rules, for English only.
    """

    def __init__(self, stem: bool = False) -> None:
        self.stem = _porter() if stem else None

    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of `text`."""
        tokens = _ROUGE_TOKEN.findall(text.lower())
        if self.stem is None:
            return tokens
        return [self.stem(token) if len(token) > 3 and token.isascii() else token for token in tokens]


def _porter() -> Callable[[str], str]:
    from nltk.stem.porter import PorterStemmer

    stem: Callable[[str], str] = PorterStemmer().stem
    return stem


@cache
def _sacrebleu(name: str, tokeniser: str) -> Any:
    """Return sacrebleu's BLEU with a tokeniser, or its chrF."""
    from sacrebleu.metrics import BLEU, CHRF

    return BLEU(tokenize=tokeniser, force=True) if name == "bleu" else CHRF(beta=CHRF_BETA)


class TextScores(SummedScores):
    """Streaming scores of generated texts; `metrics` are names of `GENERATION_METRICS`.

    BLEU and chrF (0..100) are corpus scores and their intervals resample the sentences' counts; ROUGE (0..1)
    is the mean of F-measures. Of several references ROUGE takes the best F-measure of each example, as
    rouge-score's `score_multi` does (the maximum of Lin 2004, section 2.1, and what Cachola et al. 2020 report on
    SciTLDR); BLEU and chrF count them as sacrebleu does (n-grams of any reference and the nearest length; the
    reference with the best F-score). Tokens of BLEU are those of sacrebleu's
    `13a`, of `zh` where the references are Chinese and `char` where they are Japanese, found per example
    unless `language` (zh, ja, en for all others) says so. `stem=True` is the `-m` of ROUGE-1.5.5, as in
    most papers on English summaries. Holds up to 31 numbers per example. Raises ConfigError for unknown
    names, or where sacrebleu or rouge-score is not installed.
    """

    tops: ClassVar[dict[str, float]] = {name: 1.0 if name in _ROUGE else 100.0 for name in GENERATION_METRICS}

    def __init__(
        self,
        metrics: Sequence[str] = ("bleu", "chrf", "rouge1", "rouge2", "rougel"),
        language: str = "auto",
        stem: bool = False,
    ) -> None:
        super().__init__()
        unknown = [name for name in metrics if name not in GENERATION_METRICS]
        if unknown or not metrics:
            raise ConfigError(
                f"Unknown metrics {unknown}: expected some of {', '.join(GENERATION_METRICS)}."
                + (did_you_mean(unknown[0], GENERATION_METRICS) if unknown else "")
            )
        check_language(language)
        self.names = [name for name in GENERATION_METRICS if name in metrics]
        self.language = language
        if set(self.names) & set(_WIDTH):
            require("sacrebleu", "generation", "BLEU and chrF")
        self._rouge = self._rouge_scorer(stem)

    def _rouge_scorer(self, stem: bool) -> Any:
        """Return rouge-score's scorer of the ROUGE metrics asked for, or None."""
        kinds = [_ROUGE[name] for name in self.names if name in _ROUGE]
        if not kinds:
            return None
        require("rouge_score", "generation", "ROUGE")
        from rouge_score.rouge_scorer import RougeScorer

        return RougeScorer(kinds, tokenizer=RougeTokenizer(stem))

    def update(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> None:
        """Count texts: one hypothesis each, and its references. Raises DataError where they do not pair up."""
        check_paired(hypotheses, references, "reference")
        for known in references:
            if isinstance(known, str) or not known:
                raise DataError(
                    f"Expected a list of at least 1 reference per text, found {known!r:.60}."
                    " Wrap a single reference in a list."
                )
        rows = [self._row(*pair) for pair in zip(hypotheses, references, strict=True)]
        if rows:
            self._add(rows)

    def _row(self, hypothesis: str, references: Sequence[str]) -> list[float]:
        """Return the statistics of one text, metric by metric."""
        script = script_of(references) if self.language == "auto" else self.language
        scores = self._rouge.score_multi(references, hypothesis) if self._rouge else {}
        row: list[float] = []
        for name in self.names:
            if name in _ROUGE:
                row.append(float(scores[_ROUGE[name]].fmeasure))
            else:
                # What sacrebleu itself resamples; it gives these counts no public name.
                counter = _sacrebleu(name, _BLEU_TOKENISER[script] if name == "bleu" else "")
                row.extend(counter._extract_corpus_statistics([hypothesis], [[r] for r in references])[0])
        return row

    def metrics(self, sums: Floats) -> dict[str, Floats]:
        """Return each metric asked for (...) of the sums (..., columns)."""
        corpus = {"bleu": bleu, "chrf": chrf}
        values, start = {}, 1
        for name in self.names:
            width = _WIDTH.get(name, 1)
            part = sums[..., start : start + width]
            values[name] = corpus[name](part) if name in corpus else part[..., 0] / sums[..., 0]
            start += width
        return values
