"""The baseline of a task that the pretrained model can do already: its own score before fine-tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.assemble import load_backbone
from foretune.model import Model

if TYPE_CHECKING:
    from foretune.prepare import Prepared
    from foretune.tasks.base import Examples
    from foretune.training.job import Job

MOST = 200  # examples, where they will do: a baseline may not cost more than the model's own evaluation


def untuned(job: Job, prepared: Prepared, held_out: Examples) -> dict[str, Any]:
    """Return the metrics of the backbone as it was loaded, on `MOST` of the held-out examples where these will do."""
    from foretune.backbones.attention import use_best_attention

    backbone = load_backbone(job.recipe, prepared)
    use_best_attention(backbone.model, job.runtime.device.type, job.runtime.precision)  # type: ignore[arg-type]
    backbone.model.to(job.runtime.device).eval()
    rows = np.arange(len(held_out))
    drawn = not job.task.in_order(held_out)
    many = len(rows) > MOST and job.task.sampled_untuned
    if many and not drawn:
        rows = rows[:MOST]
    elif many:
        rows = np.sort(np.random.default_rng(job.recipe.seed).choice(rows, MOST, replace=False))
    result, _ = Model(backbone, job.task, job.recipe, job.runtime).score(held_out.take(rows))
    scores = {name: result[name] for name in job.task.metrics if name in result}
    some = f"on {len(rows)} of the {len(held_out):,} held-out examples, {'drawn at random' if drawn else 'the first'}"
    return scores | ({"note": some} if len(rows) < len(held_out) else {})
