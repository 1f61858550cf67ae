"""One door to every kind of backbone: by what the task reads and which head it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from foretune.backbones.base import Backbone
    from foretune.tasks.base import Task


def load(name: str, task: Task, *, offline: bool, seed: int = 0, saved: bool = False) -> Backbone:
    """Return the backbone `name` with the head of `task`: a new one, or with `saved` the one that was saved.

    Raises BackboneError where it cannot be loaded or is of another modality.
    """
    from foretune.backbones.text import load_text_backbone

    options = {} if saved else task.model_options()
    backbone = load_text_backbone(
        name, auto_class=task.auto_class, options=options, offline=offline, seed=seed
    )
    backbone.pools = task.pools
    return backbone
