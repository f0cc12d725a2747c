"""IQL for weights: its settings, its loss, and the RLlib config they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from torch import Tensor, nn

from envs.accounts import TradingTask
from rlplatform.algorithms.offline_data import RegisteredEpisodes
from rlplatform.algorithms.q_learner import (
    QLearner,
    QTrainingConfig,
    bellman_target,
    build_for_weights,
    check_for_weights,
    policy_parameters,
)
from rlplatform.models.config import ModelConfig
from rlplatform.models.q_module import LOG_PROB_DATA, Q_DATA, VALUE, IQLModule

Batch = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class IQLTrainingConfig(QTrainingConfig):
    """Implicit Q-learning (Kostrikov et al. 2022), for continuous weights: no action outside the data is ever valued.

    Attributes:
        expectile: which expectile of Q over the data's actions V is; 0.5 is their mean, towards 1 the best of them.
        beta: how sharply the policy prefers actions of large advantage [1 / standard deviation of the reward].
        max_weight: largest weight exp(β A) of a transition.
    """

    algorithm: Literal["iql"] = "iql"
    expectile: float = 0.8
    beta: float = 3.0
    max_weight: float = 100.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.expect("expectile", 0 < self.expectile < 1, "a number in (0, 1), usually 0.7 to 0.9")
        self.expect("beta", self.beta > 0, "above 0, usually 1 to 10")
        self.expect("max_weight", self.max_weight > 0, "above 0, usually 100")

    def check(self, model: ModelConfig, task: TradingTask) -> None:
        check_for_weights(self, model, len(task.observation_names), task.action_space)

    def build(self, model: ModelConfig, data: RegisteredEpisodes, seed: int) -> AlgorithmConfig:
        return build_iql(self, model, data, seed)


def build_iql(training: IQLTrainingConfig, model: ModelConfig, data: RegisteredEpisodes, seed: int = 0) -> AlgorithmConfig:
    """RLlib's config for this training; see `build_for_weights`."""
    return build_for_weights(training, model, data, seed, IQLLearner, IQLModule)


class IQLLearner(QLearner):
    """IQL's losses."""

    def parts(self, module: IQLModule) -> dict[str, tuple[list[nn.Parameter], float]]:
        slow, fast = self.settings["learning_rate"], self.settings["critic_learning_rate"]
        return {
            "policy": (policy_parameters(module), slow),
            "critic": (list(module.critics.parameters()), fast),
            "state_value": (list(module.state_value.parameters()), fast),
            "value": (list(module.actor_critic.value.parameters()), slow),
        }

    def losses(self, module: IQLModule, batch: Batch, out: Batch) -> dict[str, Tensor]:
        settings = self.settings
        advantage = out[IQLModule.Q_SLOW] - out[IQLModule.V]
        weight = extraction_weights(advantage.detach(), settings["beta"], settings["max_weight"])
        target = bellman_target(batch, out[IQLModule.V_NEXT], settings["gamma"])
        self.log_means(q_data=out[Q_DATA], v=out[IQLModule.V], weight=weight, weights_at_limit=weight >= settings["max_weight"])
        return {
            "policy": -(weight * out[LOG_PROB_DATA]).mean(),
            "critic": 0.5 * (out[Q_DATA] - target).square().mean(-1).sum(),
            "state_value": expectile_loss(advantage, settings["expectile"]).mean(),
            "value": (out[VALUE] - out[IQLModule.V].detach()).square().mean(),
        }


def expectile_loss(error: Tensor, expectile: float) -> Tensor:
    """|τ − 1(u < 0)| u²: squared errors above weigh τ, those below 1 − τ (Newey & Powell 1987)."""
    return torch.where(error > 0, expectile, 1 - expectile) * error.square()


def extraction_weights(advantage: Tensor, beta: float, max_weight: float) -> Tensor:
    """min(exp(β A), max_weight): how much of each action of the data the policy shall imitate."""
    return (beta * advantage).exp().clamp(max=max_weight)
