"""PPO: its settings, and the RLlib config they make."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.ppo import PPO, PPOConfig

from envs.errors import ConfigError
from rlplatform.algorithms.callbacks import EpisodeTerms, SetThreads
from rlplatform.algorithms.device_env_runner import DEVICE, DeviceEnvRunner
from rlplatform.algorithms.exploration import EXPLORATION, ExplorationConfig
from rlplatform.algorithms.learner import ResumablePPOLearner
from rlplatform.algorithms.pretraining import PRETRAINED, PretrainConfig, anchor_settings
from rlplatform.algorithms.sampling import set_sampling
from rlplatform.algorithms.schedules import Schedule, checked_schedule, rllib_schedule
from rlplatform.algorithms.settings import AlgorithmSettings
from rlplatform.algorithms.tail_risk import TAIL_RISK, check_tail_risk, tail_risk_settings
from rlplatform.algorithms.vector_env_runner import VectorEnvRunner
from rlplatform.algorithms.vector_learner import VectorPPOLearner
from rlplatform.algorithms.vector_ppo import VectorPPO
from rlplatform.models.config import ModelConfig
from rlplatform.models.rl_module import module_settings, module_spec

logger = logging.getLogger(__name__)

TRAINING = "training"


@dataclass(frozen=True, kw_only=True)
class PPOTrainingConfig(AlgorithmSettings):
    """Proximal Policy Optimization (Schulman et al. 2017), clipped form; the base of an algorithm of one's own.

    A value that takes a schedule is a number, or points `((0, a), (env_steps, b), ...)`: linear between them, constant
    after the last.

    Attributes:
        total_env_steps: length of the training [env steps].
        num_env_runners: remote sampling processes; 0 samples in this one.
        num_envs_per_env_runner: accounts stepped together in each.
        rollout_length: steps of each account between two updates. RLlib's learner appends one step for the bootstrap value,
            cuts at `max_seq_len` and pads: with a GRU, one less than a multiple of it wastes nothing (64 instead of 63
            costs 60 % more learning time at 32).
        num_epochs: passes over each batch.
        minibatch_size: transitions in one gradient step, of one learner.
        learning_rate: Adam's; number or schedule.
        entropy_coeff: weight of the entropy in the loss; number or schedule.
        gamma: discount a step; 0 looks at the next bar alone.
        gae_lambda: λ of generalised advantage estimation.
        clip: ε of the ratio.
        value_coeff: weight of the value loss.
        value_clip: squared value errors above this give no gradient; None for no limit.
        grad_clip: largest global norm of the gradient; None for no limit.
        use_kl_loss: add a KL penalty with an adaptive coefficient.
        kl_target: KL that the adaptive coefficient seeks [nats].
        num_learners: remote learner processes; 0 learns in this one.
        num_gpus_per_learner: GPUs of each learner.
        num_threads: torch threads of a local learner; more than there are free cores makes it many times slower.
        metrics_window: episodes over which returns are averaged.
        precision: of the encoder's matrix products in training; bfloat16 is faster where the processor has it
            (AVX512-BF16, AMX, any recent GPU). Sampling, heads, loss and optimiser stay float32.
        device: where accounts, policy and learner live together on the fast path; "auto" takes a GPU if there is one and
            sampling is local. A run that asks for "cuda" where there is none says so and goes on on the CPU.
        fast: whole rollouts as arrays (VectorPPO); without it stock RLlib with the same settings, to compare and debug.
        pretrain: start from an earlier run's policy instead of random weights.
        cvar_alpha: share of the worst returns-to-go that CVaR is the mean of.
        cvar_weight: w of the objective (1 − w) E[return] + w CVaR_α[return], in [0, 1]; needs `model.critic` of kind quantile.
            0 is plain PPO. The tail is that of the reward as configured: take log_growth, not excess_log_growth.
        exploration: ties the entropy bonus of each step to the account's drawdown; fast path only, stock RLlib's loss has one
            weight for all steps.
    """

    takes_pretraining = True
    takes_quantile_critic = True

    algorithm: Literal["ppo"] = "ppo"
    total_env_steps: int = 1_000_000
    num_env_runners: int = 0
    num_envs_per_env_runner: int = 256
    rollout_length: int = 31
    num_epochs: int = 4
    minibatch_size: int = 2_048
    learning_rate: float | Schedule = 5e-4
    entropy_coeff: float | Schedule = 0.01
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip: float = 0.2
    value_coeff: float = 0.5
    value_clip: float | None = None
    grad_clip: float | None = 0.5
    use_kl_loss: bool = False
    kl_target: float = 0.01
    num_learners: int = 0
    num_gpus_per_learner: float = 0
    num_threads: int = 1
    metrics_window: int = 100
    fast: bool = True
    precision: Literal["float32", "bfloat16"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    pretrain: PretrainConfig | None = None
    exploration: ExplorationConfig | None = None
    cvar_alpha: float = 0.05
    cvar_weight: float = 0.0

    def __post_init__(self) -> None:
        for name in ("learning_rate", "entropy_coeff"):
            object.__setattr__(self, name, checked_schedule(name, getattr(self, name)))
        for name in _AT_LEAST_ONE:
            self.expect(name, getattr(self, name) >= 1, "at least 1")
        for name in ("num_env_runners", "num_learners", "num_gpus_per_learner"):
            self.expect(name, getattr(self, name) >= 0, "0 or more")
        self.expect("gamma", 0 <= self.gamma <= 1, "a discount in [0, 1]")
        self.expect("gae_lambda", 0 <= self.gae_lambda <= 1, "a number in [0, 1]")
        self.expect("clip", 0 < self.clip < 1, "a number in (0, 1), usually 0.2")
        self.expect("value_coeff", self.value_coeff >= 0, "0 or more")
        for name in ("value_clip", "grad_clip"):
            limit = getattr(self, name)
            self.expect(name, limit is None or limit > 0, "above 0, or null for none")
        self.expect("kl_target", self.kl_target > 0, "above 0")
        self.expect("cvar_alpha", 0 < self.cvar_alpha <= 1, "a share of the returns in (0, 1], usually 0.05")
        self.expect("cvar_weight", 0 <= self.cvar_weight <= 1, "a weight in [0, 1]")
        if self.pretrain is not None and self.pretrain.kl_coeff + self.pretrain.mix_coeff > 0 and not self.fast:
            raise ConfigError(
                "training.pretrain.kl_coeff and mix_coeff need the fast path. Set them to 0, or training.fast to true."
            )
        if self.exploration is not None:
            self._check_exploration()
        if self.minibatch_size > self.batch_size_per_learner:
            raise ConfigError(
                f"training.minibatch_size = {self.minibatch_size} exceeds the {self.batch_size_per_learner} transitions that a "
                "learner gets (rollout_length × num_envs_per_env_runner × runners / learners). Lower it or sample more."
            )

    def _check_exploration(self) -> None:
        if not self.fast:
            raise ConfigError(
                "training.exploration needs the fast path: stock RLlib weighs the entropy of all steps alike. "
                "Leave it out, or set training.fast to true."
            )
        if self.exploration.anchor_gain > 0 and (self.pretrain is None or self.pretrain.kl_coeff == 0):
            raise ConfigError(
                f"training.exploration.anchor_gain = {self.exploration.anchor_gain}, but nothing pulls to an earlier policy. "
                "Set training.pretrain.run and kl_coeff > 0, or anchor_gain to 0."
            )

    def build(self, model: ModelConfig, env_name: str, seed: int) -> AlgorithmConfig:
        """RLlib's config for this training, see `build_ppo`."""
        return build_ppo(self, model, env_name, seed=seed)

    def passes(self, done: int) -> int:
        """One forward for each sampled step, forward and backward in each epoch."""
        return done * (1 + 3 * self.num_epochs)

    @property
    def learner_class(self) -> type[ResumablePPOLearner]:
        """Computes the loss; it finds these settings, as a dict, in `self.config.learner_config_dict["training"]`."""
        return VectorPPOLearner if self.fast else ResumablePPOLearner

    @property
    def batch_size(self) -> int:
        """Transitions between two updates, of all runners."""
        return self.rollout_length * self.num_envs_per_env_runner * max(1, self.num_env_runners)

    @property
    def batch_size_per_learner(self) -> int:
        return self.batch_size // max(1, self.num_learners)


