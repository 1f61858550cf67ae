"""The Python API: `fit` and `load`. Every command of the command line is one call of these."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretune import artifact
from foretune.backbones.base import Backbone
from foretune.errors import ConfigError
from foretune.model import Model
from foretune.prepare import Prepared, prepare
from foretune.recipe import Recipe
from foretune.strategies.base import STRATEGIES, Settings, Strategy, Workload
from foretune.training import machine
from foretune.training.checkpoint import Checkpoints
from foretune.training.events import Events, JsonLines, Listener, trackers
from foretune.training.files import check_space
from foretune.training.flops import fit_flops
from foretune.training.inference import Runtime
from foretune.training.job import Job
from foretune.training.loop import Loop
from foretune.training.signals import stop_on_signals
from foretune.training.state import Progress

if TYPE_CHECKING:
    from foretune.data.store import CutReport

EXTRA_SPACE = 200 << 20  # bytes for report, events and tokenizer files
LONGEST_BY_DEFAULT = 512  # tokens
UNKNOWN_SHARE = 0.05  # of the tokens; above it the vocabulary does not fit the language
SHOWN_MISTAKES = 30


def fit(
    data: Any,
    *,
    dev: Any = None,
    test: Any = None,
    output: str | Path | None = None,
    resume: bool = False,
    recipe: Recipe | str | Path | None = None,
    listeners: Sequence[Listener] = (),
    **options: Any,
) -> Model:
    """Fine-tune a backbone on labelled data and return the evaluated, saved model.

    `data`, `dev` and `test` are a path (csv, tsv, jsonl, parquet, also .gz), a DataFrame, a
    `datasets.Dataset`, a list of dicts or a hub id; without `dev` (and `test`) parts of `data` are held
    out. `options` are entries of the `Recipe` and override those of `recipe`. The artefact is written to
    `output` (default: a new folder below `runs`); `resume` goes on with a run that was stopped there.
    Raises subclasses of `ForetuneError`; nothing is written before data and options are checked.
    """
    started = time.perf_counter()
    plan = _recipe(recipe).with_changes(**options)
    folder = _folder(data, output, resume, plan)
    if resume and (folder / artifact.RECORD).exists():
        return artifact.load(folder, device=plan.device, precision=plan.precision)
    import_strategies()
    strategy = STRATEGIES[plan.strategy](plan.options)
    prepared = prepare(data, dev, test, plan)
    metric = _metric(plan, prepared)
    runtime = _runtime(plan, _found(folder, resume))
    backbone = _backbone(plan, prepared)
    job = _job(plan, prepared, metric, runtime, backbone, strategy, folder, listeners, resume)
    try:
        with stop_on_signals() as stop:
            progress = Loop(job, stop).run(resume)
        return _finish(job, prepared, progress, started)
    finally:
        job.events.close()


def load(path: str | Path, *, device: str = "auto", precision: str = "fp32") -> Model:
    """Return the model that `fit` saved in `path`. Raises ArtifactError where it is not whole."""
    machine.set_threads()
    return artifact.load(path, device=device, precision=precision)


def import_strategies() -> None:
    """Import the files that register strategies."""
    import foretune.strategies.full
    import foretune.strategies.linear_probe  # noqa: F401


def _recipe(given: Recipe | str | Path | None) -> Recipe:
    if isinstance(given, Recipe):
        return given
    return Recipe() if given is None else Recipe.read(given)


def _folder(data: Any, output: str | Path | None, resume: bool, recipe: Recipe) -> Path:
    """Return the run's folder. Raises ConfigError where it holds something already."""
    if output is None:
        if resume:
            raise ConfigError("--resume needs --output: the folder of the run that was stopped.")
        named = isinstance(data, str | Path) and str(data) != "-"
        stem = Path(data).name.split(".")[0] if named else "data"
        names = (Path("runs") / f"{stem}-{recipe.strategy}{suffix}" for suffix in _suffixes())
        return next(name for name in names if not name.exists())
    folder = Path(output).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--output {folder} is a file. Give a folder.")
    if folder.is_dir() and any(folder.iterdir()) and not resume:
        raise ConfigError(
            f"--output {folder} is not empty. To go on with a run stopped there add --resume; else give another."
        )
    return folder


def _suffixes() -> Any:
    yield ""
    number = 2
    while True:
        yield f"-{number}"
        number += 1


def _metric(recipe: Recipe, prepared: Prepared) -> str:
    """Return the metric that selects the best weights, checked against those that will exist."""
    task = prepared.task
    if recipe.metric is None:
        return task.default_metric
    if recipe.metric not in task.metrics:
        from foretune.errors import did_you_mean

        known = ", ".join(task.metrics)
        hint = did_you_mean(recipe.metric, task.metrics)
        raise ConfigError(f"Unknown metric {recipe.metric!r} for {task.name}.{hint} Known: {known}.")
    return recipe.metric


def _found(folder: Path, resume: bool) -> dict[str, Any]:
    """Return the plain values of the checkpoint that a resumed run will start from, or nothing."""
    found, _ = Checkpoints(folder / "checkpoints").newest() if resume else (None, [])
    return {} if found is None else found.values


