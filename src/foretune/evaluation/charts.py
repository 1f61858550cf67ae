"""The charts of the report as plain SVG text: curves, bars with whiskers, the confusion matrix.

Colours are CSS variables with fallbacks, so a chart follows the page's light or dark scheme and still
shows when saved on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretune.errors import DataError
from foretune.evaluation.svg import document, escape, label, number, spread, thin, ticks, truncate, width_of

INK, SOFT, GRID = "var(--ink, #1b1f24)", "var(--soft, #59636e)", "var(--grid, #d8dee4)"
RIGHT, WRONG = "var(--right, #1a7f5a)", "var(--wrong, #c2410c)"
SERIES = [f"var(--series-{i}, {c})" for i, c in enumerate(("#2563eb", "#d97706", "#0f766e", "#a21caf"), 1)]
DASHES = ("", "6 3", "2 3", "8 3 2 3")
#: A confusion matrix of more classes than this shows only the most confused.
MOST_CLASSES = 30

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 480, 270, 56, 34, 46


def _axes(
    xs: list[float],
    ys: list[float],
    x: Callable[[float], float],
    y: Callable[[float], float],
    names: list[str],
) -> Iterator[str]:
    floor, end = HEIGHT - BOTTOM, WIDTH - 14
    for value in ys:
        yield f'<line x1="{LEFT}" x2="{end}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="{GRID}"/>'
        place = f'x="{LEFT - 7}" y="{y(value) + 4:.1f}" text-anchor="end" font-size="13" fill="{SOFT}"'
        yield f"<text {place}>{number(value)}</text>"
    for value in xs:
        yield f'<line x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{floor}" y2="{floor + 4}" stroke="{SOFT}"/>'
        place = f'x="{x(value):.1f}" y="{floor + 18}" text-anchor="middle" font-size="13" fill="{SOFT}"'
        yield f"<text {place}>{number(value)}</text>"
    yield f'<line x1="{LEFT}" x2="{end}" y1="{floor}" y2="{floor}" stroke="{SOFT}"/>'
    middle = (LEFT + end) / 2
    yield label(
        names[0], 50, f'x="{middle}" y="{HEIGHT - 8}" text-anchor="middle" font-size="13" fill="{SOFT}"'
    )
    turn = f'x="14" y="{(TOP + floor) / 2}" transform="rotate(-90 14 {(TOP + floor) / 2})"'
    yield label(names[1], 30, f'{turn} text-anchor="middle" font-size="13" fill="{SOFT}"')


def _legend(names: dict[str, int]) -> Iterator[str]:
    columns = max(6, 50 // max(1, len(names)))
    at = float(LEFT)
    for name, i in names.items():
        stroke = f'stroke="{SERIES[i % 4]}" stroke-width="2.5" stroke-dasharray="{DASHES[i % 4]}"'
        yield f'<line x1="{at:.1f}" x2="{at + 22:.1f}" y1="16" y2="16" {stroke}/>'
        yield label(name, columns, f'x="{at + 28:.1f}" y="20" font-size="13" fill="{INK}"')
        at += 46 + 7 * width_of(truncate(name, columns))


def _curve(points: list[tuple[float, float]], i: int, dots: bool) -> Iterator[str]:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    style = f'stroke="{SERIES[i % 4]}" stroke-width="2" stroke-dasharray="{DASHES[i % 4]}"'
    yield f'<polyline points="{path}" fill="none" stroke-linejoin="round" {style}/>'
    if dots:
        for x, y in points:
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{SERIES[i % 4]}"/>'


def line_chart(series: dict[str, list[tuple[float, float]]], x_label: str, y_label: str) -> str:
    """Return an SVG of one curve per name, each a list of (x, y); points that are not finite are left out.

    A series without a point keeps its colour (they go by place in `series`) but is not drawn; with none
    left the chart says that there is nothing to show.
    """
    curves = {name: (i, found) for i, (name, points) in enumerate(series.items()) if (found := thin(points))}
    if not curves:
        return f'<p class="none">No finite values of {escape(y_label)} were recorded.</p>'
    flat = [point for _, points in curves.values() for point in points]
    xs, ys = ([f(p[k] for p in flat) for f in (min, max)] for k in (0, 1))
    left, right = spread(xs[0], xs[1])
    x_ticks, y_ticks = ticks(left, right, 6), ticks(ys[0], ys[1], 5)

    def x(value: float) -> float:
        return LEFT + (value - left) / (right - left) * (WIDTH - LEFT - 24) + 5

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (value - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (HEIGHT - BOTTOM - TOP)

    def body() -> Iterator[str]:
        yield from _axes([t for t in x_ticks if left <= t <= right], y_ticks, x, y, [x_label, y_label])
        for i, points in curves.values():
            yield from _curve([(x(a), y(b)) for a, b in points], i, dots=len(points) <= 30)
        yield from _legend({name: i for name, (i, _) in curves.items()})

    last = ", ".join(f"{name} {points[-1][1]:.4g}" for name, (_, points) in curves.items())
    title = f"{y_label} by {x_label}"
    return document(
        WIDTH, HEIGHT, title, f"Lines from {x_label} {number(left)} to {number(right)}; last: {last}.", body()
    )


def interval_bars(rows: Sequence[tuple[str, float, float, float]], title: str, percent: bool = True) -> str:
    """Return an SVG of bars with whiskers for rows of (name, value, low, high); the first is emphasised."""
    if not rows:
        return '<p class="none">No scores to compare.</p>'
    top = 1.0 if percent else max(high for *_, high in rows) * 1.05 or 1.0
    bottom, step, span = 0.0, 52, WIDTH - 20

    def x(value: float) -> float:
        return 10 + (min(max(value, bottom), top) - bottom) / (top - bottom) * span

    def show(value: float) -> str:
        return f"{100 * value:.1f}" if percent else f"{value:.3f}"

    def body() -> Iterator[str]:
        for i, (name, value, low, high) in enumerate(rows):
            y, weight = 8 + i * step, "600" if i == 0 else "400"
            yield label(name, 36, f'x="10" y="{y + 12}" font-size="14" font-weight="{weight}" fill="{INK}"')
            text = f"{show(value)}{' %' if percent else ''}  [{show(low)}, {show(high)}]"
            place = f'x="{WIDTH - 10}" y="{y + 12}" text-anchor="end" font-size="13" font-weight="{weight}"'
            yield f'<text {place} fill="{INK}">{text}</text>'
            box = f'x="10" y="{y + 20}" height="16" rx="2"'
            yield f'<rect {box} width="{span}" fill="{GRID}" fill-opacity="0.5"/>'
            colour = SERIES[0] if i == 0 else SOFT
            yield f'<rect {box} width="{x(value) - 10:.1f}" fill="{colour}" fill-opacity="0.75"/>'
            a, b, m = x(low), x(high), y + 28
            yield (
                f'<path d="M{a:.1f} {m - 6}V{m + 6}M{a:.1f} {m}H{b:.1f}M{b:.1f} {m - 6}V{m + 6}" fill="none"'
                f' stroke="{INK}" stroke-width="1.8"/>'
            )

        for value in ticks(bottom, top, 4):
            if value <= top:
                end = "start" if value == bottom else "end" if value == top else "middle"
                place = (
                    f'x="{x(value):.1f}" y="{8 + step * len(rows) + 6}" text-anchor="{end}" font-size="12"'
                )
                yield f'<text {place} fill="{SOFT}">{number(100 * value if percent else value)}</text>'

    spoken = "; ".join(f"{name} {show(v)} ({show(low)} to {show(high)})" for name, v, low, high in rows)
    return document(WIDTH, 20 + step * len(rows), title, f"Value with 95 % interval: {spoken}.", body())


def most_confused(matrix: NDArray[Any], most: int = MOST_CLASSES) -> NDArray[Any]:
    """Return the ids, ascending, of the `most` classes with the most errors from or into them."""
    errors = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * np.diagonal(matrix)
    return np.sort(np.argsort(-errors, kind="stable")[:most])


def _cells(
    shown: NDArray[Any], share: NDArray[Any], names: list[str], x0: int, y0: int, cell: int
) -> Iterator[str]:
    size = 13 if cell >= 34 else 11 if cell >= 26 else 9
    for i, row in enumerate(shown):
        for j, count in enumerate(row):
            x, y, colour = x0 + j * cell, y0 + i * cell, RIGHT if i == j else WRONG
            tip = escape(f"{names[i]} → {names[j]}: {count} ({share[i, j]:.1%} of the true)")
            box = f'x="{x}" y="{y}" width="{cell - 1}" height="{cell - 1}"'
            if not count:
                yield f'<rect {box} fill="{GRID}" fill-opacity="0.35"/>'
                continue
            shade = f'fill="{colour}" fill-opacity="{0.12 + 0.88 * share[i, j]:.2f}"'
            yield f"<g><title>{tip}</title><rect {box} {shade}/>"
            ink = "var(--on, #ffffff)" if share[i, j] > 0.5 else INK
            place = f'x="{x + (cell - 1) / 2}" y="{y + cell / 2 + size / 3:.1f}" text-anchor="middle"'
            yield f'<text {place} font-size="{size}" fill="{ink}">{number(int(count))}</text></g>'


def confusion_svg(matrix: Sequence[Sequence[int]] | NDArray[Any], names: Sequence[str]) -> str:
    """Return an SVG of the confusion matrix (classes, classes; rows = true), shaded by share of the row.

    Of more than 30 classes the 30 most confused are shown. Raises DataError unless names and matrix fit.
    """
    whole = np.asarray(matrix)
    if whole.shape != (len(names), len(names)) or not len(names):
        raise DataError(
            f"A confusion matrix of the shape {whole.shape} needs as many names; found {len(names)}."
        )
    ids = most_confused(whole) if len(names) > MOST_CLASSES else np.arange(len(names))
    shown, chosen = whole[np.ix_(ids, ids)], [str(names[int(i)]) for i in ids]
    share = shown / np.maximum(whole[ids].sum(axis=1, keepdims=True), 1)
    cell = 46 if len(ids) <= 8 else 36 if len(ids) <= 14 else 26
    columns = min(18, max(width_of(truncate(name, 18)) for name in chosen))
    x0, y0 = 34 + 7 * columns, 38 + 6 * columns
    # Slanted column names reach to the right of the last column.
    width, height = x0 + cell * len(ids) + 10 + max(0, 5 * columns - cell // 2), y0 + cell * len(ids) + 8

    def body() -> Iterator[str]:
        middle = f'x="{x0 + cell * len(ids) / 2}" y="14" text-anchor="middle" font-size="12" fill="{SOFT}"'
        yield f"<text {middle}>predicted</text>"
        turn = y0 + cell * len(ids) / 2
        place = f'x="14" y="{turn}" transform="rotate(-90 14 {turn})" text-anchor="middle"'
        yield f'<text {place} font-size="12" fill="{SOFT}">true</text>'
        for i, name in enumerate(chosen):
            y, x = y0 + i * cell + cell / 2 + 4, x0 + i * cell + cell / 2
            yield label(name, 18, f'x="{x0 - 7}" y="{y}" text-anchor="end" font-size="12" fill="{INK}"')
            slant = f'x="{x}" y="{y0 - 7}" transform="rotate(-45 {x} {y0 - 7})"'
            yield label(name, 18, f'{slant} font-size="12" fill="{INK}"')
        yield from _cells(shown, share, chosen, x0, y0, cell)

    what = (
        f"the {len(ids)} most confused of {len(names)} classes"
        if len(ids) < len(names)
        else f"{len(ids)} classes"
    )
    right, total = int(np.trace(whole)), int(whole.sum())
    return document(
        width,
        height,
        f"Confusion matrix, {what}",
        f"{right} of {total} examples are on the diagonal.",
        body(),
    )
