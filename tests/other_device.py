"""A device that is none, to see without a GPU that nothing stays behind on the CPU.

Tensors on it live in the CPU's memory and compute there, but say that they are elsewhere; an operation on tensors of
both places fails, as it would with a GPU. What a GPU allows is allowed: numbers (tensors without dimensions) and
indices may come from the CPU. It goes by the name of PyTorch's "meta" device, as PyTorch must know the name and
must not look for a driver.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map, tree_map_only

aten = torch.ops.aten
DEVICE = torch.device("meta")
MOVES = (aten._to_copy.default, aten.copy_.default)
INDEXED = (
    aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default,
)  # fmt: skip
INDEXING = (Tensor.__getitem__, Tensor.__setitem__)
READING = (Tensor.tolist, Tensor.data_ptr)
FACTORIES = (torch.tensor, torch.as_tensor, torch.asarray)


class Elsewhere(Tensor):
    """A tensor on the device; `own` holds its numbers."""

    @staticmethod
    def __new__(cls, own: Tensor) -> Elsewhere:
        return Tensor._make_wrapper_subclass(
            cls, own.size(), strides=own.stride(), storage_offset=own.storage_offset(), dtype=own.dtype,
            layout=own.layout, device=DEVICE, requires_grad=own.requires_grad,
        )  # fmt: skip

    def __init__(self, own: Tensor) -> None:
        self.own = own

    def __repr__(self) -> str:
        return f"Elsewhere({self.own})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation on the CPU's numbers. Raises RuntimeError where its tensors are in two places."""
    given = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Tensor)]
    there = [each for each in given if isinstance(each, Elsewhere)]
    here = [each for each in given if not isinstance(each, Elsewhere)]
    assert all(each.device != DEVICE for each in here), f"{func}: a tensor was made past this module"
    indexed = func in INDEXED and isinstance(args[0], Elsewhere)
    if there and any(each.dim() for each in here) and func not in MOVES and not indexed:
        raise RuntimeError(f"{func}: some tensors are on the CPU, of shapes {[tuple(x.shape) for x in here]}")
    own_args, own_kwargs = tree_map_only(Elsewhere, lambda each: each.own, (args, kwargs))
    if func is aten.copy_.default:  # the only operation that writes to a place from another
        func(*own_args, **own_kwargs)
        return args[0]
    wanted = kwargs.get("device")
    if wanted is not None:
        own_kwargs["device"] = torch.device("cpu")
    found = func(*own_args, **own_kwargs)
    if not (there if wanted is None else torch.device(wanted) == DEVICE):
        return found
    found = tree_map_only(Tensor, Elsewhere, found)
    return return_and_correct_aliasing(func, args, kwargs, found) if there else found


class _Operations(TorchDispatchMode):
    """Also sees operations without tensors from there: those that make or bring some."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """Replaces what PyTorch does past the dispatch, for tensors from there."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        there = bool(args) and isinstance(args[0], Elsewhere)
        if func in READING and there:
            return func(args[0].own, *args[1:], **kwargs)
        if func is Tensor.numpy and there:
            raise TypeError("A tensor on another device has no NumPy array; call cpu() first.")
        if func in INDEXING and there:
            args = (args[0], tree_map(_as_index, args[1], is_leaf=lambda x: isinstance(x, list)), *args[2:])
        if func is Tensor.new_tensor:
            kwargs = {"dtype": args[0].dtype, "device": args[0].device, **kwargs}
            func, args = torch.tensor, args[1:]
        if func in FACTORIES and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        return func(*args, **kwargs)


def _as_index(index: Any) -> Any:
    return torch.tensor(index) if isinstance(index, list) else index


@contextlib.contextmanager
def other_device(monkeypatch: Any) -> Iterator[None]:
    """Let every run take the device: no autocast, no inference mode and no measured peak, which it cannot have."""
    from foretune.training import machine

    move = torch.nn.Module.to

    def to(module: torch.nn.Module, *args: Any, **kwargs: Any) -> torch.nn.Module:
        moved = move(module, *args, **kwargs)
        if hasattr(moved, "tie_weights"):
            moved.tie_weights()  # parameters are replaced, where a GPU's get new contents
        return moved

    monkeypatch.setattr(torch.nn.Module, "to", to)
    monkeypatch.setattr(torch, "inference_mode", torch.no_grad)
    monkeypatch.setattr(torch, "autocast", lambda *args, **options: contextlib.nullcontext())
    monkeypatch.setattr(machine, "pick_device", lambda wanted: DEVICE)
    monkeypatch.setattr(machine, "measure_peak", lambda *args, **options: 1e9)
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with _Operations(), _Functions():
            yield
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)
