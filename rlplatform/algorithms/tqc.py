"""TQC for weights: its settings, and the RLlib config they make."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import gymnasium as gym
import ray
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from envs.accounts import TradingTask
from envs.errors import ConfigError
from rlplatform.algorithms.callbacks import EpisodeTerms, SetThreads
from rlplatform.algorithms.loss_by_part import TRAINING
from rlplatform.algorithms.rollout_training import RolloutTraining
from rlplatform.algorithms.sampling import set_sampling
from rlplatform.algorithms.schedules import Schedule, checked_schedule
from rlplatform.algorithms.settings import AlgorithmSettings
from rlplatform.algorithms.tqc_learner import TQCLearner
from rlplatform.algorithms.transitions import ReplayEnvRunner, Transitions
from rlplatform.models.config import ModelConfig
from rlplatform.models.q_module import INITIAL_ALPHA, q_module_spec
from rlplatform.models.tqc_module import CRITIC_LAYERS, NUM_CRITICS, QUANTILES, TQCModule


@dataclass(frozen=True, kw_only=True)
class TQCTrainingConfig(AlgorithmSettings):
    """Truncated quantile critics (Kuznetsov et al. 2020): soft actor-critic with a distribution of returns, for weights.

    Rewards are divided by their standard deviation in the first transitions, so that temperatures mean the same on every
    market. A value that takes a schedule is a number or points, as PPO's.

        critics  y = r + γ · {the pooled quantiles of the slow critics at a' ~ π(o'), without the C·d largest}
        actor    maximise  ω · (pooled quantiles at a ~ π(o), rising) + α H(π),    ω = (1 − w) · mean + w · CVaR
        α        such that H(π) → target_entropy

    H is the entropy of the normal before its map to weights: see docs/TAIL_RISK.md.

    Attributes:
        total_env_steps: length of the training [env steps].
        num_env_runners: remote sampling processes; 0 samples in this one.
        num_envs_per_env_runner: accounts stepped together in each.
        rollout_length: steps of each account between two iterations.
        gradient_steps: in each iteration.
        batch_size: transitions in one gradient step; with memory, in whole sequences.
        buffer_size: transitions kept; the oldest make way.
        learning_starts: transitions before the first gradient step, by the fresh policy.
        burn_in: first rows of each sequence that only warm up the memory (Kapturowski et al. 2019); 0 without memory.
        learning_rate: Adam's, of policy, value head and temperature; number or schedule.
        critic_learning_rate: Adam's, of the critics; number or schedule. An actor that is as fast as they are runs to a corner
            of the action space before they know better.
        gamma: discount a step; 0 looks at the next bar alone.
        tau: share of the way that slow copies go in each gradient step.
        grad_clip: largest norm of each part's gradient; None for no limit.
        num_critics: C.
        quantiles: M of each critic.
        drop_per_critic: d, largest quantiles of the target taken off for each critic; 0 for the plain distribution.
        critic_layers: widths of the critics' hidden layers, on features of an encoder of the model's kind.
        huber: κ of the quantile Huber loss [standard deviations of the reward]; 0 is the pure quantile loss.
        initial_alpha: first temperature of the entropy; it is then learnt.
        target_entropy: entropy that the temperature seeks [nats]; None for the one by which actions in the middle of the space
            spread as SAC's −A means.
        cvar_alpha: share of the worst returns that CVaR is the mean of.
        cvar_weight: w in [0, 1] of the actor's objective; 0 is plain TQC.
        save_buffer: put the replay buffer into checkpoints, so that a resumed run goes on to the bit. Without it a resumed run
            first collects `learning_starts` transitions anew, with the policy it has.
        num_learners: 0 learns in this process, 1 in a remote one.
        num_threads: torch threads of a local learner.
        metrics_window: episodes over which returns are averaged.
    """

    takes_modes = False

    algorithm: Literal["tqc"] = "tqc"
    total_env_steps: int = 200_000
    num_env_runners: int = 0
    num_envs_per_env_runner: int = 64
    rollout_length: int = 32
    gradient_steps: int = 128
    batch_size: int = 512
    buffer_size: int = 100_000
    learning_starts: int = 10_000
    burn_in: int = 0
    learning_rate: float | Schedule = 2e-4
    critic_learning_rate: float | Schedule = 3e-3
    gamma: float = 0.99
    tau: float = 0.005
    grad_clip: float | None = 10.0
    num_critics: int = 2
    quantiles: int = 25
    drop_per_critic: int = 2
    critic_layers: tuple[int, ...] = (64,)
    huber: float = 0.0
    initial_alpha: float = 0.1
    target_entropy: float | None = None
    cvar_alpha: float = 0.05
    cvar_weight: float = 0.0
    save_buffer: bool = True
    num_learners: int = 0
    num_threads: int = 1
    metrics_window: int = 100

    def __post_init__(self) -> None:
        for name in ("learning_rate", "critic_learning_rate"):
            object.__setattr__(self, name, checked_schedule(name, getattr(self, name)))
        object.__setattr__(self, "critic_layers", tuple(self.critic_layers))
        for name in _AT_LEAST_ONE:
            self.expect(name, getattr(self, name) >= 1, "at least 1")
        for name in ("num_env_runners", "burn_in", "huber"):
            self.expect(name, getattr(self, name) >= 0, "0 or more")
        self.expect("gamma", 0 <= self.gamma <= 1, "a discount in [0, 1]")
        self.expect("tau", 0 < self.tau <= 1, "a share in (0, 1], usually 0.005")
        self.expect("grad_clip", self.grad_clip is None or self.grad_clip > 0, "above 0, or null for none")
        self.expect("quantiles", 2 <= self.quantiles <= 512, "2 to 512")
        self.expect("drop_per_critic", 0 <= self.drop_per_critic < self.quantiles, f"0 to quantiles − 1 = {self.quantiles - 1}")
        self.expect("critic_layers", all(1 <= width <= 8_192 for width in self.critic_layers), "widths from 1 to 8192")
        self.expect("initial_alpha", self.initial_alpha > 0, "above 0")
        self.expect("cvar_alpha", 0 < self.cvar_alpha <= 1, "a share of the returns in (0, 1], usually 0.05")
        self.expect("cvar_weight", 0 <= self.cvar_weight <= 1, "a weight in [0, 1]")
        # Gradients are taken part by part, which torch's data-parallel wrapper does not average.
        self.expect("num_learners", self.num_learners in (0, 1), "0 (this process) or 1 (a remote one)")
        starts = self.batch_size <= self.learning_starts <= self.buffer_size
        self.expect("learning_starts", starts, f"batch_size = {self.batch_size} to buffer_size = {self.buffer_size}")

    def build(self, model: ModelConfig, env_name: str, seed: int) -> TQCAlgorithmConfig:
        """RLlib's config for this training, see `build_tqc`."""
        return build_tqc(self, model, env_name, seed=seed)

    def check(self, model: ModelConfig, task: TradingTask) -> None:
        """Actions must be weights, and a sequence and a tail of at least one.

        Raises:
            ConfigError: numbered actions; a burn-in that leaves nothing of a sequence; a tail of less than one atom.
        """
        if isinstance(task.action_space, gym.spaces.Discrete):
            raise ConfigError(
                f"training.algorithm = tqc needs weights that follow the action smoothly; {task.config.id} chooses one "
                f"of {task.action_space.n} numbered actions. Use ppo, or Portfolio-v0 or PairLeverage-v0."
            )
        length = min(model.sequence_length, self.rollout_length)
        if self.burn_in >= length:
            raise ConfigError(
                f"training.burn_in = {self.burn_in} leaves nothing of sequences of {length} steps. Lower it (0 without memory)."
            )
        atoms = self.num_critics * self.quantiles
        if self.cvar_weight > 0 and self.cvar_alpha * atoms < 1:
            raise ConfigError(
                f"training.cvar_alpha = {self.cvar_alpha} of num_critics × quantiles = {atoms} atoms is less than one. "
                "Raise training.quantiles."
            )

    def passes(self, done: int) -> int:
        return round(done * (1 + 3 * self.replays_per_env_step))

    @property
    def rollout_size(self) -> int:
        """Env steps of an iteration, of all runners."""
        return self.rollout_length * self.num_envs_per_env_runner * max(1, self.num_env_runners)

    @property
    def replays_per_env_step(self) -> float:
        """How often a transition is learnt from, on average."""
        return self.gradient_steps * self.batch_size / self.rollout_size


