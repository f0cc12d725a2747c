"""Action laws: from which distribution a behaviour draws a batch of actions, and with which log-probability.

Densities of continuous actions are in the coordinates of `models/distributions.py` (w₁ … w_N on the simplex, the entries
themselves in a box), so that they can be divided by a trained policy's.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import gymnasium as gym
import torch
from torch import Generator, Tensor

from envs.errors import ConfigError
from envs.spaces import Simplex
from rlplatform.models.distributions import ActionDistribution, LogisticNormal, TanhNormal
from rlplatform.models.heads import ActionHead, expand_log_std


class ActionLaw(ABC):
    """The law of B accounts' next actions."""

    @abstractmethod
    def sample(self, generator: Generator) -> Tensor:
        """Actions (B, …)."""

    @abstractmethod
    def log_prob(self, actions: Tensor) -> Tensor:
        """(B,) log density or mass [nats]; NaN where the law has none."""


class Fixed(ActionLaw):
    """One action, certain: mass 1 on a discrete action; a continuous one has no density."""

    def __init__(self, actions: Tensor) -> None:
        self.actions = actions

    def sample(self, generator: Generator) -> Tensor:
        return self.actions

    def log_prob(self, actions: Tensor) -> Tensor:
        if actions.is_floating_point():
            return torch.full(actions.shape[:1], math.nan)
        return torch.where(actions == self.actions, 0.0, -math.inf)


class Drawn(ActionLaw):
    """A policy's own distribution."""

    def __init__(self, distribution: ActionDistribution) -> None:
        self.distribution = distribution

    def sample(self, generator: Generator) -> Tensor:
        return self.distribution.sample(generator)

    def log_prob(self, actions: Tensor) -> Tensor:
        return self.distribution.log_prob(actions)


class Uniform(ActionLaw):
    """Every action alike: mass 1/n; density N! on the simplex of cash and N assets (× 1 for leverage); 1/volume in a box."""

    def __init__(self, space: gym.Space, accounts: int) -> None:
        self.space, self.accounts = space, accounts

    def sample(self, generator: Generator) -> Tensor:
        space, b = self.space, self.accounts
        if isinstance(space, gym.spaces.Discrete):
            return torch.randint(int(space.n), (b,), generator=generator)
        if isinstance(space, Simplex):
            draws = torch.empty(b, space.num_weights, dtype=torch.float64).exponential_(generator=generator)
            weights = (draws / draws.sum(-1, keepdim=True)).float()
            return torch.cat([weights, torch.rand(b, 1, generator=generator)], -1) if space.leverage else weights
        low, high = torch.from_numpy(space.low), torch.from_numpy(space.high)
        return low + (high - low) * torch.rand(b, *space.shape, generator=generator)

    def log_prob(self, actions: Tensor) -> Tensor:
        return torch.full(actions.shape[:1], self._log_density())

    def _log_density(self) -> float:
        if isinstance(self.space, gym.spaces.Discrete):
            return -math.log(int(self.space.n))
        if isinstance(self.space, Simplex):
            return math.lgamma(self.space.num_weights)
        return -float((torch.from_numpy(self.space.high).double() - torch.from_numpy(self.space.low)).log().sum())


class Greedy(ActionLaw):
    """ε-greedy: with probability ε uniform, else another law's; p = (1 − ε) p_base + ε p_uniform, exactly."""

    def __init__(self, base: ActionLaw, uniform: Uniform, epsilon: float) -> None:
        self.base, self.uniform, self.epsilon = base, uniform, epsilon

    def sample(self, generator: Generator) -> Tensor:
        base, random = self.base.sample(generator), self.uniform.sample(generator)
        explores = torch.rand(len(base), generator=generator) < self.epsilon
        return torch.where(explores.reshape(-1, *[1] * (base.ndim - 1)), random, base)

    def log_prob(self, actions: Tensor) -> Tensor:
        epsilon = torch.tensor(self.epsilon)
        base = torch.log1p(-epsilon) + self.base.log_prob(actions)
        return torch.logaddexp(base, epsilon.log() + self.uniform.log_prob(actions))


def noisy(head: ActionHead, actions: Tensor, sigma: float, margin: float) -> Drawn:
    """Normal noise σ around continuous actions (B, A), in the head's unbounded coordinates.

    The actions are pulled `margin` of the way inside first: on the edge of the space the coordinates are infinite, and
    noise would move nothing.

    Raises:
        ConfigError: the head is not continuous.
    """
    anywhere = head.distribution(torch.zeros(len(actions), head.num_params))
    if isinstance(anywhere, LogisticNormal):
        weights = actions[:, : head.num_weights]
        inside = (1 - margin) * weights + margin / head.num_weights
        inside = torch.cat([inside, actions[:, head.num_weights :].clamp(margin, 1 - margin)], -1)
    elif isinstance(anywhere, TanhNormal):
        inside = anywhere.centre + (1 - margin) * (actions - anywhere.centre)
    else:
        raise ConfigError("policy.sigma is noise on continuous actions; this environment's are discrete. Use epsilon.")
    log_std = torch.full((head.num_log_stds,), math.log(sigma))
    return Drawn(head.distribution(expand_log_std(anywhere.to_normal(inside), log_std)))
