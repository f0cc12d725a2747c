"""What CQL, IQL and discrete CQL share: settings, gradients by part, slow copies, the way to a Policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import gymnasium as gym
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from torch import Tensor, nn

from envs.errors import ConfigError
from rlplatform.algorithms import imitation
from rlplatform.algorithms.callbacks import SetThreads
from rlplatform.algorithms.loss_by_part import TRAINING, LossByPart
from rlplatform.algorithms.offline_data import RegisteredEpisodes, use_episodes
from rlplatform.algorithms.offline_defects import SlowCopiesEachGradientStep
from rlplatform.algorithms.offline_learner import MinibatchLearner, OfflineTraining
from rlplatform.algorithms.settings import OfflineSettings
from rlplatform.models.config import ModelConfig
from rlplatform.models.policy import Policy
from rlplatform.models.q_critics import as_logits
from rlplatform.models.q_module import REWARD_SCALE, QModule, q_module_spec

TEMPERATURE = "temperature"


@dataclass(frozen=True, kw_only=True)
class QTrainingConfig(OfflineSettings):
    """What every algorithm with action values has. Rewards are divided by their standard deviation in the data first, so
    that weights and temperatures mean the same on every market; exported values are in the rewards' own unit again.

    Attributes:
        gradient_steps: length of the training [minibatches].
        batch_size: transitions in one gradient step.
        steps_per_iteration: gradient steps between two rows of metrics.
        learning_rate: Adam's, of policy and value head.
        critic_learning_rate: Adam's, of the critics.
        gamma: discount a step.
        tau: share of the way that slow copies go in each gradient step.
        grad_clip: largest norm of each part's gradient; None for no limit.
        num_learners: 0 learns in this process, 1 in a remote one.
        num_threads: torch threads of a local learner.
    """

    takes_modes = False

    gradient_steps: int = 20_000
    batch_size: int = 512
    steps_per_iteration: int = 500
    learning_rate: float = 3e-4
    critic_learning_rate: float = 1e-3
    gamma: float = 0.99
    tau: float = 0.005
    grad_clip: float | None = 10.0
    num_learners: int = 0
    num_threads: int = 1

    def __post_init__(self) -> None:
        for name in ("gradient_steps", "batch_size", "steps_per_iteration", "num_threads"):
            self.expect(name, getattr(self, name) >= 1, "at least 1")
        for name in ("learning_rate", "critic_learning_rate"):
            self.expect(name, getattr(self, name) > 0, "above 0")
        self.expect("gamma", 0 <= self.gamma <= 1, "a discount in [0, 1]")
        self.expect("tau", 0 < self.tau <= 1, "a share in (0, 1], usually 0.005")
        self.expect("grad_clip", self.grad_clip is None or self.grad_clip > 0, "above 0, or null for none")
        # Gradients are taken part by part, which torch's data-parallel wrapper does not average.
        self.expect("num_learners", self.num_learners in (0, 1), "0 (this process) or 1 (a remote one)")


class OfflineQConfig(AlgorithmConfig):
    """An AlgorithmConfig that asks for no environment."""

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class or OfflineQ)
        self._is_online = False

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec()

    def get_default_learner_class(self) -> type[QLearner]:
        return QLearner


class OfflineQ(OfflineTraining, Algorithm):
    """RLlib's Algorithm with an offline training step. Its own CQL and IQL stay aside: they bring SAC's replay buffers and
    MARWIL's checks (β ≤ 1), and no loss of theirs is used."""

    @classmethod
    def get_default_config(cls) -> OfflineQConfig:
        return OfflineQConfig(algo_class=cls)


class QLearner(SlowCopiesEachGradientStep, MinibatchLearner, LossByPart, TorchLearner):
    """One optimiser for each part of the module, each fed by its own loss; slow copies follow in every gradient step."""

    batch_columns: ClassVar[tuple[str, ...]] = (
        Columns.OBS,
        Columns.NEXT_OBS,
        Columns.ACTIONS,
        Columns.REWARDS,
        Columns.TERMINATEDS,
    )

    def begin_epoch(self) -> None:
        super().begin_epoch()
        self._module_alone.reward_scale.fill_(self.minibatches.reward_std() or 1.0)


def policy_parameters(module: QModule) -> list[nn.Parameter]:
    """All of the ActorCritic but its value head."""
    return [param for name, param in module.actor_critic.named_parameters() if not name.startswith("value.")]


