import csv
import json
from pathlib import Path

import pytest


def _rows(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_evaluate_json(invoke, fitted, table: Path) -> None:
    result = invoke("evaluate", fitted.folder, table, "--json")
    assert result.exit_code == 0, result.stderr
    found = result.last
    assert found.keys() == {"task", "model", "metrics", "labels", "per_class", "confusion", "n"}
    assert found["n"] == 60
    assert found["labels"] == ["bad", "good"]
    assert found["model"] == str(fitted.folder)
    assert set(found["metrics"]["accuracy"]) == {"value", "low", "high"}
    assert sum(map(sum, found["confusion"])) == 60
    assert len(found["per_class"]) == 2


def test_evaluate_table(invoke, fitted, table: Path) -> None:
    result = invoke("evaluate", fitted.folder, table)
    for part in ("60 examples", "accuracy", "95 % interval", "precision", "good", "bad"):
        assert part in result.stdout
    assert result.stderr == ""


def test_evaluate_other_column_names(invoke, fitted, sentences, tmp_path: Path) -> None:
    other = tmp_path / "o.csv"
    with other.open("w", newline="") as file:
        csv.writer(file).writerows([("line", "kind"), *sentences])
    assert (
        invoke("evaluate", fitted.folder, other, "--text", "line", "--target", "kind", "--json").last["n"]
        == 60
    )
    assert invoke("evaluate", fitted.folder, other, "--json").exit_code == 1


def test_predict_file_and_stdin_agree(invoke, fitted, table: Path, sentences) -> None:
    from_file = invoke("predict", fitted.folder, table, "--quiet")
    assert from_file.exit_code == 0, from_file.stderr
    rows = _rows(from_file.stdout)
    assert [row["row"] for row in rows] == list(range(1, 61))
    assert all(row.keys() == {"row", "label", "probability"} for row in rows)
    assert all(row["label"] in ("good", "bad") and 0.5 <= row["probability"] <= 1 for row in rows)
    lines = "".join(text + "\n" for text, _ in sentences)
    piped = invoke("predict", fitted.folder, "-", input=lines)
    assert piped.exit_code == 0, piped.stderr
    assert piped.stderr == ""
    assert [row["label"] for row in _rows(piped.stdout)] == [row["label"] for row in rows]


def test_a_piped_table_has_the_columns_of_the_training_data(invoke, fitted, table: Path) -> None:
    """The header `review,mood` is no text, though neither is a usual name of texts."""
    piped = invoke("predict", fitted.folder, "-", input=table.read_text())
    assert piped.stdout == invoke("predict", fitted.folder, table).stdout
    assert invoke("evaluate", fitted.folder, "-", "--json", input=table.read_text()).last["n"] == 60


def test_predict_matches_the_api(invoke, fitted, table: Path, sentences) -> None:
    import foretune

    expected = list(foretune.load(fitted.folder, device="cpu").predictions([text for text, _ in sentences]))
    rows = _rows(invoke("predict", fitted.folder, table).stdout)
    assert [row["label"] for row in rows] == [item["label"] for item in expected]
    assert [row["probability"] for row in rows] == pytest.approx(
        [i["probability"] for i in expected], abs=1e-5
    )


def test_the_users_own_lists_are_json_in_a_csv_file(invoke, fitted, tmp_path: Path) -> None:
    data, output = tmp_path / "in.jsonl", tmp_path / "out.csv"
    own = [{"text": "a fine day", "parts": ["a", "好"]}, {"text": "rain", "parts": None}]
    data.write_text("".join(json.dumps(row) + "\n" for row in own), encoding="utf-8")
    assert invoke("predict", fitted.folder, data, "-o", output).exit_code == 0
    with output.open(newline="", encoding="utf-8") as file:
        assert [row["parts"] for row in csv.DictReader(file)] == ['["a", "好"]', ""]


@pytest.mark.parametrize(("suffix", "mark"), [(".csv", ","), (".tsv", "\t")])
def test_predict_keeps_the_columns(invoke, fitted, tmp_path: Path, suffix: str, mark: str) -> None:
    data = tmp_path / "in.jsonl"
    data.write_text('{"id": 7, "review": "a great, warm film"}\n{"id": null, "review": "dull"}\n')
    output = tmp_path / f"out{suffix}"
    output.write_text("old")
    result = invoke("predict", fitted.folder, data, "--output", output)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "2 predictions written" in result.stderr
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter=mark))
    assert list(rows[0]) == ["id", "review", "prediction", "probability"]
    assert rows[0]["review"] == "a great, warm film"
    assert [row["id"] for row in rows] == ["7", ""]
    assert rows[1]["prediction"] in ("good", "bad")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", output.name]


