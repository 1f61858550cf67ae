"""The sections of the report, each a function from the report's data to HTML (empty when there is none)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.evaluation.charts import MOST_CLASSES, confusion_svg, interval_bars, line_chart
from foretune.evaluation.metric_names import BASELINE_NAMES, named
from foretune.evaluation.svg import escape

if TYPE_CHECKING:
    from foretune.evaluation.report import ReportData

#: Rows of the per-class table, mistakes shown, and characters shown of a mistaken text.
MOST_ROWS, MOST_MISTAKES, TEXT_CHARACTERS = 200, 50, 600
#: Keys of an evaluation whose value is a cross-entropy and so belongs beside the training loss.
LOSS_KEYS = ("log_loss", "nats_per_token", "loss")


def is_score(value: object) -> bool:
    """Return whether an entry of a result is a metric with its interval."""
    return isinstance(value, dict) and {"value", "low", "high"} <= set(value)


def _spoken(metric: str) -> str:
    return named(metric).spoken


def _heading(metric: str) -> str:
    spoken = _spoken(metric)
    return spoken[:1].upper() + spoken[1:]


def _is_share(metric: str) -> bool:
    """Say whether a metric runs from 0 to 1 and is shown in percent."""
    return named(metric).share


def _show(metric: str, value: float) -> str:
    if _is_share(metric):
        return f"{100 * value:.1f}"
    return f"{value:.3f}" if value >= 0.1 else f"{value:.4f}"


def _range(metric: str, interval: dict[str, float]) -> str:
    return f"{_show(metric, interval['low'])} to {_show(metric, interval['high'])}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: set[int]) -> str:
    """Return a `<table>` of cells that are HTML already; columns in `numbers` are right-aligned."""

    def row(cells: Sequence[str], tag: str) -> str:
        marks = [' class="n"' if i in numbers else ' class="name"' for i in range(len(cells))]
        return "<tr>" + "".join(f"<{tag}{m}>{c}</{tag}>" for c, m in zip(cells, marks, strict=True)) + "</tr>"

    body = "".join(row(cells, "td") for cells in rows)
    head_row = row([escape(name) for name in head], "th")
    return f'<div class="scroll"><table><thead>{head_row}</thead><tbody>{body}</tbody></table></div>'


def table_section(title: str, note: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a section with a table of plain texts, long ones cut; empty where there are no rows."""
    if not rows:
        return ""
    cells = [[escape(_short(str(cell))) for cell in row] for row in rows[:MOST_MISTAKES]]
    return f'<section><h2>{escape(title)}</h2><p class="soft">{escape(note)}</p>{_table(head, cells, set())}</section>'


def _short(text: str) -> str:
    return text if len(text) <= TEXT_CHARACTERS else text[:TEXT_CHARACTERS].rstrip() + " …"


def _definitions(entries: dict[str, str]) -> str:
    return "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in entries.items()) + "</dl>"


def _verdict(metric: str, own: dict[str, float], best: tuple[str, dict[str, float]] | None) -> str:
    """Say in one sentence how the score stands to the best baseline."""
    if best is None:
        return "No baseline was scored on this split, so the number stands alone."
    name, other = best
    gap = own["value"] - other["value"]
    side = "above" if gap >= 0 else "below"
    amount = f"{abs(100 * gap):.1f} points" if _is_share(metric) else _show(metric, abs(gap))
    points = f"In {_spoken(metric)} the model is {amount} {side} {escape(name)}"
    sign = 1 if named(metric).greater_is_better else -1
    apart = own["low"] > other["high"] if sign > 0 else own["high"] < other["low"]
    if apart:
        return f"{points}, and the 95 % intervals do not overlap."
    if sign * gap > 0:
        return f"{points}, but the 95 % intervals overlap: on this many examples it may be chance."
    return f"<strong>{points}: it does not beat this baseline.</strong>"


