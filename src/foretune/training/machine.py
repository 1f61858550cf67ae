"""What this machine has: usable cores, devices, matrix-multiply peak, memory."""

from __future__ import annotations

import math
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from foretune.errors import ConfigError
from foretune.training import memory

if TYPE_CHECKING:
    import torch

SIZE = 1024  # of the measured product; typical of hidden sizes times batch
SMALL = 256  # of a first look, which is cheap even where a precision is emulated
MEASURE_SECONDS = 0.15
MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of <malloc.h>


def usable_cores() -> int:
    """Return the cores this process may use: its affinity, cut by the container's CPU quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    quota = cgroup_quota()
    return max(min(cores, math.ceil(quota)) if quota else cores, 1)


def cgroup_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Return the CPU quota in cores (cgroup v2, then v1), or None where there is none."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        quota_us = int((root / "cpu" / "cpu.cfs_quota_us").read_text())
        period_us = int((root / "cpu" / "cpu.cfs_period_us").read_text())
        return quota_us / period_us if quota_us > 0 else None
    except (OSError, ValueError):
        return None


def set_threads() -> int:
    """Set torch's threads to the usable cores, unless OMP_NUM_THREADS says otherwise; return them."""
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(usable_cores())
    return torch.get_num_threads()


def keep_freed_memory() -> bool:
    """Let the C library keep freed memory for the next step instead of returning it; False where it cannot.

    By default glibc maps every large tensor anew, and the kernel clears its pages each time: on the machine
    of the benchmarks steps were 6 to 30 % slower so. Numbers do not change.
    """
    import ctypes

    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(MMAP_THRESHOLD, 1 << 30)) and bool(mallopt(TRIM_THRESHOLD, (1 << 31) - 1))


def pick_device(wanted: str) -> torch.device:
    """Return the device; "auto" takes CUDA, then MPS, then the CPU. Raises ConfigError where it is missing."""
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return torch.device(next(name for name, there in available.items() if there))
    if not available.get(wanted, False):
        raise ConfigError(f"device is {wanted!r}, but this machine has none. Use --device auto or cpu.")
    return torch.device(wanted)


_PEAKS: dict[tuple[str, str], float] = {}


def gemm_peak(device: str, precision: str, again: bool = False) -> float:
    """Return the matrix-multiply peak in FLOP/s, measured once per process.

    `again` measures once more and keeps the better: what else runs on the machine only ever lowers it.
    """
    key = (device, precision)
    if again or key not in _PEAKS:
        _PEAKS[key] = max(_PEAKS.get(key, 0.0), measure_peak(device, precision))
    return _PEAKS[key]


def measure_peak(device: str, precision: str, size: int | None = None) -> float:
    """Measure the matrix-multiply peak in FLOP/s: the best of several products of size x size."""
    import torch

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    size = size or (SIZE if device == "cpu" else 4 * SIZE)
    a = torch.randn(size, size, device=device).to(dtype)
    b = torch.randn(size, size, device=device).to(dtype)
    best = math.inf
    end = time.perf_counter() + MEASURE_SECONDS
    runs = 0
    while runs < 3 or time.perf_counter() < end:
        best, runs = min(best, _timed_product(a, b)), runs + 1
    return 2 * size**3 / best


def _timed_product(a: torch.Tensor, b: torch.Tensor) -> float:
    import torch

    start = time.perf_counter()
    a @ b
    if a.is_cuda:
        torch.cuda.synchronize()
    elif a.device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter() - start


def pick_precision(wanted: str, device: torch.device) -> str:
    """Return "fp32" or "bf16"; "auto" takes bf16 where its products are at least 1.5 x as fast here.

    Weights stay in float32 either way; bf16 means autocast.
    """
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        import torch

        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "mps":
        return "fp32"
    if measure_peak("cpu", "bf16", SMALL) < measure_peak("cpu", "fp32", SMALL):
        return "fp32"  # emulated: a product of the full size could take seconds
    return "bf16" if gemm_peak("cpu", "bf16") >= 1.5 * gemm_peak("cpu", "fp32") else "fp32"


def peak_memory_bytes(device: torch.device) -> int:
    """Return the peak memory so far: of the GPU for CUDA, else of the process."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    held = memory.peak_resident()  # getrusage counts a parent's memory at the fork too
    if held is not None:
        return held
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage gives bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def environment() -> dict[str, str | int]:
    """Return what a result depends on: versions, threads, machine."""
    import platform

    import torch
    import transformers

    import foretune

    return {
        "foretune": foretune.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "cores": usable_cores(),
    }


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's name, or its kind where the system does not tell."""
    import platform

    try:
        lines = cpuinfo.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


COPIED = 128 << 20  # bytes: more than the caches hold


def memory_bandwidth(device: str) -> float:
    """Measure the memory bandwidth in bytes/s: what is read and written by copying a large tensor, best of several."""
    import torch

    source = torch.ones(COPIED * (1 if device == "cpu" else 8), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best, runs, end = math.inf, 0, time.perf_counter() + MEASURE_SECONDS
    while runs < 4 or time.perf_counter() < end:  # the first one also clears the target's pages
        best, runs = min(best, _timed(lambda: target.copy_(source), device)), runs + 1
    return 2 * source.numel() / best


def _timed(work: Callable[[], object], device: str) -> float:
    """Return the seconds that `work` takes on the device."""
    start = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - start


def synchronise(device: str) -> None:
    """Wait until the device has done all its work."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()
