import subprocess
import sys
from pathlib import Path

import pytest

from foretune.cli_fit import class_weights, key_value, recipe_changes
from foretune.errors import ConfigError
from foretune.recipe import Recipe

COMMANDS = ["fit", "evaluate", "predict", "models", "inspect"]
HEAVY = "torch transformers pandas sklearn datasets numpy"


@pytest.mark.parametrize("words", ["import foretune.cli", "import foretune.cli as c; c.app(['--help'])"])
def test_start_imports_nothing_heavy(words: str) -> None:
    code = (
        f"import sys\ntry:\n    {words}\nexcept SystemExit:\n    pass\n"
        f"print([n for n in '{HEAVY}'.split() if n in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command(invoke, command: str) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.stdout


def test_help_names_every_command(invoke) -> None:
    assert all(command in invoke("--help").stdout for command in COMMANDS)


def test_version(shell) -> None:
    from foretune import __version__

    done = shell("--version")
    assert (done.returncode, done.stdout.strip()) == (0, f"foretune {__version__}")


def _given(**values: object) -> dict[str, object]:
    return {"track": None, "option": None, "class_weights": None, "offline": False, "resume": False, **values}


def test_options_not_given_leave_the_recipe_alone() -> None:
    assert recipe_changes(_given(epochs=None, lr=None), Recipe(epochs=7)) == {}


def test_zero_is_given() -> None:
    given = _given(seed=0, patience=0, dropout=0.0, dev_fraction=0.0)
    assert recipe_changes(given, Recipe(seed=3)) == {
        "seed": 0,
        "patience": 0,
        "dropout": 0.0,
        "dev_fraction": 0.0,
    }


def test_strategy_options_are_added_to_those_of_the_recipe() -> None:
    plan = Recipe(options={"pooling": "cls", "rank": 4})
    assert recipe_changes(_given(option=["rank=8"]), plan) == {"options": {"pooling": "cls", "rank": 8}}


def test_trackers() -> None:
    assert recipe_changes(_given(track=["tensorboard"]), Recipe()) == {"trackers": ("tensorboard",)}


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("pooling=mean", ("pooling", "mean")),
        ("rank=8", ("rank", 8)),
        ("alpha = 0.5", ("alpha", 0.5)),
        ("on=true", ("on", True)),
        ('targets=["q", "v"]', ("targets", ["q", "v"])),
        ("lora-rank=2", ("lora_rank", 2)),
        ("path=a=b", ("path", "a=b")),
        ("empty=", ("empty", "")),
    ],
)
def test_key_value(item: str, expected: tuple[str, object]) -> None:
    assert key_value(item) == expected


@pytest.mark.parametrize("item", ["pooling", "=3", ""])
def test_key_value_errors(item: str) -> None:
    with pytest.raises(ConfigError, match="key=value"):
        key_value(item)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("w.json", '{"good": 1, "bad": 2.5}'),
        ("w.csv", "label,weight\ngood,1\nbad,2.5\n"),
        ("w.CSV", "\ufeffgood,1\nbad,2.5"),
        ("w.toml", "good = 1\nbad = 2.5\n"),
        ("r.toml", "epochs = 3\n[class_weights]\ngood = 1\nbad = 2.5\n"),
    ],
)
def test_class_weights_files(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert class_weights(str(tmp_path / name)) == {"good": 1.0, "bad": 2.5}


@pytest.mark.parametrize("word", ["none", "auto"])
def test_class_weights_words(word: str) -> None:
    assert class_weights(word) == word


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("w.json", "{", "not valid JSON"),
        ("w.json", "[1, 2]", "holds a list"),
        ("w.json", "{}", "names no label"),
        ("w.json", '{"good": "much"}', "'good' is 'much'; expected a number above 0"),
        ("w.json", '{"good": true}', "number above 0"),
        ("w.json", '{"good": -1}', "number above 0"),
        ("w.toml", "good", "not valid TOML"),
        ("w.csv", "good,1,2", "line 1: 3 cells"),
        ("w.csv", "good,1\ngood,2", "line 2: 'good' again"),
        ("w.json", '{"good": 1, "bad": 2, "good": 3}', "'good' again. Name each label once"),
    ],
)
def test_class_weights_errors(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        class_weights(str(tmp_path / name))


def test_class_weights_that_are_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'auto'"):
        class_weights("atuo")
    with pytest.raises(ConfigError, match="No such file"):
        class_weights(str(tmp_path / "missing.json"))
    (tmp_path / "w.csv").write_bytes(b"g\xff,1")
    with pytest.raises(ConfigError, match="not UTF-8"):
        class_weights(str(tmp_path / "w.csv"))
