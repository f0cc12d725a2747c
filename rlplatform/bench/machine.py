"""What the figures were measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

PACKAGES = ("numpy", "torch", "gymnasium", "ray", "stable-baselines3", "sb3-contrib", "pufferlib")


def machine() -> dict[str, Any]:
    """Processor, cores, memory, versions, load average; None where this system does not say."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "bfloat16": has_bfloat16(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: installed_version(name) for name in PACKAGES},
        "threads_per_process": 1,  # see process.ONE_THREAD
        "load_average": load_average(),
    }


def load_average() -> list[float] | None:
    """Runnable processes over the last 1, 5 and 15 minutes."""
    return [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None


def installed_version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 matrices itself; emulated, it is slower than float32."""
    return bool({"avx512_bf16", "amx_bf16"} & set(_cpu_field("flags").split()))


def _processor() -> str:
    return _cpu_field("model name") or platform.processor() or platform.machine()


def _cpu_field(name: str) -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def _memory_gib() -> float | None:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
