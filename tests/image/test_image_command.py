"""Pictures through the whole tool: a folder per class in, a model out, predictions of a file, a folder, a table."""

import csv
import json

import pytest
from typer.testing import CliRunner

import foretune
from foretune.cli import app

from .conftest import write_picture

pytest.importorskip("timm")
COLOURS = {"blue": (60, 60, 200), "red": (200, 60, 60)}


@pytest.fixture(scope="module")
def run(network, tmp_path_factory):
    """A run of the command on sixteen pictures of a colour each, in a folder per class."""
    base = tmp_path_factory.mktemp("command")
    for label, colour in COLOURS.items():
        for n in range(16):
            write_picture(base / "photos/train" / label / f"{n}.png", colour, seed=n)
            if n < 4:
                write_picture(base / "photos/test" / label / f"{n}.png", colour, seed=50 + n)
    places = [str(base / "photos/train"), "--test", str(base / "photos/test"), "--output", str(base / "run")]
    chosen = ["--backbone", str(network("test_resnet")), "--strategy", "linear-probe", "--lr", "0.02"]
    done = CliRunner().invoke(
        app, ["fit", *places, *chosen, "--device", "cpu", "--offline", "--json", "--quiet"]
    )
    assert done.exit_code == 0, done.output
    return base, json.loads(done.stdout.splitlines()[-1])


def test_the_folders_are_the_classes(run):
    base, result = run
    assert result["task"] == "image-classification" and result["metrics"]["test"]["accuracy"]["value"] >= 0.75
    assert {"majority", "pixels_logreg"} <= set(result["baselines"])
    record = json.loads((base / "run/foretune.json").read_text())
    assert record["title"].endswith("photos-train") and record["train"]["unit"] == "images"
    assert (base / "run/report.html").exists()


def test_one_picture_a_folder_or_a_table(run, tmp_path):
    base, _ = run
    one = base / "photos/test/red/0.png"
    done = CliRunner().invoke(app, ["predict", str(base / "run"), str(one), "--quiet"])
    assert done.exit_code == 0, done.output
    line = json.loads(done.stdout)
    assert line["path"] == str(one) and line["label"] in COLOURS and 0.5 <= line["probability"] <= 1
    done = CliRunner().invoke(app, ["predict", str(base / "run"), str(one.parent), "--quiet"])
    paths = [json.loads(each)["path"] for each in done.stdout.splitlines()]
    assert paths == [str(one.parent / f"{n}.png") for n in range(4)]
    table, whole = tmp_path / "found.csv", str(base / "photos/test")
    done = CliRunner().invoke(app, ["predict", str(base / "run"), whole, "-o", str(table), "--quiet"])
    assert done.exit_code == 0, done.output
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8 and set(rows[0]) == {"path", "label", "prediction", "probability"}
    assert foretune.load(base / "run", device="cpu").predict([str(one)]) == [line["label"]]


def test_a_broken_picture_is_named_before_anything_is_written(run, tmp_path):
    base, _ = run
    for label, colour in COLOURS.items():
        for n in range(6):
            write_picture(tmp_path / "photos" / label / f"{n}.png", colour, seed=n)
    (tmp_path / "photos/red/3.png").write_bytes(b"no picture")
    arguments = [
        "fit",
        str(tmp_path / "photos"),
        "--backbone",
        str(base / "run"),
        "--output",
        str(tmp_path / "out"),
    ]
    done = CliRunner().invoke(app, [*arguments, "--offline", "--quiet"])
    assert done.exit_code == 1 and "3.png" in done.output and not (tmp_path / "out").exists()


