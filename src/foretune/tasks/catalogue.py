"""What each task is for, and the backbone that it takes where none is named."""

from __future__ import annotations

from dataclasses import dataclass

from foretune.errors import ConfigError

TEXT = "minilm-l6"  # bundled
VISION = "timm/vit_small_patch16_224.augreg_in21k_ft_in1k"
SCENES = "timm/resnet18.a1_in1k"
SPEECH = "openai/whisper-tiny"


@dataclass(frozen=True)
class TaskInfo:
    """`data`: what a user has; `backbone`: a name of the catalogue or a hub id, None where it must be chosen."""

    data: str
    about: str
    backbone: str | None = TEXT
    suggestion: str = ""


TASK_INFO: dict[str, TaskInfo] = {
    "text-classification": TaskInfo("a text and a label per row", "one label for every text"),
    "multi-label": TaskInfo("a text and several labels per row", "any number of labels for every text"),
    "text-regression": TaskInfo("a text and a number per row", "a number for every text"),
    "text-pair": TaskInfo("two texts and a label per row", "one label for every two texts"),
    "pair-regression": TaskInfo("two texts and a number per row", "a number for every two texts"),
    "similarity": TaskInfo("queries and their documents", "vectors by which texts are found"),
    "token-labelling": TaskInfo("words and tags, or texts and spans", "entities or tags of words"),
    "question-answering": TaskInfo("questions, contexts, answers (SQuAD)", "the answer's place in a text"),
    "summarisation": TaskInfo("texts and summaries", "a shorter text", "google-t5/t5-small"),
    "translation": TaskInfo(
        "texts and translations", "the text in another language", None, "Helsinki-NLP/opus-mt-en-de"
    ),
    "text-generation": TaskInfo(
        "plain text, or prompts and responses", "texts that go on", "HuggingFaceTB/SmolLM2-135M"
    ),
    "image-classification": TaskInfo(
        "a folder per class, or paths and labels", "one label for every picture", VISION
    ),
    "detection": TaskInfo("COCO json", "boxes of the things in a picture", SCENES),
    "segmentation": TaskInfo("pictures and masks", "a class for every pixel", SCENES),
    "audio-classification": TaskInfo(
        "a folder per class, or paths and labels", "one label for every sound", SPEECH
    ),
    "speech-recognition": TaskInfo("paths and transcripts", "what is said", SPEECH),
}


def default_backbone(task: str) -> str:
    """Return the backbone of a task where the user names none. Raises ConfigError where one must be chosen."""
    info = TASK_INFO.get(task, TaskInfo("", ""))
    if info.backbone is None:
        raise ConfigError(
            f"Name a backbone for {task} with --backbone, such as {info.suggestion} (for plan: --backbones)."
        )
    return info.backbone
