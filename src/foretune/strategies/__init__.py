"""One file per strategy: what trains, in which phases, at which rate. Importing a file registers it."""

from __future__ import annotations

from importlib import import_module

FILES = ("full", "gradual_unfreezing", "linear_probe", "lora", "lp_ft", "top_layers", "zero_shot")


def import_strategies() -> None:
    """Import the files that register strategies."""
    for name in FILES:
        import_module(f"foretune.strategies.{name}")
