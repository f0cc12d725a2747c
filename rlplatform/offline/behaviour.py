"""Behaviours: the policies that log a dataset, each with the probability of what it did."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from envs.accounts import TradingTask
from envs.errors import ConfigError
from rlplatform.features.scaler import FeatureScaler
from rlplatform.models.ensemble import Ensemble, load_policy
from rlplatform.models.heads import head_for
from rlplatform.models.policy import Policy
from rlplatform.offline.action_laws import ActionLaw, Drawn, Fixed, Greedy, Uniform, noisy
from rlplatform.offline.behaviour_config import BehaviourConfig, behaviour_config
from rlplatform.offline.target_weights import Question, target_weights
from rlplatform.offline.weight_actions import actions_for, feasible

Array = np.ndarray


class Behaviour(ABC):
    """A policy for B accounts at once. `begin` before each batch of episodes, then `act` row after row."""

    def begin(self, accounts: int) -> None:
        """New episodes for B accounts: forget what a recurrent policy remembers."""
        self.accounts = accounts

    @abstractmethod
    def law(self, rows: Array, obs: Array) -> ActionLaw:
        """The law of the next actions.

        Args:
            rows: (B,) row of the task's tape at which each account decides; only rows ≤ these are looked at.
            obs: (B, D) what the accounts see there.
        """

    def act(self, rows: Array, obs: Array, generator: torch.Generator) -> tuple[Array, Array]:
        """Actions (B, …) as the environment takes them, and their log-probability (B,) float32 [nats], NaN if none."""
        law = self.law(rows, obs)
        actions = law.sample(generator)
        return actions.numpy(), law.log_prob(actions).to(torch.float32).numpy()


class TableBehaviour(Behaviour):
    """Actions known for every row of the tape beforehand.

    Args:
        table: (T, …) actions as the environment takes them.
    """

    def __init__(self, table: Array) -> None:
        self.table = torch.from_numpy(np.ascontiguousarray(table))

    def law(self, rows: Array, obs: Array) -> Fixed:
        return Fixed(self.table[torch.from_numpy(np.asarray(rows, dtype=np.int64))])


class UniformBehaviour(Behaviour):
    """Random inside the action space."""

    def __init__(self, task: TradingTask) -> None:
        self.space = task.action_space

    def law(self, rows: Array, obs: Array) -> Uniform:
        return Uniform(self.space, len(rows))


class PolicyBehaviour(Behaviour):
    """A trained policy or an ensemble: a sample of its distribution, or its preferred action."""

    def __init__(self, policy: Policy | Ensemble, deterministic: bool) -> None:
        self.policy, self.deterministic = policy, deterministic

    def begin(self, accounts: int) -> None:
        super().begin(accounts)
        self.state = self.policy.initial_state(accounts)

    def law(self, rows: Array, obs: Array) -> ActionLaw:
        distribution, self.state, _ = self.policy.distribution(obs, self.state)
        return Fixed(distribution.mode()) if self.deterministic else Drawn(distribution)


class NoisyBehaviour(Behaviour):
    """Another behaviour with noise σ on continuous actions, and a share ε of uniform ones."""

    def __init__(self, base: Behaviour, task: TradingTask, config: BehaviourConfig) -> None:
        self.base, self.space, self.config = base, task.action_space, config
        self.head = head_for(task.action_space)

    def begin(self, accounts: int) -> None:
        super().begin(accounts)
        self.base.begin(accounts)

    def law(self, rows: Array, obs: Array) -> ActionLaw:
        law = self.base.law(rows, obs)
        if self.config.sigma:
            law = noisy(self.head, law.actions, self.config.sigma, self.config.margin)
        return Greedy(law, Uniform(self.space, len(rows)), self.config.epsilon) if self.config.epsilon else law


def make_behaviour(
    spec: str | Mapping[str, Any] | BehaviourConfig, task: TradingTask, scaler: FeatureScaler | None = None
) -> Behaviour:
    """The behaviour `spec` describes (see `behaviour_config`), ready for the task's tape.

    Args:
        scaler: of the tape's features; needed to read a forecast among them in its own unit.

    Raises:
        ConfigError: it makes no sense for this environment.
    """
    config = behaviour_config(spec)
    base = _base(config, task, scaler)
    if not (config.sigma or config.epsilon):
        return base
    if config.sigma and (config.kind == "uniform" or (config.kind == "policy" and not config.deterministic)):
        raise ConfigError(f"policy {config.kind} is random already; leave out +noise, or make it deterministic.")
    if config.sigma:
        noisy(head_for(task.action_space), torch.zeros(0, *task.action_space.shape), config.sigma, config.margin)
    return NoisyBehaviour(base, task, config)


def _base(config: BehaviourConfig, task: TradingTask, scaler: FeatureScaler | None) -> Behaviour:
    if config.kind == "uniform":
        return UniformBehaviour(task)
    if config.kind == "policy":
        return _policy_behaviour(config, task)
    signed = not task.config.caps.long_only
    weights = target_weights(Question(tape=task.tape, config=config, signed=signed, scaler=scaler))
    return TableBehaviour(actions_for(task, feasible(task, weights)))


def _policy_behaviour(config: BehaviourConfig, task: TradingTask) -> PolicyBehaviour:
    policy = load_policy(config.path)
    if policy.obs_size != len(task.observation_names):
        raise ConfigError(
            f"{config.path} reads {policy.obs_size} observations; {task.config.id} here has {len(task.observation_names)}. "
            "Collect with the config of the run that trained it."
        )
    if policy.head.plain != head_for(task.action_space):
        raise ConfigError(f"{config.path} acts in {policy.head.space()}; {task.config.id} here takes {task.action_space}.")
    return PolicyBehaviour(policy, config.deterministic)
