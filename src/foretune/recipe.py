"""The recipe: the one typed description of a run, read from and written to TOML.

`None` means "let Foretune choose"; the artefact's recipe holds what was chosen.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, dataclass, field, fields, replace
from numbers import Integral, Number, Real
from pathlib import Path
from typing import Any

from foretune.errors import ConfigError, did_you_mean

PRECISIONS = ("auto", "fp32", "bf16")
DEVICES = ("auto", "cpu", "cuda", "mps")
TRUNCATIONS = ("head", "tail", "head+tail")
CACHES = ("bf16", "fp32", "off")
TRACKERS = ("tensorboard", "mlflow")
CUTS = ("max_tokens", "truncation")  # a forecast sees texts cut the same way
#: What a fit learns from its rows depends on these; left alone they are Foretune's to choose.
TUNED = (
    "epochs", "lr", "layer_decay", "warmup", "weight_decay", "clip_norm", "dropout", "batch_tokens", "class_weights",
    "patience", "options", *CUTS,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every choice of a run. Raises ConfigError where a value cannot be used."""

    task: str = "auto"
    backbone: str = "minilm-l6"
    strategy: str = "full"
    text: str | None = None  # column of the input text
    second: str | None = None  # column of a pair's other text
    target: str | None = None  # column of the label; several with commas
    separator: str | None = None  # of csv files; None: by the file's name
    epochs: float | None = None
    lr: float | None = None  # peak rate of the top layers
    layer_decay: float | None = None  # rate of layer l = lr * layer_decay ** (layers above l)
    warmup: float = 0.1  # share of all steps
    weight_decay: float = 0.01
    clip_norm: float = 1.0  # of the global gradient, L2
    dropout: float = 0.0  # inside the backbone and the head
    batch_tokens: int | None = None  # tokens per optimizer step, padding included
    micro_tokens: int | None = None  # tokens per forward pass; the rest is gradient accumulation
    max_tokens: int | None = None  # longer texts are cut
    truncation: str = "head"
    class_weights: str | dict[str, float] = "none"  # "none", "auto" or label -> weight
    metric: str | None = None  # early stopping and the best checkpoint follow it
    patience: int | None = None  # evaluations without gain before stopping; None: 3, and never for a probe
    rows: int | None = None  # training rows drawn of those there are; None: all of them
    seed: int = 0
    precision: str = "auto"
    device: str = "auto"
    dev_fraction: float = 0.1  # held out of the training file where no dev file is given
    test_fraction: float = 0.1  # likewise, where neither a dev nor a test file is given
    held_out_rows: int | None = None  # most rows of each of these parts; under a budget by its length
    checkpoint_seconds: float = 60.0  # between two checkpoints
    offline: bool = False
    skip_broken: bool = False  # leave out pictures and sounds that cannot be decoded, and count them
    cache: str = "bf16"  # number format of what frozen layers give, kept on disk; "fp32", or "off"
    trackers: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)  # of the strategy and of the task

    def __post_init__(self) -> None:
        for entry in fields(self):
            object.__setattr__(
                self, entry.name, _coerce(entry.name, getattr(self, entry.name), str(entry.type))
            )
        _one_of("precision", self.precision, PRECISIONS)
        _one_of("device", self.device, DEVICES)
        _one_of("truncation", self.truncation, TRUNCATIONS)
        _one_of("cache", self.cache, CACHES)
        for tracker in self.trackers:
            _one_of("tracker", tracker, TRACKERS)
        for name in (
            "epochs",
            "lr",
            "rows",
            "held_out_rows",
            "batch_tokens",
            "micro_tokens",
            "max_tokens",
            "clip_norm",
        ):
            _above(name, getattr(self, name), 0)
        for name in ("weight_decay", "seed", "patience", "checkpoint_seconds"):
            _at_least(name, getattr(self, name), 0)
        for name in ("warmup", "dropout", "dev_fraction", "test_fraction"):
            _within(name, getattr(self, name), 0.0, 0.95)
        _within("layer_decay", self.layer_decay, 0.0, 1.0)
        _class_weights(self.class_weights)

    def with_changes(self, **changes: Any) -> Recipe:
        """Return a copy with `changes`. Raises ConfigError for an unknown or impossible one."""
        _known(changes)
        return Recipe(**(asdict(self) | changes))

    def names(self, entry: str) -> bool:
        """Say whether the user chose this entry: the recipe's file has it, or its value is not the default."""
        return entry in getattr(self, "_named", ()) or getattr(self, entry) != getattr(Recipe(), entry)

    def tuned(self) -> dict[str, Any]:
        """Return the settings of learning that are not the defaults."""
        usual = Recipe()
        return {name: getattr(self, name) for name in TUNED if getattr(self, name) != getattr(usual, name)}

    def deciding(self) -> Recipe:
        """Return the recipe without what may change between a run and its resumption."""
        free = Recipe()
        return replace(
            self,
            checkpoint_seconds=free.checkpoint_seconds,
            trackers=free.trackers,
            offline=free.offline,
            device=free.device,
        )

    def to_toml(self) -> str:
        """Return the recipe as TOML; entries that are None are left out."""
        entries = {k: v for k, v in asdict(self).items() if v is not None}
        tables = {k: entries.pop(k) for k in list(entries) if isinstance(entries[k], dict)}
        lines = [f"{key} = {_toml_value(value)}" for key, value in entries.items()]
        for name, table in tables.items():
            if table:
                given = {key: value for key, value in table.items() if value is not None}
                lines += [
                    "",
                    f"[{name}]",
                    *(f"{_toml_key(key)} = {_toml_value(value)}" for key, value in given.items()),
                ]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_toml(cls, text: str, where: str = "recipe") -> Recipe:
        """Return the recipe that `text` describes. Raises ConfigError naming `where`."""
        try:
            entries = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{where} is not valid TOML: {error}. Mend that line.") from error
        _known(entries, where)
        recipe = Recipe(**entries)
        object.__setattr__(recipe, "_named", frozenset(entries))
        return recipe

    @classmethod
    def read(cls, path: str | Path) -> Recipe:
        """Read a TOML file. Raises ConfigError where it is missing or wrong."""
        try:
            text = Path(path).expanduser().read_text(encoding="utf-8-sig")  # some editors write a mark first
        except OSError as error:
            raise ConfigError(f"Recipe {path} cannot be read: {error.strerror}. Check the path.") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"Recipe {path} is not UTF-8 text. Save it as UTF-8.") from error
        return cls.from_toml(text, where=str(path))


