"""Action distributions in plain torch, with one small interface."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0
_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


class ActionDistribution(ABC):
    """Distribution of a batch of actions; every method but `kl` keeps the leading axes of the parameters.

    Attributes:
        mode_probs: (..., M) of the modes of a policy that decides in two levels, else None.
    """

    mode_probs: Tensor | None = None

    def plain(self) -> ActionDistribution:
        """A distribution of the action space's plain family around the same preferred action."""
        return self

    @abstractmethod
    def sample(self, generator: Generator | None = None) -> Tensor:
        """An action for each row, without gradient."""

    @abstractmethod
    def mode(self) -> Tensor:
        """The action of the deterministic policy."""

    @abstractmethod
    def log_prob(self, action: Tensor) -> Tensor:
        """Log density (or mass) at `action`; finite for every action that float32 can hold."""

    @abstractmethod
    def entropy(self) -> Tensor:
        """Entropy [nats]."""

    @abstractmethod
    def kl(self, other: ActionDistribution) -> Tensor:
        """Kullback-Leibler divergence KL(self ‖ other) [nats]."""


class Categorical(ActionDistribution):
    """One of n actions: P(a) = softmax(logits)ₐ."""

    def __init__(self, logits: Tensor) -> None:
        self.log_probs = F.log_softmax(logits, -1)

    def sample(self, generator: Generator | None = None) -> Tensor:
        # Exponential race, the same law as Gumbel-max: works for any leading axes and takes one generator.
        waiting = torch.empty_like(self.log_probs).exponential_(generator=generator).clamp_min_(1e-30)
        return (self.log_probs.detach() - waiting.log()).argmax(-1)

    def mode(self) -> Tensor:
        return self.log_probs.argmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        return self.log_probs.gather(-1, action.long()[..., None])[..., 0]

    def entropy(self) -> Tensor:
        return -(self.log_probs.exp() * self.log_probs).sum(-1)

    def kl(self, other: Categorical) -> Tensor:
        return (self.log_probs.exp() * (self.log_probs - other.log_probs)).sum(-1)


class MappedNormal(ActionDistribution):
    """A diagonal normal y ~ N(μ, σ²) pushed through an invertible map a = g(y).

        log p(a) = log N(g⁻¹(a); μ, σ) − log |det ∂a/∂y|

    The determinant depends on the action alone, so it cancels in PPO's ratio. KL is that of the normals, which is exact
    because g is a bijection. `entropy` is that of y, not of a: closed form, and unlike the entropy of a it rewards only
    spread, not the place of the mean. The true entropy of a adds E[log |det ∂a/∂y|].
    """

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self.mean, self.log_std = mean, log_std

    @abstractmethod
    def to_action(self, y: Tensor) -> Tensor:
        """g(y)."""

    @abstractmethod
    def to_normal(self, action: Tensor) -> Tensor:
        """g⁻¹(a), after clamping a to where float32 can still invert it."""

    @abstractmethod
    def log_det(self, y: Tensor) -> Tensor:
        """log |det ∂a/∂y| at y."""

    def sample(self, generator: Generator | None = None) -> Tensor:
        noise = torch.randn(self.mean.shape, generator=generator, dtype=self.mean.dtype, device=self.mean.device)
        return self.to_action((self.mean + self.log_std.exp() * noise).detach())

    def mode(self) -> Tensor:
        """g(μ): the median of each coordinate before the map, always inside the space."""
        return self.to_action(self.mean)

    def log_prob(self, action: Tensor) -> Tensor:
        y = self.to_normal(action)
        z = (y - self.mean) * torch.exp(-self.log_std)
        return (-0.5 * z * z - self.log_std - _LOG_SQRT_2PI).sum(-1) - self.log_det(y)

    def entropy(self) -> Tensor:
        return (self.log_std + (0.5 + _LOG_SQRT_2PI)).sum(-1).expand(self.mean.shape[:-1])

    def kl(self, other: MappedNormal) -> Tensor:
        ratio = torch.exp(2 * (self.log_std - other.log_std))
        shift = ((self.mean - other.mean) * torch.exp(-other.log_std)) ** 2
        return (other.log_std - self.log_std + 0.5 * (ratio + shift - 1)).sum(-1)


