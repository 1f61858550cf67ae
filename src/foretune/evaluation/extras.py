"""Packages that some metrics need and a plain installation lacks."""

from __future__ import annotations

from importlib.util import find_spec

from foretune.errors import ConfigError


def require(package: str, extra: str, purpose: str) -> None:
    """Raise ConfigError naming the extra to install where `package` is missing."""
    if find_spec(package) is None:
        raise ConfigError(
            f"{purpose} needs the package {package}, which is not installed."
            f" Install it: pip install 'foretune[{extra}]'"
        )