def _runtime(recipe: Recipe, found: dict[str, Any]) -> Runtime:
    """Return device and precision; a resumed run keeps the precision that was measured to be best before."""
    machine.set_threads()
    device = machine.pick_device(recipe.device)
    wanted = found.get("precision", recipe.precision) if recipe.precision == "auto" else recipe.precision
    return Runtime(device, machine.pick_precision(wanted, device))


def _backbone(recipe: Recipe, prepared: Prepared) -> Backbone:
    from foretune.backbones.text import load_text_backbone, set_dropout

    task = prepared.task
    backbone = load_text_backbone(
        recipe.backbone,
        auto_class=task.auto_class,
        options=task.model_options(),
        offline=recipe.offline,
        seed=recipe.seed,
    )
    set_dropout(backbone.model, recipe.dropout)
    return backbone


def _job(
    recipe: Recipe,
    prepared: Prepared,
    metric: str,
    runtime: Runtime,
    backbone: Backbone,
    strategy: Strategy,
    folder: Path,
    listeners: Sequence[Listener],
    resume: bool,
) -> Job:
    """Tokenise, settle every choice, check the disk, and put all of it together."""
    from foretune.backbones.attention import use_best_attention

    added = backbone.learn_vocabulary(prepared.train.inputs) if strategy.trains_embeddings else 0
    if added:
        text = f"{added:,} characters that {backbone.name} does not know were added to its vocabulary."
        prepared.notes.append(f"{text} A backbone for this language may do better (`foretune models`).")
    longest = recipe.max_tokens or min(backbone.max_length, LONGEST_BY_DEFAULT)
    stores = {
        name: None
        if part is None
        else backbone.preprocess(part.inputs, max_length=longest, truncation=recipe.truncation)
        for name, part in (("train", prepared.train), ("dev", prepared.dev))
    }
    store = stores["train"]
    assert store is not None
    classes = int(prepared.task.model_options().get("num_labels", 1))
    settings = settle(recipe, strategy.defaults(Workload(len(store), int(store.lengths.sum()), classes)))
    recipe = replace(
        recipe,
        task=prepared.task.name,
        text=prepared.columns.text,
        target=prepared.columns.target,
        max_tokens=longest,
        metric=metric,
        lr=settings.lr,
        epochs=settings.epochs,
        batch_tokens=settings.batch_tokens,
        layer_decay=settings.layer_decay,
    )
    prepared.notes.extend(strategy.prepare(backbone))
    prepared.warnings.extend(_cut_warnings(store.cuts, longest, backbone.name))
    use_best_attention(backbone.model, runtime.device.type, runtime.precision)  # type: ignore[arg-type]
    backbone.model.to(runtime.device)
    backbone.train_seen_embeddings(store)
    check_space(folder, space_needed(backbone))
    file = folder / "events.jsonl"
    kept = _found(folder, resume).get("events_bytes")
    events = Events([JsonLines(file, kept), *trackers(recipe.trackers, folder), *listeners])
    job = Job(
        backbone=backbone, task=prepared.task, strategy=strategy, settings=settings, recipe=recipe,
        train=prepared.train, train_store=store, dev=prepared.dev, dev_store=stores["dev"], metric=metric,
        folder=folder, identity=_identity(prepared, backbone, recipe), events=events, runtime=runtime,
        flops=fit_flops(backbone), events_file=file,
    )  # fmt: skip
    _announce(job, prepared)
    return job


def settle(recipe: Recipe, defaults: Settings) -> Settings:
    """Return the recipe's numbers, and the strategy's where the recipe has none."""
    return Settings(
        lr=recipe.lr if recipe.lr is not None else defaults.lr,
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
            "(`foretune models`)."
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
    fixed = replace(recipe, checkpoint_seconds=60.0, trackers=(), offline=False, device="auto")
    parts = [fixed.to_toml(), backbone.fingerprint(), json.dumps(prepared.fingerprints())]
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
        lr=settings.lr,
        epochs=settings.epochs,
        batch_tokens=settings.batch_tokens,
        train=len(job.train),
    )


def _finish(job: Job, prepared: Prepared, progress: Progress, started: float) -> Model:
    """Evaluate, save, report; then delete the checkpoints."""
    from foretune.outcome import outcome

    job.strategy.finish(job.backbone)
    job.backbone.fold_embeddings()
    job.backbone.model.eval()
    model = Model(job.backbone, job.task, job.recipe, job.runtime, {}, None)
    outcome(model, job, prepared, progress, started)
    shutil.rmtree(job.checkpoints_folder, ignore_errors=True)
    job.events.emit("end", output=str(job.folder), result=result(model))
    return model


def result(model: Model) -> dict[str, Any]:
    """Return the outcome of a fit as the object that `--json` prints."""
    record = model.record
    return {
        "task": model.task.name,
        **{key: record[key] for key in ("backbone", "strategy", "metrics", "baselines", "train")},
        "output": str(model.path),
    }
