"""Find the ordered layers of any Transformer, and how deep each parameter lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

HEAD_NAMES = ("pooler",)  # parts of a base model that Hugging Face's heads stand on


@dataclass(frozen=True)
class LayerMap:
    """The layers of a model and the depth of its parameters.

    `depth[name]` is 0 for embeddings, 1 … n for the n layers, n + 1 for the head.
    """

    path: str  # of the module list that holds the layers; empty where none was found
    layers: tuple[nn.Module, ...]
    depth: dict[str, int]

    @property
    def count(self) -> int:
        """Return n, the number of layers (1 for a model without a list of layers)."""
        return max(len(self.layers), 1)

    def head(self) -> list[str]:
        """Return the names of the head's parameters."""
        return [name for name, depth in self.depth.items() if depth == self.count + 1]


def map_layers(model: nn.Module) -> LayerMap:
    """Return the layer map of a Hugging Face model: base model, then what stands on it.

    The layers are the longest list of same-class modules inside the base model. Where there is none,
    the whole base model counts as one layer. A bare base model has no head but what stands in `HEAD_NAMES`.
    """
    prefix = getattr(model, "base_model_prefix", "")
    base = getattr(model, prefix, None) if prefix else None
    if prefix and base is None:
        return _bare(model)
    path, layers = longest_list(base, prefix) if base is not None else ("", ())
    depth: dict[str, int] = {}
    seen_layer = False
    for name, _ in model.named_parameters():
        inside = f"{name}.".startswith(f"{path}.") if path else False
        seen_layer = seen_layer or inside
        depth[name] = _depth(name, prefix, path, len(layers), seen_layer)
    return LayerMap(path, layers, depth)


def _bare(model: nn.Module) -> LayerMap:
    path, layers = longest_list(model, "")
    count, depth, seen_layer = max(len(layers), 1), {}, False
    for name, _ in model.named_parameters():
        inside = bool(path) and name.startswith(f"{path}.")
        seen_layer = seen_layer or inside
        head = any(part in HEAD_NAMES for part in name.split("."))
        own = (
            int(name[len(path) + 1 :].split(".")[0]) + 1 if inside else count if seen_layer or not path else 0
        )
        depth[name] = count + 1 if head else own
    return LayerMap(path, layers, depth)


def longest_list(base: nn.Module, prefix: str) -> tuple[str, tuple[nn.Module, ...]]:
    """Return the longest list of modules of one class inside `base`, whose name is `prefix`, and its path."""
    from torch import nn

    best: tuple[str, tuple[nn.Module, ...]] = ("", ())
    for name, module in base.named_modules():
        alike = isinstance(module, nn.ModuleList) and len({type(item) for item in module}) == 1
        if alike and len(module) > len(best[1]):
            best = (f"{prefix}.{name}" if prefix else name, tuple(module))
    return best


def _depth(name: str, prefix: str, path: str, count: int, seen_layer: bool) -> int:
    """Return the depth of one parameter; `seen_layer`: it stands after the first layer's parameters."""
    n = max(count, 1)
    parts = name.split(".")
    if not prefix or parts[0] != prefix or any(part in HEAD_NAMES for part in parts):
        return n + 1
    if path and name.startswith(f"{path}."):
        return int(name[len(path) + 1 :].split(".")[0]) + 1
    return n if seen_layer or not path else 0  # final norms rank with the top layer
