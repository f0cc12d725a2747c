"""BC and MARWIL: their settings, the RLlib configs they make, and the policy that comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.bc import BC, BCConfig
from ray.rllib.algorithms.marwil import MARWIL, MARWILConfig
from ray.rllib.core import DEFAULT_MODULE_ID

from rlplatform.algorithms.callbacks import SetThreads
from rlplatform.algorithms.imitation_learner import (
    BETA,
    BOOTSTRAP,
    ENTROPY_COEFF,
    MAX_WEIGHT,
    NORM_START,
    BCLearner,
    MonteCarloMARWILLearner,
)
from rlplatform.algorithms.offline_data import RegisteredEpisodes, use_episodes
from rlplatform.algorithms.offline_learner import OfflineTraining
from rlplatform.algorithms.settings import OfflineSettings
from rlplatform.models.actor_critic import ActorCritic
from rlplatform.models.config import ModelConfig, model_config_from
from rlplatform.models.heads import head_for
from rlplatform.models.policy import Policy
from rlplatform.models.rl_module import MODEL, module_settings, module_spec

_WEIGHTS = "actor_critic."


@dataclass(frozen=True, kw_only=True)
class ImitationTrainingConfig(OfflineSettings):
    """What BC and MARWIL share.

    Attributes:
        gradient_steps: length of the training, of each learner.
        steps_per_iteration: gradient steps between two rows of metrics.
        batch_size: transitions in one gradient step, of one learner; with memory, whole sequences of that many.
        learning_rate: Adam's.
        entropy_coeff: weight of the entropy in the loss. Likelihood alone makes a policy as narrow as the data is.
        grad_clip: largest global norm of the gradient; None for no limit.
        num_learners: remote learner processes; 0 learns in this one.
        num_gpus_per_learner: GPUs of each learner.
        num_threads: torch threads of a local learner.
        precision: of the encoder's matrix products, see `PPOTrainingConfig`.
    """

    gradient_steps: int = 5_000
    steps_per_iteration: int = 250
    batch_size: int = 2_048
    learning_rate: float = 1e-3
    entropy_coeff: float = 0.0
    grad_clip: float | None = 10.0
    num_learners: int = 0
    num_gpus_per_learner: float = 0
    num_threads: int = 1
    precision: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        for name in ("gradient_steps", "steps_per_iteration", "batch_size", "num_threads"):
            self.expect(name, getattr(self, name) >= 1, "at least 1")
        for name in ("entropy_coeff", "num_learners", "num_gpus_per_learner"):
            self.expect(name, getattr(self, name) >= 0, "0 or more")
        self.expect("learning_rate", self.learning_rate > 0, "above 0")
        self.expect("grad_clip", self.grad_clip is None or self.grad_clip > 0, "above 0, or null for none")


@dataclass(frozen=True, kw_only=True)
class BCTrainingConfig(ImitationTrainingConfig):
    """Behaviour cloning: maximum likelihood of the logged actions (Pomerleau 1991). The critic stays untrained."""

    algorithm: Literal["bc"] = "bc"

    def build(self, model: ModelConfig, data: RegisteredEpisodes, seed: int) -> BCConfig:
        return build_bc(self, model, data, seed)


@dataclass(frozen=True, kw_only=True)
class MARWILTrainingConfig(ImitationTrainingConfig):
    """Monotonic Advantage Re-Weighted Imitation Learning (Wang et al. 2018); see `MonteCarloMARWILLearner` for the loss.

    Attributes:
        beta: β of exp(β A / c); 0 is behaviour cloning with a critic. Advantages of single trades are mostly noise, so that
            small values change little; above 3 a few lucky transitions carry the batch.
        max_weight: largest exp(β A / c); None for no limit, as RLlib has it: with β = 3 single transitions then weigh 10⁵.
        gamma: discount of the returns a step. What a trade earns comes soon, so that less than 0.9 often says more of it.
        value_coeff: weight κ of the value loss.
        norm_start: first value of c²; None takes the variance of the returns in the data. (RLlib's 100 suits rewards of
            about 10; with returns of 1 % it makes all weights 1, and MARWIL behaviour cloning.)
        norm_update_rate: ν of c².
        bootstrap: count V of the last observation where an episode was cut by the end of its window.
    """

    algorithm: Literal["marwil"] = "marwil"
    beta: float = 2.0
    max_weight: float | None = 1_000.0
    gamma: float = 0.9
    value_coeff: float = 1.0
    norm_start: float | None = None
    norm_update_rate: float = 1e-3
    bootstrap: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("beta", "value_coeff"):
            self.expect(name, getattr(self, name) >= 0, "0 or more")
        self.expect("gamma", 0 <= self.gamma <= 1, "a discount in [0, 1]")
        self.expect("max_weight", self.max_weight is None or self.max_weight >= 1, "at least 1, or null for none")
        self.expect("norm_start", self.norm_start is None or self.norm_start > 0, "above 0, or null")
        self.expect("norm_update_rate", 0 <= self.norm_update_rate <= 1, "a number in [0, 1]")

    def build(self, model: ModelConfig, data: RegisteredEpisodes, seed: int) -> MARWILConfig:
        return build_marwil(self, model, data, seed)


class FastBC(OfflineTraining, BC):
    """RLlib's BC over `Minibatches`."""