def headline(data: ReportData) -> str:
    """Return the score with its interval, what was run, and the baselines beside it."""
    scores, metric = data.metrics[data.split], data.metric
    own = scores[metric]
    # A baseline has no log loss; accuracy is then what model and baselines have in common.
    shared = any(metric in scored for scored in data.baselines.values())
    usual = [m for m in scores if is_score(scores[m]) and any(m in b for b in data.baselines.values())]
    common = metric if shared or not usual else usual[0]
    beside = {
        BASELINE_NAMES.get(name, name): scored for name, scored in data.baselines.items() if common in scored
    }
    rows = [("This model", scores[common]), *((name, scored[common]) for name, scored in beside.items())]
    sign = 1 if named(common).greater_is_better else -1
    best = max(rows[1:], key=lambda row: sign * row[1]["value"], default=None)
    bars = interval_bars(
        [(n, s["value"], s["low"], s["high"]) for n, s in rows], f"{_spoken(common)} by model"
    )
    unit = " %" if _is_share(metric) else ""
    notes = "".join(
        f'<p class="soft">{escape(name)}: {escape(scored["note"])}.</p>'
        for name, scored in beside.items()
        if "note" in scored
    )
    return (
        f'<section class="pair"><div><h3>{escape(_heading(metric))} on {escape(data.split)}</h3>'
        f'<p class="score">{_show(metric, own["value"])}{unit}'
        f" <small>95 % interval {_range(metric, own)}</small></p>"
        f"<p>{_verdict(common, rows[0][1], best)}</p>"
        f'<p class="soft">{scores["n"]:,} examples.</p>{_definitions(data.summary)}</div>'
        f"<figure><h3>{escape(_heading(common))} beside the baselines{', %' if _is_share(common) else ''}</h3>"
        f"{bars}{notes}</figure></section>"
    )


def warnings(data: ReportData) -> str:
    """Return the warnings, and what was truncated."""
    found = [*data.warnings, *([data.truncated] if data.truncated else [])]
    if not found:
        return ""
    items = "".join(f"<li>{escape(text)}</li>" for text in found)
    return f'<section><h2>Warnings</h2><ul class="warnings">{items}</ul></section>'


def forecast_and_outcome(data: ReportData) -> str:
    """Return what was forecast before the run beside what came out; nothing where no plan was made."""
    held = data.forecast
    if held is None:
        return ""
    metric, score, seconds, memory = held["metric"], held["score"], held["seconds"], held["peak_memory_bytes"]
    span = "–"
    if score["forecast"] is not None:
        span = f"{_show(metric, score['forecast'])} <span class=soft>({_range(metric, score)})</span>"
    rows = [
        [escape(_spoken(metric)), span, _show(metric, score["outcome"])],
        ["whole run, s", f"{seconds['forecast']:.0f}", f"{seconds['outcome']:.0f}"],
        ["peak memory, GB", f"{memory['forecast'] / 1e9:.2f}", f"{memory['outcome'] / 1e9:.2f}"],
    ]
    verdict = "inside" if held["inside"] else "<strong>outside</strong>"
    table = _table(["", "forecast", "outcome"], rows, {1, 2})
    said = f"The score lies {verdict} the 90 % interval of the forecast."
    note = f'<p class="soft">{said if held["inside"] is not None else "The score was not forecast."}</p>'
    return f"<section><h2>Forecast and outcome</h2>{table}{note}</section>"


def all_scores(data: ReportData) -> str:
    """Return the table of every metric on every split."""
    known = dict.fromkeys(
        name for scores in data.metrics.values() for name, value in scores.items() if is_score(value)
    )
    rows = [
        [escape(_spoken(name))]
        + [
            f"{_show(name, s[name]['value'])} <span class=soft>({_range(name, s[name])})</span>"
            if name in s
            else ""
            for s in data.metrics.values()
        ]
        for name in known
    ]
    splits = [f"{split} (n = {scores['n']:,})" for split, scores in data.metrics.items()]
    table = _table(["metric", *splits], rows, set(range(1, len(splits) + 1)))
    unit = "In %. " if all(map(_is_share, known)) else "Shares in %. "
    unit = "In %, log loss in nats. " if "log_loss" in known else unit
    note = f'<p class="soft">{unit}In brackets: 95 % intervals.</p>'
    return f"<section><h2>All scores</h2>{table}{note}</section>"


def _points(rows: list[dict[str, Any]], key: str) -> list[tuple[float, float]]:
    return [
        (float(row["step"]), float(row[key])) for row in rows if row.get(key) is not None and "step" in row
    ]


