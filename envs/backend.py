"""Where arrays of accounts live: numpy in this process, or torch on a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from envs.errors import ConfigError

Array = Any  # numpy.ndarray or torch.Tensor


@dataclass(frozen=True)
class Backend:
    """The few array constructions whose names numpy and torch do not share.

    Attributes:
        library: "numpy" or "torch".
        precision: "float64" or "float32", of weights, returns and rewards; wealth is always float64.
        device: torch device; numpy ignores it.
    """

    library: str = "numpy"
    precision: str = "float64"
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.library not in ("numpy", "torch"):
            raise ConfigError(f"backend {self.library!r}; expected 'numpy' or 'torch'.")
        if self.precision not in ("float64", "float32"):
            raise ConfigError(f"precision {self.precision!r}; expected 'float64' or 'float32'.")

    @property
    def xp(self):
        return np if self.library == "numpy" else torch

    def array(self, values: Any, dtype: str) -> Array:
        """`values` as an array of `dtype` ("float32", "float64", "int64", "bool"). May share memory: write to neither."""
        if self.library == "numpy":
            return np.asarray(values, dtype=dtype)
        if isinstance(values, torch.Tensor):
            return values.to(device=self.device, dtype=getattr(torch, dtype))
        return torch.tensor(np.asarray(values), dtype=getattr(torch, dtype), device=self.device)

    def real(self, values: Any) -> Array:
        return self.array(values, self.precision)

    def numpy(self, array: Array) -> np.ndarray:
        """A numpy copy, whatever the device."""
        return np.array(array) if self.library == "numpy" else array.detach().cpu().numpy().copy()

    def zeros(self, *shape: int) -> Array:
        return self.real(np.zeros(shape))

    def rows(self, table: Array, index: Array) -> Array:
        """`table[index]`, a fresh array."""
        return table.take(index, axis=0) if self.library == "numpy" else table.index_select(0, index)

    def select(self, mask: Array, chosen: Array | float, other: Array) -> Array:
        """Per account, a fresh array: `chosen` where `mask` (B,), else `other`, for (B,) and (B, N) alike."""
        return self.xp.where(mask if other.ndim == 1 else mask[:, None], chosen, other)


def clip_in_place(array: Array, limit: float) -> None:
    """Clip to ± limit. On torch the gradient goes through where nothing was clipped, also into a view of a fresh tensor."""
    if isinstance(array, torch.Tensor):
        array.clip_(-limit, limit)
    else:
        array.clip(-limit, limit, out=array)
