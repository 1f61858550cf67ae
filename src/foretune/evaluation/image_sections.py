"""Pictures in the report: small, inside the page, so that it stays one file."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from foretune.evaluation.svg import escape

SIDE = 160  # of a thumbnail (pixels): some 6 kB as JPEG
SHOWN = 24


def data_uri(data: bytes, kind: str = "png") -> str:
    """Return an encoded picture as the address that a page can hold in itself."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def thumbnail(picture: Any) -> str:
    """Return a small JPEG of a picture, a path or RGB array, as a data address. Raises BrokenMediaError."""
    from PIL import Image

    from foretune.data.images import open_image

    pixels = picture if isinstance(picture, np.ndarray) else open_image(picture, shortest=SIDE)
    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return data_uri(buffer.getvalue(), "jpeg")


def figures(title: str, intro: str, pictures: Sequence[tuple[str, str]]) -> str:
    """Return a section of pictures side by side: (address, caption in plain text) each; empty for none."""
    if not pictures:
        return ""
    cells = "".join(
        '<figure style="display:inline-block;margin:.4em;vertical-align:top;max-width:170px">'
        f'<img src="{address}" alt="{escape(caption)}"><figcaption>{escape(caption)}</figcaption></figure>'
        for address, caption in pictures
    )
    return f'<section><h2>{escape(title)}</h2><p class="soft">{escape(intro)}</p>{cells}</section>'


def mistaken_pictures(worst: Sequence[dict[str, Any]]) -> str:
    """Return the section of the most confident mistakes' pictures; files that are gone are left out."""
    from foretune.errors import DataError

    shown = []
    for mistake in worst[:SHOWN]:
        try:
            address = thumbnail(mistake["text"])
        except DataError:
            continue
        share = f"{100 * float(mistake['probability']):.0f} %"
        shown.append((address, f"{mistake['predicted']} ({share}), labelled {mistake['true']}"))
    intro = "Where the model is surest and wrong, the label itself is often wrong: look at these first."
    return figures("Pictures of the most confident mistakes", intro, shown)


def sheet(png: bytes) -> str:
    """Return the section that shows what augmentation makes of training pictures."""
    return (
        "<section><h2>Training pictures as the model saw them</h2>"
        '<p class="soft">Cropped, turned and coloured by chance, anew in every epoch.</p>'
        f'<img style="max-width:100%" src="{data_uri(png)}" alt="augmented training pictures"></section>'
    )
