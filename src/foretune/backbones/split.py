"""Split a model between two layers: what the first k layers give, and the rest of the model from there.

Nothing here knows a model by name. To read the output of layer k, a hook watches that layer. To start there,
stand-ins take the places of layers 1 … k while the model runs: the last of them returns the given hidden
states, the others do nothing. The model's own code still prepares masks and positions, so everything above
layer k sees what it always sees; only embeddings are looked up in vain, which costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

TOLERANCE = 1e-4  # relative to the largest output: between running whole and running in two parts
SHARE = (
    0.9  # of the parameters that the best list of layers holds: longer lists with less are parts of layers
)


@dataclass(frozen=True)
class Slot:
    """The place of a layer: an entry of its parent module."""

    parent: nn.Module
    name: str

    @property
    def module(self) -> nn.Module:
        """Return what stands here now."""
        return self.parent._modules[self.name]  # type: ignore[return-value]

    def put(self, module: nn.Module) -> None:
        """Put `module` here."""
        self.parent._modules[self.name] = module


class _Reached(Exception):
    """Ends a forward pass whose further layers are not needed."""


class _StandIn(nn.Module):
    """Returns `given`, or its input where there is none, in the form that the layer returns."""

    def __init__(self, layer: nn.Module, width: int, given: Tensor | None) -> None:
        super().__init__()
        object.__setattr__(self, "layer", layer)  # not as a part: its parameters are the model's already
        self.width, self.given = width, given

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the hidden states; `width` is the length of the layer's tuple, 0 for a bare tensor."""
        hidden = self.given if self.given is not None else _first(args, kwargs)
        return hidden if self.width == 0 else (hidden,) + (None,) * (self.width - 1)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:  # models ask layers for their kind of attention and the like
            return getattr(self.layer, name)


@dataclass
class Layers:
    """The ordered layers of a model, at which it can be split."""

    slots: tuple[Slot, ...]
    widths: dict[int, int] = field(default_factory=dict)  # of what layer i returns: see `_StandIn`

    @property
    def count(self) -> int:
        """Return the number of layers."""
        return len(self.slots)

    def read(self, run: Callable[[], Any], points: Sequence[int]) -> list[Tensor]:
        """Return the output of the first k layers for every k of `points`, in their order.

        `run` runs the model; it is stopped behind the highest point. k = 0 is the input of the first layer.
        """
        found: dict[int, Tensor] = {}
        last = max(points)
        handles = [self._watch(k, found, last) for k in set(points)]
        try:
            run()
        except _Reached:
            pass
        finally:
            for handle in handles:
                handle.remove()
        return [found[k] for k in points]

    def _watch(self, k: int, found: dict[int, Tensor], last: int) -> Any:
        def before(_: nn.Module, args: Any, kwargs: Any) -> None:
            found[0] = _first(args, kwargs)
            if last == 0:
                raise _Reached

        def after(_: nn.Module, args: Any, output: Any) -> None:
            self.widths[k] = len(output) if isinstance(output, tuple | list) else 0
            found[k] = output[0] if self.widths[k] else output
            if k == last:
                raise _Reached

        if k == 0:
            return self.slots[0].module.register_forward_pre_hook(before, with_kwargs=True)
        return self.slots[k - 1].module.register_forward_hook(after)

    @contextmanager
    def starting_at(self, k: int, hidden: Tensor) -> Iterator[None]:
        """Let the model start with `hidden`, the output of its first `k` layers (1 or more)."""
        kept = [slot.module for slot in self.slots[:k]]
        try:
            for number, slot in enumerate(self.slots[:k], 1):
                given = hidden if number == k else None
                slot.put(_StandIn(slot.module, self.widths.get(number, 0), given))
            yield
        finally:
            for slot, module in zip(self.slots, kept, strict=False):
                slot.put(module)

    @torch.no_grad()
    def points(self, run: Callable[[], Tensor]) -> tuple[int, ...]:
        """Return every k in 1 … n at which running in two parts gives the output of running whole.

        `run` runs the whole model on a small input and returns its output.
        """
        ks = list(range(1, self.count + 1))
        if not ks:
            return ()
        expected = run()
        try:
            hidden = self.read(run, ks)
        except KeyError:  # a layer that the model does not call
            return ()
        return tuple(k for k, h in zip(ks, hidden, strict=True) if self._same(k, h, run, expected))

    def _same(self, k: int, hidden: Tensor, run: Callable[[], Tensor], expected: Tensor) -> bool:
        try:
            with self.starting_at(k, hidden):
                output = run()
        except (RuntimeError, TypeError, AttributeError, IndexError, KeyError, ValueError):
            return False  # this model looks at its layers in a way that stand-ins do not bear
        scale = float(expected.abs().max()) or 1.0
        return output.shape == expected.shape and float((output - expected).abs().max()) <= TOLERANCE * scale


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and each of its modules back into the mode that it was in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        model.eval()
        for module in training:
            module.training = True


def find_layers(model: nn.Module) -> Layers:
    """Return the layers of any model: the list of blocks, or the stages, that hold most of its parameters.

    Looks at lists and sequences of modules, and at siblings with numbered names (`layer1` … `layer4`).
    Of those with nearly the most parameters the longest is taken. No layers are found in a model without such.
    """
    candidates = [slots for module in model.modules() for slots in _groups(module) if len(slots) > 1]
    if not candidates:
        return Layers(())
    sizes = [sum(_parameters(slot.module) for slot in slots) for slots in candidates]
    good = [c for c, size in zip(candidates, sizes, strict=True) if size >= SHARE * max(sizes)]
    longest: list[Slot] = max(good, key=len)
    return Layers(tuple(longest))


def _groups(module: nn.Module) -> Iterator[list[Slot]]:
    """Yield the lists of layers that stand directly below `module`."""
    names = list(module._modules)
    if isinstance(module, nn.ModuleList | nn.Sequential):
        if len({type(child) for child in module._modules.values()}) == 1:
            yield [Slot(module, name) for name in names]
        return
    stems: dict[str, list[Slot]] = {}
    for name in names:
        if name[-1:].isdigit() and isinstance(module._modules[name], nn.Module):
            stems.setdefault(name.rstrip("0123456789"), []).append(Slot(module, name))
    yield from stems.values()


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _first(args: Any, kwargs: Any) -> Tensor:
    return args[0] if args else kwargs["hidden_states"]
