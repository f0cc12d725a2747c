"""The quantile critic: not the mean of the returns that may follow, but their distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from envs.errors import ConfigError

MOST_QUANTILES = 512


@dataclass(frozen=True, kw_only=True)
class QuantileCriticConfig:
    """A critic of K quantiles θ₁ … θ_K of the return-to-go, at the levels τᵢ = (2i − 1) / 2K; its V is their mean.

    Attributes:
        quantiles: K. The worst share α of the returns is told by about α K of them.
        huber: κ of the quantile Huber loss [units of the return]; errors below it count as in an expectile, which blurs the
            tails. 0 is the pure quantile loss, whose minimum are the quantiles themselves.
    """

    kind: Literal["quantile"] = "quantile"
    quantiles: int = 32
    huber: float = 0.0

    def __post_init__(self) -> None:
        if self.kind != "quantile":
            raise ConfigError(f"model.critic.kind = {self.kind!r}; expected 'quantile', or no model.critic for the mean alone.")
        if not 2 <= self.quantiles <= MOST_QUANTILES:
            raise ConfigError(f"model.critic.quantiles = {self.quantiles}; expected 2 to {MOST_QUANTILES}.")
        if not 0 <= self.huber < float("inf"):
            raise ConfigError(f"model.critic.huber = {self.huber}; expected 0 or more, in units of the return.")


def levels(quantiles: int, like: Tensor | None = None) -> Tensor:
    """(K,) τᵢ = (2i − 1) / 2K, the midpoints of K equal shares of probability."""
    where = {} if like is None else {"dtype": like.dtype, "device": like.device}
    return (torch.arange(quantiles, **where) + 0.5) / quantiles


def quantile_loss(quantiles: Tensor, samples: Tensor, huber: float = 0.0) -> Tensor:
    """The quantile Huber loss (…) of K quantiles against M samples of what they describe, the mean over both.

        ρᵢ(u) = |τᵢ − 1{u < 0}| · L(u),    u = y − θᵢ,    L(u) = ½u²/κ where |u| ≤ κ, else |u| − ½κ

    With κ = 0, L(u) = |u|. Source: Dabney et al. (2018), Distributional reinforcement learning with quantile regression,
    eq. 9-10, divided by κ and averaged over the quantiles instead of summed, so that K does not change its size.

    Args:
        quantiles: θ (…, K), one for each level.
        samples: y (…, M).
        huber: κ.
    """
    error = samples.unsqueeze(-2) - quantiles.unsqueeze(-1)
    level = levels(quantiles.shape[-1], quantiles).unsqueeze(-1)
    if huber == 0:
        return torch.maximum(level * error, (level - 1.0) * error).mean((-2, -1))
    size = error.abs()
    smooth = torch.where(size <= huber, 0.5 * error**2 / huber, size - 0.5 * huber)
    return (torch.where(error < 0, 1.0 - level, level) * smooth).mean((-2, -1))


def value_at_risk(quantiles: Tensor, alpha: float) -> Tensor:
    """ν (…), the α-quantile of the return: on the straight line between the two quantiles whose levels enclose α.

    Args:
        quantiles: θ (…, K), rising.
        alpha: share of the worst returns; beyond the outer levels the outer quantile stands.
    """
    count = quantiles.shape[-1]
    place = min(max(alpha * count - 0.5, 0.0), count - 1.0)
    below = min(int(place), count - 2)
    return torch.lerp(quantiles[..., below], quantiles[..., below + 1], place - below)


def shortfall_utility(returns: Tensor, value_at_risk: Tensor, alpha: float) -> Tensor:
    """f(g) = ν − (ν − g)⁺ / α of returns g (…, M); its mean is CVaR_α where ν is the α-quantile, and below it elsewhere.

        CVaR_α(G) = max_ν E[ν − (ν − G)⁺ / α]

    Source: Rockafellar and Uryasev (2000), Optimization of conditional value-at-risk, for returns instead of losses.

    Args:
        value_at_risk: ν (…).
        alpha: α in (0, 1]; 1 makes CVaR the mean where ν is no smaller than any return.
    """
    level = value_at_risk.unsqueeze(-1)
    return level - (level - returns).clamp(min=0.0) / alpha
