"""From the options of `foretune fit` to one call of `foretune.fit`."""

from __future__ import annotations

import csv
import io
import json
import os
import tomllib
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretune.cli_guard import go_offline
from foretune.errors import ConfigError, did_you_mean
from foretune.recipe import Recipe

if TYPE_CHECKING:
    from foretune.model import Model

LAYERED = ("top-layers", "lora")  # the strategies with an option `layers`
RECORD = "foretune.json"  # as in foretune.artifact, whose import would take seconds


def run(given: dict[str, Any]) -> tuple[Model, bool]:
    """Return the fitted model, and whether it had been finished before. Raises ForetuneError."""
    base = Recipe() if given["recipe"] is None else Recipe.read(given["recipe"])
    changes = recipe_changes(given, base)
    if base.with_changes(**changes).offline:
        go_offline()
    finished_before = bool(given["resume"]) and _is_finished(given["output"])
    from foretune.display import RichProgress

    display = RichProgress(quiet=given["quiet"])
    try:
        from foretune.api import fit

        model = fit(
            given["train"],
            dev=given["dev"],
            test=given["test"],
            output=given["output"],
            resume=given["resume"],
            recipe=base,
            plan=given["plan"],
            budget=given["budget"],
            spent=process_age(),
            listeners=[display],
            **changes,
        )
    finally:
        display.close()
    return model, finished_before


def recipe_changes(given: dict[str, Any], plan: Recipe) -> dict[str, Any]:
    """Return the entries of the recipe that were given as options. Raises ConfigError."""
    names = {field.name for field in fields(Recipe)}
    changes = {
        name: value
        for name, value in given.items()
        if name in names and not (value is None or value is False)
    }
    if given["track"]:
        changes["trackers"] = tuple(given["track"])
    if given["option"]:
        changes["options"] = plan.options | dict(key_value(item) for item in given["option"])
    if given.get("trainable_layers") is not None:
        changes.setdefault("strategy", plan.strategy if plan.strategy in LAYERED else "top-layers")
        changes["options"] = changes.get("options", plan.options) | {"layers": given["trainable_layers"]}
    if given["class_weights"] is not None:
        changes["class_weights"] = class_weights(given["class_weights"])
    return changes


def process_age() -> float:
    """Return the seconds since this process began, so that a budget counts what starting took; 0 if unknown."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # starttime of proc(5), since the machine began
        return max(float(Path("/proc/uptime").read_text().split()[0]) - started, 0.0)
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0


def _is_finished(output: Path | None) -> bool:
    return output is not None and (output.expanduser() / RECORD).exists()


def key_value(item: str) -> tuple[str, Any]:
    """Return the name and value of `key=value`; a value that is no TOML value is a string."""
    key, mark, raw = item.partition("=")
    if not mark or not key.strip():
        raise ConfigError(f"--option is {item!r}; expected key=value, such as pooling=mean.")
    try:
        value = tomllib.loads(f"value = {raw.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw.strip()
    return key.strip().replace("-", "_"), value


def class_weights(given: str) -> str | dict[str, float]:
    """Return "none", "auto" or the weights of a json, toml or csv file. Raises ConfigError."""
    if given in ("none", "auto"):
        return given
    path = Path(given).expanduser()
    readers = {".json": _from_json, ".toml": _from_toml, ".csv": _from_csv}
    if path.suffix.lower() not in readers:
        hint = did_you_mean(given, ("none", "auto"))
        raise ConfigError(
            f"--class-weights is {given!r}; expected none, auto or a json, toml or csv file.{hint}"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(
            f"--class-weights {path} cannot be read: {error.strerror}. Check the path."
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"--class-weights {path} is not UTF-8 text. Save it as UTF-8.") from error
    weights = readers[path.suffix.lower()](text, path)
    if not weights:
        raise ConfigError(f"--class-weights {path} names no label. Give one weight for every label.")
    return {label: _weight(value, label, path) for label, value in weights.items()}


def _from_json(text: str, path: Path) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            again = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
            raise ConfigError(f"--class-weights {path}: {again!r} again. Name each label once.")
        return found

    try:
        found = json.loads(text, object_pairs_hook=once)
    except ValueError as error:
        raise ConfigError(f"--class-weights {path} is not valid JSON: {error}. Mend it.") from error
    if not isinstance(found, dict):
        raise ConfigError(
            f'--class-weights {path} holds a {type(found).__name__}; expected {{"label": weight}}.'
        )
    return found


def _from_toml(text: str, path: Path) -> dict[str, Any]:
    """Read `label = weight` lines, or a table `class_weights` of them as in a recipe."""
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"--class-weights {path} is not valid TOML: {error}. Mend that line.") from error
    table = found.get("class_weights", found)
    return table if isinstance(table, dict) else found


def _from_csv(text: str, path: Path) -> dict[str, Any]:
    """Read `label,weight` lines; the first may be a header."""
    found: dict[str, Any] = {}
    reader = csv.reader(io.StringIO(text))
    for cells in reader:
        line = reader.line_num
        if not cells or (line == 1 and [cell.strip().lower() for cell in cells] == ["label", "weight"]):
            continue
        if len(cells) != 2:
            raise ConfigError(
                f"--class-weights {path}, line {line}: {len(cells)} cells; expected label,weight."
            )
        if cells[0] in found:
            raise ConfigError(
                f"--class-weights {path}, line {line}: {cells[0]!r} again. Name each label once."
            )
        found[cells[0]] = cells[1]
    return found


def _weight(value: Any, label: str, path: Path) -> float:
    """Return a weight as a number above 0. Raises ConfigError."""
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not 0 < number < float("inf"):
        raise ConfigError(
            f"--class-weights {path}: the weight of {label!r} is {value!r}; expected a number above 0."
        )
    return number