_AT_LEAST_ONE = (
    "total_env_steps",
    "num_envs_per_env_runner",
    "rollout_length",
    "num_epochs",
    "minibatch_size",
    "num_threads",
    "metrics_window",
)


def build_ppo(
    training: PPOTrainingConfig,
    model: ModelConfig,
    env_name: str,
    env_config: dict[str, Any] | None = None,
    seed: int = 0,
) -> PPOConfig:
    """RLlib's config for this training; `.build_algo()` starts it.

    Actions go to the environment as the policy made them: no unsquashing and no clipping by RLlib, the heads already
    stay inside the space.

    Args:
        training, model: settings.
        env_name: a name registered with RLlib, see `register_trading_env`.
        env_config: keyword arguments of the environment's makers.
        seed: of Python, numpy, torch and the environments; runners draw theirs from it, each its own.
    """
    check_tail_risk(training, model)
    device = training_device(training)
    env_config = dict(env_config or {}) | ({DEVICE: device} if device != "cpu" else {})
    config = (
        PPOConfig(algo_class=VectorPPO if training.fast else PPO)
        .environment(env_name, env_config=env_config, normalize_actions=False, clip_actions=False)
        # Both, or RLlib trains a GRU on sequences of length 1: see module_settings.
        .rl_module(
            rl_module_spec=module_spec(model, training.precision), model_config=module_settings(model, training.precision)
        )
        .learners(
            num_learners=training.num_learners, num_gpus_per_learner=1 if device == "cuda" else training.num_gpus_per_learner
        )
        .debugging(seed=seed, log_level="ERROR")
        .reporting(metrics_num_episodes_for_smoothing=training.metrics_window)
        .callbacks(EpisodeTerms, on_algorithm_init=SetThreads(training.num_threads))
        .fault_tolerance(restart_failed_env_runners=True)
    )
    runner = (VectorEnvRunner if device == "cpu" else DeviceEnvRunner) if training.fast else None
    set_sampling(config, training, model, runner)
    _set_learning(config, training, model)
    return config


