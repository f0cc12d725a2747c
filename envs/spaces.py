"""Action spaces whose members are weights."""

from __future__ import annotations

import numpy as np
from gymnasium.spaces import Box


class Simplex(Box):
    """Weights that sum to one, cash first; with `leverage` one more entry in [0, 1] at the end.

    A `Box` for every library that asks, whose samples are uniform on the simplex. A policy head that knows the type
    can put its whole density on feasible weights.
    """

    def __init__(self, num_weights: int, leverage: bool = False, seed: int | None = None) -> None:
        self.num_weights = int(num_weights)
        self.leverage = bool(leverage)
        super().__init__(0.0, 1.0, shape=(self.num_weights + self.leverage,), dtype=np.float32, seed=seed)

    def sample(self, mask=None, probability=None) -> np.ndarray:
        draws = self.np_random.exponential(size=self.num_weights)
        weights = draws / draws.sum()
        extra = [self.np_random.random()] if self.leverage else []
        return np.append(weights, extra).astype(self.dtype)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Simplex) and (self.num_weights, self.leverage) == (other.num_weights, other.leverage)

    def __repr__(self) -> str:
        return f"Simplex({self.num_weights}{', leverage=True' if self.leverage else ''})"

    def __reduce__(self):
        return (Simplex, (self.num_weights, self.leverage))


def signed_box(size: int) -> Box:
    """Signed weights, each a fraction of its cap."""
    return Box(-1.0, 1.0, shape=(size,), dtype=np.float32)
