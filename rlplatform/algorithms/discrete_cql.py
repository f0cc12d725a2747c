"""CQL for numbered actions, such as the 16 regimes: its settings, its loss, and the RLlib config they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import gymnasium as gym
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from torch import Tensor, nn

from envs.accounts import TradingTask
from envs.errors import ConfigError
from rlplatform.algorithms.offline_data import RegisteredEpisodes
from rlplatform.algorithms.q_learner import (
    QLearner,
    QTrainingConfig,
    bellman_target,
    build_offline_q,
    masked_mean,
    policy_parameters,
)
from rlplatform.models.config import ModelConfig
from rlplatform.models.q_module import Q_DATA, Q_NEXT_TARGET, VALUE, DiscreteQModule, q_module_spec

Batch = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class DiscreteCQLTrainingConfig(QTrainingConfig):
    """Conservative Q-learning (Kumar et al. 2020) on double deep Q-learning (van Hasselt et al. 2016), for numbered actions.

    RLlib 2.60 has CQL for continuous actions only. The model may have memory. All of the ActorCritic but its value head
    moves with `critic_learning_rate`, for its policy layer is Q; the value head with `learning_rate`. On a planted market the
    share of the optimum peaked after 500 steps and fell from 0.96 to 0.78 by step 8,000 at a critic's rate of 1e-3: hence
    the small defaults, and look at the validation period.

    Attributes:
        conservatism: weight of log Σₐ exp Q(s, a) − Q(s, a of the data); 0 is plain double Q-learning.
        temperature: logits of the exported policy are Q / temperature [standard deviations of the reward]. It changes no
            preferred action, only how much the policy explores when PPO goes on from it.
    """

    algorithm: Literal["discrete_cql"] = "discrete_cql"
    gradient_steps: int = 2_000
    critic_learning_rate: float = 3e-4
    conservatism: float = 0.1
    temperature: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.expect("conservatism", self.conservatism >= 0, "0 or more")
        self.expect("temperature", self.temperature > 0, "above 0")

    def check(self, model: ModelConfig, task: TradingTask) -> None:
        _check_numbered(task.action_space)

    def build(self, model: ModelConfig, data: RegisteredEpisodes, seed: int) -> AlgorithmConfig:
        return build_discrete_cql(self, model, data, seed)


def build_discrete_cql(
    training: DiscreteCQLTrainingConfig, model: ModelConfig, data: RegisteredEpisodes, seed: int = 0
) -> AlgorithmConfig:
    """RLlib's config for this training; `.build_algo()` starts it.

    Args:
        model: with or without memory.
        data: from `register_episodes`.
        seed: of the order of minibatches and of torch.

    Raises:
        ConfigError: actions that have no numbers.
    """
    _check_numbered(data.action_space)
    return build_offline_q(training, data, seed, DiscreteCQLLearner, q_module_spec(DiscreteQModule, model))


def _check_numbered(action_space: gym.Space) -> None:
    if not isinstance(action_space, gym.spaces.Discrete):
        raise ConfigError(
            f"training.algorithm = discrete_cql needs numbered actions; they are {action_space}. Use cql or iql for weights."
        )


class DiscreteCQLLearner(QLearner):
    """Discrete CQL's losses."""

    def parts(self, module: DiscreteQModule) -> dict[str, tuple[list[nn.Parameter], float]]:
        return {
            "critic": (policy_parameters(module), self.settings["critic_learning_rate"]),
            "value": (list(module.actor_critic.value.parameters()), self.settings["learning_rate"]),
        }

    def losses(self, module: DiscreteQModule, batch: Batch, out: Batch) -> dict[str, Tensor]:
        settings, q_all = self.settings, out[DiscreteQModule.Q_ALL]
        target = bellman_target(batch, out[Q_NEXT_TARGET], settings["gamma"])
        squared = (out[Q_DATA] - target.detach()).square()
        gap = conservative_gap(q_all, out[Q_DATA])
        chosen = (q_all.detach() / settings["temperature"]).softmax(-1)
        value = (chosen * q_all.detach()).sum(-1)
        self.log_means(
            q_data=masked_mean(out[Q_DATA], batch), gap=masked_mean(gap, batch), squared_error=masked_mean(squared, batch)
        )
        return {
            "critic": masked_mean(squared + settings["conservatism"] * gap, batch),
            "value": masked_mean((out[VALUE] - value).square(), batch),
        }


def conservative_gap(q_all: Tensor, q_data: Tensor) -> Tensor:
    """log Σₐ exp Q(s, a) − Q(s, a of the data), (...) from q_all (..., n) and q_data (...); never below 0."""
    return torch.logsumexp(q_all, -1) - q_data
