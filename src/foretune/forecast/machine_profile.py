"""What this machine can do and what it has free: measured once, kept, and free memory and disk looked up anew."""

from __future__ import annotations

import math
import shutil
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretune.forecast import remembered
from foretune.training import machine, memory

if TYPE_CHECKING:
    import torch

PRECISIONS = ("fp32", "bf16")
FREE = ("free_memory_bytes", "free_disk_bytes")  # change from minute to minute: never kept


@dataclass(frozen=True, kw_only=True)
class MachineProfile:
    """A machine as its user's process sees it.

    `gemm_flops`: matrix-multiply peak by precision (FLOP/s). `memory_bandwidth`: bytes/s, of the device.
    Memory is the machine's, cut by the container's limit; `device_memory_bytes` is a GPU's, else None.
    """

    cpu: str
    cores: int
    threads: int
    torch: str
    device: str
    device_name: str
    gemm_flops: dict[str, float]
    memory_bandwidth: float
    total_memory_bytes: int
    device_memory_bytes: int | None
    free_memory_bytes: int  # of the GPU where the device is one
    free_disk_bytes: int

    @property
    def key(self) -> str:
        """Return a name (hex) that machines of the same make and setting share."""
        return _key(self.cpu, self.cores, self.threads, self.torch, self.device, self.device_name)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Any) -> MachineProfile:
        """Return the profile that `to_json` gave. Raises ValueError for anything else."""
        names = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or values.keys() != names:
            raise ValueError(f"A machine profile has the entries {', '.join(sorted(names))}.")
        profile = cls(**values)
        profile._check()
        return profile

    def _check(self) -> None:
        peaks = self.gemm_flops
        rates = [*peaks.values(), self.memory_bandwidth] if isinstance(peaks, dict) else [math.nan]
        counts = (
            self.cores,
            self.threads,
            self.total_memory_bytes,
            self.free_memory_bytes,
            self.free_disk_bytes,
        )
        texts = (self.cpu, self.torch, self.device, self.device_name)
        good = "fp32" in (peaks or ()) and all(isinstance(text, str) for text in texts)
        good = good and all(isinstance(r, int | float) and 0 < r < math.inf for r in rates)
        good = good and all(isinstance(c, int) and c >= 0 for c in counts)
        if not good or not isinstance(self.device_memory_bytes, int | None):
            raise ValueError("An entry of the machine profile is impossible.")


def machine_profile(
    device: str = "auto", folder: Path | None = None, *, again: bool = False
) -> MachineProfile:
    """Return the profile of this machine for `device`; it takes about a second where none was kept.

    `folder`: where runs are written, for the free disk (default: the current folder). `again` measures anew.
    Raises ConfigError for a device that is not there.
    """
    threads = machine.set_threads()
    place = machine.pick_device(device)
    identity = _identity(place, threads)
    key = _key(*identity.values())
    found = None if again else _recalled(key, identity)
    if found is None:
        found = _measured(place, identity)
        remembered.keep(key, {k: v for k, v in found.to_json().items() if k not in FREE})
    return replace(
        found, free_memory_bytes=free_memory(place), free_disk_bytes=free_disk(folder or Path.cwd())
    )


def free_disk(folder: Path) -> int:
    """Return the free bytes of the disk that `folder` lies on, or will lie on."""
    folder = folder.expanduser().resolve()
    return shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.exists())).free


def free_memory(device: torch.device) -> int:
    """Return the bytes still to be had where the model will run: the GPU's, else the machine's."""
    if device.type == "cuda":
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    return memory.free_memory()


def _identity(device: torch.device, threads: int) -> dict[str, Any]:
    """Return what a profile belongs to; another processor, thread count, torch or device is another one."""
    import torch

    cpu = machine.cpu_model()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu
    return {
        "cpu": cpu,
        "cores": machine.usable_cores(),
        "threads": threads,
        "torch": torch.__version__,
        "device": device.type,
        "device_name": name,
    }


def _key(cpu: str, cores: int, threads: int, torch: str, device: str, device_name: str) -> str:
    return remembered.machine_key(
        what="profile", cpu=cpu, cores=cores, threads=threads, torch=torch, device=device, name=device_name
    )


def _recalled(key: str, identity: dict[str, Any]) -> MachineProfile | None:
    """Return the kept profile if it is whole and of this machine; free memory and disk are 0 in it."""
    values = remembered.recall(key)
    try:
        found = MachineProfile.from_json({**(values or {}), **dict.fromkeys(FREE, 0)})
    except (ValueError, TypeError):
        return None
    same = all(getattr(found, name) == value for name, value in identity.items())
    total = found.total_memory_bytes == memory.total_memory()  # a container's limit may have changed
    return found if same and total else None


def _measured(device: torch.device, identity: dict[str, Any]) -> MachineProfile:
    device_memory = None
    if device.type == "cuda":
        import torch

        device_memory = int(torch.cuda.get_device_properties(device).total_memory)
    return MachineProfile(
        **identity,
        gemm_flops={precision: _peak(device.type, precision) for precision in PRECISIONS},
        memory_bandwidth=machine.memory_bandwidth(device.type),
        total_memory_bytes=memory.total_memory(),
        device_memory_bytes=device_memory,
        free_memory_bytes=0,
        free_disk_bytes=0,
    )


def _peak(device: str, precision: str) -> float:
    """Return the peak; where a processor emulates bf16, that of small products: a full one could take seconds."""
    if device == "cpu" and precision == "bf16":
        small = {p: machine.measure_peak(device, p, machine.SMALL) for p in PRECISIONS}
        if small["bf16"] < small["fp32"]:
            return small["bf16"]
    return machine.gemm_peak(device, precision)
