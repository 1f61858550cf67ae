"""The classes of segmentation masks: names, the ids or colours that stand for them, what is ignored."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from foretune.data.files import decode, read_bytes
from foretune.data.text import listed
from foretune.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

Colour = tuple[int, int, int]
_SHAPES = '["sky", "road"], {"0": "sky"} or {"classes": [{"id": 0, "name": "sky"}], "ignore_id": 255}'
_HIGHEST_ID = 65_535


@dataclass(frozen=True)
class MaskClasses:
    """Class i is called `labels[i]` and stands as `ids[i]` (or `colours[i]`) in a mask; `ignore` is no class.

    `ignore_colour` is the colour of ignored pixels, where masks are coloured. Raises DataError for doubled
    names, ids or colours.
    """

    labels: tuple[str, ...]
    ids: tuple[int, ...]
    ignore: int | None = None
    colours: tuple[Colour, ...] = ()
    ignore_colour: Colour | None = None
    UNKNOWN: ClassVar[int] = -2
    IGNORED: ClassVar[int] = -1

    def __post_init__(self) -> None:
        for values, noun in ((self.labels, "name"), (self.ids, "id"), (self.colours, "color")):
            doubled = [value for value, count in Counter(values).items() if count > 1]
            if doubled:
                raise DataError(
                    f"The {noun} {listed(doubled)} belongs to several classes. Each needs its own."
                )
        wrong = [value for value in self.ids if not 0 <= value <= _HIGHEST_ID]
        if wrong:
            raise DataError(f"Class ids {listed(wrong)} are not between 0 and {_HIGHEST_ID:,}.")

    def numbers(self, ids: NDArray[Any]) -> NDArray[np.int16]:
        """Return the class number of every id, same shape: IGNORED for `ignore`, UNKNOWN for no class."""
        if ids.dtype == np.uint8:
            return self._by_id[ids]
        known = np.where((ids >= 0) & (ids <= _HIGHEST_ID), ids, 0)
        return np.where(known == ids, self._by_id[known], np.int16(self.UNKNOWN))

    @cached_property
    def _by_id(self) -> NDArray[np.int16]:
        """Return the class number of every id that can be: (65,536,)."""
        table = np.full(_HIGHEST_ID + 1, self.UNKNOWN, dtype=np.int16)
        table[list(self.ids)] = np.arange(len(self.ids))
        if self.ignore is not None and 0 <= self.ignore <= _HIGHEST_ID:
            table[self.ignore] = self.IGNORED
        return table

    def numbers_of_colours(self, pixels: NDArray[np.uint8]) -> NDArray[np.int16]:
        """Return the class numbers (height, width) of colours (height, width, 3), as `numbers` does."""
        packed = _packed(pixels)
        codes = [_packed(np.array(colour)) for colour in self.colours]
        values = list(range(len(codes)))
        if self.ignore_colour is not None:
            codes.append(_packed(np.array(self.ignore_colour)))
            values.append(self.IGNORED)
        order = np.argsort(codes)
        sorted_codes, sorted_values = np.array(codes)[order], np.array(values, dtype=np.int16)[order]
        place = np.searchsorted(sorted_codes, packed).clip(max=len(codes) - 1)
        return np.where(sorted_codes[place] == packed, sorted_values[place], self.UNKNOWN).astype(np.int16)

    def renamed(self, other: MaskClasses) -> list[str]:
        """Return a word on each id (or colour) that `other` calls otherwise; a number of its own is no name."""
        mine, theirs = (dict(zip(c.colours or c.ids, c.labels, strict=True)) for c in (self, other))
        return [
            f"{mark} is {theirs[mark]!r}, not {name!r}"
            for mark, name in mine.items()
            if theirs.get(mark, name) != name and str(mark) not in (name, theirs[mark])
        ]

    def attrs(self) -> dict[str, Any]:
        """Return the entries of a table's `attrs` from which `of` makes the classes again."""
        return {
            "labels": list(self.labels),
            "ids": list(self.ids),
            "ignore": self.ignore,
            "colours": [list(colour) for colour in self.colours],
            "ignore_colour": None if self.ignore_colour is None else list(self.ignore_colour),
        }

    @classmethod
    def of(cls, table: pd.DataFrame) -> MaskClasses:
        """Return the classes of a table of masks."""
        kept = table.attrs
        colours = tuple(_colour(colour) for colour in kept.get("colours", ()))
        void = kept.get("ignore_colour")
        return cls(
            tuple(kept["labels"]),
            tuple(kept["ids"]),
            kept["ignore"],
            colours,
            _colour(void) if void else None,
        )


def _colour(values: Iterable[Any]) -> Colour:
    """Return the three parts of a colour. Raises ValueError unless they are three whole numbers."""
    red, green, blue = (int(part) for part in values)
    return red, green, blue


def _packed(colours: NDArray[Any]) -> NDArray[np.int64]:
    """Return one number per colour: (…, 3) to (…)."""
    return colours.astype(np.int64) @ np.array([65_536, 256, 1])


def read_classes(file: Path) -> MaskClasses:
    """Return the classes in a `classes.json`: a list of names, an object id: name, or the long form.

    The long form is an object with `classes`, a list of objects with id, name and maybe color [r, g, b],
    and maybe `ignore_id`; the class of that id is then no class. Raises DataError for any other shape.
    """
    try:
        content = json.loads(decode(read_bytes(file), str(file)))
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{file} is not valid JSON ({error}).") from error
    ignore = None
    if isinstance(content, dict) and "classes" in content:
        ignore, content = content.get("ignore_id"), content["classes"]
    try:
        entries = [_entry(item) for item in _items(content)]
        return _classes(entries, None if ignore is None else int(ignore))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file} is no list of classes ({error!r}). Expected {_SHAPES}.") from error
    except DataError as error:
        raise DataError(f"{file}: {error}") from error


def _items(content: Any) -> list[Any]:
    """Return the entries as objects with id and name, whatever the shape."""
    if isinstance(content, dict):
        return [{"id": key, "name": name} for key, name in content.items()]
    if isinstance(content, list) and all(isinstance(item, str) for item in content):
        return [{"id": number, "name": name} for number, name in enumerate(content)]
    if not isinstance(content, list):
        raise TypeError("neither a list nor an object")
    return content


def _entry(item: Any) -> tuple[int, str, Colour | None]:
    colour = item.get("color", item.get("colour"))
    return int(item["id"]), str(item["name"]), None if colour is None else _colour(colour)


def _classes(entries: list[tuple[int, str, Colour | None]], ignore: int | None) -> MaskClasses:
    kept = [entry for entry in entries if entry[0] != ignore]
    if len(kept) < 2:
        raise DataError(f"there are {len(kept)} classes that count, expected at least two.")
    colours = [colour for *_, colour in kept if colour is not None]
    if colours and len(colours) < len(kept):
        missing = [name for _, name, colour in kept if colour is None]
        raise DataError(f"classes without a color: {listed(missing)}. Give it to all or to none.")
    void = next((colour for key, _, colour in entries if key == ignore), None)
    return MaskClasses(
        tuple(name for _, name, _ in kept), tuple(key for key, *_ in kept), ignore, tuple(colours), void
    )