class LogisticNormal(MappedNormal):
    """Portfolio weights on the simplex, cash first: w = softmax([0, y]), y ~ N(μ, σ²) (Aitchison & Shen 1980).

    Why this one for long-only weights: one softmax and no second squashing, so the map is a bijection; every action and
    the mode softmax([0, μ]) lie inside the simplex; densities, KL and the entropy of y are closed forms. A squashed
    Gaussian followed by a softmax has no density on the simplex (the softmax forgets a common shift), and a Dirichlet
    has no location apart from its scale.

    Density on (w₁ … w_N), with w₀ = 1 − Σ:  log p(w) = log N(y; μ, σ) − Σᵢ₌₀ᴺ log wᵢ,   yᵢ = log wᵢ − log w₀.

    With `leverage` the last entry is one more independent coordinate in (0, 1), ℓ = 1 / (1 + exp(−y_last)), whose
    Jacobian term is log ℓ + log(1 − ℓ).

    Weights that underflow to 0 in float32 are read as the smallest normal number: finite, and the same on both sides of
    PPO's ratio.
    """

    def __init__(self, mean: Tensor, log_std: Tensor, leverage: bool = False) -> None:
        super().__init__(mean, log_std)
        self.leverage = leverage

    def to_action(self, y: Tensor) -> Tensor:
        logits = y[..., :-1] if self.leverage else y
        weights = torch.softmax(F.pad(logits, (1, 0)), -1)
        return torch.cat([weights, torch.sigmoid(y[..., -1:])], -1) if self.leverage else weights

    def to_normal(self, action: Tensor) -> Tensor:
        finfo = torch.finfo(action.dtype)
        weights = action[..., :-1] if self.leverage else action
        log_weights = weights.clamp_min(finfo.tiny).log()
        y = log_weights[..., 1:] - log_weights[..., :1]
        if not self.leverage:
            return y
        level = action[..., -1:].clamp(finfo.tiny, 1 - finfo.eps / 2)
        return torch.cat([y, level.log() - torch.log1p(-level)], -1)

    def log_det(self, y: Tensor) -> Tensor:
        logits = y[..., :-1] if self.leverage else y
        log_det = F.log_softmax(F.pad(logits, (1, 0)), -1).sum(-1)
        if self.leverage:
            log_det = log_det + F.logsigmoid(y[..., -1]) + F.logsigmoid(-y[..., -1])
        return log_det


class TanhNormal(MappedNormal):
    """Signed weights in a box: a = low + (high − low)(tanh y + 1)/2, y ~ N(μ, σ²).

    Why this one for signed weights: one bijective squash onto the open box, so no mass sits on the bounds (as clipping
    would put it) and the mode is inside. log |det| = Σ log((high − low)/2) + 2(log 2 − y − softplus(−2y)), the form
    that does not cancel for large |y|. Actions on the bound are read as tanh y = ±(1 − 1e-6).
    """

    EDGE = 1e-6

    def __init__(self, mean: Tensor, log_std: Tensor, low: Tensor, high: Tensor) -> None:
        super().__init__(mean, log_std)
        self.low, self.high = low, high
        self.centre, self.half_width = (high + low) / 2, (high - low) / 2

    def to_action(self, y: Tensor) -> Tensor:
        # tanh reaches ±1 in float32, and rounding may then leave the box by a bit.
        return torch.clamp(self.centre + self.half_width * torch.tanh(y), self.low, self.high)

    def to_normal(self, action: Tensor) -> Tensor:
        return torch.atanh(((action - self.centre) / self.half_width).clamp(-1 + self.EDGE, 1 - self.EDGE))

    def log_det(self, y: Tensor) -> Tensor:
        return (self.half_width.log() + 2 * (math.log(2) - y - F.softplus(-2 * y))).sum(-1)