class FastMARWIL(OfflineTraining, MARWIL):
    """RLlib's MARWIL over `Minibatches`."""


def build_bc(training: BCTrainingConfig, model: ModelConfig, data: RegisteredEpisodes, seed: int = 0) -> BCConfig:
    """RLlib's config for this training; `.build_algo()` starts it. It needs no environment."""
    config = BCConfig(algo_class=FastBC).training(learner_class=BCLearner)
    return _shared_settings(config, training, model, data, seed)


def build_marwil(training: MARWILTrainingConfig, model: ModelConfig, data: RegisteredEpisodes, seed: int = 0) -> MARWILConfig:
    """RLlib's config for this training; `.build_algo()` starts it. It needs no environment."""
    config = MARWILConfig(algo_class=FastMARWIL).training(
        learner_class=MonteCarloMARWILLearner,
        gamma=training.gamma,
        vf_coeff=training.value_coeff,
        moving_average_sqd_adv_norm_update_rate=training.norm_update_rate,
        # RLlib refuses β > 1; ours travels here.
        learner_config_dict={
            BETA: training.beta,
            MAX_WEIGHT: training.max_weight,
            BOOTSTRAP: training.bootstrap,
            NORM_START: training.norm_start,
        },
    )
    if training.norm_start is not None:
        config.training(moving_average_sqd_adv_norm_start=training.norm_start)
    return _shared_settings(config, training, model, data, seed)


def _shared_settings(
    config: MARWILConfig, training: ImitationTrainingConfig, model: ModelConfig, data: RegisteredEpisodes, seed: int
) -> Any:
    config.training(
        lr=training.learning_rate,
        grad_clip=training.grad_clip,
        grad_clip_by="global_norm",
        train_batch_size_per_learner=training.batch_size,
        learner_config_dict=config.learner_config_dict | {ENTROPY_COEFF: training.entropy_coeff},
    )
    # Both, or RLlib trains a GRU on sequences of length 1: see module_settings.
    settings = module_settings(model, training.precision)
    config.rl_module(rl_module_spec=module_spec(model, training.precision), model_config=settings)
    config.learners(num_learners=training.num_learners, num_gpus_per_learner=training.num_gpus_per_learner)
    config.debugging(seed=seed, log_level="ERROR")
    config.callbacks(on_algorithm_init=SetThreads(training.num_threads))
    return use_episodes(config, data, training.steps_per_iteration)


def offline_policy(algorithm: Algorithm, env_id: str) -> Policy:
    """The policy as it stands: the learner's weights, and the moments of the dataset's observations.

    Args:
        algorithm: over `EpisodesData`, with an `ActorCriticModule`.
        env_id: the environment that the data came from.
    """
    state = algorithm.learner_group.get_weights([DEFAULT_MODULE_ID])[DEFAULT_MODULE_ID]
    weights = {name.removeprefix(_WEIGHTS): torch.tensor(x) for name, x in state.items() if name.startswith(_WEIGHTS)}
    config = algorithm.config
    model = model_config_from(config.model_config[MODEL])
    network = ActorCritic(model, int(config.observation_space.shape[0]), head_for(config.action_space))
    network.load_state_dict(weights)
    return Policy(network, algorithm.offline_data.normalizer, env_id)
