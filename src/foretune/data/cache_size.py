"""How many bytes one part of the cache may take: as the user says, or a share of the disk."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

from foretune.errors import ConfigError

LIMIT_VARIABLE = "FORETUNE_CACHE_BYTES"
LIMIT_BYTES, DISK_SHARE = 20 * 10**9, 0.2
UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def size_limit(folder: Path, held: int) -> int:
    """Return the bytes that all entries of a cache folder may take together, which now take `held`.

    $FORETUNE_CACHE_BYTES where it is set; else 20 % of what the disk would have free without the entries, and
    20 GB at most. Raises ConfigError where the variable is no size.
    """
    given = os.environ.get(LIMIT_VARIABLE, "").strip()
    if given:
        return parse_size(given)
    return min(LIMIT_BYTES, int(DISK_SHARE * (free_bytes(folder) + held)))


def parse_size(text: str) -> int:
    """Return the bytes that `text` says, such as "12345", "8GB" or "1.5GiB". Raises ConfigError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*(?:([kmgt])(i?))?b?", text.lower(), flags=re.ASCII)
    if match is None:
        raise ConfigError(
            f"${LIMIT_VARIABLE} is {text!r}, which is no size. Give bytes, or a number with a unit such as 8GB, "
            "500MB or 1.5GiB; 0 keeps features off the disk."
        )
    number, unit, binary = match[1], match[2] or "", match[3]
    return int(float(number) * (1024 if binary else 1000) ** UNITS[unit])


def free_bytes(folder: Path) -> int:
    """Return what is free on the disk of a folder, which need not be there yet."""
    folder = folder.absolute()
    for path in (folder, *folder.parents):
        with suppress(OSError):  # not made yet
            return shutil.disk_usage(path).free
    return 0
