"""From a recipe and prepared data to a job: the backbone loaded, texts tokenised, every choice settled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from foretune.backbones.base import Backbone
from foretune.errors import ConfigError
from foretune.prepare import Prepared, target_option
from foretune.recipe import Recipe
from foretune.strategies.base import Settings, Strategy, Workload
from foretune.tasks.catalogue import default_backbone
from foretune.training import machine
from foretune.training.events import Events, JsonLines, Listener, trackers
from foretune.training.files import check_space
from foretune.training.inference import Runtime
from foretune.training.job import Job

if TYPE_CHECKING:
    from foretune.data.store import CutReport

EXTRA_SPACE = 200 << 20  # bytes for report, events and tokenizer files
LONGEST_BY_DEFAULT = 512  # tokens
UNKNOWN_SHARE = 0.05  # of the tokens; above it the vocabulary does not fit the language


def with_backbone(recipe: Recipe, task: str, left_open: set[str]) -> Recipe:
    """Return the recipe with the task's own backbone where the user named none. Raises ConfigError."""
    if "backbone" not in left_open:
        return recipe
    return replace(recipe, backbone=default_backbone(task))


def load_backbone(recipe: Recipe, prepared: Prepared) -> Backbone:
    """Return the recipe's backbone with a new head for the task, dropout set. Raises BackboneError."""
    from foretune.backbones.loading import load
    from foretune.backbones.text import set_dropout

    backbone = load(recipe.backbone, prepared.task, offline=recipe.offline, seed=recipe.seed)
    set_dropout(backbone.model, recipe.dropout)
    return backbone


def assemble(
    recipe: Recipe,
    prepared: Prepared,
    metric: str,
    runtime: Runtime,
    backbone: Backbone,
    strategy: Strategy,
    folder: Path,
    listeners: Sequence[Listener],
    kept_events: int | None,
) -> Job:
    """Tokenise, settle every choice, check the disk, and put all of it together.

    `kept_events`: bytes of events.jsonl that belong to the checkpoint a resumed run starts from. Raises
    ResourceError and ConfigError; the run's folder is made here, as the last thing that can fail.
    """
    from foretune.backbones.attention import use_best_attention

    task, tuned = prepared.task, recipe.tuned()
    added = backbone.learn_vocabulary(task.texts(prepared.train)) if strategy.trains_embeddings else 0
    if added:
        text = f"{added:,} characters that {backbone.name} does not know were added to its vocabulary."
        prepared.notes.append(f"{text} A backbone for this language may do better (`foretune models`).")
    usual = LONGEST_BY_DEFAULT if backbone.unit == "tokens" else backbone.max_length
    longest = recipe.max_tokens or min(backbone.max_length, usual)
    encode = partial(
        task.encode, backbone, max_length=longest, truncation=recipe.truncation, seed=recipe.seed
    )
    train_set = encode(prepared.train, training=strategy.augments)
    dev_set = None if prepared.dev is None else encode(prepared.dev)
    if train_set.targets is None and strategy.needs_targets:
        raise ConfigError(
            f"The data have no target, and {strategy.name} learns from one. Name it with --target, or choose "
            "--strategy zero-shot, which compares texts with the names of the labels."
        )
    if train_set.targets is not None:
        task.check_learnable(backbone, prepared.train, train_set)
    store = train_set.store
    classes = int(task.model_options().get("num_labels", 1))
    work = Workload(len(store), int(store.lengths.sum()), classes, backbone.unit)
    settings = settle(recipe, task.adjusted(strategy.defaults(work), work), task.rate_factor)
    recipe = replace(
        recipe,
        task=prepared.task.name,
        text=prepared.columns.text,
        second=prepared.columns.second,
        target=target_option(prepared.columns),
        max_tokens=longest,
        metric=metric,
        lr=settings.lr or None,
        epochs=settings.epochs or None,
        batch_tokens=settings.batch_tokens,
        layer_decay=settings.layer_decay,
    )
    prepared.notes.extend(strategy.prepare(backbone))
    prepared.warnings.extend(_cut_warnings(store.cuts, longest, backbone.name))
    idle = [] if strategy.augments else sorted(task.varying_options() & set(recipe.options))
    if idle:
        text = (
            f"Option {', '.join(idle)} does nothing: --strategy {strategy.name} trains on inputs as they are"
        )
        prepared.warnings.append(f"{text}; --strategy full varies them.")
    use_best_attention(backbone.model, runtime.device.type, runtime.precision)  # type: ignore[arg-type]
    backbone.model.to(runtime.device)
    backbone.train_seen_embeddings(store)
    check_space(folder, space_needed(backbone))
    file = folder / "events.jsonl"
    events = Events([JsonLines(file, kept_events), *trackers(recipe.trackers, folder), *listeners])
    job = Job(
        backbone=backbone, task=prepared.task, strategy=strategy, settings=settings, recipe=recipe,
        train=prepared.train, train_set=train_set, dev=prepared.dev, dev_set=dev_set, metric=metric,
        folder=folder, identity=_identity(prepared, backbone, recipe), events=events, runtime=runtime,
        events_file=file, tuned=tuned,
    )  # fmt: skip
    _announce(job, prepared)
    return job


