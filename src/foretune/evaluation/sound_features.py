"""Log-mel spectrograms by the textbook: what the trivial baseline hears, and what the report shows of a sound."""

from __future__ import annotations

import struct
import zlib
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

RATE = 16_000  # samples per second
FRAME, HOP = 400, 160  # samples: 25 ms every 10 ms
MELS = 40
CEPSTRA = 20  # of the discrete cosine transform of the log-mels, as in MFCC (Davis and Mermelstein 1980)
DYNAMIC = 8.0  # powers of ten below the loudest that are told apart, as Whisper does


def hertz_to_mel(hertz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return mels of frequencies (O'Shaughnessy 1987)."""
    return 2595 * np.log10(1 + hertz / 700)


@lru_cache(maxsize=4)
def mel_filters(mels: int = MELS) -> Floats:
    """Return triangular filters (mels, FRAME // 2 + 1), each reaching to its neighbours' middles."""
    edges = np.linspace(0, hertz_to_mel(np.array([RATE / 2]))[0], mels + 2)
    bins = hertz_to_mel(np.fft.rfftfreq(FRAME, 1 / RATE).astype(np.float64))
    up = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    down = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(np.minimum(up, down), 0).astype(np.float32)


def log_mel(samples: Floats, mels: int = MELS) -> Floats:
    """Return the log-mel spectrogram (mels, frames) of a sound (samples,) at RATE."""
    padded = np.pad(samples, (0, max(FRAME - len(samples), 0)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(FRAME).astype(np.float32), axis=1)) ** 2
    found = np.log10(np.maximum(mel_filters(mels) @ power.T.astype(np.float32), 1e-10))
    return np.maximum(found, found.max() - DYNAMIC).astype(np.float32)


def sound_features(samples: Floats) -> Floats:
    """Return mean and deviation over time of the cepstra and of their changes, and the length: (81,)."""
    from scipy.fft import dct

    cepstra = dct(log_mel(samples), axis=0, norm="ortho")[:CEPSTRA]
    change = np.diff(cepstra, axis=1) if cepstra.shape[1] > 1 else np.zeros_like(cepstra)
    parts = [part for each in (cepstra, change) for part in (each.mean(axis=1), each.std(axis=1))]
    return np.concatenate([*parts, [np.log(len(samples) / RATE)]]).astype(np.float32)


def spectrogram_png(samples: Floats, width: int = 160, mels: int = 64) -> bytes:
    """Return a grey PNG of the log-mel spectrogram, low frequencies below, loud parts dark."""
    shown = log_mel(samples, mels)
    edges = np.linspace(0, shown.shape[1], width + 1)
    columns = [shown[:, int(a) : max(int(b), int(a) + 1)].max(axis=1) for a, b in pairwise(edges)]
    picture = np.stack(columns, axis=1)[::-1]
    low, high = float(picture.min()), float(picture.max())
    return png((255 * (high - picture) / max(high - low, 1e-6)).astype(np.uint8))


def png(grey: NDArray[np.uint8]) -> bytes:
    """Return a PNG file (W3C, section 5) of a grey picture (height, width)."""
    height, width = grey.shape
    rows = b"".join(b"\0" + row.tobytes() for row in grey)  # filter 0 in front of every row
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    packed = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)