_AT_LEAST_ONE = (
    "total_env_steps",
    "num_envs_per_env_runner",
    "rollout_length",
    "gradient_steps",
    "batch_size",
    "buffer_size",
    "learning_starts",
    "num_critics",
    "num_threads",
    "metrics_window",
)


class TQCAlgorithmConfig(AlgorithmConfig):
    """RLlib's AlgorithmConfig for `TQC`."""

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class or TQC)

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=TQCModule)

    def get_default_learner_class(self) -> type[TQCLearner]:
        return TQCLearner


class TQC(RolloutTraining, Algorithm):
    """RLlib's Algorithm with a replay buffer in its learner. Its own TQC stays aside: docs/decisions/37."""

    @classmethod
    def get_default_config(cls) -> TQCAlgorithmConfig:
        return TQCAlgorithmConfig(algo_class=cls)

    def env_steps_wanted(self) -> int:
        """An iteration's; while the buffer holds less than `learning_starts`, what is missing."""
        stored = [answer.get() for answer in self.learner_group.foreach_learner(_stored)]
        missing = self.config.learner_config_dict[TRAINING]["learning_starts"] - max(stored, default=0)
        return max(self.config.total_train_batch_size, missing)

    def for_learners(self, rollouts: list[Transitions]) -> dict[str, Any]:
        if self.config.num_learners == 0:
            return {"episodes": rollouts}
        return {"episodes_refs": [ray.put(rollout) for rollout in rollouts]}


def build_tqc(
    training: TQCTrainingConfig,
    model: ModelConfig,
    env_name: str,
    env_config: dict[str, Any] | None = None,
    seed: int = 0,
) -> TQCAlgorithmConfig:
    """RLlib's config for this training; `.build_algo()` starts it. Arguments as `build_ppo`."""
    shape = {NUM_CRITICS: training.num_critics, QUANTILES: training.quantiles, CRITIC_LAYERS: list(training.critic_layers)}
    spec, model_config = q_module_spec(TQCModule, model, **shape, **{INITIAL_ALPHA: training.initial_alpha})
    config = (
        TQCAlgorithmConfig()
        .environment(env_name, env_config=dict(env_config or {}), normalize_actions=False, clip_actions=False)
        .rl_module(rl_module_spec=spec, model_config=model_config)
        .training(
            learner_class=TQCLearner,
            train_batch_size_per_learner=training.rollout_size,
            gamma=training.gamma,
            grad_clip=training.grad_clip,
            grad_clip_by="global_norm",
            learner_config_dict={TRAINING: asdict(training)},
        )
        .learners(num_learners=training.num_learners)
        .debugging(seed=seed, log_level="ERROR")
        .reporting(metrics_num_episodes_for_smoothing=training.metrics_window)
        .callbacks(EpisodeTerms, on_algorithm_init=SetThreads(training.num_threads))
        .fault_tolerance(restart_failed_env_runners=True)
    )
    set_sampling(config, training, model, ReplayEnvRunner)
    return config


def _stored(learner: TQCLearner) -> int:
    return learner.num_stored
