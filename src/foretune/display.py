"""What a person sees of a run: a bar on a terminal, a plain line now and then elsewhere, on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

PLAIN_SECONDS = 10.0  # between two lines where there is no terminal
REDRAWS = 4  # per second, of the bar
SHOWN_SCORES = ("accuracy", "macro_f1", "log_loss")  # of an evaluation, beside the metric that decides
BAR_WIDTH = 30  # characters


def console(file: TextIO | None = None) -> Console:
    """Return a console on `file` (default: stderr) that shows users' texts as they are."""
    from rich.console import Console

    return Console(file=file or sys.stderr, markup=False, emoji=False, highlight=False)


def put(screen: Console, text: Any, style: str = "") -> None:
    """Print text wrapped at words on a terminal, and unwrapped elsewhere."""
    screen.print(text, style=style or None, soft_wrap=not screen.is_terminal)


@contextmanager
def waiting(text: str, quiet: bool = False) -> Iterator[None]:
    """Show a spinner on a terminal while something loads."""
    screen = console()
    if quiet or not screen.is_terminal:
        yield
        return
    with screen.status(text + " …"):
        yield


def tracked(items: Iterable[Any], total: int, *, quiet: bool = False) -> Iterable[Any]:
    """Yield `items` with a bar on a terminal."""
    screen = console()
    if quiet or not screen.is_terminal:
        return items
    from rich.progress import track

    return track(items, "predicting", total=total, console=screen, transient=True)


class RichProgress:
    """Shows a run; a `Listener` of `foretune.training.events`. With `quiet`, warnings alone."""

    def __init__(self, *, quiet: bool = False, screen: Console | None = None) -> None:
        self.console, self.quiet = screen or console(), quiet
        self._waiting = "reading data, loading the backbone"
        self._peak, self._metric, self._epochs, self._unit = 0.0, "", 0.0, "tokens"
        self._score: float | None = None
        self._total = self._first = 0
        self._last: dict[str, Any] = {}
        self._began = self._printed = time.monotonic()
        self._live = self._open()

    def on(self, kind: str, values: dict[str, Any]) -> None:
        """Take one event."""
        handler = getattr(self, f"_on_{kind}", None)
        if handler is not None and (kind == "warning" or not self.quiet):
            handler(values)

    def close(self) -> None:
        """Take the bar away; what was printed above it stays."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _open(self) -> Live | None:
        """Start drawing, on a terminal."""
        if self.quiet or not self.console.is_terminal:
            return None
        from rich.live import Live

        live = Live(
            console=self.console,
            get_renderable=self._draw,
            refresh_per_second=REDRAWS,
            transient=True,
            redirect_stdout=False,
        )
        live.start()
        return live

    def _on_note(self, values: dict[str, Any]) -> None:
        self._print(values["text"], "dim")

    def _on_warning(self, values: dict[str, Any]) -> None:
        self._print(f"Warning: {values['text']}", "yellow")

    def _on_setup(self, values: dict[str, Any]) -> None:
        self._peak, self._metric, self._epochs = values["peak_flops"], values["metric"], values["epochs"]
        self._unit = values.get("unit", "tokens")
        training = "no training"
        if values["epochs"]:  # none where nothing trains
            batch = f"{values['batch_tokens']:,} {self._unit} a step"
            training = f"{values['epochs']:g} epochs, {batch}, rate {values['lr']:.2g}"
        self._print(
            f"{values['backbone']}, {values['strategy']}, {values['precision']} on {values['device']} "
            f"({values['peak_flops'] / 1e9:,.0f} GFLOP/s at most): {values['train']:,} examples, {training}",
            "dim",
        )

    def _on_start(self, values: dict[str, Any]) -> None:
        self._waiting = ""
        self._total, self._first = values["total"], values["step"]
        self._began = self._printed = time.monotonic()
        if values["step"]:
            self._print(f"Going on at step {values['step']:,} of {values['total']:,}.")

    def _on_step(self, values: dict[str, Any]) -> None:
        self._last = values
        now = time.monotonic()
        if self._live is None and now - self._printed >= PLAIN_SECONDS:
            self._printed = now
            self._print(f"{self._position()}, {self._left()}; {self._figures()}")

    def _on_evaluation(self, values: dict[str, Any]) -> None:
        self._score = values[values["metric"]]
        names = dict.fromkeys([values["metric"], *SHOWN_SCORES])
        shown = ", ".join(f"{name} {values[name]:.4f}" for name in names if name in values)
        self._printed = time.monotonic()
        speed = f"; {self._speed()}" if self._live is None and self._last else ""
        self._print(f"epoch {self._last.get('epoch', 0):.1f}: dev {shown}{speed}")

    def _on_sample(self, values: dict[str, Any]) -> None:
        prompt, text = (" ".join(values[name].split()) for name in ("prompt", "text"))
        self._print(f"  {prompt} … {text}", "dim")

    def _on_trained(self, values: dict[str, Any]) -> None:
        self._waiting = "evaluating, comparing with baselines, saving"

    def _position(self) -> str:
        return f"step {self._last['step']:,} of {self._total:,}"

    def _left(self) -> str:
        """Return the time left as text, an upper bound where early stopping may come before."""
        done = self._last["step"] - self._first
        seconds = (self._total - self._last["step"]) * (time.monotonic() - self._began) / max(done, 1)
        return f"{duration(seconds)} left"

    def _figures(self) -> str:
        score = "" if self._score is None else f"dev {self._metric} {self._score:.3f}, "
        return f"epoch {self._last['epoch']:.1f} of {self._epochs:g}, {score}{self._speed()}"

    def _speed(self) -> str:
        values = self._last
        parts = [f"loss {values['loss']:.3f}", f"{values['examples_per_s']:,.0f} examples/s"]
        if self._unit == "tokens":
            parts.append(f"{values['tokens_per_s']:,.0f} tokens/s")
        if self._peak:
            parts.append(f"{values['flops_per_s'] / self._peak:.0%} of peak")
        return ", ".join(parts)

    def _draw(self) -> RenderableType:
        """Return what the bottom of the terminal shows now."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        if self._waiting or not self._last:
            self._spinner = getattr(self, "_spinner", None) or Spinner("dots")
            self._spinner.update(text=Text(f"{self._waiting or 'first step'} …"))
            return self._spinner
        line = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=self._total, completed=self._last["step"], width=BAR_WIDTH)
        line.add_row(bar, f"{self._last['step'] / self._total:.0%}", self._position(), self._left())
        return Group(line, Text(self._figures(), style="dim"))

    def _print(self, text: str, style: str = "") -> None:
        from rich.text import Text

        put(self.console, Text(text, style=style))


def duration(seconds: float) -> str:
    """Return `"45 s"`, `"3 min 20 s"` or `"2 h 05 min"`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
