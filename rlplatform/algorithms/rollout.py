"""Rollout: T steps of B accounts as time-major arrays, and what a learner makes of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from envs.errors import ConfigError
from rlplatform.models.actor_critic import ActorCritic, ActorCriticOutput

MIN_STD = 1e-4  # of advantages; RLlib's own bound


@dataclass(frozen=True, kw_only=True, eq=False)
class Rollout:
    """What one runner sampled between two updates. Tensors, time first; a leaf for Ray, a sample batch for the learner.

    Attributes:
        obs: (T, B, D) normalised observations, as the policy saw them.
        first: (T, B) bool, an episode begins with this observation.
        actions: (T, B, …).
        params: (T, B, P) of the distribution the actions came from.
        log_prob: (T, B) of the actions.
        value: (T, B) V of each observation.
        reward: (T, B).
        done: (T, B) bool, the episode ended with this step.
        next_value: (T, B) V of the observation that followed: that of the next row, of the episode's last observation
            where it was truncated, 0 where it terminated.
        states: (K, B, H) recurrent state before rows 0, L, 2L, … of segments of length L = T / K.
        drawdown: (T, B) of the account at each observation, W/peak − 1; zeros where the training does not ask for it.
        quantiles, next_quantiles: (T, B, K) of the returns of which `value` and `next_value` are the means, rising; K is 0
            without a quantile critic.
    """

    obs: Tensor
    first: Tensor
    actions: Tensor
    params: Tensor
    log_prob: Tensor
    value: Tensor
    reward: Tensor
    done: Tensor
    next_value: Tensor
    states: Tensor
    drawdown: Tensor | None = None
    quantiles: Tensor | None = None
    next_quantiles: Tensor | None = None

    def __post_init__(self) -> None:
        if self.drawdown is None:
            object.__setattr__(self, "drawdown", torch.zeros_like(self.reward))
        for name in ("quantiles", "next_quantiles"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, self.reward.new_zeros(*self.reward.shape, 0))

    def __len__(self) -> int:
        return self.reward.numel()

    def env_steps(self) -> int:
        return len(self)

    def agent_steps(self) -> int:
        return len(self)

    @property
    def segment_length(self) -> int:
        return self.obs.shape[0] // self.states.shape[0]

    def split(self, parts: int) -> list[Rollout]:
        """By accounts, into equal parts; the last B mod parts accounts are left out, for learners must take equal steps.

        Raises:
            ConfigError: fewer accounts than parts.
        """
        accounts = self.reward.shape[1]
        if accounts < parts:
            raise ConfigError(
                f"{parts} learners share the {accounts} accounts of a runner; expected at least one for each. "
                "Raise training.num_envs_per_env_runner or lower training.num_learners."
            )
        width = accounts // parts
        pieces = [slice(i * width, (i + 1) * width) for i in range(parts)]
        return [Rollout(**{f.name: getattr(self, f.name)[:, piece] for f in fields(self)}) for piece in pieces]

    def __reduce__(self) -> tuple[Callable, tuple]:
        # As numpy arrays: Ray shares them without a copy. A pickled tensor is copied, and a slice of one brings along all
        # that it was cut from.
        return _from_arrays, tuple(np.ascontiguousarray(getattr(self, f.name).numpy(force=True)) for f in fields(self))


def _from_arrays(*arrays: np.ndarray) -> Rollout:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nobody writes to a rollout
        tensors = map(torch.from_numpy, arrays)
        return Rollout(**{f.name: tensor for f, tensor in zip(fields(Rollout), tensors, strict=True)})


def joined(rollouts: list[Rollout], device: torch.device | str = "cpu") -> Rollout:
    """Side by side along the accounts, on `device`; a single one is not copied."""
    columns = {f.name: [getattr(r, f.name).to(device, non_blocking=True) for r in rollouts] for f in fields(Rollout)}
    return Rollout(**{name: parts[0] if len(parts) == 1 else torch.cat(parts, 1) for name, parts in columns.items()})


def critic_columns(network: ActorCritic) -> tuple[str, ...]:
    """What the critic says of an observation, by the names that `ActorCriticOutput` and `Rollout` have for it."""
    return ("value",) if network.config.critic is None else ("value", "quantiles")


def following(stacked: dict[str, Tensor], after: ActorCriticOutput, last: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the critic says of the observation after each row: `next_value`, and `next_quantiles` where there are any.

    Args:
        stacked: (T, B, …) columns of a rollout.
        after: of the observation after the last row.
        last: (T, B, …) of the last observation of episodes that were cut, 0 elsewhere.
    """
    made = {}
    for name, at_end in last.items():
        done = stacked["done"] if at_end.ndim == 2 else stacked["done"][..., None]
        made[f"next_{name}"] = torch.where(done, at_end, torch.cat([stacked[name][1:], getattr(after, name)[None]]))
    return made


def generalised_advantages(rollout: Rollout, gamma: float, gae_lambda: float) -> Tensor:
    """Advantages (T, B) in one pass from the last row to the first.

        δ_t = r_t + γ V(s_{t+1}) − V(s_t),    A_t = δ_t + γ λ (1 − done_t) A_{t+1}

    Source: Schulman et al. (2016), High-dimensional continuous control using generalized advantage estimation.
    """
    delta = rollout.reward + gamma * rollout.next_value - rollout.value
    carry = gamma * gae_lambda * (~rollout.done)
    advantages = torch.empty_like(delta)
    running = torch.zeros_like(delta[0])
    for t in range(len(delta) - 1, -1, -1):
        running = torch.addcmul(delta[t], carry[t], running)
        advantages[t] = running
    return advantages


def standardised(advantages: Tensor) -> Tensor:
    """Mean 0, standard deviation 1 over the batch, as RLlib does it."""
    return (advantages - advantages.mean()) / advantages.std(correction=0).clamp(min=MIN_STD)


def segments(values: Tensor, length: int) -> Tensor:
    """(T, B, …) → (T/L · B, L, …): whole sequences, batch first, segment by segment."""
    t, b = values.shape[:2]
    return values.reshape(t // length, length, b, *values.shape[2:]).transpose(1, 2).reshape(-1, length, *values.shape[2:])


def segment_length(rollout_length: int, longest: int) -> int:
    """The length of sequences that cut a rollout into equal parts: the largest divisor of T that is ≤ `longest`.

    Where that is less than half of `longest`, the next larger divisor instead: T = 37 has only the divisors 1 and 37, and
    sequences of length 1 would train a recurrent policy without any memory.
    """
    divisors = [length for length in range(1, rollout_length + 1) if rollout_length % length == 0]
    below = max(length for length in divisors if length <= longest)
    above = min((length for length in divisors if length >= longest), default=rollout_length)
    return below if 2 * below >= min(longest, rollout_length) else above