def settle(recipe: Recipe, defaults: Settings, rate_factor: float = 1.0) -> Settings:
    """Return the recipe's numbers, and the strategy's where the recipe has none; its rate times the task's factor."""
    return Settings(
        lr=recipe.lr if recipe.lr is not None else defaults.lr * rate_factor,
        epochs=recipe.epochs if recipe.epochs is not None else defaults.epochs,
        batch_tokens=recipe.batch_tokens or defaults.batch_tokens,
        layer_decay=recipe.layer_decay if recipe.layer_decay is not None else defaults.layer_decay,
    )


def _cut_warnings(cuts: CutReport, longest: int, name: str) -> list[str]:
    warnings = []
    sentence = cuts.sentence(longest)
    if sentence:
        warnings.append(
            f"{sentence} Keep more with --max-tokens, or head and tail with --truncation head+tail."
        )
    if cuts.unknown_share > UNKNOWN_SHARE:
        warnings.append(
            f"{cuts.unknown_share:.0%} of the tokens are unknown to {name}. Choose a backbone for this language "
            "(`foretune models`), or --strategy full, which learns unknown characters."
        )
    return warnings


def space_needed(backbone: Backbone) -> int:
    """Return an upper bound of the bytes a run writes: checkpoints, best weights, the model.

    A checkpoint holds weights, two moments and perhaps gradients of what trains; two are kept and a third
    exists while it is written; best weights exist three times likewise.
    """
    parameters = list(backbone.model.parameters())
    trained = sum(p.numel() * p.element_size() for p in parameters if p.requires_grad)
    whole = sum(p.numel() * p.element_size() for p in parameters)
    return 3 * 4 * trained + 3 * trained + 2 * whole + EXTRA_SPACE


def _identity(prepared: Prepared, backbone: Backbone, recipe: Recipe) -> str:
    """Return a hash of all that decides the result: data, weights, recipe."""
    parts = [recipe.deciding().to_toml(), backbone.fingerprint(), json.dumps(prepared.fingerprints)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _announce(job: Job, prepared: Prepared) -> None:
    for text in prepared.notes:
        job.events.emit("note", text=text)
    for text in prepared.warnings:
        job.events.emit("warning", text=text)
    settings = job.settings
    job.events.emit(
        "setup",
        backbone=job.backbone.name,
        strategy=job.strategy.name,
        device=job.runtime.device.type,
        precision=job.runtime.precision,
        peak_flops=machine.gemm_peak(job.runtime.device.type, job.runtime.precision),
        metric=job.metric,
        lr=settings.lr or None,
        epochs=settings.epochs or None,
        batch_tokens=settings.batch_tokens,
        unit=job.backbone.unit,
        train=len(job.train),
    )
