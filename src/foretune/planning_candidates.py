"""Which backbones and strategies a plan weighs, and whether the data are enough for one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from foretune.errors import ConfigError, DataError
from foretune.prepare import Prepared
from foretune.recipe import Recipe
from foretune.strategies import import_strategies
from foretune.strategies.base import STRATEGIES

if TYPE_CHECKING:
    from foretune.backbones.catalogue import Entry

FEWEST = 20  # training examples; below, nothing can be held out to judge anything by


def strategies_of(given: Sequence[str] | None) -> list[str]:
    """Return the strategies to weigh: the named ones, else all usual ones. Raises ConfigError."""
    import_strategies()
    usual = sorted((name for name in STRATEGIES if STRATEGIES[name].planned), key=_quickness)
    names = list(given) if given is not None else usual
    if not names:
        raise ConfigError("No strategy is named. Give some, separated by commas, or auto.")
    return [STRATEGIES[name].name for name in dict.fromkeys(names)]


def _quickness(name: str) -> tuple[int, str]:
    """Order strategies for a planner in a hurry: those that differ most come first."""
    first = ("linear-probe", "full", "top-layers")
    return (first.index(name) if name in first else len(first), name)


# Heads that the catalogue's encoders of text can carry.
READERS = tuple(f"AutoModel{head}" for head in ("ForSequenceClassification", "ForTokenClassification", ""))
READERS = (*READERS, "AutoModelForQuestionAnswering")


def backbones_of(
    given: Sequence[str] | None, recipe: Recipe, prepared: Prepared
) -> tuple[list[str], list[str]]:
    """Return the backbones to look at, and notes: without a list those that need no download."""
    from foretune.backbones.catalogue import CATALOGUE
    from foretune.backbones.source import resolve

    if given is None and (prepared.task.modality != "text" or prepared.task.auto_class not in READERS):
        named = f"Looked at {recipe.backbone} alone; name others for {prepared.task.name} with --backbones."
        return [recipe.backbone], [named]
    if given is not None:
        if not given:
            raise ConfigError("No backbone is named. Give some, separated by commas, or auto.")
        for name in given:
            resolve(name)
        return list(dict.fromkeys(given)), []
    here = [entry.name for entry in CATALOGUE if _is_here(entry)]
    if recipe.backbone not in here:
        here.insert(0, recipe.backbone)
    away = [entry.name for entry in CATALOGUE if entry.name not in here]
    note = (
        f"Looked at what is on this machine. Others, fetched when named with --backbones: {', '.join(away)}."
    )
    return here, [note] if away else []


def _is_here(entry: Entry) -> bool:
    """Say whether a catalogue's backbone needs no download: bundled, or in the hub's local cache."""
    from huggingface_hub import try_to_load_from_cache

    if entry.source == "bundled":
        return True
    wanted = ("config.json", "model.safetensors")
    return all(isinstance(try_to_load_from_cache(entry.source, name), str) for name in wanted)


def is_plannable(prepared: Prepared) -> bool:
    """Say whether `check_size` finds no fault."""
    return prepared.held_out is not None and len(prepared.train) >= FEWEST


def check_size(prepared: Prepared) -> None:
    """Raise ConfigError where nothing is held out, DataError where there is too little to judge by."""
    if prepared.held_out is None:
        raise ConfigError(
            "A plan forecasts the score on held-out data, but nothing is held out. Set --dev-fraction."
        )
    if len(prepared.train) < FEWEST:
        raise DataError(
            f"{len(prepared.train)} training rows are too few to forecast from; {FEWEST} or more are needed. "
            "Label more, or fit right away with --strategy linear-probe."
        )
