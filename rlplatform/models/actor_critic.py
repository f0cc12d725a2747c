"""ActorCritic: encoder, policy head and value head."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rlplatform.models.distributions import LOG_STD_MAX, LOG_STD_MIN
from rlplatform.models.encoder import EncoderConfig
from rlplatform.models.heads import ActionHead, expand_log_std


class ActorCriticOutput(NamedTuple):
    """What the network says about observations (B, D) or (B, T, D)."""

    params: Tensor  # (..., head.num_params) of the action distribution
    value: Tensor  # (...) V
    state: Tensor  # (B, state_size) after the last observation
    quantiles: Tensor | None = None  # (..., K) of the return-to-go, rising; of a quantile critic only


class ActorCritic(nn.Module):
    """The network of a policy: one encoder, and a policy and a value layer on its features, which the encoder makes.

    The policy layer starts a hundred times smaller than the value layer, so a fresh policy prefers nothing: equal
    logits, or equal weights of cash and every asset.
    """

    def __init__(self, config: EncoderConfig, obs_size: int, head: ActionHead) -> None:
        super().__init__()
        self.config, self.obs_size = config, obs_size
        self.head = head = config.action_head(head)
        self.encoder = config.encoder(obs_size)
        self.policy = self.encoder.policy_layer(head)
        self.value = self.encoder.value_layer(*([] if config.critic is None else [config.critic.quantiles]))
        if head.num_log_stds:
            groups = self.encoder.log_std_groups(head)
            self.log_std = nn.Parameter(torch.full((max(groups) + 1,), config.initial_log_std))
            self.register_buffer("log_std_groups", torch.tensor(groups), persistent=False)

    @property
    def state_size(self) -> int:
        return self.encoder.state_size

    def initial_state(self, batch_size: int) -> Tensor:
        """(B, state_size) zeros."""
        return self.encoder.initial_state(batch_size)

    def forward(self, obs: Tensor, state: Tensor, first: Tensor | None = None) -> ActorCriticOutput:
        """Args as `Encoder.forward`: obs (B, D) or (B, T, D), state (B, state_size), first (B,) or (B, T)."""
        return self._output(*self.encoder(obs, state, first))

    def forward_sequence(self, obs: Tensor, first: Tensor | None, state: Tensor) -> ActorCriticOutput:
        """Time-major: obs (T, B, D), first (T, B) or None, state (B, state_size)."""
        return self._output(*self.encoder.forward_sequence(obs, first, state))

    def _output(self, features: Tensor, state: Tensor) -> ActorCriticOutput:
        if self.config.critic is None:
            return ActorCriticOutput(self.action_params(features), self.values(features), state)
        quantiles = self.quantiles(features)
        return ActorCriticOutput(self.action_params(features), quantiles.mean(-1), state, quantiles)

    def action_params(self, features: Tensor) -> Tensor:
        """Parameters of the action distribution, (..., head.num_params)."""
        outputs = self.policy(features)
        if not self.head.num_log_stds:
            return outputs
        return expand_log_std(outputs, self.log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)[self.log_std_groups])

    def values(self, features: Tensor) -> Tensor:
        """V (...): the value layer's one output, or the mean of its quantiles."""
        return self.value(features)[..., 0] if self.config.critic is None else self.value(features).mean(-1)

    def quantiles(self, features: Tensor) -> Tensor:
        """(..., K) of a quantile critic, put in order.

        The layer's outputs may cross; sorting never takes an estimate further from the true quantiles.
        Source: Chernozhukov, Fernández-Val and Galichon (2010), Quantile and probability curves without crossing.
        """
        return self.value(features).sort(-1).values
