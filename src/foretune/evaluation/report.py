"""One HTML file that tells how a run went: no script, no link, readable offline, on a phone and on paper."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foretune.errors import DataError, ResourceError
from foretune.evaluation.report_sections import SECTIONS, is_score
from foretune.evaluation.report_style import STYLE
from foretune.evaluation.svg import escape


@dataclass(kw_only=True)
class ReportData:
    """What a report tells; everything but the title and the metrics may be left empty.

    `metrics` maps a split to the result of `ClassificationScores.result`, `baselines` a name to metric
    intervals; `history` rows have step and loss, `evals` rows step and metric values; `mistakes` rows have
    text, true, predicted and probability. All texts may come from users: they are escaped here.
    """

    title: str
    metrics: dict[str, dict[str, Any]]
    class_names: list[str]
    metric: str = "accuracy"
    summary: dict[str, str] = field(default_factory=dict)
    baselines: dict[str, dict[str, Any]] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    evals: list[dict[str, Any]] = field(default_factory=list)
    mistakes: list[dict[str, Any]] = field(default_factory=list)
    sections: list[str] = field(default_factory=list)  # HTML of the task's own, made of escaped parts
    warnings: list[str] = field(default_factory=list)
    timings: dict[str, str] = field(default_factory=dict)
    forecast: dict[str, Any] | None = None  # what was forecast before the run, beside the outcome
    truncated: str | None = None
    recipe_toml: str = ""

    @property
    def split(self) -> str:
        """The split the headline is about: `test` if scored, else the last one."""
        return "test" if "test" in self.metrics else list(self.metrics)[-1]


def _check(data: ReportData) -> None:
    """Raise DataError when the headline cannot be drawn from `data`."""
    if not data.metrics:
        raise DataError(
            "A report needs the scores of at least one split, found none. Evaluate the model first."
        )
    scores = data.metrics[data.split]
    if data.metric not in scores or not math.isfinite(scores[data.metric]["value"]):
        known = ", ".join(name for name in scores if is_score(scores[name]))
        raise DataError(
            f"The report is about {data.metric!r}, which {data.split!r} does not have. It has: {known}."
        )
    if len(data.class_names) != len(scores.get("per_class", data.class_names)):
        raise DataError(
            f"Found {len(data.class_names)} class names for {len(scores['per_class'])} scored classes;"
            " expected as many."
        )


def render(report: ReportData) -> str:
    """Return the whole report as one HTML page. Raises DataError when its parts do not fit together."""
    _check(report)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        # Even if something slipped through the escaping, nothing may run or load.
        '<meta http-equiv="Content-Security-Policy"'
        " content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        f"<title>{escape(report.title)}</title><style>{STYLE}</style></head><body><main>"
        f"<h1>{escape(report.title)}</h1>\n"
        + "\n".join(section(report) for section in SECTIONS)
        + "\n</main></body></html>\n"
    )


def write_report(path: str | os.PathLike[str], report: ReportData) -> Path:
    """Write the report to `path`, or to `report.html` in it if it is a folder, and return where it lies.

    The file appears whole or not at all. Raises DataError when the parts do not fit together and
    ResourceError when the file cannot be written.
    """
    target = Path(path)
    target = target / "report.html" if target.is_dir() else target
    page, part = render(report), target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(page, encoding="utf-8")
        part.replace(target)
    except OSError as error:
        raise ResourceError(
            f"The report cannot be written to {target} ({error})."
            " Give a folder that you may write to, with space left."
        ) from error
    return target
