"""What a runner carries from one rollout to the next, as arrays that can be stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def on_host(array: np.ndarray | Tensor) -> np.ndarray:
    """A copy, in numpy whatever the device."""
    return np.array(array.cpu() if isinstance(array, Tensor) else array)


def like(now: np.ndarray | Tensor, stored: np.ndarray) -> np.ndarray | Tensor:
    """A copy of `stored`, of the kind and on the device of `now`."""
    return torch.from_numpy(stored.copy()).to(now.device) if isinstance(now, Tensor) else stored.copy()


def table_of(episodes: Iterable[Mapping[str, float]]) -> dict[str, Any]:
    """Figures by name, one row an episode; a row need not have them all."""
    rows = list(episodes)
    names = list({name: None for row in rows for name in row})
    known = np.array([[name in row for name in names] for row in rows], dtype=bool).reshape(len(rows), len(names))
    values = np.array([[row.get(name, 0.0) for name in names] for row in rows], dtype=np.float64).reshape(known.shape)
    return {"names": names, "known": known, "values": values}


def episodes_of(table: Mapping[str, Any]) -> list[dict[str, float]]:
    """The episodes of `table_of`."""
    rows = zip(table["values"].tolist(), table["known"].tolist(), strict=True)
    return [{n: v for n, v, there in zip(table["names"], values, known, strict=True) if there} for values, known in rows]
