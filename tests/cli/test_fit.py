import json
import os
from pathlib import Path

import pytest

from foretune.errors import DataError
from foretune.recipe import Recipe


def test_json_is_the_last_line_of_stdout(fitted) -> None:
    result = fitted.result
    assert len(result.lines) == 1
    found = result.last
    assert found.keys() == {"task", "backbone", "strategy", "metrics", "baselines", "train", "output"}
    assert found["task"] == "text-classification"
    assert found["strategy"] == "full"
    assert found["output"] == str(fitted.folder)
    for split in ("dev", "test"):
        score = found["metrics"][split]["accuracy"]
        assert score["low"] <= score["value"] <= score["high"]
    assert {"majority", "tfidf_logreg"} <= found["baselines"].keys()
    assert found["train"]["seconds"] > 0


def test_progress_goes_to_stderr(fitted) -> None:
    for part in ("text is column 'review'", "Split with seed 0", "2 epochs", "dev accuracy", "of peak"):
        assert part.lower() in fitted.result.stderr.lower()


def test_artefact_and_report_are_there(fitted) -> None:
    names = {path.name for path in fitted.folder.iterdir()}
    assert {"foretune.json", "model.safetensors", "recipe.toml", "report.html", "events.jsonl"} <= names
    assert "checkpoints" not in names


def test_resume_of_a_finished_run(invoke, fitted, fit_options: list[str], table: Path) -> None:
    before = (fitted.folder / "foretune.json").read_bytes()
    result = invoke("fit", table, "--output", fitted.folder, *fit_options, "--resume", "--json")
    assert result.exit_code == 0
    assert result.last == fitted.result.last
    assert "finished already" in result.stderr
    assert (fitted.folder / "foretune.json").read_bytes() == before


def test_table_for_people(invoke, fitted, fit_options: list[str], table: Path) -> None:
    result = invoke("fit", table, "--output", fitted.folder, *fit_options, "--resume", "--quiet")
    assert result.stderr == ""
    for part in ("this model", "most frequent", "TF-IDF", "examples/s", "report.html", "foretune predict"):
        assert part in result.stdout
    score = fitted.result.last["metrics"]["test"]["accuracy"]["value"]
    assert f"{score:.3f}" in result.stdout


def test_quiet_linear_probe_with_a_recipe(
    invoke, table: Path, fit_options: list[str], tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text('strategy = "linear-probe"\nseed = 5\nepochs = 9\nmetric = "macro_f1"\n')
    weights = tmp_path / "w.json"
    weights.write_text('{"good": 1, "bad": 2}')
    folder = tmp_path / "model"
    result = invoke(
        "fit", table, "--recipe", recipe, "--output", folder, *fit_options, "--class-weights", weights,
        "--quiet", "--batch-tokens", "200", "--track", "tensorboard", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "epoch" not in result.stderr
    kept = (folder / "recipe.toml").read_text()
    for line in ('strategy = "linear-probe"', "seed = 5", "epochs = 2.0", 'metric = "macro_f1"', "bad = 2.0"):
        assert line in kept
    assert (folder / "tensorboard").is_dir()


def test_separate_process_prints_only_json(
    shell, table: Path, fit_options: list[str], tmp_path: Path
) -> None:
    done = shell(
        "fit", table, "--output", tmp_path / "m", *fit_options, "--json", "--quiet", OMP_NUM_THREADS="1"
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["output"] == str(tmp_path / "m")
    shown = [line for line in done.stderr.splitlines() if not line.startswith("Warning:")]
    assert shown == []


@pytest.mark.parametrize("way", ["option", "recipe"])
def test_offline_is_set_before_the_fit(
    invoke, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    import foretune.api

    seen = {}

    def fit(*args: object, recipe: Recipe, **options: object) -> None:
        seen.update(os.environ, offline=options.get("offline", recipe.offline))
        raise DataError("enough")

    monkeypatch.setattr(foretune.api, "fit", fit)
    (tmp_path / "r.toml").write_text("offline = true")
    words = ["--offline"] if way == "option" else ["--recipe", tmp_path / "r.toml"]
    assert invoke("fit", table, *words).exit_code == 1
    assert seen["offline"] is True
    assert seen["HF_HUB_OFFLINE"] == seen["HF_DATASETS_OFFLINE"] == "1"
