"""One door to every kind of backbone: by what the task reads and which head it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foretune.backbones.base import Backbone
    from foretune.backbones.text import TextBackbone
    from foretune.tasks.base import Task


def load(name: str, task: Task, *, offline: bool, seed: int = 0, saved: bool = False) -> Backbone:
    """Return the backbone `name` with the head of `task`: a new one, or with `saved` the one that was saved.

    Raises BackboneError where it cannot be loaded or is of another modality.
    """
    from foretune.backbones.text import load_text_backbone

    options = {} if saved else task.model_options()
    if task.auto_class in ("AutoModelForSemanticSegmentation", "AutoModelForObjectDetection"):
        from foretune.backbones.scene_load import load_scene_backbone

        return load_scene_backbone(
            name, auto_class=task.auto_class, options=options, offline=offline, seed=seed
        )
    if task.modality == "image":
        from foretune.backbones.image_load import load_image_backbone

        return load_image_backbone(name, options=options, offline=offline, seed=seed)
    if task.modality == "audio":
        return _audio(name, task, options, offline=offline, seed=seed, saved=saved)
    kind = _kind(name, task, offline)
    backbone = load_text_backbone(
        name, auto_class=task.auto_class, options=options, offline=offline, seed=seed, kind=kind
    )
    backbone.pools = task.pools
    return backbone


def _audio(
    name: str, task: Any, options: dict[str, Any], *, offline: bool, seed: int, saved: bool
) -> Backbone:
    """Return a backbone for sounds, whose window is cut to the longest training sound, or is as it was saved."""
    from foretune.backbones.audio_load import load_audio_backbone

    seconds = None if saved else task.seconds
    if task.name == "speech-recognition":
        from foretune.backbones.speech import load_speech_backbone

        return load_speech_backbone(
            name, characters=task.characters, language=task.options.language, offline=offline, seed=seed,
            seconds=seconds,
        )  # fmt: skip
    return load_audio_backbone(
        name, auto_class=task.auto_class, options=options, offline=offline, seed=seed, seconds=seconds
    )


def _kind(name: str, task: Task, offline: bool) -> type[TextBackbone]:
    """Return the class of a text backbone with the head of `task`. Raises BackboneError where it has no such."""
    from foretune.backbones.text import TextBackbone

    if task.auto_class == "AutoModel":
        from foretune.backbones.embeddings import EmbeddingBackbone

        return EmbeddingBackbone
    if task.auto_class not in ("AutoModelForSeq2SeqLM", "AutoModelForCausalLM"):
        return TextBackbone
    from foretune.backbones.language import check_writes, language_backbone

    check_writes(name, task.auto_class, task.name, offline)
    return language_backbone(task.auto_class)
