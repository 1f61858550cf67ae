"""Tasks: what is learnt. One file each."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from foretune.tasks.base import Task

MODULES = (
    "text_classification",
    "text_pair",
    "text_regression",
    "multi_label",
    "image_classification",
    "audio_classification",
    "speech_recognition",
    "seq2seq",
    "text_generation",
    "similarity",
    "token_labelling",
    "segmentation",
    "detection",
    "question_answering",
)


def import_tasks() -> None:
    """Import every task, so that each registers itself."""
    for name in MODULES:
        import_module(f"foretune.tasks.{name}")


def task_class(name: str) -> type[Task]:
    """Return the task called `name`. Raises ConfigError naming the known ones."""
    from foretune.tasks.base import TASKS

    import_tasks()
    return TASKS[name]
