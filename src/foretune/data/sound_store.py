"""Sounds as a model's inputs: kept as paths, decoded in threads when a batch needs them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.data.image_store import digests, in_order
from foretune.data.media import require
from foretune.data.sounds import probe_sound, read_sound
from foretune.data.store import CutReport
from foretune.errors import ConfigError, DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from foretune.data.sound_augment import SoundAugmentation
    from foretune.data.store import RaggedStore

    Samples = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Wave:
    """A sound in memory: `samples` (samples,) float32 from -1 to 1, `rate` of them per second."""

    samples: Samples
    rate: int

    def digest(self) -> str:
        """Return a hash (hex) of the sound."""
        return hashlib.sha256(f"{self.rate} ".encode() + self.samples.tobytes()).hexdigest()


def wave(value: Any) -> Wave:
    """Return an array of samples and its rate as a `Wave`; several channels are averaged.

    `value`: {"array": …, "sampling_rate": …}, as transformers and datasets write a sound. Raises DataError.
    """
    found = np.asarray(value.get("array", value.get("raw")))
    rate = value.get("sampling_rate")
    if found.dtype.kind != "f" or found.ndim not in (1, 2) or not found.size or not rate:
        raise DataError(
            f"Found an array {found.shape} of {found.dtype} at the rate {rate}; expected a sound as "
            '{"array": floats from -1 to 1, "sampling_rate": samples per second}.'
        )
    mono = found if found.ndim == 1 else found.mean(axis=int(np.argmin(found.shape)))
    if not np.isfinite(mono).all():
        raise DataError("Some samples of a sound are not finite numbers. Mend it or leave it out.")
    return Wave(np.ascontiguousarray(mono, dtype=np.float32), int(rate))


@dataclass(frozen=True)
class SoundCuts(CutReport):
    """What cutting long sounds cost, counted in the model's frames."""

    seconds: float = 0.02  # that a frame lasts

    def sentence(self, max_length: int) -> str | None:
        """Say in words what was cut, or return None where nothing was."""
        if not self.cut_examples:
            return None
        return (
            f"{self.cut_examples:,} of {self.examples:,} sounds ({self.cut_examples / self.examples:.1%}) are longer "
            f"than {max_length * self.seconds:.1f} s; {self.cut_tokens / self.tokens:.1%} of all sound was cut."
        )


@dataclass(frozen=True, eq=False)
class SoundStore:
    """n sounds, each a path or a `Wave`, and which part of each the model reads.

    `samples`: (n,) int64 read of each at `rate`; `starts`: (n,) seconds; `lengths`: (n,) int64 frames that the
    model makes of them. `labels`: what a speech recogniser learns to write, by row. `augmentation`: what
    chance may change; None for evaluation.
    """

    sounds: Sequence[Any]
    rate: int
    samples: NDArray[np.int64]
    starts: NDArray[np.float64]
    lengths: NDArray[np.int64]
    cuts: CutReport
    labels: RaggedStore | None = None
    augmentation: SoundAugmentation | None = None

    def __len__(self) -> int:
        return len(self.sounds)

    @property
    def varies(self) -> bool:
        """Return whether a sound differs from one reading to the next."""
        return self.augmentation is not None and self.augmentation.varies

    def augmented(self, augmentation: SoundAugmentation) -> SoundStore:
        """Return the same sounds, varied by chance at every reading."""
        return replace(self, augmentation=augmentation)

    def labelled(self, labels: RaggedStore) -> SoundStore:
        """Return the same sounds with what is said in them."""
        return replace(self, labels=labels)

    def key(self) -> str:
        """Return a hash (hex) of the files' bytes, in order, and of the parts that are read; computed once."""
        return self._key

    @cached_property
    def _key(self) -> str:
        digest = hashlib.sha256("\n".join([str(self.rate), *sound_digests(self.sounds)]).encode())
        digest.update(self.samples.tobytes() + self.starts.tobytes() + self.lengths.tobytes())
        return digest.hexdigest()

    def seeds(self, rows: NDArray[Any]) -> list[int] | None:
        """Return a seed for every sound of a batch, drawn in order; None where nothing is left to chance."""
        return self.augmentation.seeds(len(rows)) if self.augmentation is not None and self.varies else None

    def waves(self, rows: NDArray[Any], seeds: Sequence[int] | None = None) -> list[Samples]:
        """Return the sounds `rows` at `rate`, (samples,) float32 each, varied by `seeds` where given.

        Raises BrokenMediaError naming the file that cannot be decoded.
        """
        found = in_order(self._read, [int(row) for row in rows])
        if seeds is None or self.augmentation is None:
            return found
        varied = self.augmentation.wave
        return [varied(each, self.rate, seed) for each, seed in zip(found, seeds, strict=True)]

    def _read(self, row: int) -> Samples:
        """Return sound `row`, exactly as long as planned: a header or a resampler may be a few samples off."""
        sound, wanted, start = self.sounds[row], int(self.samples[row]), float(self.starts[row])
        seconds = wanted / self.rate
        if isinstance(sound, Wave):
            first = round(start * sound.rate)
            part = sound.samples[first : first + max(1, round(seconds * sound.rate))]
            found = _resampled(part, sound.rate, self.rate)
        else:
            found = read_sound(sound, self.rate, start, seconds)
        return np.pad(found[:wanted], (0, max(wanted - len(found), 0)))


