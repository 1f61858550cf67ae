"""Numeric targets: strings and numbers as float64, and what is no number named by its row."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from foretune.data.text import counted, is_blank, listed, row_list
from foretune.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,\d+\s*")
_REMEDY = {
    "missing": "Fill these rows in or drop them.",
    "with a decimal comma": "Write a point instead (3.5, not 3,5), and no mark between thousands.",
    "not a number": "Correct or drop these rows, or choose another column with --target.",
    "infinite or not a number (NaN)": "Correct or drop these rows.",
}


def quantities(values: Sequence[object], column: str, where: str = "train") -> NDArray[np.float64]:
    """Return a numeric column as float64 `(rows,)`.

    Raises DataError naming the rows that are missing, written with a decimal comma, no number, NaN or infinite.
    """
    import numpy as np

    if not values:
        raise DataError(f"{where}: no rows, expected a number in column {column!r}.")
    faults: dict[str, list[int]] = {}
    numbers = np.zeros(len(values))
    for row, value in enumerate(values):
        number, fault = _number(value)
        numbers[row] = number
        if fault:
            faults.setdefault(fault, []).append(row)
    for fault in _REMEDY:
        if fault in faults:
            raise _error(fault, faults[fault], values, column, where)
    return numbers


def _number(value: object) -> tuple[float, str]:
    """Return the number and an empty string, or 0 and what is wrong."""
    if is_blank(value):
        return 0.0, "missing"
    if isinstance(value, bool):
        return 0.0, "not a number"
    if isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value):
        return 0.0, "with a decimal comma"
    try:
        # float() reads "1_000" too, which is an identifier rather than a measurement.
        number = float("x" if isinstance(value, str) and "_" in value else value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return 0.0, "not a number"
    return (number, "") if math.isfinite(number) else (0.0, "infinite or not a number (NaN)")


def _error(fault: str, rows: list[int], values: Sequence[object], column: str, where: str) -> DataError:
    examples = "" if fault == "missing" else f": {listed([repr(values[row]) for row in rows], 3)}"
    return DataError(
        f"{where}: {counted(len(rows), 'value')} of {len(values):,} in column {column!r} {fault} "
        f"({row_list(rows)}){examples}. {_REMEDY[fault]}"
    )
