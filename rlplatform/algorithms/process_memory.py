"""What a learner's process does with memory it has freed."""

from __future__ import annotations

import ctypes
import sys

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_freed_memory() -> None:
    """Keep large blocks in the process instead of giving them back to the system after each use.

    A minibatch's tensors are megabytes each; glibc maps and unmaps blocks of that size, and the kernel then clears every
    page again: a quarter of the time of an update (docs/LOG.md, 2026-11-21). Other C libraries are left as they are.
    RLlib's seed turns on torch's deterministic algorithms, which also fill fresh tensors with NaN; that check is turned off.
    """
    torch.utils.deterministic.fill_uninitialized_memory = False
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 1 << 30)
        mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
