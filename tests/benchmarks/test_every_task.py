"""The pure functions of `benchmarks/tasks.py`: cutting data, plain scripts' decoding, scores, the table."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def programs():
    sys.path.insert(0, str(FOLDER))  # as for a program that is run
    yield
    sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def data(programs):
    return importlib.import_module("task_data")


@pytest.fixture(scope="module")
def scores(programs):
    return importlib.import_module("task_scores")


@pytest.fixture(scope="module")
def texts(programs):
    return importlib.import_module("peer_text")


@pytest.fixture(scope="module")
def tasks(programs):
    return importlib.import_module("tasks")


def paragraph(*asked: str) -> dict:
    return {
        "context": "some text",
        "qas": [{"id": q, "question": q, "answers": [{"text": "some", "answer_start": 0}]} for q in asked],
    }


class TestCuts:
    def test_draws_the_same_rows_each_time(self, data):
        rows = pd.DataFrame({"x": range(50)})
        assert data.draw(rows, 10)["x"].tolist() == data.draw(rows, 10)["x"].tolist()
        assert len(data.draw(rows, 10)) == 10

    @pytest.mark.parametrize("count", (0, 50, 90))
    def test_draws_all_rows(self, data, count):
        assert sorted(data.draw(pd.DataFrame({"x": range(50)}), count)["x"]) == list(range(50))

    @pytest.mark.parametrize(("count", "held"), ((0, 5), (8, 8)))
    def test_parts_share_no_row(self, data, count, held):
        rest, dev = data.part_off(pd.DataFrame({"x": range(50)}), count)
        assert len(dev) == held
        assert sorted([*rest["x"], *dev["x"]]) == list(range(50))

    def test_questions_are_counted_over_paragraphs(self, data):
        paragraphs = [paragraph("a", "b"), paragraph("c", "d"), paragraph("e")]
        found = list(data.first_questions(paragraphs, 3))
        assert [[q["id"] for q in p["qas"]] for p in found] == [["a", "b"], ["c"]]
        assert len(paragraphs[1]["qas"]) == 2

    def test_all_questions(self, data):
        assert len(list(data.first_questions([paragraph("a"), paragraph("b")], 0))) == 2

    def test_a_paragraph_is_cut_where_enough_questions_were_seen(self, data):
        assert list(data.first_questions([paragraph("a"), paragraph("b")], 1)) == [paragraph("a")]

    @pytest.mark.parametrize(
        ("places", "apart"), (([(0, 2), (2, 4)], True), ([(3, 5), (0, 4)], False), ([], True))
    )
    def test_entities_apart(self, data, places, apart):
        assert data.apart([{"start": start, "end": end} for start, end in places]) is apart

    def test_files_of_folders_in_order(self, data, tmp_path):
        for name in ("2/b.png", "1/a.png", "1/.hidden"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(b"")
        found = data.labelled(tmp_path)
        assert [Path(path).name for path in found["path"]] == ["a.png", "b.png"]
        assert found["label"].tolist() == ["class 1", "class 2"]

    def test_every_case_has_a_set_a_score_and_a_script(self, data, scores, tasks):
        for case in tasks.CASES:
            module, function = case.peer.split(".")
            assert case.name in data.SETS
            assert data.SETS[case.name][0] in data.WRITERS
            assert case.kind in scores.SCORES
            assert callable(getattr(importlib.import_module(module), function))

    def test_every_fold_is_tested_once_and_trained_on_without_it(self, data):
        folds = [data.SETS[f"esc10-{fold}"][1:] for fold in range(1, 6)]
        assert all(sorted(fold) == sorted(data.ESC10) for fold in folds)
        assert [fold[1] for fold in folds] == data.ESC10


class TestDecoding:
    def test_tags_and_entities_are_inverse(self, scores, texts):
        tags = ["B-PER", "I-PER", "O", "B-LOC", "B-LOC", "I-LOC"]
        assert scores.tags_of(texts.entities_of(tags), len(tags)) == tags

    @pytest.mark.parametrize(
        ("tags", "spans"),
        (
            (["O", "I-PER"], [(1, 2, "PER")]),
            (["B-PER", "I-LOC"], [(0, 1, "PER"), (1, 2, "LOC")]),
            (["I-PER", "O", "I-PER"], [(0, 1, "PER"), (2, 3, "PER")]),
        ),
    )
    def test_odd_tags_as_seqeval_reads_them(self, texts, tags, spans):
        from seqeval.metrics.sequence_labeling import get_entities

        found = [(e["start"], e["end"], e["label"]) for e in texts.entities_of(tags)]
        assert found == spans == [(first, last + 1, kind) for kind, first, last in get_entities(tags)]

    def test_first_token_of_every_word(self, texts):
        assert texts.first_tokens([None, 0, 0, 1, 3, None]) == [1, 3, -1, 4]
        assert texts.first_tokens([None, None]) == []

    def test_best_span_lies_in_the_context(self, texts):
        starts, ends = np.array([9.0, 0, 3, 1, 0]), np.array([9.0, 0, 1, 2, 4])
        assert texts.best_span(starts, ends, [2, 3, 4]) == (7.0, 2, 4)

    def test_best_span_does_not_end_before_it_starts(self, texts):
        starts, ends = np.array([0.0, 5.0]), np.array([5.0, 0.0])
        score, first, last = texts.best_span(starts, ends, [0, 1])
        assert score == 5.0 and first == last

    def test_best_span_is_short(self, texts):
        starts, ends = np.zeros(100), np.zeros(100)
        starts[3], ends[90] = 9, 9
        _, first, last = texts.best_span(starts, ends, range(100))
        assert last - first < texts.LONGEST_ANSWER

    def test_boxes_become_corners(self, programs):
        media = importlib.import_module("peer_media")
        content = {
            "images": [{"id": 7}, {"id": 8}],
            "categories": [{"id": 3, "name": "cell"}],
            "annotations": [{"image_id": 8, "category_id": 3, "bbox": [1, 2, 10, 20]}],
        }
        empty, found = media.boxes(content)
        assert empty["boxes"].shape == (0, 4)
        assert found["boxes"].tolist() == [[1, 2, 11, 22]]
        assert found["labels"].tolist() == [0]


class TestScores:
    def written(self, folder: Path, rows: dict) -> str:
        path = folder / "test.jsonl"
        pd.DataFrame(rows).to_json(path, orient="records", lines=True)
        return str(path)

    def test_labels(self, scores, tmp_path):
        test = self.written(tmp_path, {"label": ["a", "a", "b", "b"]})
        found = scores.classification([{"label": x} for x in "aabb"[:3] + "a"], test)
        assert found["accuracy"] == 0.75

    def test_numbers(self, scores, tmp_path):
        test = self.written(tmp_path, {"score": [1.0, 2.0, 3.0]})
        found = scores.regression([{"value": v} for v in (1, 4, 9)], test)
        assert found["spearman"] == pytest.approx(1)
        assert 0.9 < found["pearson"] < 1

    def test_entities_of_words_and_of_characters(self, scores, tmp_path):
        test = self.written(tmp_path, {"tags": [["B-A", "O", "B-A"]]})
        half = [{"entities": [{"first_word": 0, "end_word": 1, "label": "A"}]}]
        assert scores.words(half, test)["f1"] == pytest.approx(2 / 3)
        span = {"start": 1, "end": 3, "label": "A"}
        test = self.written(tmp_path, {"text": ["abcd"], "entities": [[span]]})
        assert scores.spans([{"entities": [span]}], test)["f1"] == 1
        assert scores.spans([{"entities": [span | {"end": 2}]}], test)["f1"] == 0

    def test_answers(self, scores, tmp_path):
        path = tmp_path / "test.json"
        path.write_text(json.dumps({"data": [{"paragraphs": [paragraph("a", "b")]}]}))
        assert scores.answers([{"answer": "The some"}, {"answer": "other"}], str(path)) == {
            "f1": 0.5,
            "exact_match": 0.5,
        }

    def test_transcripts_without_case_and_points(self, scores, tmp_path):
        test = self.written(tmp_path, {"text": ["yes no", "no no"]})
        found = scores.transcription([{"text": " Yes, no."}, {"text": "no yes"}], test)
        assert found["wer"] == 0.25

    def test_masks_leave_ignored_pixels_out(self, scores, tmp_path):
        from PIL import Image

        classes = [{"id": i, "name": str(i)} for i in range(3)]
        (tmp_path / "classes.json").write_text(json.dumps({"classes": classes, "ignore_id": 2}))
        (tmp_path / "split.json").write_text(json.dumps({"test": ["a"]}))
        (tmp_path / "masks").mkdir()
        Image.fromarray(np.array([[0, 0], [1, 2]], np.uint8)).save(tmp_path / "masks" / "a.png")
        found = scores.masks([{"mask": np.array([[0, 1], [1, 1]])}], str(tmp_path))
        assert found["miou"] == pytest.approx(0.5)
        assert found["pixel_accuracy"] == pytest.approx(2 / 3)

    @pytest.mark.parametrize(("shift", "expected"), ((0, 1.0), (500, 0.0)))
    def test_boxes(self, scores, tmp_path, shift, expected):
        path = tmp_path / "test.json"
        one = {"id": 1, "image_id": 5, "category_id": 2, "bbox": [10, 10, 50, 50], "area": 2500, "iscrowd": 0}
        path.write_text(
            json.dumps(
                {
                    "images": [{"id": 5}, {"id": 6}],
                    "categories": [{"id": 2, "name": "cell"}],
                    "annotations": [one],
                }
            )
        )
        box = {"label": "cell", "score": 0.9, "box": [10 + shift, 10, 50, 50]}
        found = scores.boxes([{"boxes": [box]}, {"boxes": []}], str(path))
        assert found["map"] == pytest.approx(expected)

    def test_no_boxes_at_all(self, scores, tmp_path):
        path = tmp_path / "test.json"
        path.write_text(json.dumps({"images": [{"id": 5}], "categories": [], "annotations": []}))
        assert scores.boxes([{"boxes": []}], str(path)) == {"map": 0.0, "map50": 0.0}


class TestTable:
    def line(self, side: str, value: float, **more: object) -> dict:
        seconds = {"seconds": 20.0, "cpu_seconds": 30.0}
        return {
            "case": "mrpc",
            "scale": "small",
            "side": side,
            "scores": {"accuracy": value},
            **seconds,
            **more,
        }

    def test_sides_stand_side_by_side(self, tasks):
        own = {"accuracy": {"value": 0.75, "low": 0.7, "high": 0.8}}
        baselines = {"majority": {"accuracy": {"value": 0.66}}, "tfidf": {"accuracy": {"value": 0.7}}}
        lines = [self.line("foretune", 0.75, own=own, baselines=baselines), self.line("peer", 0.5)]
        row = tasks.table(lines).splitlines()[-1]
        assert "75.0 (70.0–80.0)" in row
        assert "| 50.0 |" in row
        assert "tfidf: 70.0" in row
        assert row.endswith("| 30, 30 |")

    def test_a_side_that_is_missing(self, tasks):
        row = tasks.table([self.line("peer", 0.5)]).splitlines()[-1]
        assert "| – | 50.0 | – |" in row

    def test_the_smallest_error_rate_is_the_best_baseline(self, tasks):
        case = next(case for case in tasks.CASES if case.metric == "wer")
        baselines = {"a": {"wer": {"value": 0.9}}, "b": {"wer": {"value": 0.4}}}
        assert tasks._trivial(case, {"baselines": baselines}) == "b: 40.0"

    def test_what_is_there_is_not_run_again(self, tasks, tmp_path, monkeypatch):
        path = tmp_path / "out.jsonl"
        path.write_text(json.dumps(self.line("peer", 0.5)) + "\n")
        case = next(case for case in tasks.CASES if case.name == "mrpc")
        ran = []
        monkeypatch.setattr(tasks, "run_case", lambda c, s, side, p: ran.append(side) or self.line(side, 1.0))
        for side in ("peer", "foretune"):
            tasks.run_missing(case, "small", side, [], path)
        assert ran == ["foretune"]
        assert len(tasks.lines_of(path)) == 2

    def test_a_side_that_fails_is_told(self, tasks, tmp_path, monkeypatch, capsys):
        def fail(*_: object) -> None:
            raise RuntimeError("no such thing")

        monkeypatch.setattr(tasks, "run_case", fail)
        tasks.run_missing(tasks.CASES[0], "small", "peer", [], tmp_path / "out.jsonl")
        assert "no such thing" in capsys.readouterr().err
        assert not (tmp_path / "out.jsonl").exists()

    def test_a_process_has_no_ledger_and_its_seconds_are_known(self, tasks, tmp_path):
        work = "import os; print(os.environ['FORETUNE_LEDGER'])"
        printed, times = tasks.timed([sys.executable, "-c", work], tmp_path)
        assert printed.strip() == "off"
        assert times["cpu_seconds"] > 0 and times["seconds"] > 0

    def test_a_process_that_fails_is_quoted(self, tasks, tmp_path):
        with pytest.raises(RuntimeError, match="no luck"):
            tasks.started([sys.executable, "-c", "import sys; sys.exit('no luck')"], tmp_path)

    def test_weights_that_are_missing(self, tasks, tmp_path):
        with pytest.raises(SystemExit, match="--weights"):
            tasks.backbone_folder("no-such-model", [tmp_path])
