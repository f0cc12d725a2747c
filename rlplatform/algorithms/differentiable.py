"""The differentiable trainer's settings: a policy that learns from the gradient of its own wealth."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

import gymnasium as gym
import torch

from envs.accounts import TradingTask
from envs.errors import ConfigError
from rlplatform.algorithms.pretraining import PretrainConfig
from rlplatform.algorithms.schedules import Schedule, checked_schedule
from rlplatform.algorithms.settings import AlgorithmSettings
from rlplatform.models.config import ModelConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DifferentiableTrainingConfig(AlgorithmSettings):
    """Gradient ascent on the reward itself, through the ledger: no critic, no exploration, no sampled actions.

        maximise  J(θ) = mean over accounts and bars of R(s_t, a_t),   a_t = mode of π_θ(· | o_t),    s_{t+1} = ledger(s_t, a_t)

    ∂J/∂θ goes through the whole window of `window` bars: weights → cost, return, financing → wealth, drifted weights, drawdown
    → the next observation → the next weights, and the recurrent state. At the window's end the state of accounts and network
    is carried on, its gradient is not (truncated back-propagation through time; Williams & Peng 1990; for trading Moody &
    Saffell 2001). Prices do not answer to the account's trades beyond their impact, which is why this is exact where a policy
    gradient must guess.

    An update is one gradient step on `window` × `num_envs` env steps: budgets compare with PPO's, step by step.

    Attributes:
        total_env_steps: length of the training [env steps].
        window: bars through which gradients flow, and that pass between two updates.
        num_envs: accounts stepped together, of all learners.
        updates_per_iteration: updates between two rows of metrics.
        learning_rate: Adam's; number or schedule over env steps.
        weight_decay: of AdamW [per unit of learning rate].
        grad_clip: largest global norm of the gradient; None for no limit.
        account: how the policy reads the account's own columns (weights, drawdown, …). "gradient": as they are, and the
            gradient goes through them; "given": as they are, without gradient; "hidden": it never sees them, in training or
            later, and a window is one pass of network and ledger, faster. What changing holdings costs counts in all three.
        estimator: "pathwise", all of the above; or "grpo", which asks only for rewards: accounts of a group draw actions of
            their own from one state on one market, and what did better than its group becomes likelier. It takes numbered
            actions too. See `GroupWindows`.
        group_size: accounts of a group; for grpo.
        block_bars: mean length of blocks of the block bootstrap [bars]; None keeps history in its order. See `MarketWindows`.
        num_learners: remote learner processes, each with its share of the accounts; 0 learns in this one.
        num_threads: torch threads of each learner.
        metrics_window: episodes over which returns are averaged.
        device: of a local learner; "auto" takes a GPU if there is one.
        pretrain: start from an earlier run's policy instead of random weights, and stay near it while `kl_coeff` lasts.
    """

    takes_pretraining = True

    algorithm: Literal["differentiable"] = "differentiable"
    total_env_steps: int = 200_000
    window: int = 32
    num_envs: int = 64
    updates_per_iteration: int = 4
    learning_rate: float | Schedule = 1e-3
    weight_decay: float = 0.0
    grad_clip: float | None = 1.0
    account: Literal["gradient", "given", "hidden"] = "gradient"
    estimator: Literal["pathwise", "grpo"] = "pathwise"
    group_size: int = 8
    block_bars: int | None = None
    num_learners: int = 0
    num_threads: int = 1
    metrics_window: int = 100
    device: Literal["auto", "cpu", "cuda"] = "auto"
    pretrain: PretrainConfig | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "learning_rate", checked_schedule("learning_rate", self.learning_rate))
        for name in ("total_env_steps", "window", "num_envs", "updates_per_iteration", "num_threads", "metrics_window"):
            self.expect(name, getattr(self, name) >= 1, "at least 1")
        self.expect("weight_decay", self.weight_decay >= 0, "0 or more")
        self.expect("grad_clip", self.grad_clip is None or self.grad_clip > 0, "above 0, or null for none")
        self.expect("block_bars", self.block_bars is None or self.block_bars >= 2, "at least 2 bars, or null")
        shares = self.num_learners >= 0 and self.num_envs % max(1, self.num_learners) == 0
        self.expect("num_learners", shares, f"0 or more, dividing num_envs = {self.num_envs}")
        if self.estimator == "grpo":
            size, learners = self.group_size, max(1, self.num_learners)
            whole = size >= 2 and self.num_envs % (size * learners) == 0
            self.expect("group_size", whole, f"at least 2, whole groups of num_envs = {self.num_envs} for every learner")
            self.expect("account", self.account != "hidden", "gradient or given: grpo steps bar by bar")
        if self.pretrain is not None and self.pretrain.mix_coeff > 0:
            raise ConfigError(
                f"training.pretrain.mix_coeff = {self.pretrain.mix_coeff}: the differentiable trainer reads no logged rows. "
                "Set it to 0; pretrain.kl_coeff keeps the policy near the earlier one."
            )

    def check(self, model: ModelConfig, task: TradingTask) -> None:
        """Weights must be a differentiable function of actions.

        Raises:
            ConfigError: actions are numbered choices; or an account that cannot be hidden is.
        """
        if self.account == "hidden":
            if not (task.config.guards is task.config.shutdown is task.config.constraints is None):
                raise ConfigError(
                    "training.account = hidden takes a window in one pass, but env.guards, env.shutdown and env.constraints "
                    "follow the account bar by bar. Leave them out, or use training.account = gradient."
                )
            if not model.normalize_observations:
                raise ConfigError(
                    "training.account = hidden hides columns in the normaliser; model.normalize_observations = false has none."
                )
        if self.estimator == "grpo" and (task.config.guards is not None or task.config.shutdown is not None):
            raise ConfigError(
                "training.estimator = grpo copies accounts, and not their env.guards or env.shutdown. Leave these out."
            )
        if isinstance(task.action_space, gym.spaces.Discrete) and self.estimator == "pathwise":
            raise ConfigError(
                f"training.algorithm = differentiable needs weights that follow the action smoothly; {task.config.id} chooses "
                f"one of {task.action_space.n} numbered actions. Use ppo, or training.estimator: grpo, or Portfolio-v0."
            )

    @property
    def needs_ray(self) -> bool:
        """Learners of their own are Ray actors; in this process there is no need of it."""
        return self.num_learners > 0

    def passes(self, done: int) -> int:
        return 3 * done

    @property
    def batch_size(self) -> int:
        """Env steps of one update."""
        return self.window * self.num_envs


def learner_device(training: DifferentiableTrainingConfig) -> str:
    """ "cuda" or "cpu": what `training.device` comes to on this machine."""
    if training.device == "cpu" or training.num_learners > 0:
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if training.device == "cuda":
        logger.warning("training.device = cuda, but torch sees no GPU here; training goes on on the CPU.")
    return "cpu"
