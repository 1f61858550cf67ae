"""The report's sections on masks and boxes: scores of each class, and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from foretune.errors import DataError
from foretune.evaluation.report_sections import table_section
from foretune.evaluation.scene_pictures import colour, opened, overlay, picture_uri, with_boxes
from foretune.evaluation.svg import escape


def mask_sections(result: dict[str, Any], worst: Sequence[dict[str, Any]], names: Sequence[str]) -> list[str]:
    """Return the IoU of every class, and the worst pictures beside their true and predicted masks."""
    rows = [
        [name, _interval(entry["iou"], entry), f"{entry['support']:,}"]
        for name, entry in zip(names, result["per_class"], strict=True)
    ]
    note = "Intersection over union, in brackets its 95 % interval. Classes of few pixels vary most."
    table = table_section("IoU of each class, %", note, ["class", "IoU", "pixels"], rows)
    figures = []
    for found in _readable(worst):
        pixels = found["pixels"]
        shown = [pixels, overlay(pixels, found["true"]), overlay(pixels, found["predicted"])]
        captions = [f"row {found['row']}", "true", f"predicted, {100 * found['score']:.0f} % of pixels right"]
        figures.append(_figures(shown, captions))
    intro = (
        "The pictures with most pixels wrong. Pixels that do not count keep their own colour under the truth."
    )
    return [each for each in (table, _pictures("Pictures and masks", intro, figures, names)) if each]


def box_sections(result: dict[str, Any], worst: Sequence[dict[str, Any]], names: Sequence[str]) -> list[str]:
    """Return the average precision of every class, and the worst pictures with their boxes."""
    rows = [
        [name, _interval(entry["ap"], entry), _interval(entry["ap50"], entry), f"{entry['support']:,}"]
        for name, entry in zip(names, result["classes"], strict=True)
    ]
    note = "Average precision by COCO's rules, in brackets its 95 % interval."
    head = ["class", "AP@[.5:.95]", "AP@.5", "boxes"]
    table = table_section("Average precision of each class, %", note, head, rows)
    figures = [
        _figures(
            [with_boxes(found["pixels"], found["true"], found["predicted"])],
            [f"row {found['row']}: {len(found['true'])} true, {len(found['predicted'])} found"],
        )
        for found in _readable(worst)
    ]
    intro = (
        "The pictures with most boxes missing or too many. True boxes are dashed, found ones are whole lines."
    )
    return [each for each in (table, _pictures("Pictures and boxes", intro, figures, names)) if each]


def _interval(score: dict[str, float], entry: dict[str, Any]) -> str:
    if not entry["support"] and score["high"] - score["low"] >= 1:
        return "none held out"
    return f"{100 * score['value']:.1f} ({100 * score['low']:.1f} – {100 * score['high']:.1f})"


def _readable(worst: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what is shown with its `pixels`; files that are gone by now are left out."""
    found = []
    for each in worst:
        try:
            found.append({**each, "pixels": opened(each["picture"])})
        except DataError:
            continue
    return found


def _figures(pictures: Sequence[Any], captions: Sequence[str]) -> str:
    cells = "".join(
        '<figure style="display:inline-block;margin:.3em;vertical-align:top">'
        f'<img src="{picture_uri(pixels)}" alt="{escape(caption)}"><figcaption>{escape(caption)}</figcaption></figure>'
        for pixels, caption in zip(pictures, captions, strict=True)
    )
    return f"<div>{cells}</div>"


def _pictures(title: str, intro: str, figures: Sequence[str], names: Sequence[str]) -> str:
    if not figures:
        return ""
    legend = " ".join(
        f'<span style="white-space:nowrap"><span style="color:rgb{colour(number)}">&#9632;</span> {escape(name)}</span>'
        for number, name in enumerate(names)
    )
    return (
        f'<section><h2>{escape(title)}</h2><p class="soft">{escape(intro)}</p><p>{legend}</p>'
        f"{''.join(figures)}</section>"
    )
