"""What the training loop drives: an RLlib Algorithm that learns from an environment, or one that learns from a dataset."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
from ray.rllib.algorithms.algorithm import Algorithm

from envs import make
from envs.accounts import TradingTask
from envs.catalog import make_task
from envs.errors import PlatformError
from envs.tape import MarketTape
from envs.trading_env import TradingEnv, TradingVectorEnv
from rlplatform.algorithms.differentiable import DifferentiableTrainingConfig
from rlplatform.algorithms.differentiable_algorithm import DifferentiableAlgorithm
from rlplatform.algorithms.export import policy_from
from rlplatform.algorithms.offline_data import register_episodes
from rlplatform.algorithms.offline_rows import mix_logged_rows
from rlplatform.algorithms.pretraining import start_from
from rlplatform.algorithms.q_learner import offline_policy
from rlplatform.algorithms.registration import register_trading_env
from rlplatform.algorithms.tqc import TQCTrainingConfig
from rlplatform.experiments.config import ExperimentConfig
from rlplatform.experiments.learning_data import learning_data
from rlplatform.experiments.logged_data import logged_episodes
from rlplatform.experiments.pretraining import dataset_of
from rlplatform.experiments.scenario_training import learning_rows
from rlplatform.experiments.selection import HeldOutJudge, off_policy_judge
from rlplatform.experiments.standing import Standing
from rlplatform.experiments.visible_rows import training_rows
from rlplatform.models.config import ModelConfig
from rlplatform.models.hierarchical_head import GATE_FIGURES
from rlplatform.models.layout import ObservationLayout
from rlplatform.models.policy import Policy

Row = dict[str, Any]
Result = Mapping[str, Any]


class TrainingDivergedError(PlatformError):
    """A loss is no number any more."""


class ProcessLostError(PlatformError):
    """A process of the training died, and the training cannot go on without it; from its last checkpoint it can."""


class Trainer(ABC):
    """An Algorithm and how to read it.

    Attributes:
        unit: what its length is counted in, a field of `Standing`.
        state_name: its directory in a checkpoint.
        algorithm: built, and stopped by whoever made the trainer.
        judge: chooses the best checkpoint by held-out episodes; None where none are held out.
    """

    unit: ClassVar[str]
    losses: ClassVar[tuple[str, ...]]  # that must stay finite
    renamed: ClassVar[Mapping[str, str]]  # RLlib's names of the learner's metrics → ours
    state_name: ClassVar[str] = "rllib"
    algorithm: Algorithm | DifferentiableAlgorithm
    judge: HeldOutJudge | None = None

    @abstractmethod
    def policy(self) -> Policy:
        """The policy as it stands."""

    @abstractmethod
    def _done(self, result: Result, before: int) -> int:
        """Units of the whole training so far, of which `before` were done before this iteration."""

    def _figures(self, result: Result, previous: Row) -> Row:
        """Further figures of this iteration."""
        return {}

    def has_moved(self, result: Result, standing: Standing) -> bool:
        """Whether this iteration did anything; it did not where every runner had died."""
        before = getattr(standing, self.unit)
        return self._done(result, before) > before

    def row(self, result: Result, standing: Standing, seconds: float, previous: Row | None = None) -> Row:
        """One line of metrics.jsonl from RLlib's result; moves `standing` on by one iteration.

        Args:
            previous: the row before; what is not known anew is taken from it.

        Raises:
            TrainingDivergedError: a loss is not finite.
        """
        before = getattr(standing, self.unit)
        done = self._done(result, before)
        standing.iteration += 1
        setattr(standing, self.unit, done)
        standing.train_seconds += seconds
        row: Row = {
            "iteration": standing.iteration,
            self.unit: done,
            f"{self.unit}_per_second": (done - before) / seconds,
            "seconds": standing.train_seconds,
            **self._figures(result, previous or {}),
        }
        learner = result["learners"]["default_policy"]
        row |= {ours: number(learner[theirs]) for theirs, ours in self.renamed.items() if theirs in learner}
        for name in self.losses:
            if name in row and row[name] is None:
                raise TrainingDivergedError(
                    f"training diverged: {name} is not finite at iteration {standing.iteration} ({done:,} "
                    f"{self.unit.replace('_', ' ')}). Lower training.learning_rate or set training.grad_clip; "
                    "checkpoints/last holds the last good weights."
                )
        return row


class OnlineTrainer(Trainer):
    """PPO in training environments; they get the tape cut at the end of training."""

    unit = "env_steps"
    losses = ("policy_loss", "value_loss")
    _own_figures: tuple[str, ...] = ()
    renamed: ClassVar = {
        "policy_loss": "policy_loss",
        "vf_loss": "value_loss",
        "entropy": "entropy",
        "mean_kl_loss": "kl",
        "vf_explained_var": "value_explained_variance",
        "gradients_default_optimizer_global_norm": "gradient_norm",
        "default_optimizer_learning_rate": "learning_rate",
        "kl_to_pretrained": "kl_to_pretrained",
        "imitation_loss": "imitation_loss",
        "exploration_weight": "exploration_weight",
        "entropy_in_drawdown": "entropy_in_drawdown",
    } | {name: name for name in ("quantile_loss", "value_at_risk", "cvar", "tail_share", "quantile_crossings", *GATE_FIGURES)}

    def __init__(self, config: ExperimentConfig, tape: MarketTape, seed: int, fresh: bool) -> None:
        self._config, self._own_figures = config, config.training.figures
        name = _registered_env(config, tape)
        rllib_config, pretrain = config.training.build(config.model, name, seed), config.training.pretrain
        if pretrain is not None and pretrain.mix_coeff > 0:
            episodes, manifest = logged_episodes(dataset_of(pretrain), config.env.observe)
            data, normalizer = register_episodes(episodes, manifest.space), Policy.load(pretrain.policy_directory).normalizer
            mix_logged_rows(rllib_config, data, normalizer, pretrain)
        self.algorithm = rllib_config.build_algo()
        if fresh and pretrain is not None:
            start_from(self.algorithm, Policy.load(pretrain.policy_directory), pretrain.load_value)

    def policy(self) -> Policy:
        return policy_from(self.algorithm, self._config.env.id)

    def _done(self, result: Result, before: int) -> int:
        return int(result.get("env_runners", {}).get("num_env_steps_sampled_lifetime", before))

    def _figures(self, result: Result, previous: Row) -> Row:
        """Of episodes; where none ended in this iteration those of the row before stand. And of an algorithm of one's own."""
        sampled, learner = result["env_runners"], result["learners"]["default_policy"]
        figures = {
            "episode_return_mean": number(sampled.get("episode_return_mean")),
            "episode_length_mean": number(sampled.get("episode_len_mean")),
            **{f"episode_{name}": number(value) for name, value in sampled.get("episode", {}).items()},
            **{name: number(learner.get(name)) for name in self._own_figures},
        }
        for name, value in previous.items():
            if name.startswith("episode_") and figures.get(name) is None:
                figures[name] = value
        return figures


