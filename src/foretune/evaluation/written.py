"""Scores of texts that a model wrote, the worst of them, and how the report shows them."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from foretune.evaluation.generation import TextScores, all_references
from foretune.evaluation.metric_names import named
from foretune.evaluation.perplexity import PerplexityScores
from foretune.evaluation.report_sections import table_section

if TYPE_CHECKING:
    from foretune.tasks.base import Encoded, Examples

SHOWN = 10  # examples in the report that are not chosen: the first rows
MOST_SAMPLES = 20
LEAST_TOKENS = 5  # predicted in a row that is worth showing

Decoder = Callable[[NDArray[Any]], list[str]]  # ids (batch, tokens) -> texts


@dataclass
class LossScores:
    """Perplexity of given texts; takes outputs (batch, 2 or more): summed loss and predicted tokens of a row.

    `sizes`: (rows,) bytes of text that each row predicts, for bits per byte.
    """

    sizes: NDArray[Any] | None = None
    kept: PerplexityScores = field(default_factory=PerplexityScores)

    def update(self, outputs: NDArray[Any], targets: NDArray[Any], rows: NDArray[Any] | None = None) -> None:
        """Add one batch."""
        sizes = None if self.sizes is None else self.sizes[rows]
        self.kept.update(outputs[:, 0].astype(np.float64), outputs[:, 1], sizes)

    def point(self) -> dict[str, float]:
        """Return the metrics without intervals."""
        return self.kept.point()

    def result(self, seed: int = 0) -> dict[str, Any]:
        """Return the metrics with intervals."""
        return self.kept.result(seed)


@dataclass
class WorstLosses:
    """The `k` rows that surprise the model most per token, with their texts."""

    k: int
    encoded: Encoded
    examples: Examples
    _heap: list[tuple[float, int]] = field(default_factory=list)

    def update(self, rows: NDArray[Any], outputs: NDArray[Any], targets: NDArray[Any]) -> None:
        """Look through one batch; see `LossScores` for the outputs."""
        for row, (loss, tokens) in zip(rows.tolist(), outputs.tolist(), strict=True):
            if tokens >= LEAST_TOKENS:
                heapq.heappush(self._heap, (loss / tokens, -row))
            if len(self._heap) > self.k:
                heapq.heappop(self._heap)

    def top(self) -> list[dict[str, Any]]:
        """Return row number, text and nats per token, the greatest first."""
        found = []
        for value, row in sorted(self._heap, reverse=True):
            example = int(self.encoded.examples_of(np.array([-row]))[0])
            ids = self.encoded.store[-row]  # type: ignore[index]
            text = self.encoded.info[0].decode(ids.tolist(), skip_special_tokens=True)
            found.append({"row": int(self.examples.rows[example]), "text": text, "nats_per_token": value})
        return found


def loss_sections(found: Sequence[dict[str, Any]]) -> list[str]:
    """Return a table of the rows that surprise the model most."""
    rows = [[each["row"], each["text"], f"{each['nats_per_token']:.2f}"] for each in found]
    note = "Of a long text its window. Other languages, tables and noise often stand at the top."
    part = table_section("Most surprising texts first", note, ["row", "text", "nats per token"], rows)
    return [part] if part else []


@dataclass
class WrittenScores:
    """Scores of the texts written, and the perplexity of the targets, the first reference of each.

    `references`: one per row, or a list of several. Takes outputs (batch, 2 + tokens): summed loss and tokens of
    the target, then the ids that were written.
    """

    text: TextScores
    references: Sequence[str | Sequence[str]]
    decode: Decoder
    losses: LossScores = field(default_factory=LossScores)

    def update(self, outputs: NDArray[Any], targets: NDArray[Any], rows: NDArray[Any] | None = None) -> None:
        """Add one batch, which holds the references of `rows`."""
        assert rows is not None
        self.losses.update(outputs, targets)
        self.text.update(self.decode(outputs[:, 2:]), [all_references(self.references[row]) for row in rows])

    def point(self) -> dict[str, float]:
        """Return the metrics without intervals."""
        return self.text.point() | self.losses.point()

    def result(self, seed: int = 0) -> dict[str, Any]:
        """Return the metrics with intervals."""
        return self.losses.result(seed) | self.text.result(seed)


@dataclass
class WorstWritten:
    """The `k` texts that score lowest beside their references, and the first rows whatever they score."""

    k: int
    metric: str
    sources: Sequence[str]
    references: Sequence[str | Sequence[str]]
    decode: Decoder
    numbers: NDArray[Any]  # (n,) of the rows in the user's file
    _heap: list[tuple[float, int, str]] = field(default_factory=list)
    _first: dict[int, tuple[float, str]] = field(default_factory=dict)

    def update(self, rows: NDArray[Any], outputs: NDArray[Any], targets: NDArray[Any]) -> None:
        """Look through one batch; see `WrittenScores` for the outputs."""
        scores, texts = TextScores((self.metric,)), self.decode(outputs[:, 2:])
        scores.update(texts, [all_references(self.references[row]) for row in rows])
        values = scores.metrics(scores.rows())[self.metric]
        for row, text, value in zip(rows.tolist(), texts, values.tolist(), strict=True):
            if row < SHOWN:
                self._first[row] = (value, text)
            heapq.heappush(self._heap, (-value, -row, text))
            if len(self._heap) > self.k:
                heapq.heappop(self._heap)

    def top(self) -> list[dict[str, Any]]:
        """Return the worst first, then the first rows; `shown` says which of the two."""
        worst = [(-row, -low, text, "worst") for low, row, text in sorted(self._heap, reverse=True)]
        first = [(row, value, text, "first") for row, (value, text) in sorted(self._first.items())]
        return [self._entry(*each) for each in [*worst, *first]]

    def _entry(self, row: int, value: float, text: str, shown: str) -> dict[str, Any]:
        target, *others = all_references(self.references[row])
        entry = {
            "row": int(self.numbers[row]),
            "source": self.sources[row],
            "target": target,
            "prediction": text,
            self.metric: value,
            "shown": shown,
        }
        return entry | ({"other_references": others} if others else {})


def written_sections(found: Sequence[dict[str, Any]], metric: str) -> list[str]:
    """Return tables of sources, references and what was written: the first rows, then the worst."""
    spoken = named(metric).spoken
    head = ["row", "source", "target", "written", spoken]
    titles = {"first": "Examples, in the order of the file", "worst": f"Lowest {spoken} first"}
    notes = {
        "first": "What the model writes beside what was asked for.",
        "worst": "Often the reference is what is wrong or free here: read these before you blame the model.",
    }
    parts = []
    for kind, title in titles.items():
        rows = [
            [each["row"], each["source"], _targets(each), each["prediction"], f"{each[metric]:.2f}"]
            for each in found
            if each.get("shown") == kind
        ]
        parts.append(table_section(title, notes[kind], head, rows))
    return [part for part in parts if part]


def _targets(entry: dict[str, Any]) -> str:
    return " / ".join([entry["target"], *entry.get("other_references", ())])


def sample_sections(events_file: Path | None) -> list[str]:
    """Return a table of the samples told during training, read from the run's events; none where there are none."""
    if events_file is None or not events_file.exists():
        return []
    lines = (json.loads(line) for line in events_file.read_text(encoding="utf-8").splitlines())
    samples = [line for line in lines if line.get("event") == "sample"]
    if not samples:
        return []
    step = max(-(-len(samples) // MOST_SAMPLES), 1)
    rows = [[each["step"], each["prompt"], each["text"]] for each in samples[::-1][::step][::-1]]
    note = "What the model wrote after each evaluation on dev, drawn with the same seed each time."
    return [table_section("Samples during training", note, ["step", "after", "written"], rows)]
