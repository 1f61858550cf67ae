"""Foretune: know before you tune. Transfer learning with pretrained Transformers.

The public names are loaded when they are first used, so that `import foretune` and
`foretune --help` stay fast.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foretune.api import fit, load, plan
    from foretune.data.inspect import inspect_data
    from foretune.errors import ForetuneError
    from foretune.forecast.plan import Plan
    from foretune.model import Model
    from foretune.recipe import Recipe

__version__ = "0.1.0"
__all__ = ["ForetuneError", "Model", "Plan", "Recipe", "fit", "inspect_data", "load", "plan"]

_HOME = {
    "fit": "foretune.api",
    "load": "foretune.api",
    "plan": "foretune.api",
    "Plan": "foretune.forecast.plan",
    "Model": "foretune.model",
    "Recipe": "foretune.recipe",
    "ForetuneError": "foretune.errors",
    "inspect_data": "foretune.data.inspect",
}


def let_threads_sleep() -> None:
    """Let waiting OpenMP threads sleep soon instead of spin; it works only before torch is first imported.

    Spinning threads take the cores from each other as soon as anything else runs: on two cores with another
    busy process, training steps were 3 to 5 times slower so. What the user set stands.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'foretune' has no attribute {name!r}")
    let_threads_sleep()
    return getattr(import_module(_HOME[name]), name)
