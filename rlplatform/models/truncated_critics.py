"""Truncated quantile critics: several distributions of the return of (obs, action), and how an actor reads them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rlplatform.models.encoder import EncoderConfig
from rlplatform.models.heads import ActionHead


class QuantileCritics(nn.Module):
    """C critics of M quantiles of the return of (obs, action), on features of an encoder of their own.

    The encoder is of the model's kind and reads observations, memory included; each critic is the model's layer on its
    features and the action as the environment takes it, so one pass over a sequence serves every action that is to be
    valued. Outputs answer for the levels (2m − 1) / 2M and may cross: readers sort them.

    Args:
        config: the model's; without a quantile critic of its own.
        head: of the actions.
        layers: widths of each critic's hidden layers.
    """

    def __init__(
        self, config: EncoderConfig, obs_size: int, head: ActionHead, critics: int, quantiles: int, layers: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.encoder = config.encoder(obs_size)
        settings = head, layers, quantiles, config.activation
        self.heads = nn.ModuleList(self.encoder.action_value_layer(*settings) for _ in range(critics))

    def features(self, obs: Tensor, first: Tensor | None = None) -> Tensor:
        """(B, L, F) of observations (B, L, D), from an empty memory on.

        Args:
            first: (B, L) bool, an episode begins here.
        """
        return self.encoder(obs, self.encoder.initial_state(len(obs)), first)[0]

    def forward(self, features: Tensor, action: Tensor) -> Tensor:
        """Quantiles (C, …, M) of features (…, F) and actions (…, A)."""
        return torch.stack([head(features, action) for head in self.heads])


def pooled(quantiles: Tensor) -> Tensor:
    """(…, C·M) atoms of all critics together, rising: the mixture of their distributions. From (C, …, M)."""
    return quantiles.movedim(0, -2).flatten(-2).sort(-1).values


def truncated(quantiles: Tensor, drop: int) -> Tensor:
    """(…, C·M − C·d) the pooled atoms without the C·d largest, rising.

    The top of the pool is where critics overestimate; d atoms a critic are taken off, however they are spread over them.
    Source: Kuznetsov et al. (2020), Controlling overestimation bias with truncated mixture of continuous distributional
    quantile critics, eq. 6-8.

    Args:
        quantiles: (C, …, M).
        drop: d, 0 ≤ d < M.
    """
    atoms = pooled(quantiles)
    return atoms[..., : atoms.shape[-1] - len(quantiles) * drop]


def risk_weights(count: int, alpha: float, weight: float) -> Tensor:
    """(K,) how much each of K rising atoms counts in (1 − w) · mean + w · CVaR_α of them; sums to 1.

        ωᵢ = (1 − w) / K + w · min(1/K, (α − (i − 1)/K)⁺) / α

    CVaR_α is the mean of the lowest share α of the probability; of the atom at its edge only a part counts.

    Args:
        count: K.
        alpha: α in (0, 1].
        weight: w in [0, 1].
    """
    share = torch.arange(count, dtype=torch.float64) / count
    worst = (alpha - share).clamp(0.0, 1.0 / count) / alpha
    return ((1.0 - weight) / count + weight * worst).float()
