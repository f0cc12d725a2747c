"""RLModules that learn from action values: an ActorCritic, critics and their slow copies. Numbers here, losses elsewhere."""

from __future__ import annotations

import copy
from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from torch import Tensor, nn

from rlplatform.models.actor_critic import ActorCritic
from rlplatform.models.config import ModelConfig
from rlplatform.models.q_critics import (
    StateValue,
    TwinQ,
    action_values,
    following_features,
    policy_actions,
    uniform_actions,
    uniform_log_density,
)
from rlplatform.models.rl_module import HIDDEN, ActorCriticModule, module_settings

NUM_PROPOSALS, INITIAL_ALPHA = "num_proposals", "initial_alpha"
REWARD_SCALE = "reward_scale"  # in a module's state

# Names of what `_forward_train` returns; B rows (with a GRU, B sequences of L), K proposed actions.
Q_DATA = "q_data"  # (2, B): Q(s, a) of the action in the data; discrete: (B,)
Q_NEXT_TARGET = "q_next_target"  # (B,): slow copies' value of s' under the rule of the algorithm
LOG_PROB_DATA = "log_prob_data"  # (B,): log π(a | s) of the action in the data
VALUE = "value"  # (B,): the ActorCritic's own value of s, which feeds no gradient into the policy


class QModule(ActorCriticModule):
    """ActorCriticModule with critics and slow copies of them, all in units of the rewards' standard deviation.

    The ActorCritic keeps the names it has in PPO, so PPO can start from its weights. All that was learnt, the slow copies,
    the count of gradient steps and the entropy temperature too, is in the module's state and so in every checkpoint; RLlib
    2.60 forgets the temperature and counts gradient steps anew in each update.

    Attributes:
        gradient_steps: taken so far.
        reward_scale: the unit of all values [rewards' own unit].
    """

    def setup(self) -> None:
        super().setup()
        self.register_buffer("gradient_steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("reward_scale", torch.ones(()))

    def critic_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """(network, slow copy)."""
        raise NotImplementedError

    @torch.no_grad()
    def after_gradient_step(self, tau: float) -> None:
        """Count it, and move every slow copy: θ' ← θ' + τ (θ − θ') (Lillicrap et al. 2016)."""
        self.gradient_steps += 1
        for network, slow in self.critic_pairs():
            torch._foreach_lerp_(list(slow.parameters()), list(network.parameters()), tau)

    def policy_value(self, features: Tensor) -> Tensor:
        """The value head on features that pass no gradient on: it learns beside the policy and does not shape it."""
        return self.actor_critic.values(features.detach())


class ContinuousQModule(QModule):
    """For weights: a policy without memory, and twin Q(s, a)."""

    def setup(self) -> None:
        super().setup()
        network = self.actor_critic
        self.critics = TwinQ(network.config, network.obs_size, network.head)
        self.slow_critics = slow_copy(self.critics)

    def critic_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        return [(self.critics, self.slow_critics)]

    def _policy(self, obs: Tensor) -> tuple[Any, Tensor]:
        features, _ = self.actor_critic.encoder(obs, obs.new_zeros(len(obs), 0))
        return self.actor_critic.head.distribution(self.actor_critic.action_params(features)), features


class CQLModule(ContinuousQModule):
    """What CQL's loss reads: values of the data's, the policy's and proposed actions, with the proposals' densities."""

    Q_POLICY, LOG_PROB_POLICY = "q_policy", "log_prob_policy"  # (B,) of one fresh action a ~ π(s)
    LOG_PROB_NEXT = "log_prob_next"  # (B,) of a' ~ π(s'), whose slow value is Q_NEXT_TARGET
    Q_PROPOSALS, LOG_DENSITY = "q_proposals", "log_density"  # (2, 3K, B) and (3K, B): uniform, π(s), π(s'), all valued at s

    def setup(self) -> None:
        super().setup()
        log_alpha = torch.tensor(float(self.model_config[INITIAL_ALPHA])).log()
        self.log_alpha = nn.Parameter(log_alpha)

    def _forward_train(self, batch: dict[str, Any], **kwargs) -> dict[str, Any]:
        obs, next_obs, action = batch[Columns.OBS], batch[Columns.NEXT_OBS], batch[Columns.ACTIONS]
        now, features = self._policy(obs)
        fresh, log_prob = policy_actions(now)
        with torch.no_grad():
            proposals, densities = self._proposals(now, self._policy(next_obs)[0], action)
            count = self.model_config[NUM_PROPOSALS]
            next_action, log_prob_next = proposals[-count], densities[-count]
            q_next = self.slow_critics.smaller(next_obs, next_action)
        # One pass through the critics for the data's action and every proposal.
        values = self.critics(obs, torch.cat([action[None], proposals]))
        return {
            Q_DATA: values[:, 0],
            self.Q_PROPOSALS: values[:, 1:],
            self.LOG_DENSITY: densities,
            self.Q_POLICY: self.critics.smaller(obs, fresh[0]),
            self.LOG_PROB_POLICY: log_prob[0],
            LOG_PROB_DATA: now.log_prob(action),
            Q_NEXT_TARGET: q_next,
            self.LOG_PROB_NEXT: log_prob_next,
            VALUE: self.policy_value(features),
        }

    def _proposals(self, now: Any, after: Any, like: Tensor) -> tuple[Tensor, Tensor]:
        count, head = self.model_config[NUM_PROPOSALS], self.actor_critic.head
        uniform = uniform_actions(head, (count, len(like)), like)
        density = like.new_full(uniform.shape[:-1], uniform_log_density(head))
        drawn = [(uniform, density), policy_actions(now, count), policy_actions(after, count)]
        actions, densities = zip(*drawn, strict=True)
        return torch.cat(actions), torch.cat(densities)


class IQLModule(ContinuousQModule):
    """What IQL's loss reads. It never asks for the value of an action that is not in the data."""

    Q_SLOW = "q_slow"  # (B,): smaller slow value of the data's action
    V, V_NEXT = "v", "v_next"  # (B,): V(s), V(s')

    def setup(self) -> None:
        super().setup()
        self.state_value = StateValue(self.actor_critic.config, self.actor_critic.obs_size)

    def _forward_train(self, batch: dict[str, Any], **kwargs) -> dict[str, Any]:
        obs, next_obs, action = batch[Columns.OBS], batch[Columns.NEXT_OBS], batch[Columns.ACTIONS]
        policy, features = self._policy(obs)
        with torch.no_grad():
            q_slow, v_next = self.slow_critics.smaller(obs, action), self.state_value(next_obs)
        return {
            Q_DATA: self.critics(obs, action),
            self.Q_SLOW: q_slow,
            self.V: self.state_value(obs),
            self.V_NEXT: v_next,
            LOG_PROB_DATA: policy.log_prob(action),
            VALUE: self.policy_value(features),
        }


class DiscreteQModule(QModule):
    """For numbered actions: the ActorCritic's policy layer is Q(s)[a]; with or without memory."""

    Q_ALL = "q_all"  # (B, n): Q(s)[a] of every action

    def setup(self) -> None:
        super().setup()
        self.slow_actor_critic = slow_copy(self.actor_critic)

    def critic_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        return [(self.actor_critic, self.slow_actor_critic)]

    def _forward_train(self, batch: dict[str, Any], **kwargs) -> dict[str, Any]:
        if Columns.NEXT_OBS not in batch:  # a replay, which asks for states only
            return super()._forward_train(batch)
        q_all, features, state = self._values(self.actor_critic, batch)
        with torch.no_grad():
            preferred = self._next_values(self.actor_critic, features, batch).argmax(-1, keepdim=True)
            slow = self.slow_actor_critic
            slow_features = self._values(slow, batch)[1] if slow.state_size else features
            q_next = self._next_values(slow, slow_features, batch).gather(-1, preferred)[..., 0]
        return self._outputs(q_all, state) | {
            self.Q_ALL: q_all,
            Q_DATA: q_all.gather(-1, batch[Columns.ACTIONS].long()[..., None])[..., 0],
            Q_NEXT_TARGET: q_next,
            VALUE: self.policy_value(features),
        }

    def _values(self, network: ActorCritic, batch: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        obs = batch[Columns.OBS]
        state = batch[Columns.STATE_IN][HIDDEN] if network.state_size else obs.new_zeros(len(obs), 0)
        return action_values(network, obs, state, batch.get(self.IS_FIRST))

    def _next_values(self, network: ActorCritic, features: Tensor, batch: dict[str, Any]) -> Tensor:
        return network.policy(following_features(network.encoder, features, batch[Columns.NEXT_OBS]))


def slow_copy(network: nn.Module) -> nn.Module:
    """A copy that no optimiser moves."""
    return copy.deepcopy(network).requires_grad_(False)


def q_module_spec(module_class: type[QModule], model: ModelConfig, **settings: Any) -> tuple[RLModuleSpec, dict[str, Any]]:
    """RLModuleSpec and RLlib's model_config (give it both, see `module_settings`) of one of these modules."""
    everything = module_settings(model) | settings
    return RLModuleSpec(module_class=module_class, model_config=everything), everything
