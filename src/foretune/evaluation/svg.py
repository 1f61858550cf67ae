"""Small parts for drawing SVG by hand: escaping, truncation, ticks, number format, the outer element."""

from __future__ import annotations

import html
import math
import re
import unicodedata
import zlib
from collections.abc import Iterator, Sequence

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def escape(text: object) -> str:
    """Return `text` safe inside HTML and SVG, in content and in quoted attributes.

    Control characters and lone surrogates, which neither HTML nor UTF-8 can carry, become U+FFFD.
    """
    return html.escape(_CONTROL.sub("\ufffd", str(text)), quote=True)


def width_of(text: str) -> int:
    """Return the width in columns of one Latin letter; Chinese, Japanese and Korean letters take two."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def truncate(text: str, columns: int) -> str:
    """Return `text` cut to at most `columns` columns, with an ellipsis where something was cut."""
    text = " ".join(text.split())
    if width_of(text) <= columns:
        return text
    used, kept = 0, []
    for letter in text:
        used += width_of(letter)
        if used > columns - 1:
            break
        kept.append(letter)
    return "".join(kept).rstrip() + "…"


def label(text: str, columns: int, attributes: str) -> str:
    """Return a `<text>` element cut to `columns`, whose tooltip is the whole text."""
    short = truncate(text, columns)
    title = f"<title>{escape(text)}</title>" if short != text else ""
    return f"<text {attributes}>{title}{escape(short)}</text>"


def number(value: float) -> str:
    """Return a short number for an axis: 0.05, 1.5, 20k, 1.5M."""
    for least, size, unit in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= least:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"


def _pace(raw: float) -> float:
    """Return the smallest 1, 2 or 5 times a power of ten that is not below `raw`."""
    power = 10.0 ** math.floor(math.log10(raw))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))


def spread(low: float, high: float) -> tuple[float, float]:
    """Return the range, widened where it is a point or too narrow for floating point to divide: 0 alone to 1."""
    size = max(abs(low), abs(high))
    if high - low > max(1e-9 * size, 1e-100):
        return low, high
    if size <= 1e-100:
        return 0.0, 1.0
    return low - 0.1 * size, high + 0.1 * size


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about `count` round numbers that span `low` to `high`, the ends at or outside them."""
    low, high = spread(low, high)
    pace = _pace((high - low) / count)
    first, last = math.floor(low / pace + 1e-9), math.ceil(high / pace - 1e-9)
    return [float(f"{i * pace:.12g}") for i in range(first, last + 1)]


def thin(points: Sequence[tuple[float, float]], most: int = 400) -> list[tuple[float, float]]:
    """Return at most about `most` finite points, sorted by x: means of equal runs where there are more.

    A curve of 100,000 steps would weigh megabytes and draw no finer on 500 pixels.
    """
    finite = sorted((float(x), float(y)) for x, y in points if math.isfinite(x) and math.isfinite(y))
    run = math.ceil(len(finite) / most)
    if run <= 1:
        return finite
    parts = [finite[i : i + run] for i in range(0, len(finite), run)]
    return [(sum(x for x, _ in p) / len(p), sum(y for _, y in p) / len(p)) for p in parts]


def document(width: float, height: float, title: str, description: str, body: Iterator[str]) -> str:
    """Return one accessible `<svg>` of `width` x `height` units that shrinks with its container."""
    # Ids by content: the same report is the same file, byte for byte.
    key = f"chart-{zlib.crc32((title + description).encode('utf-8', 'replace')):08x}"
    return (
        f'<svg class="chart" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
        f' role="img" aria-labelledby="{key}-t {key}-d" font-family="system-ui, sans-serif">'
        f'<title id="{key}-t">{escape(title)}</title><desc id="{key}-d">{escape(description)}</desc>'
        + "".join(body)
        + "</svg>"
    )
