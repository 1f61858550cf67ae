"""What a run leaves behind: a folder that plain `transformers` loads, with all that is known of the model.

config.json, model.safetensors, tokenizer files   what `from_pretrained` reads
foretune.json    task, label names, data fingerprints, split, metrics with intervals, environment, timings
recipe.toml      every choice of the run
README.md        the model card
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.errors import ArtifactError, BackboneError, ConfigError
from foretune.model import Model
from foretune.recipe import Recipe
from foretune.training.files import disk_errors, sha256, sync

if TYPE_CHECKING:
    from foretune.tasks.base import Examples, Task

RECORD = "foretune.json"
CARD = "README.md"  # people may edit it: it has no checksum
FORMAT = 1
PIPELINE_TAGS = {"sentence-transformers": "sentence-similarity"}  # of libraries that do one thing only
PROBES = 8  # examples on which the saved model is compared with the one in memory
TOLERANCE = 1e-4  # of outputs up to 1 and, of larger ones, relative to them; both computed in float32


def save(model: Model, folder: Path, probes: Examples | None = None) -> Path:
    """Write `model` into `folder`, reload it, compare both on a few inputs, and return the folder.

    The files are written and checked under a temporary name first; `foretune.json` is moved last, so a
    folder with it is whole. Raises ResourceError, and ArtifactError where the reloaded model differs.
    """
    draft = folder / ".tmp-artefact"
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
    try:
        with disk_errors(folder):
            _write(model, draft)
        _compare(model, draft, probes or model.task.probes())
        with disk_errors(folder):
            _move(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    model.path = folder
    return folder


def _write(model: Model, draft: Path) -> None:
    model.backbone.save(draft)
    model.backbone.save_beside(draft, model.max_length)
    (draft / "recipe.toml").write_text(model.recipe.to_toml(), encoding="utf-8")
    card = model_card(model.record, model.task, model.backbone.snippet, model.backbone.library)
    (draft / CARD).write_text(card, encoding="utf-8")
    record = {
        "format": FORMAT,
        "task": {"name": model.task.name, **model.task.state()},
        **{key: value for key, value in model.record.items() if key not in ("format", "task", "files")},
        "files": {name: sha256(draft / name) for name in _names(draft) if name != CARD},
    }
    (draft / RECORD).write_text(json.dumps(record, ensure_ascii=False, indent=1), encoding="utf-8")


def _move(draft: Path, folder: Path) -> None:
    """Move the checked files to their place, the record last; an older model's record goes first."""
    (folder / RECORD).unlink(missing_ok=True)
    for name in sorted(_names(draft), key=lambda name: name == RECORD):
        place = folder / name
        sync(draft / name)
        place.parent.mkdir(exist_ok=True)
        (draft / name).replace(place)
        if place.parent != folder:
            sync(place.parent)
    sync(folder)


