"""Provenance: the code, the packages and the machine that a result came from."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = ("ray", "torch", "gymnasium", "numpy", "pandas", "skfolio", "rlplatform")


def describe_environment() -> dict[str, Any]:
    """Code, packages and machine, for the manifest. Reads no environment variable."""
    # An installed copy may lie inside someone else's repository, whose commit says nothing about it.
    ours = _git("ls-files", "--error-unmatch", __file__) is not None
    return {
        "code_commit": _git("rev-parse", "HEAD") if ours else None,
        "code_modified": bool(_git("status", "--porcelain")) if ours else None,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "hardware": {"machine": platform.machine(), "cpu": _cpu_name(), "cores": os.cpu_count(), "gpus": _gpus()},
    }


def _git(*arguments: str) -> str | None:
    here = Path(__file__).parent
    try:
        done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def _gpus() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def timestamp() -> str:
    """Now, to the second, with its time zone."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
