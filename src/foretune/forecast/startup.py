"""What every `foretune fit` costs before its data and its model count: imports, measured peaks, baselines, report.

Measured once per machine by a fit in a process of its own, of a random model of a few hundred parameters on a
few dozen made-up rows, and kept with the machine's profile.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from foretune.forecast import remembered
from foretune.forecast.machine_profile import MachineProfile

TIMEOUT = 300.0  # seconds; a machine that needs longer to start is not measured
WAITING = 1.1  # seconds per second at work; starting hardly waits for anything but other programs' turns
ROWS = 40
MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["good", "bad", "warm", "cold", "the", "room", "was", "and"]


@dataclass(frozen=True)
class StartUp:
    """Seconds and peak memory of the process (bytes) of a fit that has next to nothing to do."""

    seconds: float
    memory_bytes: int
    closing: float = 0.0  # of the seconds, those after training: report, checks, the end of the process


def start_up(profile: MachineProfile, *, again: bool = False) -> StartUp | None:
    """Return the cost of starting here; some seconds where it was not kept. None where such a fit fails."""
    found = None if again else known_start_up(profile)
    if found is None:
        found = measure_start_up(profile.device)
        if found is not None:
            remembered.keep(_key(profile), asdict(found))
    return found


def known_start_up(profile: MachineProfile) -> StartUp | None:
    """Return the cost of starting here where it was measured before, else None."""
    return _recalled(remembered.recall(_key(profile)))


def _key(profile: MachineProfile) -> str:
    import transformers

    import foretune

    return remembered.machine_key(
        what="start-up",
        profile=profile.key,
        foretune=foretune.__version__,
        transformers=transformers.__version__,
    )


def _recalled(values: dict[str, Any] | None) -> StartUp | None:
    try:
        found = StartUp(**(values or {}))
        good = 0 <= found.closing < found.seconds < TIMEOUT and 0 < found.memory_bytes < 1 << 50
    except TypeError:
        return None
    return found if good else None


def measure_start_up(device: str) -> StartUp | None:
    """Run the smallest fit in a process of its own and return what it took; None where it fails."""
    with tempfile.TemporaryDirectory(prefix="foretune-start-") as name:
        folder = Path(name)
        try:
            make_backbone(folder / "backbone")
            _write_rows(folder / "rows.csv")
            done = run_measured(
                [
                    "fit", str(folder / "rows.csv"), "--backbone", str(folder / "backbone"), "--output",
                    str(folder / "run"), "--device", device, "--epochs", "1", "--max-tokens", "16", "--offline",
                    "--quiet", "--json",
                ],
                folder, {"FORETUNE_CACHE": str(folder / "cache"), "FORETUNE_LEDGER": "off"},
            )  # fmt: skip
            ended = time.time()
            closing = min(max(ended - _trained_at(folder / "run"), 0.0), done.seconds / 2)
        except (OSError, ValueError, subprocess.SubprocessError):
            return None
    if done.code != 0 or done.memory_bytes <= 0:
        return None
    idle = min(1.0, WAITING * done.cpu_seconds / done.seconds)
    return StartUp(done.seconds * idle, done.memory_bytes, closing * idle)


def _trained_at(run: Path) -> float:
    """Return when training ended (seconds since 1970). Raises OSError and ValueError."""
    events = [json.loads(line) for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    return max(event["time"] for event in events if event["event"] == "trained")


@dataclass(frozen=True)
class Measured:
    """A finished command: seconds, of them at work on processors, the most memory it held (bytes, 0 if unknown),
    exit code, what it printed."""

    seconds: float
    cpu_seconds: float
    memory_bytes: int
    code: int
    output: bytes
    errors: bytes


# The command tells itself the most memory it held: what the system keeps for a finished child counts the
# parent's memory at the moment of the fork too.
_CHILD = """
import atexit, sys
from pathlib import Path
def tell(path=Path(sys.argv.pop(1))):
    from foretune.training.memory import peak_resident
    path.write_text(str(peak_resident() or 0))
atexit.register(tell)
from foretune.cli import main
main()
"""


def run_measured(
    arguments: list[str], folder: Path, environment: dict[str, str] | None = None, timeout: float = TIMEOUT
) -> Measured:
    """Run the command `foretune ARGUMENTS` in a fresh process and measure it. Raises TimeoutExpired and OSError."""
    told = folder / ".peak-memory"
    command = [sys.executable, "-c", _CHILD, str(told), *arguments]
    started, before = time.perf_counter(), os.times()
    done = subprocess.run(
        command, env={**os.environ, **(environment or {})}, timeout=timeout, capture_output=True, check=False
    )
    seconds, after = time.perf_counter() - started, os.times()
    working = sum(after[2:4]) - sum(before[2:4])  # of children, in user and in system mode
    memory = int(told.read_text()) if told.exists() else 0
    return Measured(seconds, working, memory, done.returncode, done.stdout, done.stderr)


def make_backbone(folder: Path) -> None:
    """Write a random text encoder of one narrow layer with a tokenizer of a few words. Draws no random numbers."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    from foretune.backbones.text import quiet

    words = {word: number for number, word in enumerate(MARKS + WORDS)}
    inner = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    inner.normalizer, inner.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    names = dict(zip(("pad", "unk", "cls", "sep", "mask"), MARKS, strict=True))
    marks: dict[str, Any] = {f"{name}_token": mark for name, mark in names.items()}
    PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=64, **marks).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16,
        max_position_embeddings=64,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]), quiet():
        BertModel(config).save_pretrained(folder)


def _write_rows(path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for number in range(ROWS):
            mood, rest = WORDS[number % 2], WORDS[2 + number % 6]
            writer.writerow([f"the {rest} room {number} was {mood}", ("yes", "no")[number % 2]])