def _names(folder: Path) -> list[str]:
    """Return the files of a folder and of those in it, by their paths from there."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _compare(model: Model, draft: Path, probes: Examples | None) -> None:
    """Raise ArtifactError where the model read back from `draft` does not predict the same.

    Both attend in the same way: another one rounds otherwise, which may turn a letter or a pixel's class.
    """
    from foretune.backbones.attention import use_best_attention
    from foretune.training.inference import Runtime

    again = load(draft)
    saved, model.runtime = model.runtime, Runtime(model.runtime.device, "fp32")
    again.runtime = model.runtime
    for each in (model, again):
        use_best_attention(each.backbone.model, saved.device.type, saved.precision)  # type: ignore[arg-type]
    again.backbone.model.to(model.runtime.device)
    try:
        difference = _difference(model, again, probes)
    finally:
        model.runtime = saved
    if not difference <= TOLERANCE or again.labels != model.labels:
        raise ArtifactError(
            f"The saved model does not predict what the trained one does (largest difference of an output "
            f"{difference:.2g}, allowed {TOLERANCE:g}). Nothing was kept in its place; please report this."
        )


def _difference(model: Model, again: Model, probes: Examples | None) -> float:
    """Return the largest difference of an output on the probes, as `TOLERANCE` takes it; without any, of a weight."""
    if probes is None:
        other = again.backbone.model.state_dict()
        pairs = [
            (tensor.float().cpu().numpy(), other[name].float().cpu().numpy())
            for name, tensor in model.backbone.model.state_dict().items()
        ]
    else:
        few = probes.take(np.arange(min(PROBES, len(probes))))
        mine, theirs = (
            [model.task.comparable(row) for row in each.outputs(few)[0]] for each in (model, again)
        )
        pairs = list(zip(mine, theirs, strict=True))
    found = [
        (np.abs(a - b) / np.maximum(np.abs(a), 1.0)).max(initial=0.0) if a.shape == b.shape else np.inf
        for a, b in pairs
    ]
    return float(np.max(found, initial=0.0))  # of NumPy, which lets NaN through


def load(path: str | Path, *, device: str = "cpu", precision: str = "fp32") -> Model:
    """Return the model saved in a folder. No code of the folder is run and no network is used.

    Raises ArtifactError where the folder is missing, incomplete or damaged.
    """
    from foretune.backbones.loading import load as load_backbone
    from foretune.tasks import task_class
    from foretune.training import machine
    from foretune.training.inference import Runtime

    folder = Path(path).expanduser()
    record = read_record(folder)
    _check_files(folder, record)
    try:
        recipe = Recipe.read(folder / "recipe.toml")
        task = task_class(record["task"]["name"]).from_state(record["task"])
        backbone = load_backbone(str(folder.resolve()), task, offline=True, saved=True)
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{folder / RECORD} is incomplete ({error!r}). Save the model again.") from error
    except (BackboneError, ConfigError) as error:
        raise ArtifactError(f"{folder} is no whole model: {error}") from error
    place = machine.pick_device(device)
    backbone.model.to(place).eval()
    return Model(
        backbone, task, recipe, Runtime(place, machine.pick_precision(precision, place)), record, folder
    )


def read_record(folder: Path) -> dict[str, Any]:
    """Return `foretune.json` of a model folder. Raises ArtifactError."""
    if not folder.is_dir():
        raise ArtifactError(
            f"There is no model folder {folder}. Give the --output of a finished `foretune fit`."
        )
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        unfinished = (folder / "checkpoints").is_dir()
        hint = (
            "The run is not finished: go on with --resume."
            if unfinished
            else "Was it made by `foretune fit`?"
        )
        raise ArtifactError(f"{folder} holds no {RECORD}. {hint}") from error
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{folder / RECORD} cannot be read: {error}. Restore it or train again."
        ) from error
    found = record.get("format") if isinstance(record, dict) else None
    if found != FORMAT:
        raise ArtifactError(f"{folder} has format {found!r}; this Foretune reads {FORMAT}. Update Foretune.")
    return record


def _check_files(folder: Path, record: dict[str, Any]) -> None:
    """Raise ArtifactError where a file is missing or not what was saved."""
    for name, expected in record.get("files", {}).items():
        path = folder / name
        if not path.is_file():
            raise ArtifactError(f"{folder} is incomplete: {name} is missing. Copy the whole folder.")
        if sha256(path) != expected:
            raise ArtifactError(f"{path} is damaged: its checksum differs from foretune.json. Copy it again.")


def model_card(record: dict[str, Any], task: Task, snippet: str = "", library: str = "transformers") -> str:
    """Return the model card (Mitchell et al. 2019) as Markdown with the hub's metadata.

    `snippet`: Python that runs the folder; `library`: that loads it, by its name on the hub.
    """
    tag = PIPELINE_TAGS.get(library) or task.pipeline
    head = [f"library_name: {library}", *([f"pipeline_tag: {tag}"] if tag else [])]
    strategy, backbone = record.get("strategy"), record.get("backbone", "unknown")
    lines = ["---", *head, "tags: [foretune]", "---", "", f"# {record.get('title', 'Fine-tuned model')}", ""]
    lines += [f"{task.name}, fine-tuned from {backbone} with the strategy {strategy} by Foretune.", ""]
    if task.labels:
        lines += ["## Labels", "", ", ".join(map(_code, task.labels)), ""]
    metrics, baselines = record.get("metrics"), record.get("baselines")
    unscored = ["Nothing was held out, so nothing was scored.", ""]
    lines += ["## Scores", "", *(_scores("split", metrics) if metrics else unscored)]
    if baselines:
        lines += ["", "## Beside it", "", *_scores("baseline", baselines)]
    lines += ["", "## Data", ""] + [f"- {text}" for text in record.get("data", {}).get("sentences", [])]
    lines += _use(task, snippet)
    return "\n".join(lines)


def _code(text: str) -> str:
    """Return a text as a code span on one line, also one with backticks (CommonMark 0.31, section 6.1)."""
    line = " ".join(text.split()) or " "
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    return f"{fence} {line} {fence}" if "`" in line else f"{fence}{line}{fence}"


def _scores(first: str, results: dict[str, Any]) -> list[str]:
    """Return the lines of a table of {name: {metric: score}}; `first` heads the names."""
    return [
        f"| {first} | metric | value | 95 % interval |",
        "|---|---|---|---|",
        *(
            f"| {name} | {metric} | {_cells(score)} |"
            for name, scores in results.items()
            for metric, score in scores.items()
            if isinstance(score, dict)
        ),
    ]


def _cells(score: dict[str, float]) -> str:
    return f"{score['value']:.4f} | {score['low']:.4f} – {score['high']:.4f}"


def _use(task: Task, snippet: str) -> list[str]:
    """Return the card's last part: how the model is run."""
    lines = ["", "## Use", "", "```python"]
    if task.pipeline:
        lines += ["from transformers import pipeline", "", f'model = pipeline("{task.pipeline}", ".")']
        lines += [f"model({task.example})"]
    else:
        lines += ["import foretune", "", 'model = foretune.load(".")', f"model.predict({task.example})"]
    if snippet:
        lines += ["```", "", "Without Foretune, in this folder:", "", "```python", snippet.rstrip()]
    return [*lines, "```", "", "The recipe is in `recipe.toml`, everything measured in `foretune.json`.", ""]
