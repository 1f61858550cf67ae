import io
import time

import pytest
from rich.console import Console

from foretune import display
from foretune.display import RichProgress, duration
from foretune.training.events import Events

SETUP = {
    "backbone": "bert", "strategy": "full", "device": "cpu", "precision": "fp32", "peak_flops": 1e11,
    "metric": "macro_f1", "lr": 2e-4, "epochs": 2.0, "batch_tokens": 512, "train": 100,
}  # fmt: skip
STEP = {"loss": 0.5, "epoch": 0.1, "examples_per_s": 1234.0, "tokens_per_s": 5678.0, "flops_per_s": 3e10}


def _screen(terminal: bool) -> Console:
    return Console(
        file=io.StringIO(),
        force_terminal=terminal,
        width=100,
        markup=False,
        highlight=False,
        color_system=None,
    )


def _play(progress: RichProgress) -> str:
    events = Events([progress])
    events.emit("note", text="Text is [bold] column.")
    events.emit("warning", text="Mind the gap.")
    events.emit("setup", **SETUP)
    events.emit("start", total=20, step=0, per_epoch=10)
    events.emit("step", step=1, **STEP)
    events.emit("evaluation", step=10, metric="macro_f1", accuracy=0.9, macro_f1=0.81, log_loss=0.3)
    events.emit("checkpoint", step=10, folder="step-10")
    events.emit("trained", step=20, stopped_early=False)
    events.emit("end", output="m", result={})
    events.close()
    return progress.console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("terminal", [True, False])
def test_lines_that_stay(terminal: bool) -> None:
    shown = _play(RichProgress(screen=_screen(terminal)))
    for part in (
        "Text is [bold] column.",
        "Warning: Mind the gap.",
        "100 GFLOP/s at most",
        "dev macro_f1 0.8100, accuracy 0.9000, log_loss 0.3000",
    ):
        assert part in shown


def test_quiet_shows_warnings_alone() -> None:
    assert _play(RichProgress(quiet=True, screen=_screen(True))) == "Warning: Mind the gap.\n"


def test_plain_lines_come_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(display.time, "monotonic", lambda: now + next(clock))
    progress = RichProgress(screen=_screen(False))
    progress.on("setup", SETUP)
    progress.on("start", {"total": 20, "step": 4, "per_epoch": 10})
    for step in range(5, 13):
        progress.on("step", {"step": step, **STEP})
    shown = progress.console.file.getvalue()  # type: ignore[attr-defined]
    assert "Going on at step 4 of 20." in shown
    lines = [line for line in shown.splitlines() if line.startswith("step ")]
    assert 0 < len(lines) < 5
    for part in (
        "of 20",
        "left",
        "epoch 0.1 of 2",
        "loss 0.500",
        "1,234 examples/s",
        "5,678 tokens/s",
        "30% of peak",
    ):
        assert part in lines[0]


def test_bar_is_drawn_on_a_terminal() -> None:
    progress = RichProgress(screen=_screen(True))
    try:
        for kind, values in (("setup", SETUP), ("start", {"total": 20, "step": 0, "per_epoch": 10})):
            progress.on(kind, values)
        assert "first step" in _drawn(progress)
        progress.on("step", {"step": 5, **STEP})
        progress.on("evaluation", {"step": 5, "metric": "macro_f1", "macro_f1": 0.81})
        for part in ("25%", "step 5 of 20", "left", "dev macro_f1 0.810", "30% of peak"):
            assert part in _drawn(progress)
        progress.on("trained", {"step": 5, "stopped_early": True})
        assert "baselines" in _drawn(progress)
    finally:
        progress.close()
        progress.close()


def _drawn(progress: RichProgress) -> str:
    screen = _screen(False)
    screen.print(progress._draw())
    return screen.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.2, "0 s"), (59.4, "59 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_duration(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
