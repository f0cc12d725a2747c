"""Action values in plain torch: twin Q(obs, action) for weights, Q(obs)[a] for numbered actions, and V(obs)."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn

from envs.errors import ConfigError
from rlplatform.models.actor_critic import ActorCritic
from rlplatform.models.distributions import MappedNormal
from rlplatform.models.encoder import Encoder, EncoderConfig
from rlplatform.models.heads import ActionHead, LogisticNormalHead, TanhNormalHead

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


class StateValue(nn.Module):
    """V(obs): an encoder of its own, without memory, and the value layer that suits it."""

    def __init__(self, config: EncoderConfig, obs_size: int) -> None:
        super().__init__()
        self.encoder = config.encoder(obs_size)
        self.value = self.encoder.value_layer()

    def forward(self, obs: Tensor) -> Tensor:
        """V (...) of observations (..., D)."""
        rows = obs.flatten(0, -2)
        features, _ = self.encoder(rows, rows.new_zeros(len(rows), 0))
        return self.value(features)[..., 0].view(obs.shape[:-1])


class TwinQ(nn.Module):
    """Two independent Q(obs, action); the smaller of the two guards against overestimation (Fujimoto et al. 2018).

    The action enters as the environment takes it, beside the observation, so that weights and signed weights need no map.
    The model says who reads it: an MLP the whole of it, a GNN's node its own asset's weight.

    Args:
        config: the model's; without memory.
        head: of the actions.
    """

    def __init__(self, config: EncoderConfig, obs_size: int, head: ActionHead) -> None:
        super().__init__()
        reader, size = config.reading_action(head), obs_size + head.space().shape[0]
        self.critics = nn.ModuleList(StateValue(reader, size) for _ in range(2))

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """Q (2, ..., B) of observations (B, D) and actions (..., B, A): leading axes of the actions are several for each."""
        obs = obs.expand(*action.shape[:-1], obs.shape[-1])
        together = torch.cat([obs, action], -1)
        return torch.stack([critic(together) for critic in self.critics])

    def smaller(self, obs: Tensor, action: Tensor) -> Tensor:
        """min(Q₁, Q₂) (..., B)."""
        return self(obs, action).amin(0)


def action_values(
    network: ActorCritic, obs: Tensor, state: Tensor, first: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Q(obs)[a] for every numbered action: an ActorCritic's policy layer read as values.

    The same weights, divided by a temperature, are the logits of a policy that prefers what Q prefers; see `as_logits`.

    Args:
        obs, state, first: as `Encoder.forward`.

    Returns:
        Q (..., n), the features it was read from, and the state after the last observation.
    """
    features, state = network.encoder(obs, state, first)
    return network.policy(features), features, state


def following_features(encoder: Encoder, features: Tensor, next_obs: Tensor) -> Tensor:
    """Features of the observation after each step, as an episode that goes on would have them.

    With memory this is one step from the state after each observation, and in our recurrent encoder that state IS the
    feature vector. So the observation after an episode's or a sequence's last row needs no row of its own.

    Args:
        features: (..., feature_size) of the observations before.
        next_obs: (..., D).
    """
    flat = next_obs.flatten(0, -2)
    state = features.flatten(0, -2)[:, : encoder.state_size]
    return encoder(flat, state)[0].unflatten(0, next_obs.shape[:-1])


@torch.no_grad()
def as_logits(network: ActorCritic, temperature: float) -> None:
    """Turn the policy layer from values Q into logits Q / temperature, in place."""
    network.policy.weight /= temperature
    network.policy.bias /= temperature


def policy_actions(distribution: MappedNormal, count: int = 1) -> tuple[Tensor, Tensor]:
    """Reparameterised samples a = g(μ + σ ε): gradients flow into μ and σ.

    The density is taken at y = μ + σ ε and not at g⁻¹(a), which float32 cannot invert near the edge of the space.

    Returns:
        Actions (count, ..., A) and log densities (count, ...).
    """
    mean, log_std = distribution.mean, distribution.log_std
    noise = torch.randn((count, *mean.shape), dtype=mean.dtype, device=mean.device)
    y = mean + log_std.exp() * noise
    log_normal = (-0.5 * noise * noise - log_std - _LOG_SQRT_2PI).sum(-1)
    return distribution.to_action(y), log_normal - distribution.log_det(y)


def uniform_actions(head: ActionHead, shape: tuple[int, ...], like: Tensor, generator: Generator | None = None) -> Tensor:
    """Actions (*shape, A), uniform on the head's space: on the simplex, by exponential draws; in the box, entry by entry.

    Args:
        like: gives dtype and device.
        generator: torch's global one if not given.

    Raises:
        ConfigError: the space is not one of weights.
    """
    if isinstance(head, LogisticNormalHead):
        draws = like.new_empty(*shape, head.num_weights).exponential_(generator=generator)
        weights = draws / draws.sum(-1, keepdim=True)
        extra = like.new_empty(*shape, int(head.leverage)).uniform_(generator=generator)
        return torch.cat([weights, extra], -1)
    low, high = (like.new_tensor(bound) for bound in _bounds(head))
    return low + (high - low) * like.new_empty(*shape, len(low)).uniform_(generator=generator)


def uniform_log_density(head: ActionHead) -> float:
    """Log density of `uniform_actions`, on the coordinates on which the head's own density stands.

    Simplex of n weights: (n − 1)! on n − 1 of them; times 1 for leverage. Box: Π 1 / (high − low). Minus this is the
    entropy of the uniform distribution [nats], the largest there is.

    Raises:
        ConfigError: the space is not one of weights.
    """
    if isinstance(head, LogisticNormalHead):
        return math.lgamma(head.num_weights)
    low, high = _bounds(head)
    return -sum(math.log(upper - lower) for lower, upper in zip(low, high, strict=True))


def standard_target_entropy(head: ActionHead) -> float:
    """The entropy that SAC's −A means in Box(−1, 1)^A, as far below the uniform distribution in any other space [nats].

    Haarnoja et al. (2018) take −A, which is A (1 + log 2) below the uniform distribution's A log 2.
    """
    return -uniform_log_density(head) - head.num_outputs * (1 + math.log(2))


def _bounds(head: ActionHead) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if not isinstance(head, TanhNormalHead):
        raise ConfigError(
            f"CQL and IQL choose weights; the action space is {head.space()}. "
            "For numbered actions use training.algorithm: discrete_cql."
        )
    return head.low, head.high
