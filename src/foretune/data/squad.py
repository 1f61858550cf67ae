"""SQuAD files (1.1 and 2.0; Rajpurkar et al. 2016, 2018): articles, paragraphs and their questions in one JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from foretune.data.questions import check_answers
from foretune.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from foretune.data.questions import Answer


def is_squad(value: object) -> bool:
    """Say whether a JSON value is laid out as SQuAD: `data`, a list of articles with `paragraphs`."""
    articles = value.get("data") if isinstance(value, dict) else None
    return isinstance(articles, list) and any(isinstance(a, dict) and "paragraphs" in a for a in articles)


def parse_squad(value: dict[str, Any], name: str) -> pd.DataFrame:
    """Return one row per question: `context`, `question`, `answers` [(start, text)], `id`, `impossible`.

    `start` counts characters of the context; `answers` is missing where the file has no such key, as in
    questions to be answered. `attrs["format"]` is "squad". Raises DataError naming the place of what is
    missing, or the ids of answers that do not stand at their offset.
    """
    import pandas as pd

    records = [_record(*item, number) for number, item in enumerate(_questions(value, name), start=1)]
    if not records:
        raise DataError(f"{name} holds no question, expected data, paragraphs and qas as in SQuAD.")
    table = pd.DataFrame(records)
    answers = [list(cell or []) for cell in table["answers"]]
    check_answers(table["context"].tolist(), answers, table["id"].tolist(), name)
    table.attrs["format"] = "squad"
    return table


def _questions(value: dict[str, Any], name: str) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield context, question and the question's place in the file."""
    for i, article in enumerate(value["data"]):
        place = f"{name}: data[{i}]"
        for j, paragraph in enumerate(_get(article, "paragraphs", list, place)):
            inner = f"{place}.paragraphs[{j}]"
            context = _get(paragraph, "context", str, inner)
            for k, question in enumerate(_get(paragraph, "qas", list, inner)):
                yield context, question, f"{inner}.qas[{k}]"


def _record(context: str, question: dict[str, Any], place: str, number: int) -> dict[str, Any]:
    text = _get(question, "question", str, place)
    answers = _answers(question, place) if question.get("answers") is not None else None
    return {
        "context": context,
        "question": text,
        "answers": answers,
        "id": str(question.get("id", number)),
        "impossible": answers is not None and not answers,
    }


def _answers(question: dict[str, Any], place: str) -> list[Answer]:
    """Return the answers; SQuAD 2.0 keeps plausible ones of impossible questions under another key."""
    if question.get("is_impossible"):
        return []
    return [
        (_get(answer, "answer_start", int, f"{place}.answers[{n}]"), _get(answer, "text", str, place))
        for n, answer in enumerate(_get(question, "answers", list, place))
    ]


def _get(record: object, key: str, kind: type, place: str) -> Any:
    found = record.get(key) if isinstance(record, dict) else None
    if not isinstance(found, kind):
        raise DataError(
            f"{place}: {key!r} is {'missing' if found is None else repr(found)[:60]}, expected a "
            f"{kind.__name__}. SQuAD files hold data, paragraphs (context, qas) and qas (id, question, answers)."
        )
    return found
