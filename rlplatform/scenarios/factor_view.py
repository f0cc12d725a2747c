"""FactorView: a day's returns as scores of a few factors and each asset's own part, with their running volatilities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlplatform.scenarios.regimes import COUNT
from rlplatform.scenarios.transformer_network import WIDEST

Array = np.ndarray

DECAYS = (0.97, 0.80)  # of the EWMA variances, slow and fast
LEAST_OWN = 0.05  # standard deviation of an asset's own part [of the asset's]
FURTHEST = 12.0  # |z| that anything is counted at


@dataclass(frozen=True, kw_only=True, eq=False)
class FactorView:
    """Principal components of standardised returns z: scores f = z V / √λ of variance 1, own parts e = z − V Vᵀ z.

    Attributes:
        vectors: (N, K) V, the largest first.
        values: (K,) λ.
        own: (N,) standard deviation of e, at least 0.05.
    """

    vectors: Tensor
    values: Tensor
    own: Tensor

    @classmethod
    def fit(cls, z: Array, factors: int) -> FactorView:
        """Of history (T, N)."""
        values, vectors = np.linalg.eigh(np.atleast_2d(np.corrcoef(z.T)))
        top = vectors[:, ::-1][:, :factors]
        top = top * np.where(top.sum(axis=0) < 0, -1.0, 1.0)  # a rise of the market is a rise of the first factor
        own = np.maximum((z - z @ top @ top.T).std(axis=0), LEAST_OWN)
        tensors = (top, np.maximum(values[::-1][:factors], 1e-4), own)
        return cls(
            **dict(zip(("vectors", "values", "own"), (torch.from_numpy(a.astype(np.float32)) for a in tensors), strict=True))
        )

    @property
    def loadings(self) -> Tensor:
        """(N, K) of the scores."""
        return self.vectors * self.values.sqrt()

    def scores(self, z: Tensor) -> Tensor:
        """(…, K)."""
        return z.clamp(-FURTHEST, FURTHEST) @ self.vectors / self.values.sqrt()

    def squares(self, z: Tensor) -> Tensor:
        """(…, K + N) of the scores and of the own parts, 1 on average."""
        z = z.clamp(-FURTHEST, FURTHEST)
        own = z - z @ self.vectors @ self.vectors.T
        return torch.cat([self.scores(z), own / self.own], dim=-1) ** 2

    def next_variance(self, variance: Tensor, z: Tensor) -> Tensor:
        """EWMA variances (…, 2, K + N) after a day (…, N)."""
        decays = torch.tensor(DECAYS)[:, None]
        return decays * variance + (1.0 - decays) * self.squares(z)[..., None, :]

    def variances(self, z: Tensor) -> Tensor:
        """(T, 2, K + N) after each day of history, from 1 on."""
        running, found = torch.ones(2, len(self.values) + len(self.own)), []
        for day in z:
            running = self.next_variance(running, day)
            found.append(running)
        return torch.stack(found)

    def day(self, z: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """What the network reads of a day, (…, D) with the regime left at 0, and its log volatilities (…, 2, K + N)."""
        scores, log_volatility = self.scores(z), (0.5 * variance.clamp_min(1e-6).log()).clamp(-WIDEST, WIDEST)
        factors = log_volatility[..., : len(self.values)].flatten(-2)
        own = log_volatility[..., len(self.values) :].mean(-1)
        regime = torch.zeros(*scores.shape[:-1], COUNT)
        return torch.cat([scores, scores.abs(), factors, own, regime], dim=-1), log_volatility