def test_broken_pictures_are_left_out_and_counted_where_asked(run, tmp_path):
    base, _ = run
    for label, colour in COLOURS.items():
        for n in range(8):
            write_picture(tmp_path / "photos" / label / f"{n}.png", colour, seed=n)
    half = (tmp_path / "photos/red/3.png").read_bytes()
    (tmp_path / "photos/red/3.png").write_bytes(half[: len(half) // 2])  # the header is whole
    (tmp_path / "photos/blue/1.png").write_bytes(b"no picture")
    model = foretune.fit(
        tmp_path / "photos", backbone=str(base / "run"), output=tmp_path / "out", strategy="linear-probe", device="cpu",
        offline=True, skip_broken=True, epochs=1.0,
    )  # fmt: skip
    assert sum(model.record["data"]["sizes"].values()) == 14
    said = next(text for text in model.record["warnings"] if "left out" in text)
    assert "2 pictures of 16" in said and "3.png" in said and "1.png" in said
    for command in ("predict", "evaluate"):
        done = CliRunner().invoke(app, [command, str(base / "run"), str(tmp_path / "photos"), "--quiet"])
        assert done.exit_code == 1 and ".png" in done.output
        done = CliRunner().invoke(
            app, [command, str(base / "run"), str(tmp_path / "photos"), "--skip-broken"]
        )
        assert done.exit_code == 0, done.output
        assert "2 pictures of 16" in done.output


def test_missing_pictures_of_a_table_are_left_out_and_counted_where_asked(run, tmp_path):
    base, _ = run
    files = sorted((base / "photos/test").rglob("*.png"))
    rows = [f"{file},{file.parent.name}" for file in files]
    rows.insert(1, f"{tmp_path / 'gone.png'},red")
    (tmp_path / "test.csv").write_text("\n".join(["path,label", *rows]))
    command = ["evaluate", str(base / "run"), str(tmp_path / "test.csv"), "--quiet"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1 and "gone.png (row 2)" in done.output
    done = CliRunner().invoke(app, [*command, "--skip-broken"])
    assert done.exit_code == 0, done.output
    assert "gone.png (no such file)" in " ".join(done.output.split())
    (tmp_path / "test.csv").write_text("path,label\none.png,red\ntwo.png,blue\n")
    done = CliRunner().invoke(app, [*command, "--skip-broken"])
    assert done.exit_code == 1 and "2 files of 2" in " ".join(done.output.split())


def test_paths_are_read_line_by_line_from_standard_input(run):
    base, _ = run
    files = sorted((base / "photos/test").rglob("*.png"))
    for count in (1, len(files)):
        given = "".join(f"{file}\n" for file in files[:count])
        done = CliRunner().invoke(app, ["predict", str(base / "run"), "-", "--quiet"], input=given)
        assert done.exit_code == 0, done.output
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert [line["path"] for line in lines] == [str(file) for file in files[:count]]


def test_the_card_says_how_timm_loads_it(run, tmp_path, monkeypatch):
    base, _ = run
    card = (base / "run" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: timm\npipeline_tag: image-classification\n")
    code = card.split("in this folder:")[1].split("```python")[1].split("```")[0]
    for number, label in ((1, "red"), (2, "blue")):
        picture = base / "photos/test" / label / f"{number}.png"
        monkeypatch.chdir(base / "run")
        found = {}
        exec(code.replace("picture.jpg", str(picture)), found)
        assert found["label"] == foretune.load(base / "run").predict([str(picture)])[0]


def test_pictures_in_a_parquet_file(run, tmp_path):
    """The bytes of the test set's pictures in one file are scored as the folder is."""
    import pandas as pd

    base, result = run
    files = sorted((base / "photos/test").rglob("*.png"))
    cells = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    table = pd.DataFrame({"image": cells, "label": [file.parent.name for file in files]})
    table.to_parquet(tmp_path / "test.parquet")
    place = [str(base / "run"), str(tmp_path / "test.parquet"), "--text", "image"]
    done = CliRunner().invoke(app, ["evaluate", *place, "--json", "--quiet"])
    assert done.exit_code == 0, done.output
    assert (
        json.loads(done.stdout.splitlines()[-1])["metrics"]["accuracy"]
        == result["metrics"]["test"]["accuracy"]
    )


@pytest.mark.parametrize("strategy", ["linear-probe", "full"])
def test_nothing_stays_behind_on_the_cpu(strategy, network, elsewhere, tmp_path):
    for label, colour in COLOURS.items():
        for n in range(8):
            write_picture(tmp_path / "photos" / label / f"{n}.png", colour, seed=n)
    model = foretune.fit(
        tmp_path / "photos", backbone=str(network("test_vit")), strategy=strategy, output=tmp_path / "run", epochs=1.0,
        offline=True, options={"mixup": 0.2} if strategy == "full" else {},
    )  # fmt: skip
    assert next(model.backbone.model.parameters()).device == elsewhere
