"""Networks of timm (Wightman 2019) behind the Backbone's face, in and out as folders that plain timm loads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from foretune.backbones.image import ImageBackbone, Look
from foretune.backbones.source import Source
from foretune.errors import BackboneError

WEIGHTS = "model.safetensors"
SNIPPET = """import timm
from PIL import Image

model = timm.create_model("local-dir:.", pretrained=True).eval()
settings = timm.data.resolve_model_data_config(model)
look = timm.data.create_transform(**settings, is_training=False)
number = model(look(Image.open("picture.jpg").convert("RGB"))[None]).argmax().item()
label = model.pretrained_cfg["label_names"][number]
"""


@dataclass(frozen=True)
class TimmFit:
    """timm's evaluation transform up to, but without, the scaling of the numbers.

    `size`: height and width (pixels); `crop`: the share of the resized picture that is kept; `mode`: center,
    border or squash.
    """

    size: tuple[int, int]
    interpolation: str
    crop: float
    mode: str

    def key(self) -> str:
        """Return what decides the result besides the picture."""
        return f"timm {self.size} {self.interpolation} {self.crop} {self.mode}"

    @cached_property
    def _transform(self) -> Any:
        from timm.data import create_transform

        return create_transform(
            self.size, is_training=False, use_prefetcher=True, interpolation=self.interpolation,
            crop_pct=self.crop, crop_mode=self.mode,
        )  # fmt: skip

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """Return (height, width, 3) of an RGB picture (h, w, 3)."""
        from PIL import Image

        return self._transform(Image.fromarray(picture)).permute(1, 2, 0).numpy()


class TimmBackbone(ImageBackbone):
    """A network of timm; `config` is the config.json that it was loaded with."""

    library = "timm"
    snippet = SNIPPET

    def __init__(
        self, name: str, model: nn.Module, look: Look, source: Source, config: dict[str, Any]
    ) -> None:
        self.config = config
        super().__init__(name, model, look, source)

    def logits(self, numbers: Tensor) -> Tensor:
        """Return the network's output (batch, classes)."""
        return self.model(numbers)

    def head_names(self) -> tuple[str, ...]:
        """Return the names of the classifier's modules as the configuration gives them."""
        return _head_names(self.config)

    @property
    def classifier(self) -> nn.Linear | None:
        """Return the classifier where it is one linear map."""
        found = self.model.get_classifier()
        return found if isinstance(found, nn.Linear) else None

    def save(self, folder: Path) -> None:
        """Write config.json and model.safetensors; `timm.create_model("local-dir:" + folder)` loads them."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self._weights()}
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
        (folder / "config.json").write_text(
            json.dumps(self.config, indent=2, ensure_ascii=False) + "\n", "utf-8"
        )

    def _weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield every tensor of the state once: shared ones as copies, as safetensors wants them."""
        seen: set[int] = set()
        for name, tensor in self.model.state_dict().items():
            yield name, tensor.clone() if tensor.data_ptr() in seen else tensor
            seen.add(tensor.data_ptr())