def test_predict_to_jsonl_and_parquet(invoke, fitted, table: Path, tmp_path: Path) -> None:
    import pandas as pd

    assert invoke("predict", fitted.folder, table, "-o", tmp_path / "p.jsonl", "--quiet").stderr == ""
    assert invoke("predict", fitted.folder, table, "-o", tmp_path / "p.parquet", "--quiet").exit_code == 0
    rows = _rows((tmp_path / "p.jsonl").read_text())
    frame = pd.read_parquet(tmp_path / "p.parquet")
    assert frame["prediction"].tolist() == [row["label"] for row in rows]


def test_predict_finds_the_text_column(invoke, fitted, tmp_path: Path) -> None:
    data = tmp_path / "in.csv"
    data.write_text("id,comment\n1,a great and warm story\n2,a dull and sad story\n")
    result = invoke("predict", fitted.folder, data)
    assert len(result.lines) == 2
    assert "'comment' is read" in result.stderr
    chosen = invoke("predict", fitted.folder, data, "--text", "comment")
    assert (chosen.stdout, chosen.stderr) == (result.stdout, "")
    wrong = invoke("predict", fitted.folder, data, "--text", "coment")
    assert wrong.exit_code == 1
    assert "Did you mean 'comment'" in wrong.stderr


def test_predict_blank_texts(invoke, fitted, tmp_path: Path) -> None:
    data, output = tmp_path / "in.csv", tmp_path / "out.csv"
    data.write_text("id,review\n1,great\n2,\n3,  \n")
    result = invoke("predict", fitted.folder, data, "-o", output)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "'review'" in result.stderr
    assert "rows 2, 3" in result.stderr
    assert not output.exists()
    assert invoke("predict", fitted.folder, "-", input="").exit_code == 1


def test_predict_output_that_cannot_be_written(invoke, fitted, table: Path, tmp_path: Path) -> None:
    """A file's name is checked first: the model folder does not even exist. Folders are for some tasks only."""
    for output, code, part in (
        (tmp_path / "no" / "p.csv", 1, "cannot be written"),
        (tmp_path / "p.xlsx", 2, ".jsonl, .csv, .tsv"),
        (tmp_path, 2, "expected a file"),
    ):
        model = fitted.folder if output == tmp_path else tmp_path / "missing"
        result = invoke("predict", model, table, "-o", output)
        assert result.exit_code == code
        assert part in result.stderr


def test_predict_does_not_overwrite_a_column(invoke, fitted, tmp_path: Path) -> None:
    data = tmp_path / "in.csv"
    data.write_text("review,prediction\na great film,good\na dull film,bad\n")
    result = invoke("predict", fitted.folder, data, "-o", tmp_path / "o.csv")
    assert result.exit_code == 1
    assert "'prediction'" in result.stderr
    assert invoke("predict", fitted.folder, data, "-o", tmp_path / "o.jsonl").exit_code == 0


def test_a_failed_prediction_leaves_the_old_file(tmp_path: Path) -> None:
    from foretune.cli_predict import _whole

    output = tmp_path / "p.csv"
    output.write_text("old")
    with pytest.raises(RuntimeError), _whole(output) as draft:
        draft.write_text("half")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["p.csv"]
    assert output.read_text() == "old"