def curves(data: ReportData) -> str:
    """Return the curves of the training loss and of the selection metric on the dev rows."""
    if not data.history and not data.evals:
        return ""
    losses = {"training": _points(data.history, "loss")}
    key = next((key for key in LOSS_KEYS if _points(data.evals, key)), None)
    if key:
        losses["dev"] = _points(data.evals, key)
    charts = [line_chart(losses, "step", "loss")]
    if data.metric not in LOSS_KEYS and (_points(data.evals, data.metric) or not data.evals):
        charts.append(
            line_chart(
                {"training": [], "dev": _points(data.evals, data.metric)}, "step", _spoken(data.metric)
            )
        )
    figures = "".join(f"<figure>{chart}</figure>" for chart in charts)
    return f'<section><h2>Training</h2><div class="pair">{figures}</div></section>'


def per_class_table(data: ReportData) -> str:
    """Return precision, recall and F1 of each class of the headline's split, where the task has classes."""
    per_class = data.metrics[data.split].get("per_class")
    if not per_class:
        return ""
    order = list(range(len(per_class)))
    if len(order) > MOST_CLASSES:  # a long list is read for its trouble: the worst first
        order.sort(key=lambda c: (per_class[c]["support"] == 0, per_class[c]["f1"]["value"]))
    rows = []
    for c in order[:MOST_ROWS]:
        scored = per_class[c]
        bracket = f"<span class=soft>({_range('f1', scored['f1'])})</span>"
        shares = [f"{100 * scored[name]:.1f}" for name in ("precision", "recall")]
        f1 = f"{100 * scored['f1']['value']:.1f} {bracket}"
        rows.append([escape(data.class_names[c]), *shares, f1, f"{scored['support']:,}"])
    table = _table(["class", "precision", "recall", "F1", "n"], rows, {1, 2, 3, 4})
    left = len(order) - len(rows)
    more = f" {left:,} classes with a higher F1 are not listed." if left else ""
    note = f'<p class="soft">In brackets: 95 % intervals.{more}</p>'
    return f"<section><h2>Per class, on {escape(data.split)}, %</h2>{table}{note}</section>"


def confusion(data: ReportData) -> str:
    """Return the confusion matrix of the headline's split, where there is one."""
    if "confusion" not in data.metrics[data.split]:
        return ""
    matrix = np.asarray(data.metrics[data.split]["confusion"])
    svg = confusion_svg(matrix, data.class_names).replace('class="chart"', 'class="chart matrix"', 1)
    some = (
        f" Shown are the {MOST_CLASSES} most confused of {len(matrix)} classes."
        if len(matrix) > MOST_CLASSES
        else ""
    )
    caption = f"Rows are true classes, columns predictions; shading is the share of the row.{some}"
    return (
        f"<section><h2>Confusion matrix, on {escape(data.split)}</h2>"
        f"<figure>{svg}</figure><p class=soft>{caption}</p></section>"
    )


def most_confident_mistakes(data: ReportData) -> str:
    """Return the wrong predictions with the highest probability."""
    if not data.mistakes or "probability" not in data.mistakes[0]:
        return ""
    rows = ""
    for mistake in data.mistakes[:MOST_MISTAKES]:
        text = _short(str(mistake["text"]))
        rows += (
            f'<tr><td class="text" dir="auto">{escape(text)}</td>'
            f'<td class="name" data-as="true">{escape(mistake["true"])}</td>'
            f'<td class="name" data-as="predicted">{escape(mistake["predicted"])}</td>'
            f'<td class="n">{100 * float(mistake["probability"]):.1f} %</td></tr>'
        )
    head = '<th>text</th><th>true</th><th>predicted</th><th class="n">probability</th>'
    return (
        f"<section><h2>Most confident mistakes, on {escape(data.split)}</h2>"
        '<p class="soft">Where the model is surest and wrong, the label itself is often wrong: read these'
        f' first.</p><div class="scroll"><table class="mistakes"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def of_the_task(data: ReportData) -> str:
    """Return the sections that only this task has."""
    return "\n".join(data.sections)


def timings_and_recipe(data: ReportData) -> str:
    """Return how long each part took, and the recipe that repeats the run."""
    timings = f"<section><h2>Timings</h2>{_definitions(data.timings)}</section>" if data.timings else ""
    recipe = (
        f"<section><h2>Recipe</h2><pre>{escape(data.recipe_toml)}</pre></section>" if data.recipe_toml else ""
    )
    return timings + recipe


#: In the order in which they are read: the answer first, the means to repeat it last.
SECTIONS = (
    headline,
    warnings,
    forecast_and_outcome,
    all_scores,
    curves,
    per_class_table,
    confusion,
    most_confident_mistakes,
    of_the_task,
    timings_and_recipe,
)
