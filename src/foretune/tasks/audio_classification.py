"""Audio classification: one of two or more labels for every sound."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.data.audit import _label_warnings as label_warnings
from foretune.data.columns import Columns
from foretune.data.labels import encode_labels, label_texts
from foretune.data.media import AUDIO, Media, located
from foretune.data.sound_augment import SoundAugmentation
from foretune.data.sound_store import SoundStore, Wave, durations, sound_digests, sound_path, wave
from foretune.data.text import counted, row_list
from foretune.errors import DataError
from foretune.evaluation.mistakes import Mistakes
from foretune.evaluation.sound_baselines import sound_baselines
from foretune.tasks.base import TASKS, Encoded, Examples
from foretune.tasks.text_classification import ConfidentMistakes, TextClassification, class_weights

if TYPE_CHECKING:
    import pandas as pd

    from foretune.backbones.base import Backbone
    from foretune.recipe import Recipe
    from foretune.strategies.base import Settings, Workload

BATCH, FEWEST = 16, 4  # sounds of a step at least (fewer of small sets), as far as they fit into …
MOST_FRAMES = 8192  # … so many frames
PROBE_RATE = 16_000  # of the sounds on which a saved model is tried


@TASKS.register("audio-classification")
class AudioClassification(TextClassification):
    """Classification as of texts; inputs are paths of sounds or waves.

    `seconds` is the length of the longest training sound: models that pad every sound read no more than that.
    """

    name = "audio-classification"
    modality = "audio"
    auto_class = "AutoModelForAudioClassification"
    pipeline = "audio-classification"
    example = '"sound.wav"'
    forecasts = False
    Options = SoundAugmentation

    seconds: float | None = None
    augmentation = SoundAugmentation()

    @classmethod
    def varying_options(cls) -> set[str]:
        """Return the names of the options of augmentation."""
        return {field.name for field in fields(SoundAugmentation)}

    @classmethod
    def from_table(cls, table: pd.DataFrame, columns: Columns, recipe: Recipe) -> AudioClassification:
        """Learn the label names (sorted) and weights of the training table, and how long its sounds are."""
        encoding = encode_labels(table[columns.target].tolist())
        counts = np.bincount(encoding.ids, minlength=len(encoding.names))
        task = cls(encoding.names, columns, class_weights(recipe.class_weights, encoding.names, counts))
        task.seconds = float(durations(sound_paths(table, columns.text)).max())
        task.augmentation = cls.options_of(recipe)
        return task

    def state(self) -> dict[str, Any]:
        """Return label names, columns, weights and the longest sound (seconds)."""
        return {**super().state(), "seconds": self.seconds}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> AudioClassification:
        """Make the task of a saved model."""
        weights = state.get("class_weights")
        columns = Columns(state["columns"]["text"], state["columns"]["target"], "as saved with the model")
        task = cls(tuple(state["labels"]), columns, tuple(weights) if weights else None)
        task.seconds = state.get("seconds")
        return task

    @classmethod
    def audit(cls, table: pd.DataFrame, columns: Columns, *, where: str) -> list[str]:
        """Return warnings: copies, copies with other labels, rare classes. Raises DataError for broken files."""
        sounds = sound_paths(table, columns.text)
        durations(sounds)
        if columns.target is None:
            return []
        labels = label_texts(table[columns.target].tolist(), where)
        return label_warnings(labels, where) + copy_warnings(sound_digests(sounds), labels, where)

    @classmethod
    def overlap(cls, train: pd.DataFrame, other: pd.DataFrame, columns: Columns, where: str) -> list[str]:
        """Return a warning about files of `train` whose copies also stand in `other`, called `where`."""
        return overlap_warnings(sound_paths(train, columns.text), sound_paths(other, columns.text), where)

    def examples(self, table: pd.DataFrame, *, where: str, need_targets: bool = True) -> Examples:
        """Read paths and, where needed, label ids."""
        targets = None
        if need_targets:
            targets = encode_labels(table[self.columns.target].tolist(), names=self.names, where=where).ids
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
        """Return the sounds as a store, varied by chance for training where the options say so."""
        store = backbone.preprocess(examples.inputs, max_length=max_length, truncation=truncation)
        assert isinstance(store, SoundStore)
        return Encoded(store.augmented(self.augmentation) if training else store, examples.targets)

    def adjusted(self, settings: Settings, work: Workload) -> Settings:
        """Return the settings with batches of `BATCH` sounds: one is as long as many sentences."""
        return several(settings, work)

    def worst(self, examples: Examples, encoded: Encoded, k: int) -> MistakenSounds:
        """Return a keeper of the most confident mistakes."""
        return MistakenSounds(Mistakes(k), examples, self.names)

    def sections(self, result: dict[str, Any], worst: list[dict[str, Any]]) -> list[str]:
        """Return the spectrograms of the most confident mistakes."""
        from foretune.evaluation.sound_sections import mistaken_sounds

        return [section for section in [mistaken_sounds(worst)] if section]

    def baselines(self, train: Examples, held_out: Examples, seed: int) -> dict[str, Any]:
        """Return the scores of the majority class and of logistic regression on cepstra."""
        assert train.targets is not None and held_out.targets is not None
        return sound_baselines(
            train.inputs, train.targets, held_out.inputs, held_out.targets, len(self.names), seed=seed
        )


@dataclass(frozen=True)
class MistakenSounds(ConfidentMistakes):
    """The most confident mistakes with their sounds and labels."""

    def top(self) -> list[dict[str, Any]]:
        """Return row number, file, sound, true and predicted label, and probability of each."""
        sounds = [self.examples.inputs[row] for row, *_ in self.kept.top()]
        return [
            {**each, "text": sound if isinstance(sound, str) else "a sound in memory", "sound": sound}
            for each, sound in zip(super().top(), sounds, strict=True)
        ]


def several(settings: Settings, work: Workload) -> Settings:
    """Return settings whose batches hold at least `BATCH` sounds of the usual length, where `MOST_FRAMES` allow it.

    Of fewer than 64 sounds a quarter: with Whisper tiny.en on 30 clips (yesno) 2 steps an epoch taught nothing in 3
    epochs, word error rate 352 %; 5 steps left 1 %.
    """
    sounds = min(max(work.examples // 4, FEWEST), BATCH)
    wanted = min(sounds * work.tokens // max(work.examples, 1), MOST_FRAMES)
    return replace(settings, batch_tokens=max(settings.batch_tokens, wanted))


def sound_paths(table: pd.DataFrame, column: str) -> list[str]:
    """Return the paths of a column, absolute. Raises DataError naming rows without one, or whose file is missing."""
    return located(table, Media(column, AUDIO))[column].tolist()


def sounds_of(inputs: Any) -> Examples:
    """Return one sound or several as examples.

    A sound is a path or {"array": floats, "sampling_rate": per second}. Raises DataError for anything else.
    """
    if isinstance(inputs, str | os.PathLike | dict | Wave):
        inputs = [inputs]
    if hasattr(inputs, "columns"):
        raise DataError("Found a table; expected sounds. Give one column of it, such as table['path'].")
    if isinstance(inputs, np.ndarray) and inputs.dtype.kind == "f":
        raise DataError(
            'Found bare samples, whose rate is unknown; expected {"array": samples, "sampling_rate": per second}.'
        )
    sounds = [_sound(each, row) for row, each in enumerate(inputs)]
    return Examples(sounds, None, np.arange(1, len(sounds) + 1))


def _sound(value: Any, row: int) -> str | Wave:
    if isinstance(value, Wave):
        return value
    return wave(value) if isinstance(value, dict) else sound_path(value, row)


def noise(n: int, seconds: float = 0.6) -> list[Wave]:
    """Return n sounds of noise, each a little longer than the one before."""
    chance = np.random.default_rng(0)
    lengths = [round((1 + 0.2 * i) * seconds * PROBE_RATE) for i in range(n)]
    return [Wave((0.1 * chance.standard_normal(k)).astype(np.float32), PROBE_RATE) for k in lengths]


def copy_warnings(hashes: Sequence[str], labels: Sequence[str], where: str) -> list[str]:
    """Return warnings about files of equal bytes, and those of them whose labels differ."""
    first: dict[str, int] = {}
    copies = [row for row, found in enumerate(hashes) if first.setdefault(found, row) != row]
    kinds = Counter(found for found, _ in set(zip(hashes, labels, strict=True)))  # labels of each sound
    disputed = [row for row, found in enumerate(hashes) if kinds[found] > 1]
    warnings = []
    if copies:
        warnings.append(
            f"{where}: {counted(len(copies), 'sound')} of {len(hashes):,} the same as an earlier one "
            f"({row_list(copies)}); fix: drop the copies"
        )
    if disputed:
        warnings.append(
            f"{where}: {counted(len(disputed), 'sound')} with different labels in different rows "
            f"({row_list(disputed)}); fix: decide on one label for each"
        )
    return warnings


def overlap_warnings(train: Sequence[str], other: Sequence[str], where: str) -> list[str]:
    """Return a warning about files of `train` whose copies also stand in `other`, called `where`."""
    known = set(sound_digests(train))
    rows = [row for row, found in enumerate(sound_digests(other)) if found in known]
    if not rows:
        return []
    return [
        f"{where}: {counted(len(rows), 'sound')} of {len(other):,} also in the training data ({row_list(rows)}); "
        "the score will be too good; fix: drop them there"
    ]
