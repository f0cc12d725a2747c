"""The compiled elementwise parts of a GRU step: gru_kernel.c, built when the package is installed."""

from __future__ import annotations

import ctypes
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

EXTENSION = "rlplatform.models._gru_kernel"
_KINDS = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


class GRUKernel:
    """Four C functions, forward and backward for either type of matrix product. Pointers in, nothing out, one thread.

    Torch takes some ten passes over memory for what is one pass here: half of the time of a training step in float32, and
    four fifths where the products are bfloat16 on a processor with AMX (docs/LOG.md, 2026-11-21).
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._forward = {kind: _function(library, f"gru_forward_{name}", 13) for kind, name in _KINDS.items()}
        self._backward = {kind: _function(library, f"gru_backward_{name}", 11) for kind, name in _KINDS.items()}

    def forward(self, product: torch.dtype, batch: int, width: int, *pointers: int | None) -> None:
        """Arguments after `width` are those of `forward` in gru_kernel.c, as addresses; None for NULL."""
        self._forward[product](batch, width, *pointers)

    def backward(self, product: torch.dtype, batch: int, width: int, *pointers: int | None) -> None:
        """Arguments after `width` are those of `backward` in gru_kernel.c, as addresses; None for NULL."""
        self._backward[product](batch, width, *pointers)


@cache
def gru_kernel() -> GRUKernel | None:
    """The kernel, or None where the installation found no C compiler; everything works without it, slower."""
    spec = find_spec(EXTENSION)
    if spec is None or spec.origin is None or not spec.has_location:
        return None
    return GRUKernel(ctypes.CDLL(spec.origin))


def rows(tensor: Tensor) -> tuple[int, int]:
    """Address of a contiguous tensor and the bytes between its entries along the first axis."""
    return tensor.data_ptr(), tensor.stride(0) * tensor.element_size()


def _function(library: ctypes.CDLL, name: str, pointers: int) -> ctypes._CFuncPtr:
    function = getattr(library, name)
    function.argtypes = [ctypes.c_int64] * 2 + [ctypes.c_void_p] * pointers
    function.restype = None
    return function