class TQCTrainer(OnlineTrainer):
    """Truncated quantile critics over a replay buffer, in training environments."""

    losses = ("policy_loss", "critic_loss", "value_loss")
    renamed: ClassVar = {
        name: name for name in ("policy_loss", "critic_loss", "value_loss", "entropy", "alpha", "q_policy", "cvar")
    } | {"policy_learning_rate": "learning_rate"}


class DifferentiableTrainer(OnlineTrainer):
    """Gradients through the ledger, in accounts of the training environment."""

    losses = ("policy_loss", "gradient_norm")
    renamed: ClassVar = {
        name: name
        for name in (
            *("policy_loss", "bar_reward", "gradient_norm", "learning_rate", "turnover", "kl_to_pretrained"),
            *GATE_FIGURES,
        )
    }
    state_name = "learner"

    def __init__(self, config: ExperimentConfig, tape: MarketTape, fresh: bool) -> None:
        rows, training = learning_rows(config, tape), config.training
        task = _training_task(config, rows)
        window = task.tape.row_range(str(config.split.train[0]))
        self.algorithm = DifferentiableAlgorithm(training, config.model, task, window, config.seed, config.env.id)
        if fresh and training.pretrain is not None:
            self.algorithm.start_from(Policy.load(training.pretrain.policy_directory))

    def policy(self) -> Policy:
        return self.algorithm.policy()


