"""The machine that a benchmark runs on."""

import os
import platform
import sys
from pathlib import Path

RSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes per unit of `ru_maxrss`: it is in bytes on macOS, in KiB on Linux."""


def num_cores() -> int:
    """Number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load() -> float:
    """Average number of running processes of the last minute; NaN where it is unknown."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")


def describe() -> str:
    """Name the processor, its fast instructions for bfloat16, the threads, cores and load."""
    import torch

    return (
        f"{processor()}: {', '.join(instructions()) or 'no fast instructions'}; "
        f"{torch.get_num_threads()} threads on {num_cores()} cores, load {load():.1f}; "
        f"torch {torch.__version__}"
    )


def instructions() -> list[str]:
    """Return the names of the fast instructions of the processor that torch can use."""
    import torch

    supported = {
        "AVX-512": torch.cpu._is_avx512_supported(),
        "bf16 in AVX-512": torch.cpu._is_avx512_bf16_supported(),
        "AMX": torch.cpu._is_amx_tile_supported(),
    }
    return [name for name, has in supported.items() if has]


def processor() -> str:
    """Return the name of the processor."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
