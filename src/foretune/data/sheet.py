"""A table as the guesses look at it: each column's profile and kind, worked out once and only when asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from foretune.data.cells import are_lists_of
from foretune.data.multilabel import is_multi_hot
from foretune.data.profile import FEW_ROWS, Profile, profile
from foretune.data.spans import is_spans
from foretune.errors import DataError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

PROSE = 0.3


class Sheet:
    """The columns of a table, by name, with what can be told of each."""

    def __init__(self, table: pd.DataFrame) -> None:
        self.table = table
        self.names = [str(name) for name in table.columns]
        self.format = table.attrs.get("format")
        self._aliases: dict[str, str] = table.attrs.get("names", {})
        self._values: dict[str, list[Any]] = {}
        self._profiles: dict[str, Profile] = {}

    def resolve(self, given: str | None, option: str) -> str | None:
        """Return the column that `given` names; CoNLL columns also go by number. Raises DataError."""
        if given is None or given in self.names:
            return given
        if given in self._aliases:
            return self._aliases[given]
        raise DataError(
            f"There is no column {given!r}.{did_you_mean(given, self.names)} Columns: "
            f"{', '.join(self.names)}. Choose one with {option}."
        )

    def values(self, name: str) -> list[Any]:
        """Return the cells of a column."""
        if name not in self._values:
            self._values[name] = self.table.iloc[:, self.names.index(name)].tolist()
        return self._values[name]

    def profile(self, name: str) -> Profile:
        """Return the profile of a column."""
        if name not in self._profiles:
            self._profiles[name] = profile(name, self.values(name))
        return self._profiles[name]

    def profiles(self, without: tuple[str | None, ...] = ()) -> list[Profile]:
        """Return the profiles of all columns but those named."""
        return [self.profile(name) for name in self.names if name not in without]

    def named(self, *wanted: str) -> str | None:
        """Return the column that bears the first of these names that there is, whatever its case."""
        folded = {name.strip().casefold(): name for name in reversed(self.names)}
        return next((folded[name] for name in wanted if name in folded), None)

    def is_text(self, name: str) -> bool:
        """Say whether a column holds strings that are not all numbers."""
        return self.profile(name).is_textual

    def is_prose(self, name: str) -> bool:
        """Say whether a column reads like text: words or Chinese characters, and hardly the same twice."""
        p = self.profile(name)
        varied = (2 if p.rows < FEW_ROWS else 5) * p.distinct > p.rows
        return p.is_textual and p.prose >= PROSE and varied

    def is_tokens(self, name: str) -> bool:
        """Say whether the cells of a column are lists of strings."""
        return self._is_object(name) and are_lists_of(self.values(name), str)

    def is_lists(self, name: str) -> bool:
        """Say whether the cells of a column are lists of strings, or of whole numbers, which may number labels."""
        values = self.values(name)
        numbered = self._is_object(name) and are_lists_of(values, int) and not is_multi_hot(values)
        return numbered or self.is_tokens(name)

    def is_spans(self, name: str) -> bool:
        """Say whether the cells of a column are spans of characters."""
        return self._is_object(name) and is_spans(self.values(name))

    def is_binary(self, name: str) -> bool:
        """Say whether every cell of a column is 0 or 1, or false or true, and both occur."""
        p = self.profile(name)
        if p.missing or p.distinct != 2:
            return False
        return {str(value).strip().casefold() for value in self.values(name)} in (
            {"0", "1"},
            {"0.0", "1.0"},
            {"false", "true"},
        )

    def _is_object(self, name: str) -> bool:
        return any(isinstance(value, list | tuple | dict) for value in self.values(name)[:1000])
