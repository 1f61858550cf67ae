"""The cases of `tasks.py`: which rows, backbone, epochs and options, and which plain script is the peer."""

from __future__ import annotations

from dataclasses import dataclass

from task_data import Cut


@dataclass(frozen=True)
class Case:
    """One set: what is predicted, the peer's function, rate and batch, further options of our command."""

    name: str
    kind: str  # of `task_scores.SCORES`
    metric: str  # the headline
    backbone: str
    peer: str  # module.function
    small: Cut | None
    full: Cut
    rate: float = 5e-5
    batch: int = 8
    options: tuple[str, ...] = ()
    max_tokens: int = 0


RESNET, WHISPER = "resnet18-imagenet", "whisper-tiny-en"
PROBE = ("--strategy", "linear-probe")


def _esc10(fold: int) -> Case:
    small = Cut(200, 20, 80, 30) if fold == 5 else None
    return Case(
        f"esc10-{fold}", "label", "accuracy", WHISPER, "peer_media.probe_sounds", small, Cut(288, 32, 80, 30), batch=8,
        options=("--task", "audio-classification", *PROBE),
    )  # fmt: skip


CASES = (
    Case("conll2003", "words", "f1", "minilm-l6", "peer_text.words", Cut(2000, 400, 1000, 3), Cut(epochs=2)),
    Case("cluener", "spans", "f1", "roformer-zh-small", "peer_text.characters", Cut(600, 100, 400, 3), Cut()),
    Case(
        "squad", "answer", "f1", "minilm-l6", "peer_text.questions", Cut(250, 40, 150, 2), Cut(epochs=2),
        max_tokens=256,
    ),
    Case(
        "hymenoptera", "label", "accuracy", RESNET, "peer_media.pictures", Cut(220, 24, 153, 3), Cut(220, 24, 153, 10),
        rate=1e-4, batch=32, options=("--task", "image-classification"),
    ),
    Case(
        "flowers5", "label", "accuracy", RESNET, "peer_media.pictures", Cut(300, 40, 200, 3), Cut(epochs=5),
        rate=1e-4, batch=32, options=("--task", "image-classification"),
    ),
    Case(
        "yesno", "transcript", "wer", WHISPER, "peer_writing.whisper", Cut(30, 5, 10, 3), Cut(45, 5, 10, 10),
        rate=1e-5, options=("--task", "speech-recognition"),
    ),
    Case(
        "fsdd", "label", "accuracy", WHISPER, "peer_media.probe_sounds", Cut(180, 20, 100, 30), Cut(270, 30, 300, 30),
        options=("--task", "audio-classification", *PROBE),
    ),
    Case(
        "multi30k", "translation", "chrf", "opus-mt-en-fr", "peer_writing.translation", Cut(200, 20, 40, 2), Cut(),
        options=("--task", "translation", "--text", "en", "--target", "de"),
    ),
    Case("stsb", "value", "spearman", "minilm-l6", "peer_text.pairs", Cut(800, 100, 600, 2), Cut()),
    Case("mrpc", "label", "accuracy", "minilm-l6", "peer_text.pairs", Cut(600, 100, 600, 2), Cut()),
    Case(
        "cifar10", "label", "accuracy", RESNET, "peer_media.probe_pictures", Cut(900, 100, 300, 30),
        Cut(3600, 400, 1000, 30), batch=32, options=("--task", "image-classification", *PROBE),
    ),
    Case(
        "bccd", "boxes", "map", RESNET, "peer_media.detection", Cut(160, 20, 40, 6), Cut(262, 29, 73, 12), rate=5e-3,
        options=("--option", "side=256"),
    ),
    Case(
        "camvid", "mask", "miou", RESNET, "peer_media.segmentation", Cut(60, 10, 40, 6), Cut(100, 40, 40, 30),
        rate=2e-4,
    ),
    Case(
        "tinyshakespeare", "language", "perplexity", "smollm2-135m", "peer_writing.language",
        Cut(12_000, 2_000, 6_000, 1), Cut(epochs=1), options=("--task", "text-generation"),
    ),
    *(_esc10(fold) for fold in (5, 1, 2, 3, 4)),
)  # fmt: skip
