"""How much memory a stretch of work needs beyond what is held at its start."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch

from foretune.training import memory

if TYPE_CHECKING:
    from torch import Tensor


def nbytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of tensors; one that is met twice counts once."""
    sizes = {tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in tensors}
    return sum(sizes.values())


class MemoryMeter:
    """Measures the growth of memory: on CUDA what tensors take, else what the process holds.

    On a CPU freed memory is given back to the system first, so that what is measured is new. Where the
    system tells nothing (no Linux, no glibc), `growth` is None.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._base: int | None = None

    def start(self) -> None:
        """Begin; what is held now does not count."""
        self._base = self._start()

    def _start(self) -> int | None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            return torch.cuda.memory_allocated(self.device)
        possible = self.device.type == "cpu" and memory.release_freed() and memory.reset_peak()
        return memory.resident() if possible else None

    def growth(self) -> int | None:
        """Return the bytes by which the peak since `start` lies above what was held then."""
        if self._base is None:
            return None
        if self.device.type == "cuda":
            return max(torch.cuda.max_memory_allocated(self.device) - self._base, 0)
        peak = memory.peak_resident()
        return None if peak is None else max(peak - self._base, 0)


class SavedBytes:
    """Counts what autograd keeps for the backward pass while this context is open, parameters apart.

    `most`: bytes of tensors that were kept at once; tensors that share memory count once.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self._own = {p.untyped_storage().data_ptr() for p in parameters}
        self._held: dict[int, list[int]] = {}  # address -> [bytes, how many saved tensors use it]
        self._now = self.most = 0
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack)

    def __enter__(self) -> SavedBytes:
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._hooks.__exit__(*error)

    def _pack(self, tensor: Tensor) -> _Saved:
        return _Saved(self, tensor)

    def _unpack(self, saved: _Saved) -> Tensor:
        return saved.tensor

    def take(self, address: int, size: int) -> None:
        """Note that memory is kept."""
        if address in self._own or not size:
            return
        entry = self._held.setdefault(address, [size, 0])
        entry[1] += 1
        if entry[1] == 1:
            self._now += size
            self.most = max(self.most, self._now)

    def give(self, address: int) -> None:
        """Note that one user of this memory let go of it."""
        entry = self._held.get(address)
        if entry is None:
            return
        entry[1] -= 1
        if not entry[1]:
            self._now -= entry[0]
            del self._held[address]


class _Saved:
    """A tensor kept for the backward pass; it tells the counter when autograd lets go of it."""

    def __init__(self, counter: SavedBytes, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        self.tensor, self._counter, self._address = tensor, counter, storage.data_ptr()
        counter.take(self._address, storage.nbytes())

    def __del__(self) -> None:
        self._counter.give(self._address)
