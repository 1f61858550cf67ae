import json
import os
import sys
from pathlib import Path

import pytest


@pytest.fixture
def broken_fit(monkeypatch: pytest.MonkeyPatch):
    """Let `foretune.api.fit` raise what it is given."""

    def use(error: BaseException) -> None:
        import foretune.api

        def fit(*args: object, **options: object) -> None:
            raise error

        monkeypatch.setattr(foretune.api, "fit", fit)

    return use


def _check(result, code: int, kind: str, *parts: str) -> None:
    assert result.exit_code == code, result.stderr
    assert "Traceback" not in result.stderr
    assert "Error:" in result.stderr
    assert len(result.lines) == 1
    assert result.last["error"] == kind
    for part in parts:
        assert part in result.last["message"]
        assert part in result.stderr


def test_missing_file(invoke, table: Path) -> None:
    _check(invoke("fit", table.parent / "film.csv", "--json"), 1, "DataError", "No such file", "films.csv")


def test_wrong_column(invoke, table: Path) -> None:
    result = invoke("fit", table, "--text", "reviews", "--json")
    _check(result, 1, "DataError", "There is no column 'reviews'", "Did you mean 'review'")


def test_unknown_strategy(invoke, table: Path, tmp_path: Path) -> None:
    result = invoke("fit", table, "--strategy", "linear-prob", "--output", tmp_path / "m", "--json")
    _check(result, 2, "ConfigError", "Unknown strategy", "Did you mean 'linear-probe'?")
    assert not (tmp_path / "m").exists()


def test_output_that_is_not_empty(invoke, table: Path, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    _check(invoke("fit", table, "--output", tmp_path, "--json"), 2, "ConfigError", "is not empty", "--resume")
    assert (tmp_path / "note.txt").read_text() == "mine"


def test_unknown_backbone(invoke, table: Path, tmp_path: Path) -> None:
    result = invoke("fit", table, "--backbone", "minilm-16", "--output", tmp_path / "m", "--json", "--quiet")
    _check(result, 1, "BackboneError", "Unknown backbone", "Did you mean 'minilm-l6'?")


def test_wrong_entry_in_a_recipe(invoke, table: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text("epoch = 3\n")
    result = invoke("fit", table, "--recipe", recipe, "--json")
    _check(result, 2, "ConfigError", "Unknown entry 'epoch'", "Did you mean 'epochs'")
    recipe.write_text("epochs = -1\n")
    _check(invoke("fit", table, "--recipe", recipe, "--json"), 2, "ConfigError", "epochs is -1")
    _check(
        invoke("fit", table, "--recipe", tmp_path / "no.toml", "--json"), 2, "ConfigError", "cannot be read"
    )


@pytest.mark.parametrize(
    "options",
    [
        ("--device", "gpu"),
        ("--precision", "fp8"),
        ("--lr", "0"),
        ("--track", "wandb"),
        ("--class-weights", "x"),
    ],
)
def test_wrong_values_end_with_2(invoke, table: Path, options: tuple[str, str]) -> None:
    _check(invoke("fit", table, *options, "--json"), 2, "ConfigError")


@pytest.mark.parametrize(
    "words", [("fit", "a.csv", "--epochs", "three"), ("fit",), ("train",), ("fit", "a", "--x")]
)
def test_wrong_usage_ends_with_2(invoke, words: tuple[str, ...]) -> None:
    result = invoke(*words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage" in result.stderr


def test_no_model_folder(invoke, table: Path, tmp_path: Path) -> None:
    _check(invoke("evaluate", tmp_path / "no", table, "--json"), 1, "ArtifactError", "no model folder")
    result = invoke("predict", tmp_path, table)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "holds no foretune.json" in result.stderr


def test_wrong_device_of_a_saved_model(invoke, tmp_path: Path, table: Path) -> None:
    _check(
        invoke("evaluate", tmp_path, table, "--device", "gpu", "--json"), 2, "ConfigError", "device is 'gpu'"
    )


def test_unexpected_errors_end_with_70(invoke, table: Path, broken_fit) -> None:
    broken_fit(RuntimeError("boom [red]"))
    result = invoke("fit", table, "--json")
    assert result.exit_code == 70
    assert "RuntimeError: boom [red]" in result.stderr
    assert "FORETUNE_DEBUG=1" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.last == {"error": "RuntimeError", "message": "boom [red]"}


def test_debug_shows_the_traceback(invoke, table: Path, broken_fit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORETUNE_DEBUG", "1")
    broken_fit(RuntimeError("boom"))
    result = invoke("fit", table)
    assert (result.exit_code, result.stdout) == (70, "")
    assert "Traceback" in result.stderr


def test_interrupts_end_with_130(invoke, table: Path, broken_fit) -> None:
    from foretune.errors import Interrupted

    for error in (KeyboardInterrupt(), Interrupted("Stopped at step 3.")):
        broken_fit(error)
        result = invoke("fit", table, "--json")
        assert result.exit_code == 130
        assert result.last["error"] == "Interrupted"
        assert "Error:" not in result.stderr


def test_printing_inside_never_reaches_stdout(invoke, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import foretune.data.inspect

    def noisy(*args: object, **options: object) -> dict[str, object]:
        print("a library's chatter")
        return {"rows": 1}

    monkeypatch.setattr(foretune.data.inspect, "inspect_data", noisy)
    result = invoke("inspect", table, "--json")
    assert result.stdout == '{"rows": 1}\n'
    assert "chatter" in result.stderr


@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX pipe")
def test_closed_pipe_is_quiet(tmp_path: Path) -> None:
    import subprocess

    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "foretune", "models", "--json"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert done.returncode == 141
    assert done.stderr == ""


def test_json_is_ascii_where_stdout_is(shell, tmp_path: Path) -> None:
    data = tmp_path / "d.csv"
    data.write_text(
        "text,label\n" + "\n".join(f"第{i}句话写得很长,{'好坏'[i % 2]}" for i in range(10)), encoding="utf-8"
    )
    done = shell("inspect", data, "--json", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert json.loads(done.stdout)["classes"] == {"好": 5, "坏": 5}
    assert shell("inspect", data, PYTHONIOENCODING="ascii").returncode == 0


@pytest.mark.parametrize(
    "words", [("fit", "a.csv", "--epochs", "x"), ("plan", "a.csv", "--pilot", "3"), ("fit",)]
)
def test_what_the_parser_refuses_is_json_too(shell, words: tuple[str, ...]) -> None:
    done = shell(*words, "--json")
    assert done.returncode == 2 and "Usage:" in done.stderr
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert found["error"] == "ConfigError" and found["message"]
    assert shell(*words).stdout == ""
