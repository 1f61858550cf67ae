"""Scores of what a recogniser wrote, and the sounds that it heard worst."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from foretune.evaluation.report_sections import table_section
from foretune.evaluation.transcription import TranscriptionScores, edits, normalise_transcript
from foretune.evaluation.written import LossScores

if TYPE_CHECKING:
    from foretune.tasks.base import Examples


@dataclass
class SpeechScores:
    """Error rates of what was written, and the perplexity of the transcripts where `losses` is given.

    Takes outputs (batch, 2 + ids): loss and tokens of the reference, then what `text` reads.
    """

    text: Callable[[NDArray[Any]], str]
    references: Sequence[str]
    losses: LossScores | None = None
    kept: TranscriptionScores = field(default_factory=TranscriptionScores)

    def update(self, outputs: NDArray[Any], targets: NDArray[Any], rows: NDArray[Any] | None = None) -> None:
        """Add one batch, which holds the references of `rows`."""
        assert rows is not None
        if self.losses is not None:
            self.losses.update(outputs, targets)
        self.kept.update([self.text(row[2:]) for row in outputs], [self.references[row] for row in rows])

    def point(self) -> dict[str, float]:
        """Return the metrics without intervals."""
        return self.kept.point() | ({} if self.losses is None else self.losses.point())

    def result(self, seed: int = 0) -> dict[str, Any]:
        """Return the metrics with intervals."""
        return ({} if self.losses is None else self.losses.result(seed)) | self.kept.result(seed)


@dataclass
class WorstHeard:
    """The `k` sounds whose transcripts need the most changes of letters."""

    k: int
    text: Callable[[NDArray[Any]], str]
    examples: Examples
    _heap: list[tuple[int, int, str]] = field(default_factory=list)

    def update(self, rows: NDArray[Any], outputs: NDArray[Any], targets: NDArray[Any]) -> None:
        """Look through one batch."""
        assert self.examples.targets is not None
        for row, output in zip(rows.tolist(), outputs, strict=True):
            heard = self.text(output[2:])
            wrong = sum(
                edits(normalise_transcript(heard), normalise_transcript(self.examples.targets[row]))[:3]
            )
            if wrong:
                heapq.heappush(self._heap, (wrong, -row, heard))
            if len(self._heap) > self.k:
                heapq.heappop(self._heap)

    def top(self) -> list[dict[str, Any]]:
        """Return row number, file, what was said and heard, and the letters between them, the most first."""
        assert self.examples.targets is not None
        found = []
        for wrong, row, heard in sorted(self._heap, reverse=True):
            sound = self.examples.inputs[-row]
            name = Path(sound).name if isinstance(sound, str) else "a sound in memory"
            said = self.examples.targets[-row]
            place = {"row": int(self.examples.rows[-row]), "text": name}
            found.append({**place, "true": said, "predicted": heard, "edits": wrong})
        return found


def heard_sections(worst: Sequence[dict[str, Any]]) -> list[str]:
    """Return the table of the sounds that were heard worst."""
    rows = [[each["text"], each["true"], each["predicted"], f"{each['edits']:.0f}"] for each in worst]
    note = "Letters to change, put in or take out, as the error rate counts them. Listen to these first."
    part = table_section("Sounds that were heard worst", note, ["sound", "said", "heard", "letters"], rows)
    return [part] if part else []
