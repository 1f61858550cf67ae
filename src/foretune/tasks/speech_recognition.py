"""Speech recognition: what is said in a sound, by CTC over letters or by a decoder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from foretune.backbones.transcriber import CTC, Transcriber, characters_of, check_letters, check_room
from foretune.data.columns import Columns
from foretune.data.paired_store import IGNORED, LabelRows
from foretune.data.sound_augment import SoundAugmentation
from foretune.data.sound_store import durations, sound_digests
from foretune.data.transcripts import _check_filled as check_filled
from foretune.errors import ConfigError, DataError
from foretune.evaluation.heard import SpeechScores, WorstHeard, heard_sections
from foretune.evaluation.language import script_of
from foretune.evaluation.transcription import TRANSCRIPTION_METRICS, TranscriptionScores
from foretune.evaluation.written import LossScores
from foretune.tasks.audio_classification import (
    copy_warnings,
    noise,
    overlap_warnings,
    several,
    sound_paths,
    sounds_of,
)
from foretune.tasks.base import TASKS, Encoded, Examples, Task

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from foretune.backbones.base import Backbone
    from foretune.backbones.speech import SpeechBackbone
    from foretune.recipe import Recipe
    from foretune.strategies.base import Settings, Workload

SPARE = 16  # tokens that may be written above twice the longest training transcript


@dataclass(frozen=True, kw_only=True)
class SpeechOptions(SoundAugmentation):
    """How decoders write, and the language of multilingual models, besides what varies training sounds.

    `num_beams`: of beam search, 1 is greedy (CTC is always greedy). `language`: as Whisper names it.
    """

    num_beams: int = 1
    language: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.num_beams, int) or isinstance(self.num_beams, bool) or self.num_beams < 1:
            raise ConfigError(
                f"Option num_beams is {self.num_beams!r}; expected a whole number of 1 or more."
            )
        if not isinstance(self.language, str):
            raise ConfigError(f"Option language is {self.language!r}; expected text such as english.")


@TASKS.register("speech-recognition")
class SpeechRecognition(Task):
    """CTC (Graves et al. 2006) for encoders, cross-entropy of the next token for models with a decoder.

    Outputs that are scored are (batch, 2 + ids): the loss of the reference and its tokens (0 without, and for CTC),
    then what was written. A decoder writes for the final scores alone: during training its perplexity is watched.
    `seconds`: the longest training sound; `characters`: of the training transcripts.
    """

    name = "speech-recognition"
    modality = "audio"
    auto_class = "AutoModelForCTC"
    metrics = TRANSCRIPTION_METRICS
    default_metric = "wer"
    headline = "text"
    pipeline = "automatic-speech-recognition"
    example = '"sound.wav"'
    pools = False
    Options = SpeechOptions

    def __init__(
        self,
        columns: Columns,
        characters: str,
        seconds: float | None,
        options: SpeechOptions,
        longest: int = 0,
    ) -> None:
        self.columns, self.characters, self.seconds, self.options = columns, characters, seconds, options
        self.longest = longest  # tokens of the longest training transcript, once it is known
        self.writer: Transcriber | None = None

    @classmethod
    def varying_options(cls) -> set[str]:
        """Return the names of the options of augmentation: the others are of writing."""
        return {field.name for field in fields(SoundAugmentation)}

    @classmethod
    def from_table(cls, table: pd.DataFrame, columns: Columns, recipe: Recipe) -> SpeechRecognition:
        """Learn the characters of the transcripts and how long the sounds are."""
        TranscriptionScores()  # says what is missing before hours of training, not after them
        texts = transcripts_of(table, columns, "train")
        seconds = float(durations(sound_paths(table, columns.text)).max())
        task = cls(columns, characters_of(texts), seconds, cls.options_of(recipe))
        if sum(script_of([text]) != "en" for text in texts) > len(texts) / 2:
            task.default_metric = "cer"  # type: ignore[misc]  # without blanks a sentence is one word
        return task

    def state(self) -> dict[str, Any]:
        """Return columns, characters, the longest sound (seconds) and transcript (tokens), and options."""
        return {
            "columns": {"text": self.columns.text, "target": self.columns.target},
            "characters": self.characters, "seconds": self.seconds, "longest": self.longest,
            "options": asdict(self.options),
        }  # fmt: skip

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> SpeechRecognition:
        """Make the task of a saved model."""
        columns = Columns(state["columns"]["text"], state["columns"]["target"], "as saved with the model")
        options = SpeechOptions(**state["options"])
        return cls(columns, state["characters"], state["seconds"], options, state["longest"])

    @classmethod
    def audit(cls, table: pd.DataFrame, columns: Columns, *, where: str) -> list[str]:
        """Return warnings about copies. Raises DataError for broken files and empty transcripts."""
        sounds = sound_paths(table, columns.text)
        durations(sounds)
        if columns.target is None:
            return []
        return copy_warnings(sound_digests(sounds), transcripts_of(table, columns, where), where)

    @classmethod
    def overlap(cls, train: pd.DataFrame, other: pd.DataFrame, columns: Columns, where: str) -> list[str]:
        """Return a warning about files of `train` whose copies also stand in `other`, called `where`."""
        return overlap_warnings(sound_paths(train, columns.text), sound_paths(other, columns.text), where)

    def examples(self, table: pd.DataFrame, *, where: str, need_targets: bool = True) -> Examples:
        """Read paths and, where needed, transcripts."""
        targets = None
        if need_targets:
            targets = np.array(transcripts_of(table, self.columns, where), dtype=object)
        return Examples(sound_paths(table, self.columns.text), targets, np.arange(1, len(table) + 1))

    def from_inputs(self, inputs: Any) -> Examples:
        """Return one sound or several as examples: paths, or arrays as `sounds_of` reads them."""
        return sounds_of(inputs)

    def probes(self) -> Examples:
        """Return two sounds of noise."""
        return sounds_of(noise(2))

    def texts(self, examples: Examples) -> list[str]:
        """Return nothing: sounds hold no characters."""
        return []

    def groups(self, examples: Examples) -> list[str]:
        """Return the hash of every sound: copies stay on one side of a split."""
        return sound_digests(examples.inputs)

    def strata(self, examples: Examples) -> None:
        """Return none: transcripts are no classes."""
        return None

    def encode(
        self,
        backbone: Backbone,
        examples: Examples,
        *,
        max_length: int,
        truncation: str,
        training: bool = False,
        seed: int = 0,
    ) -> Encoded:
        """Return the sounds as a store with the ids of what is said; a decoder's, as many as it can write."""
        model = cast("SpeechBackbone", backbone)
        store = model.preprocess(examples.inputs, max_length=max_length, truncation=truncation)
        store = store.augmented(self.options) if training else store
        self.writer = model.writer
        if model.writer.way != CTC:
            self.metrics = TRANSCRIPTION_METRICS | {"perplexity": False}  # type: ignore[misc]
        self.scores_untuned = not model.new_head  # type: ignore[misc]
        if examples.targets is None:
            return Encoded(store, info=model.writer)
        labels = model.labels(examples.targets.tolist(), cut=True)
        self.longest = self.longest or int(labels.lengths.max())
        return Encoded(store.labelled(labels), LabelRows(labels), info=model.writer)

    def check_learnable(self, backbone: Backbone, examples: Examples, encoded: Encoded) -> None:
        """Raise DataError for transcripts that are too long to be written, or mostly of unknown letters."""
        model = cast("SpeechBackbone", backbone)
        assert examples.targets is not None
        labels = model.labels(examples.targets.tolist())
        check_room(encoded.store.lengths, labels, model.longest_written, examples.rows)
        check_letters(labels, model.writer, model.name)

    def adjusted(self, settings: Settings, work: Workload) -> Settings:
        """Return the settings with batches of several sounds."""
        return several(settings, work)

    def model_options(self) -> dict[str, Any]:
        """Return nothing: the vocabulary is settled where the model is loaded."""
        return {}

    def normaliser(self, targets: np.ndarray) -> float:
        """Return the number of target tokens."""
        return float((targets != IGNORED).sum())

    def loss(self, outputs: Tensor, targets: Tensor, batch: dict[str, Tensor] | None = None) -> Tensor:
        """Return the summed negative log-likelihood of the transcripts."""
        from foretune.backbones.writing import smoothed_loss

        assert batch is not None
        return (
            smoothed_loss(outputs, targets)
            if "decoder_input_ids" in batch
            else self._ctc(outputs, batch).sum()
        )

    def _ctc(self, outputs: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Return the negative log-likelihood of every transcript, (batch,), summed over all alignments."""
        import torch

        assert self.writer is not None
        labels = batch["labels"]
        sizes = (labels != IGNORED).sum(dim=1)
        chances = outputs.float().log_softmax(dim=-1).transpose(0, 1)  # (frames, batch, vocabulary)
        return torch.nn.functional.ctc_loss(
            chances, labels.clamp(min=0), batch["frames"], sizes, blank=self.writer.blank, reduction="none",
            zero_infinity=True,
        )  # fmt: skip

    def activate(self, outputs: Tensor, batch: dict[str, Tensor] | None = None) -> Tensor:
        """Return loss and tokens of the references; for CTC zeros, then the likeliest letter of every frame."""
        import torch

        from foretune.backbones.writing import summed_losses

        assert batch is not None and self.writer is not None
        if "decoder_input_ids" in batch:
            return summed_losses(outputs, batch["labels"])
        best = outputs.argmax(dim=-1)
        beyond = torch.arange(best.shape[1], device=best.device) >= batch["frames"][:, None]
        letters = best.masked_fill(beyond, self.writer.blank).float()
        return torch.cat([outputs.new_zeros(len(outputs), 2), letters], dim=1)

    def infer(self, backbone: Backbone, batch: dict[str, Tensor]) -> Tensor:
        """Return (batch, 2 + ids): loss and tokens of the references, and what was written."""
        import torch

        model = cast("SpeechBackbone", backbone)
        if model.writer.way == CTC:
            return super().infer(backbone, batch)
        written = model.write(batch, 2 * self.longest + SPARE, num_beams=self.options.num_beams)
        scored = torch.zeros(len(written), 2, device=written.device)
        if "labels" in batch:
            scored = self.activate(model.forward(batch), batch)
        return torch.cat([scored, written.float()], dim=1)  # exact: ids are far below 2^24

    def decode(
        self, outputs: Sequence[np.ndarray], examples: Examples, encoded: Encoded
    ) -> list[dict[str, Any]]:
        """Return the transcript of every sound."""
        return [{"text": encoded.info.text(row[2:])} for row in outputs]

    def scores(self, examples: Examples, encoded: Encoded) -> SpeechScores:
        """Return an empty accumulator of error rates, and of perplexity where a decoder writes."""
        assert examples.targets is not None
        losses = LossScores() if encoded.info.way != CTC else None
        return SpeechScores(encoded.info.text, examples.targets.tolist(), losses)

    def progress(self, examples: Examples, encoded: Encoded) -> Any:
        """Return an empty accumulator: of error rates for CTC, of perplexity where a decoder would have to write."""
        return LossScores() if encoded.info.way != CTC else self.scores(examples, encoded)

    def watched(self, metric: str) -> str:
        """Return perplexity where a decoder would have to write."""
        return metric if self.writer is None or self.writer.way == CTC else "perplexity"

    def worst(self, examples: Examples, encoded: Encoded, k: int) -> WorstHeard | None:
        """Return a keeper of the sounds with the most wrong letters."""
        return None if k == 0 or examples.targets is None else WorstHeard(k, encoded.info.text, examples)

    def sections(self, result: dict[str, Any], worst: list[dict[str, Any]]) -> list[str]:
        """Return the table of the worst transcripts."""
        return heard_sections(worst)

    def baselines(self, train: Examples, held_out: Examples, seed: int) -> dict[str, Any]:
        """Return the error rates of always writing the most frequent transcript."""
        assert train.targets is not None and held_out.targets is not None
        usual = Counter(train.targets.tolist()).most_common(1)[0][0]
        scores = TranscriptionScores()
        scores.update([usual] * len(held_out), held_out.targets.tolist())
        return {"most_frequent": {name: scores.result(seed)[name] for name in TRANSCRIPTION_METRICS}}


def transcripts_of(table: pd.DataFrame, columns: Columns, where: str) -> list[str]:
    """Return the transcripts of a table. Raises DataError naming rows whose transcript is empty or no text."""
    assert columns.target is not None
    values = table[columns.target].tolist()
    try:
        check_filled(values, columns.target)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    return [str(value) for value in values]
