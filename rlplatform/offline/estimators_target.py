"""TargetActions: what the policy under judgement would do at every observation that logged episodes hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from envs.errors import ConfigError, ShapeError
from rlplatform.models.heads import CategoricalHead
from rlplatform.models.policy import Policy
from rlplatform.offline.episodes import Episodes

Array = np.ndarray
PADDED_ROWS = 65_536  # rows of one pass through the network, padding counted: bounds memory


@dataclass(frozen=True, kw_only=True, eq=False)
class TargetActions:
    """The law of the target policy's actions along E episodes of R decisions.

    Places are the observations of the R decisions in their order, then the E last ones: R + E in all. For discrete actions
    `probs` is given, for continuous ones `samples`.

    Attributes:
        log_prob: (R,) log density or mass of the logged actions [nats]; −inf where the target never takes one.
        probs: (R + E, n) mass of every action at each place.
        samples: (R + E, K, A) actions drawn at each place, all of equal weight.
        note: what a reader of an estimate must know of this law.

    Raises:
        ShapeError: not exactly one of `probs` and `samples`.
        ConfigError: a log_prob that is NaN or +inf.
    """

    log_prob: Array
    probs: Array | None = None
    samples: Array | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if (self.probs is None) == (self.samples is None):
            raise ShapeError("TargetActions: expected probs (discrete actions) or samples (continuous), and not both.")
        wrong = np.isnan(self.log_prob) | (self.log_prob == np.inf)
        if wrong.any():
            raise ConfigError(
                f"the target policy's log_prob is {self.log_prob[wrong][0]} at row {int(np.argmax(wrong))} of the episodes "
                f"({int(wrong.sum())} such rows). Check the observations there and the policy's weights."
            )

    def check_against(self, episodes: Episodes) -> None:
        """Raises:
        ShapeError: made for episodes of other lengths.
        """
        places = len(self.probs if self.samples is None else self.samples)
        expected = (episodes.num_rows, episodes.num_rows + len(episodes))
        if (len(self.log_prob), places) != expected:
            raise ShapeError(
                f"TargetActions hold {len(self.log_prob)} log_prob and {places} places; these episodes need "
                f"{expected[0]} and {expected[1]} (decisions, then last observations)."
            )


def discrete_target(probs: Array, episodes: Episodes, note: str = "") -> TargetActions:
    """A target whose masses (R + E, n) are known: rows of decisions first, then of the last observations."""
    with np.errstate(divide="ignore"):
        log_prob = np.log(np.asarray(probs, np.float64)[np.arange(episodes.num_rows), episodes.actions])
    return TargetActions(log_prob=log_prob, probs=np.asarray(probs, np.float32), note=note)


@torch.no_grad()
def target_actions(
    policy: Policy, episodes: Episodes, deterministic: bool = False, samples: int = 8, seed: int = 0
) -> TargetActions:
    """What `policy` would do along the episodes. Its memory starts empty with each episode and reads the logged past.

    Args:
        deterministic: judge the mode of the policy. On discrete actions it has mass 1; on continuous ones it has no density,
            so the stochastic policy stands in for it, and `note` says so.
        samples: K, actions drawn at each place; continuous actions only.
        seed: of these.

    Raises:
        ShapeError: observations or actions that the policy does not have.
        ConfigError: fewer than one sample.
    """
    _check(policy, episodes, samples)
    params = _params_at_places(policy, episodes)
    if isinstance(policy.head.plain, CategoricalHead):
        law = policy.head.distribution(params)
        probs = law.log_probs.exp()
        if deterministic:
            probs = torch.zeros_like(probs).scatter_(1, law.mode()[:, None], 1.0)
        return discrete_target(probs.numpy(), episodes)
    distribution = policy.head.distribution(params[: episodes.num_rows])
    log_prob = distribution.log_prob(torch.from_numpy(np.ascontiguousarray(episodes.actions, np.float32)))
    generator = torch.Generator().manual_seed(seed)
    drawn = [policy.head.distribution(params).sample(generator) for _ in range(samples)]
    note = "the deterministic policy has no density: the stochastic policy is judged in its place" if deterministic else ""
    return TargetActions(log_prob=log_prob.double().numpy(), samples=torch.stack(drawn, 1).numpy(), note=note)


def _check(policy: Policy, episodes: Episodes, samples: int) -> None:
    if episodes.obs.shape[1:] != (policy.obs_size,):
        raise ShapeError(
            f"the policy reads {policy.obs_size} observations; the episodes' have shape {episodes.obs.shape[1:]}. "
            "Judge it on episodes of the environment that it was trained for."
        )
    space, logged = policy.head.space(), episodes.actions
    fits = logged.shape[1:] == space.shape and np.issubdtype(logged.dtype, np.integer) == (space.shape == ())
    if not fits or (space.shape == () and len(logged) and not 0 <= logged.min() <= logged.max() < space.n):
        raise ShapeError(f"the policy acts in {space}; the episodes' actions are {logged.dtype} of shape {logged.shape}.")
    if samples < 1:
        raise ConfigError(f"action_samples = {samples}; expected at least 1.")


def _params_at_places(policy: Policy, episodes: Episodes) -> Tensor:
    """(R + E, num_params) float32. Episodes of like length go through the network together, padded at their end."""
    params = torch.empty(episodes.num_rows + len(episodes), policy.head.num_params)
    waiting = np.argsort(-episodes.lengths, kind="stable")
    while len(waiting):
        longest = int(episodes.lengths[waiting[0]]) + 1
        batch, waiting = np.split(waiting, [max(1, PADDED_ROWS // longest)])
        obs, places, inside = _padded(episodes, batch, longest)
        seen = obs if policy.normalizer is None else policy.normalizer.normalize(obs)
        out = policy.actor_critic.forward_sequence(
            torch.from_numpy(np.ascontiguousarray(seen, np.float32)), None, policy.initial_state(len(batch))
        )
        params[torch.from_numpy(places[inside])] = out.params[torch.from_numpy(inside)]
    return params


def _padded(episodes: Episodes, batch: Array, longest: int) -> tuple[Array, Array, Array]:
    """Observations (T, B, D) of some episodes with each one's last, their places (T, B), and where they are real (T, B)."""
    time = np.arange(longest)[:, None]
    lengths = episodes.lengths[batch]
    inside = time <= lengths
    places = np.where(time < lengths, episodes.starts[batch] + time, episodes.num_rows + batch)
    rows = np.minimum(places, episodes.num_rows - 1)
    obs = np.where((time < lengths)[..., None], episodes.obs[rows], episodes.last_obs[batch])
    return obs, places, inside
