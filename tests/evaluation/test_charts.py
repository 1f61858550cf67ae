from __future__ import annotations

import math
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretune.errors import DataError
from foretune.evaluation.charts import confusion_svg, interval_bars, line_chart, most_confused
from foretune.evaluation.svg import escape, number, thin, ticks, truncate, width_of


def parse(svg: str) -> ElementTree.Element:
    """Parse as XML, which is stricter than HTML, and check what every chart must have."""
    root = ElementTree.fromstring(svg)
    assert root.get("role") == "img" and root.find("title") is not None and root.find("desc") is not None
    ids = {root.find(tag).get("id") for tag in ("title", "desc")}  # type: ignore[union-attr]
    assert ids == set((root.get("aria-labelledby") or "").split())
    return root


def texts(root: ElementTree.Element) -> list[str]:
    return ["".join(node.itertext()) for node in root.iter("text")]


def test_a_line_chart_has_curves_ticks_legend_and_labels() -> None:
    root = parse(line_chart({"training": [(0, 2), (10, 1)], "dev": [(5, 1.5)]}, "step", "loss"))
    assert len(list(root.iter("polyline"))) == 2 and len(list(root.iter("circle"))) == 3
    assert {"step", "loss", "training", "dev", "0", "10", "1", "2"} <= set(texts(root))


def test_an_empty_series_keeps_its_colour_and_is_not_drawn() -> None:
    root = parse(line_chart({"training": [], "dev": [(0, 1), (1, 2)]}, "step", "accuracy"))
    [line] = root.iter("polyline")
    assert "--series-2" in (line.get("stroke") or "") and "training" not in texts(root)


def test_points_that_are_not_finite_are_left_out() -> None:
    nan = float("nan")
    root = parse(line_chart({"loss": [(0, 1), (1, nan), (2, math.inf), (nan, 1), (3, 0.5)]}, "step", "loss"))
    [line] = root.iter("polyline")
    assert len((line.get("points") or "").split()) == 2
    assert "No finite values" in line_chart({"loss": [(0, nan)]}, "step", "<loss>")
    assert "&lt;loss&gt;" in line_chart({}, "step", "<loss>")


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9)), min_size=1, max_size=20),
)
def test_any_curve_stays_inside_its_frame(points: list[tuple[float, float]]) -> None:
    root = parse(line_chart({"a": points}, "x", "y"))
    for pair in (next(root.iter("polyline")).get("points") or "").split():
        x, y = map(float, pair.split(","))
        assert 50 <= x <= 480 and 30 <= y <= 230


def test_a_long_curve_is_thinned() -> None:
    points = thin([(i, math.sin(i)) for i in range(100_000)], most=400)
    assert 300 <= len(points) <= 400 and points == sorted(points)
    assert thin([(2, 1), (1, 5)]) == [(1, 5), (2, 1)]


@settings(max_examples=100, deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_span_the_range_in_few_round_steps(low: float, span: float) -> None:
    found = ticks(low, low + span)
    slack = 1e-6 * max(abs(low), span, 1)
    assert found[0] <= low + slack and found[-1] >= low + span - slack and 2 <= len(found) <= 8


def test_ticks_of_a_point_and_numbers() -> None:
    assert ticks(0, 0)[0] == 0 and ticks(0, 0)[-1] == 1  # a score that is always 0 is none of -1
    assert len(ticks(3, 3)) >= 2 and len(ticks(0, 0)) >= 2
    assert [number(v) for v in (0.05, 1500, 20_000, 1_500_000, 2e9, 0)] == [
        "0.05",
        "1500",
        "20k",
        "1.5M",
        "2G",
        "0",
    ]


def test_bars_show_value_and_interval_and_emphasise_the_first() -> None:
    root = parse(interval_bars([("This model", 0.9, 0.85, 0.93), ("<b>", 0.5, 0.4, 0.6)], "accuracy"))
    assert any("90.0 %" in text and "[85.0, 93.0]" in text for text in texts(root))
    assert len(list(root.iter("path"))) == 2 and len(list(root.iter("rect"))) == 4
    assert "<b>" in texts(root)  # as text, not as markup: parsing would have failed
    assert "No scores" in interval_bars([], "accuracy")
    assert "0.250" in interval_bars([("m", 0.25, 0.2, 0.3)], "log loss", percent=False)


def test_the_confusion_matrix_shows_counts_names_and_shares() -> None:
    svg = confusion_svg([[8, 2], [0, 5]], ["好评", "</svg><script>"])
    root = parse(svg)
    assert {"8", "2", "5", "好评", "true", "predicted"} <= set(texts(root)) and "<script>" not in svg
    tips = ["".join(node.itertext()) for group in root.iter("g") for node in group.iter("title")]
    assert "好评 → </svg><script>: 2 (20.0% of the true)" in tips


def test_more_than_30_classes_show_the_most_confused() -> None:
    matrix = np.eye(40, dtype=int) * 9
    matrix[37, 3] = 4
    assert {3, 37} <= set(most_confused(matrix).tolist()) and len(most_confused(matrix)) == 30
    root = parse(confusion_svg(matrix, [f"class {i}" for i in range(40)]))
    assert "30 most confused of 40" in "".join(root.find("title").itertext())  # type: ignore[union-attr]
    assert {"class 3", "class 37"} <= set(texts(root)) and len(list(root.iter("rect"))) == 900


def test_long_names_are_cut_and_whole_in_the_tooltip() -> None:
    name = "财经新闻与股票市场分析以及其他一切"
    svg = confusion_svg([[1]], [name])
    assert truncate(name, 18) in svg and f"<title>{name}</title>" in svg


def test_names_that_do_not_fit_the_matrix_are_an_error() -> None:
    for names in (["a"], [], ["a", "b", "c"]):
        with pytest.raises(DataError, match="names"):
            confusion_svg([[1, 0], [0, 1]], names)


@given(st.text(max_size=60), st.integers(2, 30))
def test_truncation_keeps_to_its_columns(text: str, columns: int) -> None:
    assert width_of(truncate(text, columns)) <= columns


@given(st.text(max_size=40))
def test_escaped_text_is_always_well_formed(text: str) -> None:
    page = f'<p title="{escape(text)}">{escape(text)}</p>'
    ElementTree.fromstring(page.encode("utf-8"))


def test_what_no_file_can_carry_is_replaced() -> None:
    assert escape("a\x00b\ud800c\td\n") == "a\ufffdb\ufffdc\td\n"
    assert escape("""<a href="x" o='y'>&""") == "&lt;a href=&quot;x&quot; o=&#x27;y&#x27;&gt;&amp;"


def test_the_same_chart_is_the_same_text() -> None:
    assert line_chart({"a": [(0, 1)]}, "x", "y") == line_chart({"a": [(0, 1)]}, "x", "y")