class OfflineTrainer(Trainer):
    """BC, MARWIL, CQL, IQL or discrete CQL on logged episodes; no environment."""

    unit = "gradient_steps"
    losses = ("policy_loss", "value_loss", "critic_loss", "total_loss")
    renamed: ClassVar = {
        name: name
        for name in ("policy_loss", "value_loss", "critic_loss", "total_loss", "entropy", "gap", "q_data", "squared_error")
    } | {"vf_loss": "value_loss", "vf_explained_var": "value_explained_variance"}

    def __init__(self, config: ExperimentConfig, seed: int) -> None:
        self._config = config
        estimator = off_policy_judge(config)
        held_out = None if estimator is None else config.evaluation.held_out
        data = learning_data(config.dataset, config.env.observe, held_out, config.seed)
        self.judge = None if data.held_out is None else HeldOutJudge(estimator, data.held_out, config)
        self.algorithm = config.training.build(config.model, data.register(), seed).build_algo()

    def policy(self) -> Policy:
        return offline_policy(self.algorithm, self._config.env.id)

    def _done(self, result: Result, before: int) -> int:
        return before + self._config.training.steps_per_iteration


def make_trainer(config: ExperimentConfig, tape: MarketTape, iteration: int, draws_restored: bool = False) -> Trainer:
    """The trainer of this config.

    Args:
        tape: of all rows.
        iteration: after which the training goes on; 0 for a fresh one. It has a part in the seed: a resumed run must not
            repeat its first draws.
        draws_restored: random numbers will be those of the checkpoint, so the seed is the run's own.
    """
    config, seed = replace(config, model=bound_model(config, tape)), config.seed
    if iteration > 0 and not draws_restored:
        seed = int(np.random.SeedSequence([seed, iteration]).generate_state(1)[0]) % 2**30
    if config.dataset is not None:
        return OfflineTrainer(config, config.seed)  # number k of its minibatches is a function of the seed and k
    if isinstance(config.training, DifferentiableTrainingConfig):
        return DifferentiableTrainer(config, tape, fresh=iteration == 0)  # its checkpoint holds its draws
    if isinstance(config.training, TQCTrainingConfig):
        return TQCTrainer(config, tape, seed, fresh=iteration == 0)
    return OnlineTrainer(config, tape, seed, fresh=iteration == 0)


def bound_model(config: ExperimentConfig, tape: MarketTape) -> ModelConfig:
    """The model for the assets of this environment; what it fits, it fits on the rows that training environments get."""
    layout = ObservationLayout(tape.symbols, training_env(config, tape).task.observation_names)
    rows = training_rows(config, tape)
    return config.model.bound_to(layout, rows.gross[rows.row_range(str(config.split.train[0]))[0] :] - 1.0)


def training_env(config: ExperimentConfig, tape: MarketTape) -> TradingEnv:
    """One training account; what does not suit the tape shows here, not inside a worker."""
    return make(config.env, training_rows(config, tape), str(config.split.train[0]))


def number(value: Any) -> float | None:
    """A finite number, or None."""
    value = None if value is None else float(value)
    return value if value is not None and math.isfinite(value) else None


def _registered_env(config: ExperimentConfig, tape: MarketTape) -> str:
    """The training environment's name for RLlib, on the rows that a training may see."""
    start, rows = str(config.split.train[0]), learning_rows(config, tape)
    makers = partial(_make_training_env, start), partial(_make_training_vec, start)
    return register_trading_env(config.env.id, rows, *makers, _training_task(config, rows))


def _training_task(config: ExperimentConfig, rows: MarketTape) -> TradingTask:
    """With its table of observations made, so that runners of one node share it instead of each making its own."""
    task, _ = make_task(config.env, rows)
    _ = task.observation_table
    return task


def _make_training_env(start: str, task: TradingTask, **_: Any) -> TradingEnv:
    return TradingEnv(task, task.tape.row_range(start))


def _make_training_vec(start: str, task: TradingTask, num_envs: int, **options: Any) -> TradingVectorEnv:
    return TradingVectorEnv(task, task.tape.row_range(start), num_envs, **options)
