"""Sounds varied at random for training: shifts, loudness, silenced stretches, masked frequencies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.errors import ConfigError

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

STRETCH = 0.1  # of the sound: the longest time mask
BAND = 0.2  # of the frequencies: the widest frequency mask


@dataclass(frozen=True, kw_only=True)
class SoundAugmentation:
    """What chance may do to a training sound; nothing by default.

    `shift`: the most by which a sound is moved in time (seconds); `gain`: by which it is made louder or softer
    (decibels); `time_masks` and `frequency_masks`: how many stretches, of a tenth of the sound at most, and
    bands, of a fifth of the frequencies at most, are blanked (SpecAugment, Park et al. 2019; bands only in
    models that read spectrograms). Raises ConfigError.
    """

    shift: float = 0.0
    gain: float = 0.0
    time_masks: int = 0
    frequency_masks: int = 0

    def __post_init__(self) -> None:
        for name, most in (("shift", 10), ("gain", 30)):
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= most:
                raise ConfigError(f"Option {name} is {value!r}; expected a number from 0 (none) to {most}.")
        for name in ("time_masks", "frequency_masks"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 10:
                raise ConfigError(f"Option {name} is {value!r}; expected a whole number from 0 (none) to 10.")

    @property
    def varies(self) -> bool:
        """Return whether anything is left to chance."""
        return bool(self.shift or self.gain or self.time_masks or self.frequency_masks)

    def seeds(self, n: int) -> list[int]:
        """Return a seed per sound from torch's global generator, whose state checkpoints hold."""
        import torch

        return torch.randint(2**62, (n,)).tolist()

    def wave(self, samples: Samples, rate: int, seed: int) -> Samples:
        """Return a varied copy (samples,) of a sound (samples,)."""
        chance = np.random.default_rng((seed, 1))
        changed = _shifted(samples, round(chance.uniform(-self.shift, self.shift) * rate))
        changed *= np.float32(10 ** (chance.uniform(-self.gain, self.gain) / 20))
        for _ in range(self.time_masks):
            start, end = _span(len(changed), STRETCH, chance)
            changed[start:end] = 0
        return changed

    def spectrogram(self, features: Any, seed: int) -> None:
        """Blank bands of log-mel features (mels, frames), a tensor or array, in place, with their mean."""
        chance = np.random.default_rng((seed, 2))
        blank = float(features.mean()) if self.frequency_masks else 0.0
        for _ in range(self.frequency_masks):
            start, end = _span(features.shape[0], BAND, chance)
            features[start:end] = blank


def _shifted(samples: Samples, by: int) -> Samples:
    """Return a copy moved by `by` samples, silence in the place of what is missing."""
    moved = np.zeros_like(samples)
    by = max(-len(samples), min(by, len(samples)))
    moved[max(by, 0) : len(samples) + min(by, 0)] = samples[max(-by, 0) : len(samples) - max(by, 0)]
    return moved


def _span(size: int, share: float, chance: Generator) -> tuple[int, int]:
    """Return start and end of a random part of at most `share` of `size` places."""
    length = int(chance.integers(0, max(int(share * size), 1) + 1))
    start = int(chance.integers(0, size - length + 1))
    return start, start + length
