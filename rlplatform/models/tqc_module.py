"""The RLModule of TQC: an ActorCritic, truncated quantile critics and their slow copies."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.core.columns import Columns
from torch import Tensor, nn

from rlplatform.models.q_critics import policy_actions
from rlplatform.models.q_module import INITIAL_ALPHA, VALUE, QModule, slow_copy
from rlplatform.models.rl_module import HIDDEN
from rlplatform.models.truncated_critics import QuantileCritics, pooled

NUM_CRITICS, QUANTILES, CRITIC_LAYERS = "num_critics", "quantiles", "critic_layers"


class TQCModule(QModule):
    """What TQC's loss reads of sequences of L transitions, whose observations are L + 1 rows; L is 1 without memory.

    The actor's memory begins with the state that the runner had there, the critics' empty: the learner leaves the first
    rows of a sequence out of its losses (burn-in).
    """

    Q = "q"  # (C, B, L, M): quantiles of the actions that were taken
    Q_NEXT = "q_next"  # (C, B, L, M): the slow copies' word on a' ~ π(o') after each
    Q_POLICY = "q_policy"  # (B, L, C·M): pooled and rising, of one fresh action a ~ π(o); gradients flow into the action
    ENTROPY = "entropy"  # (B, L): of the normal before its map to actions [nats]

    def setup(self) -> None:
        super().setup()
        settings, network = self.model_config, self.actor_critic
        shape = settings[NUM_CRITICS], settings[QUANTILES], tuple(settings[CRITIC_LAYERS])
        self.critics = QuantileCritics(network.config, network.obs_size, network.head, *shape)
        self.slow_critics = slow_copy(self.critics)
        self.log_alpha = nn.Parameter(torch.tensor(float(settings[INITIAL_ALPHA])).log())

    def critic_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        return [(self.critics, self.slow_critics)]

    def _forward_train(self, batch: dict[str, Any], **kwargs) -> dict[str, Any]:
        obs, action, first = batch[Columns.OBS], batch[Columns.ACTIONS], batch[self.IS_FIRST]
        network = self.actor_critic
        features, _ = network.encoder(obs, batch[Columns.STATE_IN][HIDDEN], first)
        now = self._distribution(features[:, :-1])
        with torch.no_grad():
            next_action = policy_actions(self._distribution(features[:, 1:]))[0][0]
            q_next = self.slow_critics(self.slow_critics.features(obs, first)[:, 1:], next_action)
        valued = self.critics.features(obs[:, :-1], first[:, :-1])
        fresh = policy_actions(now)[0][0]
        return {
            self.Q: self.critics(valued, action),
            self.Q_NEXT: q_next,
            self.Q_POLICY: pooled(self.critics(valued.detach(), fresh)),
            self.ENTROPY: now.entropy(),
            VALUE: self.policy_value(features[:, :-1]),
        }

    def _distribution(self, features: Tensor) -> Any:
        return self.actor_critic.head.distribution(self.actor_critic.action_params(features))
