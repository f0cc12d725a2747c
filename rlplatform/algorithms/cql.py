"""CQL for weights: its settings, its loss, and the RLlib config they make."""

from __future__ import annotations

import math
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
from rlplatform.models.q_critics import standard_target_entropy
from rlplatform.models.q_module import (
    INITIAL_ALPHA,
    LOG_PROB_DATA,
    NUM_PROPOSALS,
    Q_DATA,
    Q_NEXT_TARGET,
    VALUE,
    CQLModule,
)

Batch = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class CQLTrainingConfig(QTrainingConfig):
    """Conservative Q-learning (Kumar et al. 2020), the form H with soft actor-critic, for continuous weights.

    Attributes:
        conservatism: weight of log ∫ exp Q(s, a) da − Q(s, a of the data) in the critics' loss; 0 is plain SAC.
        num_proposals: actions drawn for that integral from each of uniform, π(s) and π(s').
        cloning_steps: gradient steps at the start in which the policy imitates the data instead of seeking Q.
        entropy_backup: count the policy's entropy as reward in the target, as SAC does.
        initial_alpha: first temperature of the entropy; it is then learnt.
        target_entropy: entropy that the temperature seeks [nats]; None for SAC's −A, carried over to the action space.
    """

    algorithm: Literal["cql"] = "cql"
    conservatism: float = 1.0
    num_proposals: int = 4
    cloning_steps: int = 1_000
    entropy_backup: bool = False
    initial_alpha: float = 0.1
    target_entropy: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.expect("conservatism", self.conservatism >= 0, "0 or more")
        self.expect("num_proposals", self.num_proposals >= 1, "at least 1")
        self.expect("cloning_steps", self.cloning_steps >= 0, "0 or more")
        self.expect("initial_alpha", self.initial_alpha > 0, "above 0")

    def check(self, model: ModelConfig, task: TradingTask) -> None:
        check_for_weights(self, model, len(task.observation_names), task.action_space)

    def build(self, model: ModelConfig, data: RegisteredEpisodes, seed: int) -> AlgorithmConfig:
        return build_cql(self, model, data, seed)


def build_cql(training: CQLTrainingConfig, model: ModelConfig, data: RegisteredEpisodes, seed: int = 0) -> AlgorithmConfig:
    """RLlib's config for this training; see `build_for_weights`."""
    settings = {NUM_PROPOSALS: training.num_proposals, INITIAL_ALPHA: training.initial_alpha}
    return build_for_weights(training, model, data, seed, CQLLearner, CQLModule, **settings)


class CQLLearner(QLearner):
    """CQL's losses. Slow copies, counter and temperature are right where RLlib's are not, see `offline_defects.py`."""

    def parts(self, module: CQLModule) -> dict[str, tuple[list[nn.Parameter], float]]:
        slow, fast = self.settings["learning_rate"], self.settings["critic_learning_rate"]
        return {
            "policy": (policy_parameters(module), slow),
            "critic": (list(module.critics.parameters()), fast),
            "alpha": ([module.log_alpha], slow),
            "value": (list(module.actor_critic.value.parameters()), slow),
        }

    def losses(self, module: CQLModule, batch: Batch, out: Batch) -> dict[str, Tensor]:
        settings, alpha = self.settings, module.log_alpha.exp().detach()
        entropy = settings["target_entropy"]
        entropy = standard_target_entropy(module.actor_critic.head) if entropy is None else entropy
        cloning = int(module.gradient_steps) < settings["cloning_steps"]
        bonus = alpha if settings["entropy_backup"] else 0.0
        target = bellman_target(batch, out[Q_NEXT_TARGET] - bonus * out[CQLModule.LOG_PROB_NEXT], settings["gamma"])
        gap = conservative_gap(out[Q_DATA], out[CQLModule.Q_PROPOSALS], out[CQLModule.LOG_DENSITY])
        self.log_means(q_data=out[Q_DATA], q_policy=out[CQLModule.Q_POLICY], gap=gap, alpha=alpha)
        return {
            "policy": policy_loss(out, alpha, cloning),
            "critic": critic_loss(out[Q_DATA], target, gap, settings["conservatism"]),
            "alpha": -module.log_alpha * (out[CQLModule.LOG_PROB_POLICY].detach() + entropy).mean(),
            "value": (out[VALUE] - out[CQLModule.Q_POLICY].detach()).square().mean(),
        }


def conservative_gap(q_data: Tensor, q_proposals: Tensor, log_density: Tensor) -> Tensor:
    """How much the critics promise beyond the data: log ∫ exp Q(s, a) da − Q(s, a of the data).

    The integral by importance sampling over M proposals: log Σₘ exp(Q(s, aₘ) − log qₘ(aₘ)) − log M. All are valued at s,
    those drawn from π(s') too (Kumar et al. 2020, appendix F, and their code).

    Args:
        q_data: (2, B).
        q_proposals: (2, M, B).
        log_density: (M, B) at the proposals.

    Returns:
        (2,) means over B, of each critic.
    """
    integral = torch.logsumexp(q_proposals - log_density.detach(), 1) - math.log(len(log_density))
    return (integral - q_data).mean(-1)


def critic_loss(q_data: Tensor, target: Tensor, gap: Tensor, conservatism: float) -> Tensor:
    """Σ over both critics of E[(Q − target)²] + conservatism · gap; q_data (2, B), target (B,), gap (2,)."""
    return ((q_data - target.detach()).square().mean(-1) + conservatism * gap).sum()


def policy_loss(out: Batch, alpha: Tensor, cloning: bool) -> Tensor:
    """E[α log π(a|s) − min Q(s, a)], a ~ π; while cloning −log π(a of the data | s) stands for −min Q."""
    wanted = out[LOG_PROB_DATA] if cloning else out[CQLModule.Q_POLICY]
    return (alpha * out[CQLModule.LOG_PROB_POLICY] - wanted).mean()
