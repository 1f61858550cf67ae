"""Predictions that are pictures (masks): a PNG per input in a folder, and a line about each."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from foretune.cli_guard import is_utf8
from foretune.errors import ConfigError


def check_folder(output: Path | None, formats: Sequence[str]) -> Path:
    """Return the folder that predictions are written to. Raises ConfigError where none is given."""
    if output is None or output.suffix.lower() in formats or output.is_file():
        found = "nothing" if output is None else str(output)
        raise ConfigError(
            f"This model predicts masks; --output is {found}. Give a folder for their PNG files."
        )
    return output


def write_files(
    items: Iterable[dict[str, Any]], inputs: Sequence[Any], folder: Path, key: str, out: TextIO
) -> None:
    """Write every item's `key`, an array (height, width) uint8 or uint16, as a PNG; tell each as a JSON line.

    Files are called like their pictures; of several of one name the row number follows. Raises ResourceError.
    """
    from foretune.cli_predict import rounded
    from foretune.training.files import disk_errors

    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for row, (item, name) in enumerate(zip(items, names(inputs), strict=True), start=1):
            path = folder / name
            _save(item[key], path)
            line = {"row": row, **{k: rounded(v) for k, v in item.items() if k != key}, key: str(path)}
            out.write(json.dumps(line, ensure_ascii=not is_utf8(out)) + "\n")


def names(inputs: Sequence[Any]) -> list[str]:
    """Return a file name for every input, no two alike whatever the letters' case."""
    stems = [Path(os.fspath(each)).stem for each in inputs]
    times = Counter(stem.casefold() for stem in stems)
    return [
        f"{stem}.png" if times[stem.casefold()] == 1 else f"{stem}-{row}.png"
        for row, stem in enumerate(stems, start=1)
    ]


def _save(mask: np.ndarray, path: Path) -> None:
    """Write a PNG of one channel under a temporary name and rename it."""
    from PIL import Image

    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        Image.fromarray(mask).save(draft, "PNG")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