def training_device(training: PPOTrainingConfig) -> str:
    """ "cuda" or "cpu": what `training.device` comes to on this machine."""
    if not training.fast or training.device == "cpu" or training.num_env_runners > 0:
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if training.device == "cuda":
        logger.warning("training.device = cuda, but torch sees no GPU here; training goes on on the CPU.")
    return "cpu"


def _set_learning(config: PPOConfig, training: PPOTrainingConfig, model: ModelConfig) -> None:
    config.training(
        learner_class=training.learner_class,
        train_batch_size_per_learner=training.batch_size_per_learner,
        minibatch_size=training.minibatch_size,
        num_epochs=training.num_epochs,
        lr=rllib_schedule(training.learning_rate),
        entropy_coeff=rllib_schedule(training.entropy_coeff),
        gamma=training.gamma,
        lambda_=training.gae_lambda,
        clip_param=training.clip,
        vf_loss_coeff=training.value_coeff if model.critic is None else 0.0,  # else the quantiles' loss takes its place
        vf_clip_param=float("inf") if training.value_clip is None else training.value_clip,
        grad_clip=training.grad_clip,
        grad_clip_by="global_norm",
        use_kl_loss=training.use_kl_loss,
        kl_target=training.kl_target,
    )
    settings = dict(config.learner_config_dict) | {TRAINING: asdict(training)}
    if training.pretrain is not None and training.pretrain.kl_coeff > 0:
        settings[PRETRAINED] = anchor_settings(training.pretrain)
    if training.exploration is not None:
        settings[EXPLORATION] = asdict(training.exploration)
    if model.critic is not None:
        settings[TAIL_RISK] = tail_risk_settings(training, model)
    config.training(learner_config_dict=settings)