def _resampled(samples: Samples, own: int, rate: int) -> Samples:
    if own == rate:
        return samples
    require("soxr", "audio")
    import soxr

    return soxr.resample(samples, own, rate, quality="HQ").astype(np.float32, copy=False)


def durations(sounds: Sequence[Any]) -> NDArray[np.float64]:
    """Return how long every sound lasts, (n,) seconds, by the files' headers. Raises BrokenMediaError."""

    def seconds(sound: Any) -> float:
        return len(sound.samples) / sound.rate if isinstance(sound, Wave) else probe_sound(sound).seconds

    return np.array(in_order(seconds, sounds), dtype=np.float64)


def sound_digests(sounds: Sequence[Any]) -> list[str]:
    """Return a sha256 (hex) of every sound: of a file's bytes, or of samples. Raises BrokenMediaError."""
    paths = iter(digests([sound for sound in sounds if not isinstance(sound, Wave)]))
    return [sound.digest() if isinstance(sound, Wave) else next(paths) for sound in sounds]


def build(
    sounds: Sequence[Any],
    rate: int,
    frames: Callable[[NDArray[np.int64]], NDArray[np.int64]],
    *,
    limit: int,
    frame: float,
    least: int = 1,
    truncation: str = "head",
) -> SoundStore:
    """Return a store of sounds of which at most `limit` samples at `rate` are read, and `least` are given.

    `frames` turns numbers of samples into the model's lengths, `frame` is what one lasts (seconds). `truncation`:
    "head" keeps the beginning of a long sound, "tail" its end. Raises ConfigError for another, BrokenMediaError
    for a broken file.
    """
    if truncation not in ("head", "tail"):
        raise ConfigError(
            f"truncation is {truncation!r}, but a sound is cut at one end; expected head or tail."
        )
    seconds = durations(sounds)
    whole = np.maximum(np.round(seconds * rate).astype(np.int64), 1)
    samples = np.clip(whole, least, limit)
    cut = whole > limit
    starts = np.where(cut & (truncation == "tail"), np.maximum(seconds - samples / rate, 0.0), 0.0)
    lost = (whole - samples).clip(min=0)
    cuts = SoundCuts(
        examples=len(sounds), tokens=round(float(whole.sum()) / rate / frame), cut_examples=int(cut.sum()),
        cut_tokens=round(float(lost.sum()) / rate / frame), seconds=frame,
    )  # fmt: skip
    lengths = np.asarray(frames(samples), dtype=np.int64)
    return SoundStore(list(sounds), rate, samples, starts, lengths, cuts)


def sound_path(value: Any, row: int) -> str:
    """Return a path as text. Raises DataError for anything else, naming the row (counted from 0)."""
    if not isinstance(value, str | os.PathLike):
        raise DataError(
            f"Row {row + 1} holds {type(value).__name__}; expected the path of a sound. Name the column of paths "
            "with --text."
        )
    return os.fspath(value)
