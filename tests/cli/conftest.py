import csv
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
from typer.testing import CliRunner

WORDS = {
    "good": ["fine", "great", "lovely", "superb", "bright", "happy", "warm", "clever"],
    "bad": ["awful", "broken", "dull", "grim", "sad", "slow", "stale", "weak"],
}
FILLERS = [
    "the",
    "a",
    "film",
    "was",
    "very",
    "quite",
    "rather",
    "and",
    "story",
    "with",
    "cast",
    "this",
    "that",
]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {"FORETUNE_CACHE": str(tmp_path_factory.mktemp("cache"))}


@pytest.fixture(scope="session")
def sentences() -> list[tuple[str, str]]:
    """60 distinct (text, label) of two classes, told apart by one word in nine."""
    rng = random.Random(0)
    rows: dict[str, str] = {}
    while len(rows) < 60:
        label = ("good", "bad")[len(rows) % 2]
        words = rng.choices(FILLERS, k=6) + rng.sample(WORDS[label], 2)
        rng.shuffle(words)
        rows.setdefault(" ".join(words), label)
    return list(rows.items())


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory, sentences: list[tuple[str, str]]) -> Path:
    path = tmp_path_factory.mktemp("data") / "films.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("review", "mood"), *sentences])
    return path


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random BERT of 2 layers and a WordPiece tokenizer of the words above."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("tiny") / "bert"
    folder.mkdir()
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *FILLERS, *WORDS["good"], *WORDS["bad"]]
    pieces += [p for p in [*LETTERS, *("##" + letter for letter in LETTERS)] if p not in pieces]
    (folder / "vocab.txt").write_text("\n".join(pieces), encoding="utf-8")
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def invoke(environment: dict[str, str]) -> Callable[..., SimpleNamespace]:
    """Run a command in this process and leave its environment as it was.

    Returns exit_code, stdout, stderr, lines (of stdout) and last (the last of them, from JSON).
    """

    def call(*words: object, input: str | None = None) -> SimpleNamespace:
        from foretune.cli import app

        with patch.dict(os.environ, environment):
            result = CliRunner().invoke(app, [str(word) for word in words], input=input)
        lines = result.stdout.strip().splitlines()
        last = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else None
        return SimpleNamespace(
            exit_code=result.exit_code, stdout=result.stdout, stderr=result.stderr, last=last, lines=lines
        )

    return call


@pytest.fixture(scope="session")
def shell(environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command in a process of its own."""

    def call(*words: object, input: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "foretune", *map(str, words)]
        return subprocess.run(
            command,
            input=input,
            env={**os.environ, **environment, **env},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return call


@pytest.fixture(scope="session")
def fit_options(tiny_bert: Path) -> list[str]:
    return [
        "--backbone",
        str(tiny_bert),
        "--epochs",
        "2",
        "--precision",
        "fp32",
        "--lr",
        "0.003",
        "--offline",
    ]


@pytest.fixture(scope="session")
def fitted(
    tmp_path_factory: pytest.TempPathFactory,
    table: Path,
    fit_options: list[str],
    invoke: Callable[..., SimpleNamespace],
) -> SimpleNamespace:
    """A finished run: its folder and what the command printed."""
    folder = tmp_path_factory.mktemp("run") / "model"
    result = invoke("fit", table, "--output", folder, *fit_options, "--json")
    assert result.exit_code == 0, result.stderr
    return SimpleNamespace(folder=folder, result=result)
