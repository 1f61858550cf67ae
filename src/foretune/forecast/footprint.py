"""The most memory and the most disk that a fit takes at any time, from what was measured of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from foretune.forecast import surroundings as around
from foretune.forecast.meter import nbytes
from foretune.training import checkpoint, memory

if TYPE_CHECKING:
    from foretune.forecast.study import Study

MOMENTS = 2  # of AdamW, each of the size of what trains
KEPT = 2  # checkpoints; a third exists while it is written
OTHER_FILES = 150_000  # bytes of report, record, model card and events; the demo has 137 kB of them
SPARE = 20 << 20  # bytes of memory, where nothing at all could be measured of the process


def weights_bytes(study: Study) -> int:
    """Return the bytes of the model in memory."""
    model = study.job.backbone.model
    return nbytes([*model.parameters(), *model.buffers()])


def saved_bytes(study: Study) -> tuple[int, int]:
    """Return the bytes of the best weights as they are kept while training, and of a checkpoint.

    A checkpoint between the passes of a step holds gradients too.
    """
    job, trained = study.job, study.rehearsal.trained_bytes
    kept = nbytes(checkpoint.changing(job.backbone.model, study.loop.trained).values())
    between = study.rehearsal.micro_tokens < job.settings.batch_tokens
    return kept, kept + (MOMENTS + between) * trained


def memory_parts(study: Study) -> dict[str, int]:
    """Return the bytes that are held at a fit's peak, by what for: of the GPU on CUDA, else of the whole process.

    The highest moment is the end, when the saved model is read back and compared: freed memory is kept by the
    process, so that stands on the heap of the largest step, beside the pages of the cache that were read.
    """
    weights, growth = weights_bytes(study), training_growth(study)
    if study.job.runtime.device.type == "cuda":
        return {"weights": weights, "training": max(growth, weights)}
    again = weights if study.load.memory_bytes is None else study.load.memory_bytes
    mapped = sum(study.cached.values())  # the pages of the cache that are read
    return {
        "start": study.start.memory_bytes if study.start else (memory.resident() or SPARE),
        "data": around.data_bytes(study.prepared),
        "weights": weights,
        "training": growth,
        "cache": mapped,
        "ending": again + study.baselines.memory_bytes,
    }


def training_growth(study: Study) -> int:
    """Return the bytes that training takes beside the weights: gradients, moments, activations, copies.

    Measured where the system allows; for what was only run in part, the rest is added: what a whole batch keeps
    for its backward pass, or a whole evaluation beside the moments.
    """
    rehearsal, trained = study.rehearsal, study.rehearsal.trained_bytes
    best, whole = saved_bytes(study)
    if study.growth is not None:
        steps = study.growth + int(rehearsal.saved_bytes * (1 - rehearsal.share))
        return max(steps, MOMENTS * trained + best + study.pass_growth)
    return max((1 + MOMENTS) * trained + rehearsal.saved_bytes, MOMENTS * trained + whole)


def checkpoints_written(study: Study, training_seconds: float) -> int:
    """Return how many checkpoints a fit writes while training."""
    every = study.job.recipe.checkpoint_seconds
    if every > 0:
        return math.floor(training_seconds / every)
    return max(round(sum(plan.steps for plan in study.plans)) - 1, 0)


def peak_disk(study: Study, training_seconds: float) -> int:
    """Return the most bytes that the run's folder and the feature cache hold of this fit at any time."""
    best, whole = saved_bytes(study)
    count = checkpoints_written(study, training_seconds)
    gains = math.ceil(sum(plan.gains for plan in study.plans))
    bests = min(gains, 1 + min(count, KEPT))  # the newest, and those that a kept checkpoint refers to
    kept = min(count, KEPT) * whole + bests * best
    draft = max(best if gains > 1 else 0, whole if count > KEPT else 0)
    return kept + max(draft, artefact_bytes(study)) + sum(study.cached.values()) * study.new


def artefact_bytes(study: Study) -> int:
    """Return the bytes of the finished model: the backbone's, and layers that the strategy adds."""
    added = max(study.job.backbone.layers.count - study.load.layers, 0)
    return study.load.saved_bytes + added * study.load.layer_bytes + OTHER_FILES
