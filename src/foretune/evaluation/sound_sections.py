"""Sounds in the report: small spectrograms inside the page, so that it stays one file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from foretune.errors import DataError
from foretune.evaluation.sound_features import RATE, spectrogram_png
from foretune.evaluation.svg import escape

SHOWN = 24
SECONDS = 10.0  # drawn of a sound

_CELL = 'style="display:inline-block;margin:.4em;vertical-align:top;max-width:170px"'


def spectrogram(sound: Any) -> str:
    """Return the spectrogram of a sound, a path or `Wave`, as a data address. Raises BrokenMediaError."""
    from foretune.data.sound_store import build

    store = build([sound], RATE, lambda n: np.ones_like(n), limit=int(SECONDS * RATE), frame=SECONDS)
    data = spectrogram_png(store.waves(np.array([0]))[0])
    return f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"


def figures(title: str, intro: str, sounds: Sequence[tuple[Any, str]]) -> str:
    """Return a section of spectrograms side by side, of (sound, caption in plain text) each; empty for none.

    Files that are gone by now are left out.
    """
    cells = []
    for sound, caption in sounds[:SHOWN]:
        try:
            address = spectrogram(sound)
        except DataError:
            continue
        said = escape(caption)
        cells.append(
            f'<figure {_CELL}><img src="{address}" alt="{said}"><figcaption>{said}</figcaption></figure>'
        )
    if not cells:
        return ""
    return f'<section><h2>{escape(title)}</h2><p class="soft">{escape(intro)}</p>{"".join(cells)}</section>'


def mistaken_sounds(worst: Sequence[dict[str, Any]]) -> str:
    """Return the section of the most confident mistakes' spectrograms."""
    shown = [
        (each["sound"], f"{Path(each['text']).name}: {each['predicted']} ({100 * float(each['probability']):.0f} %), "
         f"labelled {each['true']}")
        for each in worst
    ]  # fmt: skip
    intro = (
        f"The first {SECONDS:.0f} seconds; time runs to the right, low notes are below, loud ones dark. Where the "
        "model is surest and wrong, the label itself is often wrong: listen to these first."
    )
    return figures("Sounds of the most confident mistakes", intro, shown)
