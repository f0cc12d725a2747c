"""PPO that goes on from another training's policy: its weights, its normaliser, and a pull towards it that fades."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import DEFAULT_MODULE_ID
from torch import Tensor

from envs.errors import ConfigError
from rlplatform.algorithms.connectors import NormalizeObservations
from rlplatform.algorithms.rollout import Rollout
from rlplatform.models.actor_critic import ActorCritic
from rlplatform.models.policy import ENSEMBLE_DIRECTORY, Policy

PRETRAINED = "pretrained"


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Where PPO starts: the policy of an earlier run, offline or not, with its normaliser.

    Attributes:
        run: directory of that run, or of a policy.
        kl_coeff: weight of KL(earlier policy ‖ policy) in the loss at the start; keeps PPO near what the data supports
            while its critic is still young.
        kl_anneal_env_steps: over which the weight falls to 0, linearly [env steps].
        load_value: take the value head too; no for a run that trained none, such as behaviour cloning.
        mix_coeff: weight of −log π(a | s) over transitions that the earlier run learnt from, in every gradient step; fades as
            `kl_coeff` does. 0 for none.
        mix_batch_size: how many of them in a gradient step.
    """

    run: str
    kl_coeff: float = 0.1
    kl_anneal_env_steps: int = 200_000
    load_value: bool = True
    mix_coeff: float = 0.0
    mix_batch_size: int = 256

    def __post_init__(self) -> None:
        for name, least in (("kl_coeff", 0), ("mix_coeff", 0), ("kl_anneal_env_steps", 1), ("mix_batch_size", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"training.pretrain.{name} = {getattr(self, name)}; expected at least {least}.")

    @property
    def policy_directory(self) -> Path:
        """Of the policy itself.

        Raises:
            ConfigError: there is none.
        """
        for directory in (Path(self.run) / "policy", Path(self.run)):
            if (directory / ENSEMBLE_DIRECTORY).is_dir():
                raise ConfigError(
                    f"training.pretrain.run = {self.run!r} is an ensemble; a training goes on from one network. Distil it into "
                    "one first: docs/ENSEMBLES.md."
                )
            if (directory / "policy.safetensors").is_file():
                return directory
        raise ConfigError(f"training.pretrain.run = {self.run!r} has no policy. Give a finished run, such as results/RUN.")


def start_from(algorithm: Algorithm, policy: Policy, load_value: bool = True) -> None:
    """Give learners and runners the policy's weights and its normaliser, before the first rollout.

    The normaliser counts as one more contributor: the moments of the data stay in and those of the rollouts come on top.

    Raises:
        ConfigError: the training has another model, observation or action than the policy.
    """
    weights = _weights_for(algorithm, policy, load_value)
    algorithm.learner_group.foreach_learner(partial(_teach_learner, weights=weights))
    # Not by `sync_weights`: runners ignore weights that are no newer than their own, by a count of updates that is still 0.
    moments = None if policy.normalizer is None else policy.normalizer.state()
    algorithm.env_runner_group.foreach_env_runner(partial(_teach_runner, weights=weights, moments=moments))


def _weights_for(algorithm: Algorithm, policy: Policy, load_value: bool) -> dict[str, np.ndarray]:
    """The weights by the names that they have in the module."""
    ours = algorithm.learner_group.get_weights([DEFAULT_MODULE_ID])[DEFAULT_MODULE_ID]
    weights = {f"actor_critic.{name}": tensor.numpy() for name, tensor in policy.actor_critic.state_dict().items()}
    different = [name for name in ours.keys() | weights.keys() if np.shape(ours.get(name)) != np.shape(weights.get(name))]
    if different or ours.keys() != weights.keys():
        raise ConfigError(
            f"training.pretrain: the earlier policy is a {policy.config.kind} of {policy.obs_size} observations and does not "
            f"fit this training's model, first at {min(different)}. Use the same env, features and model."
        )
    return {name: array for name, array in weights.items() if load_value or not name.startswith("actor_critic.value.")}


def _teach_learner(learner: Any, weights: dict[str, np.ndarray]) -> None:
    _load(learner.module[DEFAULT_MODULE_ID].unwrapped(), weights)


def _teach_runner(runner: Any, weights: dict[str, np.ndarray], moments: dict[str, Any] | None) -> None:
    _load(runner.module, weights)
    for connector in runner._env_to_module[NormalizeObservations] if moments else ():
        connector.set_state({PRETRAINED: moments})


def _load(module: torch.nn.Module, weights: dict[str, np.ndarray]) -> None:
    module.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in weights.items()}, strict=False)


def anchor_settings(pretrain: PretrainConfig) -> dict[str, Any]:
    """What an `Anchor` needs, as plain arrays that travel in a config to learners on any machine."""
    policy = Policy.load(pretrain.policy_directory)
    weights = {name: tensor.numpy() for name, tensor in policy.actor_critic.state_dict().items()}
    return {"weights": weights, "coeff": pretrain.kl_coeff, "env_steps": pretrain.kl_anneal_env_steps}


class Anchor:
    """The earlier policy as a learner sees it: what it says of each rollout, and how much that counts.

        loss += c(s) · mean KL(π₀ ‖ π),    c(s) = c₀ max(0, 1 − s / S)

    π₀ reads the rollout's observations as they are, normalised by statistics that go on learning, and keeps a recurrent
    state of its own from rollout to rollout.

    Attributes:
        coeff: c at the present env step.
        state: π₀'s recurrent state (B, H); None before the first rollout.
    """

    def __init__(self, settings: dict[str, Any], like: ActorCritic, device: torch.device | str) -> None:
        self._network = ActorCritic(like.config, like.obs_size, like.head)
        self._network.load_state_dict({name: torch.from_numpy(np.array(x)) for name, x in settings["weights"].items()})
        self._network.to(device).eval().requires_grad_(False)
        self._first_coeff, self._env_steps = settings["coeff"], settings["env_steps"]
        self.state: Tensor | None = None
        self.coeff = self._first_coeff

    def at(self, env_steps: int) -> None:
        """Move the coefficient on."""
        self.coeff = self._first_coeff * max(0.0, 1.0 - env_steps / self._env_steps)

    @torch.no_grad()
    def params(self, rollout: Rollout) -> Tensor:
        """(T, B, P) of π₀'s action distribution."""
        accounts = rollout.obs.shape[1]
        if self.state is None or len(self.state) != accounts:
            self.state = self._network.initial_state(accounts).to(rollout.obs.device)
        out = self._network.forward_sequence(rollout.obs, rollout.first, self.state)
        self.state = out.state
        return out.params

    def divergence(self, anchor_params: Tensor, params: Tensor, weight: Tensor | None = None) -> Tensor:
        """Mean KL(π₀ ‖ π) [nats], each transition's times its `weight` if given."""
        head = self._network.head
        divergence = head.distribution(anchor_params).kl(head.distribution(params))
        return (divergence if weight is None else weight * divergence).mean()