def _coerce(name: str, value: Any, kind: str) -> Any:
    """Return `value` as the field's type, also from NumPy's numbers, or raise ConfigError."""
    if isinstance(value, Real) and not isinstance(value, bool):
        value = int(value) if isinstance(value, Integral) else float(value)
    allowed: dict[str, tuple[type, ...]] = {
        "str": (str,), "float": (int, float), "int": (int,), "bool": (bool,),
        "dict": (dict,), "tuple": (list, tuple), "None": (type(None),),
    }  # fmt: skip
    wanted = [key for key in allowed if key in kind.split("[")[0].replace("|", " ").split()]
    wanted += [key for key in ("None", "dict") if key in kind and key not in wanted]
    types = tuple(kind_ for key in wanted for kind_ in allowed[key])
    if not isinstance(value, types) or (isinstance(value, bool) and "bool" not in wanted):
        raise ConfigError(
            f"Recipe entry {name} = {value!r} is of the wrong type; expected {_in_words(wanted)}."
        )
    if isinstance(value, list):
        return tuple(value)
    if name == "class_weights" and isinstance(value, dict):  # NumPy's numbers, as counts give them
        return {label: weight.item() if isinstance(weight, Number) and hasattr(weight, "item") else weight
                for label, weight in value.items()}  # fmt: skip
    return float(value) if "float" in wanted and isinstance(value, int) else value


def _in_words(kinds: list[str]) -> str:
    """Return what values of these kinds are called, those that a recipe's file can hold."""
    words = {"str": "text", "float": "a number", "int": "a whole number", "bool": "true or false", "dict": "a table",
             "tuple": "a list"}  # fmt: skip
    return " or ".join(words[kind] for kind in kinds if kind in words)


def _known(entries: dict[str, Any], where: str = "recipe") -> None:
    names = {f.name for f in fields(Recipe)}
    for name in entries:
        if name not in names:
            raise ConfigError(f"Unknown entry {name!r} in {where}.{did_you_mean(name, names)}")


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        hint = did_you_mean(value, choices)
        raise ConfigError(f"{name} is {value!r}; expected one of {', '.join(choices)}.{hint}")


def _above(name: str, value: float | None, bound: float) -> None:
    if value is not None and not bound < value < float("inf"):
        raise ConfigError(f"{name} is {value}; expected a finite number above {bound:g}.")


def _at_least(name: str, value: float | None, bound: float) -> None:
    if value is not None and not bound <= value < float("inf"):
        raise ConfigError(f"{name} is {value}; expected a finite number of {bound:g} or more.")


def _within(name: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        raise ConfigError(f"{name} is {value}; expected a number from {low:g} to {high:g}.")


def _class_weights(value: str | dict[str, float]) -> None:
    if isinstance(value, str):
        _one_of("class_weights", value, ("none", "auto"))
        return
    if not value:
        raise ConfigError(
            "class_weights is an empty table; expected a weight for every label, or none or auto."
        )
    for label, weight in value.items():
        if not isinstance(weight, int | float) or isinstance(weight, bool) or not 0 < weight < float("inf"):
            raise ConfigError(f"The class weight of {label!r} is {weight!r}; expected a number above 0.")


def _toml_key(key: Any) -> str:
    key = str(key)  # labels may be numbers
    return key if key.isascii() and key.replace("_", "").replace("-", "").isalnum() else _toml_value(key)


def _toml_value(value: Any) -> str:
    """Write one value; TOML's basic strings take JSON's escapes, but for DEL."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value) if value == value and abs(value) != float("inf") else str(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    if isinstance(value, dict):
        pairs = (f"{_toml_key(key)} = {_toml_value(item)}" for key, item in value.items())
        return "{ " + ", ".join(pairs) + " }"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, int):
        return str(value)
    raise ConfigError(
        f"{value!r} cannot be written in a recipe; expected text, numbers, lists or tables of them."
    )
