from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foretune.data.store import CutReport, build
from foretune.evaluation.generation import TextScores
from foretune.evaluation.written import (
    MOST_SAMPLES,
    LossScores,
    WorstLosses,
    WorstWritten,
    WrittenScores,
    loss_sections,
    sample_sections,
    written_sections,
)
from foretune.tasks.base import Encoded, Examples

WORDS = ["", "the", "cat", "sat", "on", "a", "mat", "<b>"]


def _decode(ids: np.ndarray) -> list[str]:
    return [" ".join(WORDS[int(i)] for i in row if i) for row in ids]


def _outputs(*rows: list[int]) -> np.ndarray:
    """Loss 2 per reference token, three tokens each, then the ids."""
    return np.array([[6.0, 3.0, *row] for row in rows])


REFERENCES = ["the cat sat", "a mat", "on a mat"]


def test_written_texts_are_scored_beside_their_own_references() -> None:
    scores = WrittenScores(TextScores(("chrf",)), REFERENCES, _decode)
    scores.update(_outputs([5, 6, 0]), np.zeros(1), np.array([1]))  # batches come by length, not in order
    scores.update(_outputs([1, 2, 3], [1, 1, 1]), np.zeros(2), np.array([0, 2]))
    alone = TextScores(("chrf",))
    alone.update(["a mat", "the cat sat", "the the the"], [["a mat"], ["the cat sat"], ["on a mat"]])
    assert scores.point()["chrf"] == pytest.approx(alone.point()["chrf"])
    assert scores.point()["nats_per_token"] == pytest.approx(2)
    result = scores.result(seed=0)
    assert result["n"] == 3 and result["perplexity"]["value"] == pytest.approx(np.e**2)


def test_several_references_all_count_and_are_shown() -> None:
    references = ["the cat sat", ["a mat", "on a mat", "the mat"]]
    scores = WrittenScores(TextScores(("chrf", "rouge1")), references, _decode)
    keeper = WorstWritten(1, "chrf", ["s0", "s1"], references, _decode, np.array([1, 2]))
    outputs = _outputs([1, 2, 3], [4, 5, 6])  # the cat sat; on a mat
    scores.update(outputs, np.zeros(2), np.array([0, 1]))
    keeper.update(np.array([0, 1]), outputs, np.zeros(2))
    assert scores.point()["chrf"] == pytest.approx(100) and scores.point()["rouge1"] == pytest.approx(1)
    first, second = keeper.top()[1:]
    assert "other_references" not in first and second["target"] == "a mat"
    assert second["other_references"] == ["on a mat", "the mat"] and second["chrf"] == pytest.approx(100)
    assert "a mat / on a mat / the mat" in written_sections(keeper.top(), "chrf")[0]


def test_sizes_of_rows_give_bits_per_byte() -> None:
    scores = LossScores(np.array([3.0, 6.0, 9.0]))
    scores.update(np.array([[1.0, 2.0]]), np.zeros(1), np.array([2]))
    scores.update(np.array([[1.0, 2.0], [1.0, 2.0]]), np.zeros(2), np.array([0, 1]))
    assert scores.point()["bits_per_byte"] == pytest.approx(3 / np.log(2) / 18)
    assert "bits_per_byte" not in _plain().point()


def _plain() -> LossScores:
    scores = LossScores()
    scores.update(np.array([[1.0, 2.0]]), np.zeros(1))
    return scores


def test_the_worst_come_first_then_the_first_rows() -> None:
    sources = ["s0", "s1", "s2"]
    keeper = WorstWritten(1, "chrf", sources, REFERENCES, _decode, np.array([11, 12, 13]))
    keeper.update(np.array([1, 0]), _outputs([5, 6, 0], [1, 2, 7]), np.zeros(2))
    keeper.update(np.array([2]), _outputs([1, 1, 1]), np.zeros(1))
    top = keeper.top()
    assert [(each["row"], each["shown"]) for each in top] == [
        (13, "worst"), (11, "first"), (12, "first"), (13, "first"),
    ]  # fmt: skip
    assert top[0]["prediction"] == "the the the" and top[0]["target"] == "on a mat"
    assert top[2]["chrf"] == pytest.approx(100)
    first, worst = written_sections(top, "chrf")
    assert "&lt;b&gt;" in first and "<b>" not in first and "Lowest chrF first" in worst
    assert written_sections([], "chrf") == []


class _Tokenizer:
    def decode(self, ids: list[int], **options: Any) -> str:
        return " ".join(WORDS[i] for i in ids)


def test_rows_that_surprise_most_name_their_examples() -> None:
    store = build([np.array([1, 2]), np.array([3, 7]), np.array([5])], CutReport())
    encoded = Encoded(store, None, np.array([0, 0, 1]), (_Tokenizer(), None))
    keeper = WorstLosses(2, encoded, Examples(["x", "y"], None, np.array([4, 9])))
    keeper.update(np.array([2, 0]), np.array([[90.0, 10.0], [10.0, 10.0]]), np.zeros(2))
    keeper.update(np.array([1]), np.array([[50.0, 10.0]]), np.zeros(1))
    top = keeper.top()
    assert [(each["row"], each["nats_per_token"]) for each in top] == [(9, 9.0), (4, 5.0)]
    assert top[1]["text"] == "sat <b>"
    assert "&lt;b&gt;" in loss_sections(top)[0] and loss_sections([]) == []


def test_rows_of_few_tokens_are_not_shown() -> None:
    keeper = WorstLosses(2, None, None)  # type: ignore[arg-type]
    keeper.update(np.array([0]), np.array([[90.0, 1.0]]), np.zeros(1))
    assert keeper.top() == []


def test_samples_are_read_from_the_events(tmp_path: Path) -> None:
    assert sample_sections(None) == [] and sample_sections(tmp_path / "none") == []
    file = tmp_path / "events.jsonl"
    lines = [{"event": "step", "step": 1}]
    lines += [
        {"event": "sample", "step": n, "prompt": "the", "text": f"<i>{n}"} for n in range(1, 3 * MOST_SAMPLES)
    ]
    file.write_text("\n".join(map(json.dumps, lines)) + "\n")
    (page,) = sample_sections(file)
    assert f"&lt;i&gt;{3 * MOST_SAMPLES - 1}<" in page  # the last one is always shown
    assert page.count("&lt;i&gt;") == MOST_SAMPLES
    file.write_text(json.dumps(lines[0]) + "\n")
    assert sample_sections(file) == []
