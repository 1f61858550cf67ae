"""Find a model of sound by name: a folder or a hub id; only safetensors are read."""

from __future__ import annotations

from typing import Any

from foretune.backbones.audio import AudioBackbone
from foretune.backbones.audio_layers import cut_window, map_audio_layers, straight_head, whisper_encoder
from foretune.backbones.source import Source, hub_closed, resolve
from foretune.backbones.text import _explain, quiet
from foretune.data.media import require
from foretune.errors import BackboneError, ForetuneError


def load_audio_backbone(
    name: str,
    *,
    auto_class: str,
    options: dict[str, Any],
    offline: bool,
    seed: int = 0,
    seconds: float | None = None,
) -> AudioBackbone:
    """Load a model with a new head, or a fine-tuned one with its own.

    `options`: num_labels, id2label … of the new head, empty to keep the saved one. `seconds`: the longest sound,
    to which Whisper's window is cut. Raises BackboneError, and ConfigError where soundfile is not installed.
    """
    import torch

    require("soundfile", "audio")
    source = resolve(name)
    torch.manual_seed(seed)  # the new head's initial weights
    try:
        model, extractor, absent = loaded(source, auto_class, options, offline)
        if "projector.weight" in absent:
            straight_head(model)
        check_weights(name, model, absent)
        return AudioBackbone(source.name, model, extractor, source, prepared(model, extractor, seconds))
    except ForetuneError:
        raise
    except Exception as error:  # the libraries raise many kinds; all mean that it cannot be loaded
        raise BackboneError(_explain(name, source, offline, error)) from error


def loaded(
    source: Source, auto_class: str, options: dict[str, Any], offline: bool
) -> tuple[Any, Any, set[str]]:
    """Return model, feature extractor and the names of weights that the files lack."""
    import torch
    import transformers

    common = {"local_files_only": source.local or offline, "trust_remote_code": False}
    with quiet(), hub_closed(source.local or offline):
        extractor = transformers.AutoFeatureExtractor.from_pretrained(source.location, **common)
        model, report = getattr(transformers, auto_class).from_pretrained(
            source.location, use_safetensors=True, dtype=torch.float32, output_loading_info=True,
            ignore_mismatched_sizes=True, **common, **options,
        )  # fmt: skip
    return model, extractor, {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}


def prepared(model: Any, extractor: Any, seconds: float | None) -> int | None:
    """Settle what must not be left to chance or to 30 seconds; return the window (samples), if there is one.

    Layers that drop out as a whole and the masks of SpecAugment would differ between an uninterrupted run's
    cached layers and the live ones; `SoundAugmentation` has masks of its own.
    """
    for key in ("layerdrop", "encoder_layerdrop", "decoder_layerdrop"):
        if hasattr(model.config, key):
            setattr(model.config, key, 0.0)
    for module in model.modules():
        if isinstance(getattr(module, "layerdrop", None), float):
            module.layerdrop = 0.0
    if hasattr(model.config, "apply_spec_augment"):
        model.config.apply_spec_augment = False
    encoder = whisper_encoder(model)
    if encoder is not None:
        encoder.embed_positions.requires_grad_(False)  # sinusoids, as they were in pretraining
        if seconds is not None:
            cut_window(model, extractor, seconds)
        return int(extractor.n_samples)
    if hasattr(model, "_get_feat_extract_output_lengths"):
        return None
    return int(getattr(extractor, "max_length", 1024) * extractor.sampling_rate // 100)  # 10 ms per row


def check_weights(name: str, model: Any, absent: set[str]) -> None:
    """Raise BackboneError where weights below the head are missing: they would silently be random."""
    found = map_audio_layers(model)
    pretrained = sorted(key for key in absent if found.depth.get(key, found.count + 1) <= found.count)
    if pretrained:
        raise BackboneError(
            f"Backbone {name!r} lacks {len(pretrained)} of its weights, or they have other sizes than its "
            f"config.json says: {', '.join(pretrained[:3])} … Get the whole model again."
        )
