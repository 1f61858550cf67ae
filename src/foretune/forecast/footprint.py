"""The most memory and the most disk that a fit takes at any time, from what was measured of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from foretune.forecast import surroundings as around
from foretune.forecast.meter import nbytes
from foretune.training import checkpoint, memory

if TYPE_CHECKING:
    from foretune.forecast.study import Study

MOMENTS = 2  # of AdamW, each of the size of what trains
KEPT = 2  # checkpoints; a third exists while it is written
OTHER_FILES = 2 << 20  # bytes of tokenizer, report and events beside the weights
SPARE = 20 << 20  # bytes of memory, where nothing at all could be measured of the process


def weights_bytes(study: Study) -> int:
    """Return the bytes of the model in memory."""
    model = study.job.backbone.model
    return nbytes([*model.parameters(), *model.buffers()])


def saved_bytes(study: Study) -> tuple[int, int]:
    """Return the bytes of the best weights as they are kept while training, and of a checkpoint."""
    kept = nbytes(checkpoint.changing(study.job.backbone.model, study.loop.trained).values())
    return kept, kept + MOMENTS * study.rehearsal.trained_bytes


def peak_memory(study: Study) -> int:
    """Return the bytes of the GPU on CUDA, else of the whole process of a fit.

    Two moments can be the highest: the largest step, and the end, when the saved model is read back and
    compared; freed memory is kept by the process, so the second stands on the heap of the first.
    """
    weights, growth = weights_bytes(study), training_growth(study)
    if study.job.runtime.device.type == "cuda":
        return weights + max(growth, weights)
    base = study.start.memory_bytes if study.start else (memory.resident() or SPARE)
    again = weights if study.load.memory_bytes is None else study.load.memory_bytes
    mapped = sum(study.cached.values())  # the pages of the cache that are read
    ending = again + study.baselines.memory_bytes
    return base + around.data_bytes(study.prepared) + weights + growth + max(mapped, ending)


def training_growth(study: Study) -> int:
    """Return the bytes that training takes beside the weights: gradients, moments, activations, copies.

    Measured where the system allows; what a whole batch saves beyond the part of it that was run is added.
    """
    rehearsal = study.rehearsal
    if study.growth is not None:
        return study.growth + int(rehearsal.saved_bytes * (1 - rehearsal.share))
    _, whole = saved_bytes(study)
    trained = rehearsal.trained_bytes
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
    evaluated = any(plan.evaluations for plan in study.plans)
    count = checkpoints_written(study, training_seconds)
    bests = (0 if not evaluated else 1) + (1 if evaluated and count else 0)  # one that a checkpoint refers to
    gains = sum(plan.gains for plan in study.plans)
    drafts = max(best if gains > 1 else 0, whole if count > KEPT else 0)
    training = min(count, KEPT) * whole + bests * best + drafts
    ending = min(count, KEPT) * whole + bests * best + artefact_bytes(study)
    return int(max(training, ending)) + sum(study.cached.values()) * study.new


def artefact_bytes(study: Study) -> int:
    """Return the bytes of the finished model: what its state holds, once."""
    state = study.job.backbone.model.state_dict()
    own = {t.data_ptr(): t.numel() * t.element_size() for t in state.values()}
    return int(np.sum(list(own.values()))) + OTHER_FILES
