"""Encoder: from observations and a recurrent state to features. The one interface of all models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn

from envs.errors import ConfigError
from rlplatform.models.quantile_critic import QuantileCriticConfig

if TYPE_CHECKING:
    from rlplatform.models.heads import ActionHead
    from rlplatform.models.layout import ObservationLayout

Activation = Literal["relu", "tanh", "elu", "silu"]
_ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "elu": nn.ELU, "silu": nn.SiLU}
_GAINS = {"relu": 2**0.5, "tanh": 5 / 3, "elu": 2**0.5, "silu": 2**0.5}


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """What every model has. A model is a subclass with a field `kind` and a method `encoder`; docs/EXTENDING.md shows one.

    Attributes:
        activation: nonlinearity of the dense layers.
        normalize_observations: centre and scale observations by running statistics, saved with the policy.
        observation_clip: normalised observations are clipped to ± this [standard deviations].
        initial_log_std: log σ of a fresh continuous policy, before the squashing. −0.5 moves equal weights of four
            assets by about a tenth.
        critic: a distribution of returns instead of their mean, for `training.cvar_weight`; PPO's fast path only.
    """

    activation: Activation = "relu"
    normalize_observations: bool = True
    observation_clip: float = 10.0
    initial_log_std: float = -0.5
    critic: QuantileCriticConfig | None = None

    def __post_init__(self) -> None:
        if self.activation not in _ACTIVATIONS:
            raise ConfigError(f"model.activation = {self.activation!r}; expected one of {', '.join(_ACTIVATIONS)}.")
        if not 0 < self.observation_clip <= 1_000:
            raise ConfigError(f"model.observation_clip = {self.observation_clip}; expected standard deviations in (0, 1000].")
        if not -5 <= self.initial_log_std <= 2:
            raise ConfigError(f"model.initial_log_std = {self.initial_log_std}; expected a logarithm in [−5, 2].")
        if isinstance(self.critic, Mapping):  # as it is written beside a policy's weights
            object.__setattr__(self, "critic", QuantileCriticConfig(**self.critic))

    @property
    def sequence_length(self) -> int:
        """Steps through which gradients flow in training; 1 for a model without memory."""
        return 1

    @property
    def observation_groups(self) -> tuple[int, ...] | None:
        """(D,) entries of one group are normalised by common statistics; None gives each its own."""
        return None

    def bound_to(self, layout: ObservationLayout, returns: np.ndarray | None = None) -> EncoderConfig:
        """This model for an observation of that layout; a model that reads the observation as a whole is the same for all.

        Args:
            layout: which entries belong to which asset.
            returns: (T, N) simple returns of training rows, and of no later ones.
        """
        return self

    def reading_action(self, head: ActionHead) -> EncoderConfig:
        """This model for an observation with an action behind it, as a critic of actions reads them.

        Args:
            head: of the action; its entries follow the observation's, in their order.
        """
        return self

    def action_head(self, plain: ActionHead) -> ActionHead:
        """The head of this model where a plain policy has that one; another only where the model decides in two levels."""
        return plain

    def encoder(self, obs_size: int) -> Encoder:
        """Freshly initialised from torch's global generator."""
        raise NotImplementedError(f"{type(self).__name__} must say which Encoder it describes: def encoder(self, obs_size).")


class Encoder(nn.Module, ABC):
    """Observations → features, one time step or many.

    Attributes:
        feature_size: width of the features.
        state_size: width of the recurrent state; 0 when there is none.
    """

    feature_size: int
    state_size: int

    def initial_state(self, batch_size: int) -> Tensor:
        """(B, state_size) zeros: the state in which every episode starts."""
        return torch.zeros(batch_size, self.state_size, device=next(self.parameters()).device)

    def forward(self, obs: Tensor, state: Tensor, first: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Encode a step (B, D) or batch-major sequences (B, T, D).

        Args:
            obs: (B, D) or (B, T, D).
            state: (B, state_size), after the observation before these.
            first: (B,) or (B, T) bool, where an episode begins: the state is zeroed before that observation is read.

        Returns:
            Features (B, feature_size) or (B, T, feature_size), and the state after the last observation.
        """
        if obs.ndim == 2:
            features, state = self.forward_sequence(obs[None], None if first is None else first[None], state)
            return features[0], state
        first_tb = None if first is None else first.transpose(0, 1)
        features, state = self.forward_sequence(obs.transpose(0, 1), first_tb, state)
        return features.transpose(0, 1), state

    def policy_layer(self, head: ActionHead) -> nn.Module:
        """Features (..., feature_size) → the head's outputs (..., num_outputs).

        It starts a hundred times smaller than the value layer, so a fresh policy prefers nothing.
        """
        return dense_layer(self.feature_size, head.num_outputs, gain=0.01)

    def value_layer(self, outputs: int = 1) -> nn.Module:
        """Features (..., feature_size) → (..., outputs), linear in its weights: V, or the quantiles of the return."""
        return dense_layer(self.feature_size, outputs, gain=1.0)

    def action_value_layer(self, head: ActionHead, layers: tuple[int, ...], outputs: int, activation: Activation) -> nn.Module:
        """Features (..., feature_size) and actions (..., A) as the environment takes them → (..., outputs).

        Args:
            head: of the actions.
            layers: widths of hidden layers.
        """
        return JointActionValue(self.feature_size + head.space().shape[0], layers, outputs, activation)

    def log_std_groups(self, head: ActionHead) -> tuple[int, ...]:
        """(head.num_log_stds,) which parameter each log σ is; every entry has its own unless a model shares them."""
        return tuple(range(head.num_log_stds))

    @abstractmethod
    def forward_sequence(self, obs: Tensor, first: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
        """Encode time-major sequences: obs (T, B, D), first (T, B) or None, state (B, state_size)."""


class JointActionValue(nn.Sequential):
    """Dense layers on features and action, read as one row."""

    def __init__(self, inputs: int, layers: tuple[int, ...], outputs: int, activation: Activation) -> None:
        sizes = (inputs, *layers)
        super().__init__(*hidden_layers(sizes, activation), dense_layer(sizes[-1], outputs, gain=1.0))

    def forward(self, features: Tensor, action: Tensor) -> Tensor:
        """(..., F) and (..., A) → (..., outputs)."""
        return super().forward(torch.cat([features, action], -1))


def activation_layer(name: Activation) -> nn.Module:
    """The layer of that name."""
    return _ACTIVATIONS[name]()


def hidden_layers(sizes: Sequence[int], activation: Activation) -> list[nn.Module]:
    """Dense layers from each size to the next, an activation after each; none for one size."""
    modules: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        modules += [dense_layer(inputs, outputs, activation=activation), activation_layer(activation)]
    return modules


def dense_layer(inputs: int, outputs: int, gain: float | None = None, activation: Activation = "relu") -> nn.Linear:
    """Linear layer with orthogonal weights and zero bias; the gain defaults to the one that suits the activation."""
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, _GAINS[activation] if gain is None else gain)
    nn.init.zeros_(layer.bias)
    return layer
