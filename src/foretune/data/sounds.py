"""Sounds as one channel of 32-bit floats at any rate, read whole or in part."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from foretune.data.media import AUDIO, BrokenMediaError, conversion, kind_of, require
from foretune.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Frames read at once: 3.4 hours at 44.1 kHz, 2 GB as float32. Longer sounds are read in parts.
FRAME_LIMIT = 1 << 29
_BLOCK = 1 << 20  # frames; bounds the memory that many channels take
_CHUNK = re.compile(r"^\s*(?:data|SSND)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)
_OGG_PAGE_BYTES = 65_307  # the largest: 27 + 255 + 255 * 255
#: Programs that write into a pipe do not know the length and put such a number in its place.
_UNKNOWN_LENGTH = 0x7FFF0000


class SoundInfo(NamedTuple):
    """What a sound's header says: length in seconds, samples per second, channels."""

    seconds: float
    rate: int
    channels: int


def read_sound(
    path: str | os.PathLike[str], rate: int, start: float = 0.0, seconds: float | None = None
) -> NDArray[np.float32]:
    """Return a sound in any format of libsndfile, its channels averaged, at `rate`: (samples,) float32.

    Integers are scaled to -1 … 1. With `start` and `seconds` only that part of the file is read (less,
    where it ends earlier). Other rates are converted by soxr at high quality.
    Raises BrokenMediaError naming a file that is missing, damaged, cut off, without samples, or ends before
    `start`; ConfigError for a rate or times that cannot be.
    """
    _check(rate, start, seconds)
    with _opened(path) as file:
        first, frames = _part(path, file, start, seconds)
        file.seek(first)
        mono = _read(path, file, frames)
        own_rate = file.samplerate
    if not np.isfinite(mono).all():
        raise BrokenMediaError(path, "some samples are not finite numbers")
    return mono if own_rate == rate else _resampled(mono, own_rate, rate)


def probe_sound(path: str | os.PathLike[str]) -> SoundInfo:
    """Return length, rate and channels from the header. Raises BrokenMediaError as `read_sound` does."""
    with _opened(path) as file:
        return SoundInfo(file.frames / file.samplerate, file.samplerate, file.channels)


def _check(rate: int, start: float, seconds: float | None) -> None:
    if rate < 1:
        raise ConfigError(f"The sample rate is {rate}, expected samples per second such as 16000.")
    if not 0 <= start < math.inf or (seconds is not None and not 0 < seconds < math.inf):
        raise ConfigError(
            f"Cannot read {seconds} seconds from second {start}; expected start >= 0 < seconds."
        )


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    require("soundfile", AUDIO)
    import soundfile

    try:
        with soundfile.SoundFile(os.fspath(path)) as file:
            if file.frames < 1:
                raise BrokenMediaError(path, "holds no samples")
            _check_whole(path, file)
            yield file
    except (soundfile.SoundFileError, TypeError, OSError) as error:  # TypeError: raw samples without header
        raise BrokenMediaError(path, *_reason(Path(path), error)) from error


def _check_whole(path: str | os.PathLike[str], file: Any) -> None:
    """A wav or aiff that breaks off would silently be read as a shorter one."""
    for declared, found in _CHUNK.findall(file.extra_info):
        if int(found) < int(declared) < _UNKNOWN_LENGTH:
            share = int(found) / int(declared)
            raise BrokenMediaError(path, f"is cut off: {share:.0%} of its samples are there")
    if file.format == "OGG" and not _ends_with_a_page(path):
        raise BrokenMediaError(path, "is cut off: its last page is incomplete")


def _ends_with_a_page(path: str | os.PathLike[str]) -> bool:
    """Say whether the last page of an Ogg file (RFC 3533, section 6) is there to its end."""
    with Path(path).open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - _OGG_PAGE_BYTES))
        tail = stream.read()
    page = tail[tail.rfind(b"OggS") :]
    segments = page[27 : 27 + page[26]] if len(page) > 26 else b""
    return len(page) >= 27 and len(segments) == page[26] and 27 + len(segments) + sum(segments) <= len(page)


def _reason(path: Path, error: Exception) -> tuple[str, str]:
    """Return what is wrong with a file that libsndfile does not open or read, and a remedy or nothing."""
    if not path.is_file():
        return "no such file", ""
    if not path.stat().st_size:
        return "the file is empty (0 bytes)", ""
    what = str(error).split(": ")[-1].strip(". ")
    return f"no sound, damaged, or cut off ({what})", "" if kind_of(path) == AUDIO else conversion(path.name)


def _part(path: str | os.PathLike[str], file: Any, start: float, seconds: float | None) -> tuple[int, int]:
    """Return the first frame and the number of frames to read."""
    first = round(start * file.samplerate)
    left = file.frames - first
    if left < 1:
        length = file.frames / file.samplerate
        raise BrokenMediaError(path, f"lasts {length:.2f} seconds, so nothing is left after second {start:g}")
    frames = left if seconds is None else min(left, max(1, round(seconds * file.samplerate)))
    if frames > FRAME_LIMIT:
        hours = frames / file.samplerate / 3600
        raise BrokenMediaError(path, f"{hours:.1f} hours are too long to be read at once", "Cut it up.")
    return first, frames


def _read(path: str | os.PathLike[str], file: Any, frames: int) -> NDArray[np.float32]:
    """Return the mean of the channels over the next `frames`: (frames,) float32."""
    blocks, left = [], frames
    while left:
        block = file.read(min(left, _BLOCK), dtype="float32", always_2d=True)  # (frames, channels)
        if not len(block):
            break
        blocks.append(block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32))
        left -= len(block)
    # The length of an mp3 may be an estimate; a tenth is more than any estimate misses.
    if left > 0.1 * frames:
        raise BrokenMediaError(path, f"is cut off: {1 - left / frames:.0%} of its samples are there")
    return np.ascontiguousarray(blocks[0] if len(blocks) == 1 else np.concatenate(blocks))


def _resampled(mono: NDArray[np.float32], own_rate: int, rate: int) -> NDArray[np.float32]:
    require("soxr", AUDIO)
    import soxr

    return soxr.resample(mono, own_rate, rate, quality="HQ").astype(np.float32, copy=False)
