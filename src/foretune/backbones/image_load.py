"""Find an image network by name: a folder, a name of timm, or a hub id; only safetensors are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from foretune.backbones.image import ImageBackbone
from foretune.backbones.source import Source, hub_closed, resolve
from foretune.data.media import require
from foretune.errors import BackboneError, ForetuneError

PREFIXES = ("hf-hub:", "hf_hub:", "local-dir:")  # timm's own ways to say where a model lies
FILES = ["config.json", "preprocessor_config.json", "*.safetensors"]


def load_image_backbone(
    name: str, *, options: dict[str, Any], offline: bool, seed: int = 0, size: int | None = None
) -> ImageBackbone:
    """Load a network with a new head, or a fine-tuned one with its own.

    `options`: num_labels, id2label … of the new head, empty to keep the saved one. `size`: side of the
    pictures in pixels, where it shall not be the pretrained one. Raises BackboneError, and ConfigError
    where timm is not installed.
    """
    import torch

    require("timm", "image")
    source = image_source(name)
    torch.manual_seed(seed)  # the new head's initial weights
    try:
        folder = _folder(source, offline)
        return _load(folder, source, options, size)
    except ForetuneError:
        raise
    except Exception as error:  # the libraries raise many kinds; all mean that it cannot be loaded
        raise BackboneError(_explain(name, source, offline, error)) from error


def image_source(name: str) -> Source:
    """Return where a network comes from; timm's short names stand for their hub ids. Raises BackboneError."""
    import timm

    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    if "/" not in name and not Path(name).expanduser().is_dir() and timm.is_model(name):
        known = timm.get_pretrained_cfg(name)
        if known is None or not known.hf_hub_id:
            raise BackboneError(f"timm has no pretrained weights called {name!r}. Give a folder or a hub id.")
        full = f"{known.architecture}.{known.tag}" if known.tag else known.architecture
        name = f"{known.hf_hub_id}{full}" if known.hf_hub_id.endswith("/") else known.hf_hub_id
    return resolve(name)


def _folder(source: Source, offline: bool) -> Path:
    """Return the folder of a network, fetched from the hub where it is not local."""
    if source.local:
        return Path(source.location)
    from huggingface_hub import snapshot_download

    with hub_closed(offline):
        return Path(snapshot_download(source.location, allow_patterns=FILES, local_files_only=offline))


def _load(folder: Path, source: Source, options: dict[str, Any], size: int | None) -> ImageBackbone:
    from foretune.backbones.image_hub import load_hub
    from foretune.backbones.image_timm import WEIGHTS, load_timm

    if not list(folder.glob("*.safetensors")):
        raise BackboneError(
            f"{source.location} holds no safetensors; other formats can run code when read and are refused. "
            f"It holds: {', '.join(sorted(path.name for path in folder.iterdir())[:12])}."
        )
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if "architecture" in config and (folder / WEIGHTS).is_file():
        return load_timm(folder, source, options, size)
    if "model_type" in config:
        return load_hub(folder, source, options, size)
    raise BackboneError(
        f"{source.location}: config.json names neither timm's `architecture`, beside {WEIGHTS}, nor the "
        "`model_type` of transformers. Give the folder of a pretrained image network."
    )


def _explain(name: str, source: Source, offline: bool, error: Exception) -> str:
    """Say why a network did not load and what to do."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if not source.local and not isinstance(error, KeyError | ValueError):
        where = "and --offline forbids to fetch it" if offline else "and it could not be fetched"
        return (
            f"Backbone {name!r} ({source.location}) is not in the local hub cache {where}: {reason} "
            "Check the name and the connection, or give a local folder."
        )
    return f"The image network {source.location} cannot be loaded: {reason} Is it whole, and of pictures?"