def masked_mean(values: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean over transitions; rows of a sequence that are no decision do not count."""
    mask = batch.get(Columns.LOSS_MASK)
    return values.mean() if mask is None else values[mask].mean()


def bellman_target(batch: Mapping[str, Tensor], next_value: Tensor, gamma: float) -> Tensor:
    """r + γ V(s'), with V = 0 after ruin; the end of a window is no end, its future has a value."""
    return batch[Columns.REWARDS] + gamma * torch.where(batch[Columns.TERMINATEDS], 0.0, next_value)


def build_for_weights(
    training: QTrainingConfig,
    model: ModelConfig,
    data: RegisteredEpisodes,
    seed: int,
    learner_class: type[QLearner],
    module_class: type[QModule],
    **settings: Any,
) -> AlgorithmConfig:
    """RLlib's config for CQL or IQL, which value single transitions of weights; `.build_algo()` starts it.

    Args:
        model: without memory; its kind and sizes are also the critics'.
        data: from `register_episodes` or `register_shards`.
        seed: of the order of minibatches and of torch.
        settings: of the module.

    Raises:
        ConfigError: a model with memory, or numbered actions.
    """
    check_for_weights(training, model, data.observation_space.shape[0], data.action_space)
    return build_offline_q(training, data, seed, learner_class, q_module_spec(module_class, model, **settings))


def check_for_weights(training: QTrainingConfig, model: ModelConfig, obs_size: int, action_space: gym.Space) -> None:
    """Whether CQL or IQL can value actions of that space with that model.

    Raises:
        ConfigError: a model with memory, or numbered actions.
    """
    if isinstance(action_space, gym.spaces.Discrete):
        raise ConfigError(
            f"training.algorithm = {training.algorithm} needs weights; the actions are {action_space}. "
            "Use discrete_cql for numbered actions."
        )
    if model.encoder(obs_size).state_size:
        raise ConfigError(
            f"training.algorithm = {training.algorithm} values single transitions; model.kind = {model.kind!r} has memory. "
            "Use mlp, or gnn with model.memory: none; with memory bc or marwil."
        )


def build_offline_q(
    training: QTrainingConfig,
    data: RegisteredEpisodes,
    seed: int,
    learner_class: type[QLearner],
    module: tuple[RLModuleSpec, dict[str, Any]],
) -> AlgorithmConfig:
    """RLlib's config for such a training; `.build_algo()` starts it, each `train()` is one iteration.

    Args:
        module: from `q_module_spec`.
        seed: of the order of minibatches and of torch.
    """
    spec, model_config = module
    config = (
        OfflineQConfig()
        .rl_module(rl_module_spec=spec, model_config=model_config)
        .training(
            learner_class=learner_class,
            train_batch_size_per_learner=training.batch_size,
            gamma=training.gamma,
            grad_clip=training.grad_clip,
            grad_clip_by="global_norm",
            learner_config_dict={TRAINING: asdict(training)},
        )
        .learners(num_learners=training.num_learners)
        .debugging(seed=seed, log_level="ERROR")
        .callbacks(on_algorithm_init=SetThreads(training.num_threads))
    )
    return use_episodes(config, data, training.steps_per_iteration)


def offline_policy(algorithm: Algorithm, env_id: str) -> Policy:
    """The policy as it stands: an ordinary ActorCritic with PPO's names, and the normalizer of the dataset.

    Its value head is in the rewards' own unit. After discrete CQL its logits are Q / temperature, Q in standard deviations
    of the data's reward: the mode is the action of largest Q. After BC and MARWIL it is `imitation.offline_policy`.

    Args:
        algorithm: of any offline training of this room.
        env_id: the environment that the data came from.
    """
    policy = imitation.offline_policy(algorithm, env_id)
    settings = algorithm.config.learner_config_dict.get(TRAINING)
    if settings is None:
        return policy
    state = algorithm.learner_group.get_weights([DEFAULT_MODULE_ID])[DEFAULT_MODULE_ID]
    with torch.no_grad():
        for param in policy.actor_critic.value.parameters():
            param *= float(state[REWARD_SCALE])
    if TEMPERATURE in settings:
        as_logits(policy.actor_critic, settings[TEMPERATURE])
    return policy
