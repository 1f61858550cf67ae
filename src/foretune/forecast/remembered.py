"""What was measured of a machine, kept in one JSON file so that it is measured once."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from foretune.data.store import cache_folder

FILE = "machine.json"
FORMAT = 1
ENTRIES = 40  # kept at most: a cache folder may be shared by many machines and versions


def machine_key(**parts: str | int | float | None) -> str:
    """Return a name (hex) for all that a measurement depends on."""
    text = json.dumps({"format": FORMAT, **parts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def recall(key: str) -> dict[str, Any] | None:
    """Return what was kept under `key`; None where there is nothing or the file is damaged."""
    entry = _read().get(key)
    return entry if isinstance(entry, dict) else None


def keep(key: str, values: dict[str, Any]) -> bool:
    """Keep `values` under `key`, atomically; False where the cache folder cannot be written.

    Of two processes that write at once one may win alone: the other's values are measured again.
    """
    entries = {name: value for name, value in _read().items() if name != key}
    entries = dict([*entries.items(), (key, values)][-ENTRIES:])
    folder = cache_folder()
    draft = ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=folder, prefix=".tmp-", suffix=".json")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(entries, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        Path(draft).replace(folder / FILE)
        return True
    except OSError:
        if draft:
            Path(draft).unlink(missing_ok=True)
        return False


def _read() -> dict[str, Any]:
    try:
        found = json.loads((cache_folder() / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