def load_timm(folder: Path, source: Source, options: dict[str, Any], size: int | None) -> TimmBackbone:
    """Return the network of a folder with config.json and model.safetensors. Raises BackboneError.

    `options`: num_labels and id2label of a new head; without them the saved one is kept. `size`: side of the
    pictures (pixels), None as pretrained.
    """
    import timm
    from timm.data import resolve_model_data_config

    config = _normalised(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    classes = int(options.get("num_labels", config["num_classes"]))
    if not timm.is_model(config["architecture"]):
        raise BackboneError(
            f"{folder} is of the architecture {config['architecture']!r}, which this timm ({timm.__version__}) "
            "does not know. Update timm, or take another backbone."
        )
    arguments: dict[str, Any] = (
        {"img_size": size} if size and config["pretrained_cfg"].get("fixed_input_size") else {}
    )
    overlay = {"classifier": _head_names(config), "custom_load": False}
    with _loaded_keys() as results:
        model = timm.create_model(
            f"local-dir:{folder}",
            pretrained=True,
            num_classes=classes,
            pretrained_cfg_overlay=overlay,
            **arguments,
        )
    _check_weights(source.name, results, _head_names(config))
    seen = resolve_model_data_config(model, args={"img_size": size} if size else None)
    config = _described(config, classes, options.get("id2label"), seen, arguments)
    return TimmBackbone(source.name, model, _look(source.name, seen), source, config)


def _normalised(config: dict[str, Any]) -> dict[str, Any]:
    """Return timm's configuration in its present form; the old one has no part `pretrained_cfg`."""
    from timm.models import get_pretrained_cfg

    if "pretrained_cfg" not in config:
        known = {
            key: config.get(key) for key in ("architecture", "num_classes", "num_features", "global_pool")
        }
        config = {**{k: v for k, v in known.items() if v is not None}, "pretrained_cfg": dict(config)}
        config["pretrained_cfg"].pop("architecture", None)
    inner = config["pretrained_cfg"]
    config.setdefault("num_classes", inner.get("num_classes", 1000))
    inner.setdefault("num_classes", config["num_classes"])
    if not inner.get("classifier"):
        registered = get_pretrained_cfg(config["architecture"], allow_unregistered=True)
        inner["classifier"] = getattr(registered, "classifier", None) or "head"
    return config


def _head_names(config: dict[str, Any]) -> tuple[str, ...]:
    names = config["pretrained_cfg"]["classifier"]
    return (names,) if isinstance(names, str) else tuple(names)


def _described(
    config: dict[str, Any],
    classes: int,
    names: dict[int, str] | None,
    seen: dict[str, Any],
    arguments: dict[str, Any],
) -> dict[str, Any]:
    """Return the configuration of the network as it is now: its head, its labels, its pictures."""
    pictures = {
        key: seen[key] for key in ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")
    }
    inner = {**config["pretrained_cfg"], **pictures, "num_classes": classes}
    for key in ("label_names", "label_descriptions", "label_offset", "test_input_size", "test_crop_pct"):
        inner.pop(key, None)
    own = {**config, "num_classes": classes, "pretrained_cfg": inner}
    if arguments:
        own["model_args"] = {**config.get("model_args", {}), **arguments}
        inner.pop("pool_size", None)
    if names is not None:
        own.pop("label_descriptions", None)
        own["label_names"] = [names[number] for number in sorted(names)]
    return own


def _look(name: str, seen: dict[str, Any]) -> Look:
    channels, height, width = seen["input_size"]
    if channels != 3:
        raise BackboneError(
            f"{name} takes pictures of {channels} channels; only RGB is supported. Take another backbone."
        )
    interpolation = seen["interpolation"] if seen["interpolation"] != "random" else "bilinear"
    fit = TimmFit((height, width), interpolation, seen["crop_pct"], seen["crop_mode"] or "center")
    return Look(fit, tuple(seen["mean"]), tuple(seen["std"]))


@contextmanager
def _loaded_keys() -> Iterator[list[Any]]:
    """Note what `load_state_dict` finds missing: timm only logs it, where the head is new."""
    original, results = nn.Module.load_state_dict, []

    def noting(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        results.append(original(self, *args, **kwargs))
        return results[-1]

    nn.Module.load_state_dict = noting  # type: ignore[method-assign]
    try:
        yield results
    finally:
        nn.Module.load_state_dict = original  # type: ignore[method-assign]


def _check_weights(name: str, results: list[Any], head: tuple[str, ...]) -> None:
    """Raise BackboneError where weights below the head are missing: they would silently be random."""
    missing = [key for result in results for key in result.missing_keys]
    pretrained = [key for key in missing if not any(key.startswith(f"{prefix}.") for prefix in head)]
    if pretrained:
        raise BackboneError(
            f"Backbone {name!r} lacks {len(pretrained)} of its weights: {', '.join(pretrained[:3])} … "
            "Get the whole model again."
        )
