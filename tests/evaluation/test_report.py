from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from foretune.errors import DataError, ResourceError
from foretune.evaluation.metrics import ClassificationScores
from foretune.evaluation.report import ReportData, render, write_report

EVIL = "<script>alert(1)</script>"
VOID = {"meta", "br", "link", "img", "input"}


class Reader(HTMLParser):
    """Collects tags, text and attributes, and checks that every tag is closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def result(classes: int = 3, n: int = 90, skill: float = 3.0, seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, n)
    odds = np.exp(rng.normal(size=(n, classes)) + skill * np.eye(classes)[targets])
    scores = ClassificationScores(classes)
    scores.update((odds / odds.sum(axis=1, keepdims=True)).astype(np.float32), targets)
    return scores.result()


def full() -> ReportData:
    weak = {name: {"value": 0.4, "low": 0.3, "high": 0.5} for name in ("accuracy", "macro_f1")}
    return ReportData(
        title=f"新闻分类 {EVIL}",
        summary={"backbone": "chinese-roberta", "seeds": "0, 1", EVIL: EVIL},
        metrics={"dev": result(seed=1), "test": result()},
        baselines={
            "majority": weak,
            "tfidf_logreg": {**weak, "seconds": 1.0, "rows": 9, "note": f"no {EVIL}"},
        },
        class_names=["房产", EVIL, 'say "hi" & bye'],
        history=[{"step": i, "loss": 2 / (i + 1)} for i in range(50)],
        evals=[{"step": i, "macro_f1": 0.5 + i / 100, "log_loss": 1 - i / 100} for i in (10, 20)],
        metric="macro_f1",
        mistakes=[
            {"text": f"房价 {EVIL} " + "long " * 300, "true": "房产", "predicted": EVIL, "probability": 0.987}
        ],
        warnings=[f"watch out {EVIL}"],
        timings={"train": "3 s"},
        truncated="12 texts were cut",
        recipe_toml=f'name = "{EVIL}"',
    )


def least() -> ReportData:
    return ReportData(title="Least", metrics={"dev": result()}, class_names=["a", "b", "c"])


def test_every_section_is_there_in_reading_order() -> None:
    text = Reader(render(full())).text
    titles = ("Macro F1 on test", "Warnings", "All scores", "Training", "Per class", "Confusion matrix")
    places = [text.index(t) for t in (*titles, "Most confident mistakes", "Timings", "Recipe")]
    assert places == sorted(places)
    for said in ("房产", "12 texts were cut", "98.7 %", "chinese-roberta", "TF-IDF", "no <script>"):
        assert said in text


def test_user_text_is_shown_and_never_run() -> None:
    page = render(full())
    reader = Reader(page)
    assert "script" not in reader.tags and EVIL not in page and page.count("&lt;script&gt;") >= 8
    assert not any(name.startswith("on") for name, _ in reader.attributes)


def test_nothing_is_loaded_from_elsewhere() -> None:
    reader = Reader(render(full()))
    assert not {"script", "link", "img", "iframe", "object"} & set(reader.tags)
    assert not {"src", "href", "xlink:href"} & {name for name, _ in reader.attributes}
    assert not re.search(r"url\(|@import|https?://", render(full()))


def test_the_page_suits_readers_phones_paper_and_the_dark() -> None:
    page = render(full())
    assert page.startswith("<!DOCTYPE html>") and '<html lang="en">' in page and 'charset="utf-8"' in page
    assert "width=device-width" in page and "prefers-color-scheme: dark" in page and "@media print" in page


def test_ids_are_unique() -> None:
    ids = [value for name, value in Reader(render(full())).attributes if name == "id"]
    assert len(ids) == len(set(ids)) >= 6


def test_the_least_report_leaves_out_what_is_empty() -> None:
    text = Reader(render(least())).text
    assert "Accuracy on dev" in text and "No baseline" in text
    for absent in ("Warnings", "Training", "Most confident", "Timings", "Recipe"):
        assert absent not in text.split("}")[-1]


@pytest.mark.parametrize(
    ("baseline", "says"),
    [
        ((0.1, 0.05, 0.15), "the 95 % intervals do not overlap"),
        ((0.85, 0.1, 0.99), "may be chance"),
        ((1.0, 0.99, 1.0), "does not beat this baseline"),
    ],
)
def test_the_verdict_is_honest(baseline: tuple[float, float, float], says: str) -> None:
    score = dict(zip(("value", "low", "high"), baseline, strict=True))
    page = render(
        replace(least(), metrics={"test": result(n=300)}, baselines={"majority": {"accuracy": score}})
    )
    assert says in page


def test_log_loss_is_compared_by_accuracy() -> None:
    score = {"accuracy": {"value": 0.1, "low": 0.05, "high": 0.15}}
    text = Reader(render(replace(least(), metric="log_loss", baselines={"majority": score}))).text
    assert (
        "Log loss on dev" in text
        and "Accuracy beside the baselines" in text
        and "In accuracy the model" in text
    )


def test_many_classes_are_listed_worst_first_and_cut() -> None:
    names = [f"intent {i}" for i in range(220)]
    page = render(ReportData(title="Many", metrics={"test": result(220, 900)}, class_names=names))
    assert "20 classes with a higher F1 are not listed" in page and "30 most confused of 220" in page


def test_a_long_mistake_is_cut_and_losses_that_are_not_finite_are_left_out() -> None:
    assert render(full()).count("long ") < 200
    page = render(replace(full(), history=[{"step": 1, "loss": float("nan")}], evals=[{"step": 1}]))
    assert "No finite values of loss" in page


def test_writing_is_whole_repeatable_and_makes_folders(tmp_path: Path) -> None:
    path = write_report(tmp_path / "run" / "report.html", full())
    first = path.read_bytes()
    assert write_report(path, full()).read_bytes() == first
    assert "新闻分类".encode() in first and [p.name for p in path.parent.iterdir()] == ["report.html"]
    assert write_report(tmp_path, least()) == tmp_path / "report.html"


def test_text_that_utf8_cannot_carry_is_written_all_the_same(tmp_path: Path) -> None:
    broken = replace(least(), title="half \ud83d a pair\x00", warnings=["\udcff"])
    assert "half \ufffd a pair\ufffd" in write_report(tmp_path, broken).read_text(encoding="utf-8")


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot be written"):
        write_report(tmp_path / "file" / "report.html", least())


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"metrics": {}}, "at least one split"),
        ({"metric": "bleu"}, "It has: accuracy"),
        ({"class_names": ["a"]}, "1 class names for 3"),
    ],
)
def test_parts_that_do_not_fit_are_errors(changed: dict, says: str) -> None:
    with pytest.raises(DataError, match=says):
        render(replace(least(), **changed))
