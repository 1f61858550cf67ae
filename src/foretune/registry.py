"""Names to things: the decorator by which tasks, strategies and backbones make themselves known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from foretune.errors import ConfigError, did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """A named table of classes or functions; unknown names get the nearest known one offered."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that files its argument under `name`. Raises ValueError on a second use."""

        def add(item: T) -> T:
            if name in self._items:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._items[name] = item
            return item

        return add

    def __getitem__(self, name: str) -> T:
        """Return the item called `name`. Raises ConfigError naming the known ones."""
        if name in self._items:
            return self._items[name]
        known = ", ".join(sorted(self._items))
        raise ConfigError(f"Unknown {self.kind} {name!r}.{did_you_mean(name, self._items)} Known: {known}.")

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._items))

    def __contains__(self, name: object) -> bool:
        return name in self._items
