"""Scores of extractive question answering, by the official rules of SQuAD and CMRC 2018.

Sources: `evaluate-v2.0.py` of SQuAD 2.0 (Rajpurkar et al. 2018), which scores 1.1 alike, and
`cmrc2018_evaluate.py` version 5 of CMRC 2018 (Cui et al. 2019).
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any, ClassVar

from foretune.errors import DataError
from foretune.evaluation.counts import Floats, _ratio
from foretune.evaluation.language import HAN, check_language
from foretune.evaluation.summed import SummedScores, check_paired, score_interval

#: Metric name -> True when greater is better.
ANSWER_METRICS: dict[str, bool] = {"exact_match": True, "f1": True}

_ARTICLE = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
#: What CMRC takes away. Its list also holds a doubled ellipsis, which no single character equals: … stays.
_CMRC_PUNCTUATION = str.maketrans("", "", "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
#: Marks that NLTK's word tokeniser (after the Penn Treebank) parts from words.
_MARKS = r"""[]["(){}<>;@#$%&?!«»‘„\u2012-\u2015]"""
#: A Chinese character; a mark; points; or a run of anything else, with commas before digits, and with single
#: points but the last one before a Chinese character.
_CMRC_UNIT = re.compile(
    rf"[一-龥]|{_MARKS}|\.\.+|(?:(?!{_MARKS})[^\s一-龥,.]|,(?=\d)"
    r"""|(?<!\.)\.(?!\.|[\])}>"'» ]*(?:[一-龥]|$)))+|[,.]"""
)
#: Chinese characters, and the punctuation that only they are written with.
_CHINESE = re.compile(f"{HAN.pattern}|[、。《》「」『』，：；？！（）]")


def normalise_answer(text: str) -> str:
    """Return `text` as SQuAD compares it: lower case, without punctuation, articles and spare blanks."""
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _squad(prediction: str, answer: str) -> tuple[float, float]:
    """Return exact match and F1 over words of one prediction and one answer."""
    ours, theirs = normalise_answer(prediction), normalise_answer(answer)
    guessed, known = ours.split(), theirs.split()
    if not guessed or not known:
        return float(ours == theirs), float(guessed == known)
    shared = sum((Counter(guessed) & Counter(known)).values())
    return float(ours == theirs), 2 * shared / (len(guessed) + len(known))


def cmrc_units(text: str) -> list[str]:
    """Return the units of CMRC's F1: single Chinese characters, and words between them.

    The official script splits what is not Chinese with NLTK's word tokeniser; we split alike but for
    contractions (`don't` stays whole up to its apostrophe).
    """
    return _CMRC_UNIT.findall(text.lower().strip().translate(_CMRC_PUNCTUATION))


def _cmrc(prediction: str, answer: str) -> tuple[float, float]:
    """Return exact match and F1 by the longest common run of units of one prediction and one answer."""
    ours, theirs = (text.lower().strip().translate(_CMRC_PUNCTUATION) for text in (prediction, answer))
    guessed, known = cmrc_units(prediction), cmrc_units(answer)
    if not guessed or not known:
        return float(ours == theirs), float(guessed == known)
    shared = SequenceMatcher(None, guessed, known, autojunk=False).find_longest_match().size
    return float(ours == theirs), 2 * shared / (len(guessed) + len(known))


def score_answer(prediction: str, answers: Sequence[str], language: str = "auto") -> tuple[float, float]:
    """Return exact match and F1 of one prediction, each the best over all right `answers`.

    No answers, or none but empty ones, mean that the question has no answer; then only the empty
    prediction is right. Raises ConfigError for an unknown language.
    """
    check_language(language)
    han = language == "zh" or (
        language == "auto" and any(_CHINESE.search(text) for text in (prediction, *answers))
    )
    rule = _cmrc if han else _squad
    known = [answer for answer in answers if han or normalise_answer(answer)] or [""]
    pairs = [rule(prediction, answer) for answer in known]
    return max(pair[0] for pair in pairs), max(pair[1] for pair in pairs)


class AnswerScores(SummedScores):
    """Streaming exact match and F1 (0..1) of answers cut from a text; no answer is the empty string.

    `language` is "en" for SQuAD's rule (words), "zh" for CMRC's (characters, longest common run), or "auto":
    CMRC's for each question where the prediction or an answer holds a Chinese character or mark. Where the
    language of a whole set is known, name it: an answer like `68,511 (4` does not tell. Holds six numbers per
    question. Raises ConfigError for an unknown language.
    """

    tops: ClassVar[dict[str, float]] = dict.fromkeys(ANSWER_METRICS, 1.0)

    def __init__(self, language: str = "auto") -> None:
        super().__init__()
        check_language(language)
        self.language = language

    def update(self, predictions: Sequence[str], answers: Sequence[Sequence[str]]) -> None:
        """Count questions: one prediction each, and all answers that count as right (none: unanswerable).

        Raises DataError where they do not pair up or are no texts.
        """
        check_paired(predictions, answers, "question")
        for prediction, known in zip(predictions, answers, strict=True):
            if isinstance(known, str) or not all(isinstance(text, str) for text in (prediction, *known)):
                raise DataError(
                    "Expected a text and a list of right answers per question, found"
                    f" {type(prediction).__name__} and {type(known).__name__}. No answer is an empty text."
                )
        if not len(predictions):
            return
        pairs = zip(predictions, answers, strict=True)
        exact, f1 = zip(*(score_answer(one, known, self.language) for one, known in pairs), strict=True)
        has = [float(any(text.strip() for text in known)) for known in answers]
        self._add(exact, f1, has, *([a * b for a, b in zip(has, some, strict=True)] for some in (exact, f1)))

    def metrics(self, sums: Floats) -> dict[str, Floats]:
        """Return each metric of `ANSWER_METRICS` (...) of the sums (..., 6)."""
        return {"exact_match": sums[..., 1] / sums[..., 0], "f1": sums[..., 2] / sums[..., 0]}

    def details(self, sums: Floats, resampled: Floats) -> dict[str, Any]:
        """Return both metrics and `n` of the questions that have an answer, and of those that have none."""
        return {
            "has_answer": _part(sums[3:], resampled[:, 3:]),
            "no_answer": _part(sums[:3] - sums[3:], resampled[:, :3] - resampled[:, 3:]),
        }


def _part(sums: Floats, resampled: Floats) -> dict[str, Any]:
    """Return the scores of some questions: n, exact matches and F1 summed, (3,) and (resamples, 3)."""
    n = int(sums[0])
    if n == 0:
        return {"n": 0}
    drawn = resampled[resampled[:, 0] > 0]
    scores = {
        name: score_interval(float(sums[i] / n), _ratio(drawn[:, i], drawn[:, 0]), n, 1.0)
        for i, name in enumerate(ANSWER_METRICS, start=1)
    }
    return {**scores, "n": n}
