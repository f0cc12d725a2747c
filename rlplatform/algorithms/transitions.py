"""Transitions: what a runner brings to a replay buffer, time-major arrays with observations as the environment gave them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from rlplatform.algorithms.rollout import Rollout
from rlplatform.algorithms.vector_env_runner import VectorEnvRunner


@dataclass(frozen=True, kw_only=True, eq=False)
class Transitions:
    """T steps of B accounts. Tensors, time first; a leaf for Ray.

    Observations are raw, for the statistics that normalise them move on while they lie in a buffer. That of an episode's
    end is not here: row t + 1 is already the next episode's. A terminated step needs none, a truncated one is left out.

    Attributes:
        obs: (T + 1, B, D), the last row follows the last step.
        first: (T + 1, B) bool, an episode begins with this observation.
        actions: (T, B, A).
        rewards: (T, B).
        terminated: (T, B) bool, the account's ruin: nothing comes after.
        truncated: (T, B) bool, the window's end: something comes after that nobody saw.
        states: (K, B, H) the actor's recurrent state before rows 0, L, 2L, … of segments of length L = T / K.
        centre, factors: (D,) by which observations are normalised now: clip((obs − centre) · factors).
    """

    obs: Tensor
    first: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    states: Tensor
    centre: Tensor
    factors: Tensor

    def __len__(self) -> int:
        return self.rewards.numel()

    def env_steps(self) -> int:
        return len(self)

    def agent_steps(self) -> int:
        return len(self)

    @property
    def segment_length(self) -> int:
        return len(self.rewards) // len(self.states)

    def __reduce__(self) -> tuple[Callable, tuple]:
        return _from_arrays, tuple(getattr(self, f.name).numpy() for f in fields(self))  # Ray shares arrays without a copy


class ReplayEnvRunner(VectorEnvRunner):
    """A VectorEnvRunner whose rollouts are `Transitions`."""

    _seen: list[tuple[np.ndarray, np.ndarray]]

    def _roll(self, steps: int, explore: bool, random_actions: bool) -> Transitions:
        self._seen = []
        rollout = super()._roll(steps, explore, random_actions)
        obs, terminated = zip(*self._seen, strict=True)
        return self._transitions(rollout, np.stack([*obs, self._obs]), np.stack(terminated))

    def _step(self, actions: np.ndarray) -> tuple:
        obs = self._obs
        stepped = super()._step(actions)
        self._seen.append((obs, np.array(stepped[2])))
        return stepped

    def _transitions(self, rollout: Rollout, obs: np.ndarray, terminated: np.ndarray) -> Transitions:
        ended = torch.from_numpy(terminated)
        centre, factors = self._statistics(obs.shape[-1])
        return Transitions(
            obs=torch.from_numpy(obs.astype(np.float32)),
            first=torch.cat([rollout.first, rollout.done[-1:]]),
            actions=rollout.actions,
            rewards=rollout.reward,
            terminated=ended,
            truncated=rollout.done & ~ended,
            states=rollout.states,
            centre=torch.from_numpy(centre.astype(np.float32)),
            factors=torch.from_numpy(factors.astype(np.float32)),
        )

    def _statistics(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        connector = self._normalizer()
        if connector is None:
            return np.zeros(size), np.ones(size)
        moments = connector.normalizer
        return moments.centre, moments.factors


def _from_arrays(*arrays: np.ndarray) -> Transitions:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nobody writes to them
        return Transitions(**{f.name: torch.from_numpy(a) for f, a in zip(fields(Transitions), arrays, strict=True)})
