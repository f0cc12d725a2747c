"""Action heads: which distribution suits which action space, and how many numbers it needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from envs.errors import ConfigError
from envs.spaces import Simplex
from rlplatform.models.distributions import ActionDistribution, Categorical, LogisticNormal, TanhNormal


@dataclass(frozen=True)
class ActionHead(ABC):
    """What turns the network's numbers into a distribution over one action space.

    `params` (..., num_params) is what travels through RLlib as one array: `num_outputs` numbers from the policy layer,
    then `num_log_stds` log standard deviations.
    """

    kind: ClassVar[str]

    @property
    @abstractmethod
    def num_outputs(self) -> int:
        """Numbers that depend on the observation: logits or means."""

    @property
    def num_log_stds(self) -> int:
        """Log standard deviations that do not depend on the observation."""
        return 0

    @property
    def num_params(self) -> int:
        return self.num_outputs + self.num_log_stds

    @property
    def plain(self) -> ActionHead:
        """The head of a policy without modes on the same action space."""
        return self

    @property
    def mode_names(self) -> tuple[str, ...]:
        """Of the modes among which a gate chooses; empty without a gate."""
        return ()

    @abstractmethod
    def distribution(self, params: Tensor) -> ActionDistribution:
        """The distribution with these parameters (..., num_params)."""

    @abstractmethod
    def space(self) -> gym.Space:
        """The action space this head serves."""

    def describe(self) -> dict[str, Any]:
        """Plain values that JSON can carry and `head_from` reads back."""
        return {"kind": self.kind, **{k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}}


@dataclass(frozen=True)
class CategoricalHead(ActionHead):
    """For `Discrete(n)`: the parameters are logits."""

    kind: ClassVar[str] = "categorical"
    n: int

    @property
    def num_outputs(self) -> int:
        return self.n

    def distribution(self, params: Tensor) -> Categorical:
        return Categorical(params)

    def space(self) -> gym.spaces.Discrete:
        return gym.spaces.Discrete(self.n)


class NormalHead(ActionHead):
    """The parameters are [μ, log σ].

    log σ is a parameter of its own, not an output of the network: market observations are mostly noise, and a σ that
    follows them makes exploration (and PPO's ratio) noisy where nothing has been learnt; Andrychowicz et al. (2021) find
    no loss from it. The entropy bonus then acts on these few numbers alone.
    """

    @property
    def num_log_stds(self) -> int:
        return self.num_outputs

    def _split(self, params: Tensor) -> tuple[Tensor, Tensor]:
        return params[..., : self.num_outputs], params[..., self.num_outputs :]


@dataclass(frozen=True)
class LogisticNormalHead(NormalHead):
    """For `Simplex`: one mean per weight but cash, and one for leverage."""

    kind: ClassVar[str] = "logistic_normal"
    num_weights: int
    leverage: bool = False

    @property
    def num_outputs(self) -> int:
        return self.num_weights - 1 + self.leverage

    def distribution(self, params: Tensor) -> LogisticNormal:
        return LogisticNormal(*self._split(params), leverage=self.leverage)

    def space(self) -> Simplex:
        return Simplex(self.num_weights, leverage=self.leverage)


@dataclass(frozen=True)
class TanhNormalHead(NormalHead):
    """For a bounded `Box` of one axis: one mean per entry."""

    kind: ClassVar[str] = "tanh_normal"
    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", tuple(self.low))
        object.__setattr__(self, "high", tuple(self.high))

    @property
    def num_outputs(self) -> int:
        return len(self.low)

    def distribution(self, params: Tensor) -> TanhNormal:
        mean, log_std = self._split(params)
        return TanhNormal(mean, log_std, mean.new_tensor(self.low), mean.new_tensor(self.high))

    def space(self) -> gym.spaces.Box:
        return gym.spaces.Box(np.float32(self.low), np.float32(self.high), dtype=np.float32)


_HEADS: dict[str, type[ActionHead]] = {head.kind: head for head in (CategoricalHead, LogisticNormalHead, TanhNormalHead)}


def head_for(action_space: gym.Space) -> ActionHead:
    """The head that suits an action space: Discrete → categorical, Simplex → logistic-normal, Box → tanh-normal.

    Raises:
        ConfigError: no head knows the space.
    """
    if isinstance(action_space, gym.spaces.Discrete) and action_space.start == 0:
        return CategoricalHead(int(action_space.n))
    if isinstance(action_space, Simplex):
        return LogisticNormalHead(action_space.num_weights, action_space.leverage)
    if isinstance(action_space, gym.spaces.Box) and len(action_space.shape) == 1 and action_space.is_bounded():
        return TanhNormalHead(tuple(map(float, action_space.low)), tuple(map(float, action_space.high)))
    raise ConfigError(
        f"No action head for {action_space}; expected Discrete(n) from 0, Simplex(n), or a bounded Box of one axis. "
        "Flatten or bound the action space first."
    )


def head_from(description: Mapping[str, Any]) -> ActionHead:
    """The head whose `describe()` this was.

    Raises:
        ConfigError: the kind is unknown.
    """
    settings = dict(description)
    kind = settings.pop("kind", None)
    if kind not in _HEADS:
        raise ConfigError(f"action head {kind!r} is unknown; expected one of {', '.join(sorted(_HEADS))}.")
    return _HEADS[kind](**settings)


def expand_log_std(mean: Tensor, log_std: Tensor) -> Tensor:
    """Parameters [μ, log σ] with the same log σ beside every μ."""
    return torch.cat([mean, log_std.expand(*mean.shape[:-1], -1)], -1)
