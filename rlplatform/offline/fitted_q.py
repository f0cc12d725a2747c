"""Fitted Q evaluation: the action values of a target policy, learnt from logged episodes without their probabilities.

Iterated regression on the Bellman backup under the target's actions (Le, Voloshin and Yue 2019):

    Q ← argmin Σ (r + γ V(s') − Q(s, a))²,    V(s') = E_{a' ~ π} Q(s', a'),    V(s') = 0 after ruin

Cross-fitted over episodes (Chernozhukov et al. 2018): the Q that corrects an episode was not trained on it.
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Generator, Tensor, nn

from envs.errors import ConfigError
from rlplatform.models.encoder import dense_layer
from rlplatform.models.mlp import MLPConfig, MLPEncoder
from rlplatform.offline.episodes import Episodes
from rlplatform.offline.estimators_target import TargetActions

Array = np.ndarray
AfterTruncation = Literal["bootstrap", "nothing"]
INPUT_CLIP = 10.0  # standardised inputs are clipped to ± this [standard deviations]
PLACES_AT_ONCE = 32_768


@dataclass(frozen=True, kw_only=True)
class FittedQConfig:
    """How Q is fitted.

    Attributes:
        layers: widths of the network.
        rounds: Bellman backups, each with a target network that stands still.
        steps_per_round: gradient steps on each backup.
        batch_size: rows of a gradient step.
        learning_rate: of Adam at the start; it falls to a tenth.
        weight_decay: decoupled, as in AdamW [per step, × learning rate].
        target_rate: how far the target network moves to the new one after a round, in (0, 1].
        folds: of the cross-fitting, at least 2.
    """

    layers: tuple[int, ...] = (64, 64)
    rounds: int = 120
    steps_per_round: int = 20
    batch_size: int = 512
    learning_rate: float = 5e-3
    weight_decay: float = 1e-3
    target_rate: float = 0.5
    folds: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", MLPConfig(layers=self.layers).layers)
        for name, least in (("rounds", 1), ("steps_per_round", 1), ("batch_size", 1), ("folds", 2)):
            if getattr(self, name) < least:
                raise ConfigError(f"fitted_q.{name} = {getattr(self, name)}; expected at least {least}.")
        for name in ("learning_rate", "target_rate"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"fitted_q.{name} = {getattr(self, name)}; expected in (0, 1].")
        if not 0 <= self.weight_decay < 1:
            raise ConfigError(f"fitted_q.weight_decay = {self.weight_decay}; expected in [0, 1).")


@dataclass(frozen=True, kw_only=True, eq=False)
class QValues:
    """Values along logged episodes, under the target policy, in units of the reward.

    Attributes:
        q: (R,) float64 of the logged actions.
        v: (R,) float64 of the observations at which they were taken.
        v_last: (E,) float64 of the last observations; 0 after ruin, and where nothing counts after a truncation.
    """

    q: Array
    v: Array
    v_last: Array


def cross_fitted_q(
    episodes: Episodes,
    target: TargetActions,
    gamma: float,
    config: FittedQConfig | None = None,
    after_truncation: AfterTruncation = "bootstrap",
    seed: int = 0,
) -> QValues:
    """Fitted Q evaluation in which each episode is valued by the networks of the other folds.

    Args:
        after_truncation: "bootstrap" values what would have come after a truncated episode; "nothing" ends the world there,
            and then Q also reads how many decisions are left.
        seed: of folds, networks and batches; the same seed gives the same values.

    Raises:
        ConfigError: fewer than two episodes, or a value that is not finite (γ = 1 with a bootstrap).
        ShapeError: `target` belongs to other episodes.
    """
    config = config or FittedQConfig()
    target.check_against(episodes)
    if len(episodes) < 2:
        raise ConfigError(f"fitted Q evaluation got {len(episodes)} episodes; cross-fitting needs at least 2. Collect more.")
    bootstraps = after_truncation == "bootstrap" and not episodes.terminated.all()
    if gamma >= 1 and bootstraps:
        raise ConfigError(
            f"gamma = {gamma:g} and {int((~episodes.terminated).sum())} truncated episodes: their value has no end. "
            "Give gamma < 1, or after_truncation: nothing to count the rewards of the window alone."
        )
    places = _places(episodes, target, gamma, after_truncation)
    fold_of = np.random.default_rng(seed).permutation(len(episodes)) % min(config.folds, len(episodes))
    place_fold = torch.from_numpy(np.concatenate([np.repeat(fold_of, episodes.lengths), fold_of]))
    q, v = torch.empty(episodes.num_rows, dtype=torch.float64), torch.empty(len(place_fold), dtype=torch.float64)
    for fold in range(int(fold_of.max()) + 1):
        generator = Generator().manual_seed(seed * 1_000_003 + fold)
        fitted = _fit(places, torch.nonzero(place_fold[: episodes.num_rows] != fold)[:, 0], config, generator)
        held_out = torch.nonzero(place_fold == fold)[:, 0]
        rows = held_out[held_out < episodes.num_rows]
        q[rows], v[held_out] = fitted.of_logged(places, rows).double(), fitted.of_places(places, held_out).double()
    ended = episodes.terminated | (after_truncation == "nothing")
    v_rows, v_last = v.numpy()[: episodes.num_rows], np.where(ended, 0.0, v.numpy()[episodes.num_rows :])
    return QValues(q=q.numpy(), v=v_rows, v_last=v_last)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Places:
    """Tensors of R decisions and R + E places (see `TargetActions`).

    Attributes:
        inputs: (R + E, D) float32, of the observation, and of what is left of the window where that counts.
        profile: (R + E,) discounted count of the decisions left if a window ends the world, else 1.
        probs, samples: (R + E, n) or (R + E, K, A) of the target.
        actions: (R,) or (R, A) logged.
        rewards: (R,).
        following: (R,) the place that comes after.
        discount: (R,) γ, or 0 where nothing comes after.
    """

    inputs: Tensor
    profile: Tensor
    probs: Tensor | None
    samples: Tensor | None
    actions: Tensor
    rewards: Tensor
    following: Tensor
    discount: Tensor


def _places(episodes: Episodes, target: TargetActions, gamma: float, after_truncation: AfterTruncation) -> _Places:
    rows, last = episodes.num_rows, episodes.is_last
    following = np.arange(1, rows + 1)
    following[episodes.ends] = rows + np.arange(len(episodes))
    ended = np.repeat(episodes.terminated | (after_truncation == "nothing"), episodes.lengths) & last
    inputs = np.concatenate([episodes.obs, episodes.last_obs]).astype(np.float32)
    profile = np.ones(len(inputs))
    if after_truncation == "nothing" and not episodes.terminated.all():
        profile = _annuity(_decisions_left(episodes), gamma)
        inputs = np.column_stack([inputs, profile.astype(np.float32)])
    discrete = target.samples is None
    return _Places(
        inputs=torch.from_numpy(inputs),
        profile=torch.from_numpy(profile.astype(np.float32)),
        probs=torch.from_numpy(target.probs) if discrete else None,
        samples=None if discrete else torch.from_numpy(np.ascontiguousarray(target.samples, np.float32)),
        actions=torch.from_numpy(np.ascontiguousarray(episodes.actions, np.int64 if discrete else np.float32)),
        rewards=torch.from_numpy(np.ascontiguousarray(episodes.rewards, np.float32)),
        following=torch.from_numpy(following),
        discount=torch.from_numpy(np.where(ended, 0.0, gamma).astype(np.float32)),
    )


def _decisions_left(episodes: Episodes) -> Array:
    """(R + E,) decisions until the window ends.

    Ruin cut an episode's window short; its planned end is taken to be that of the longest truncated episode, for the real
    end must not tell Q when ruin comes.
    """
    longest = int(episodes.lengths[~episodes.terminated].max())
    planned = np.where(episodes.terminated, np.maximum(longest, episodes.lengths), episodes.lengths)
    age = np.arange(episodes.num_rows) - np.repeat(episodes.starts, episodes.lengths)
    return np.concatenate([np.repeat(planned, episodes.lengths) - age, planned - episodes.lengths])


def _annuity(count: Array, gamma: float) -> Array:
    """Value of 1 at each of the next `count` decisions: (1 − γᶜ) / (1 − γ)."""
    return count.astype(np.float64) if gamma == 1 else (1.0 - gamma**count) / (1.0 - gamma)


class _Q(nn.Module):
    """Q(place, action) = profile · (level + scale · network(place, action)).

    The network reads standardised inputs. One output for each action; of continuous actions, which are inputs, one.
    """

    def __init__(self, config: FittedQConfig, places: _Places, rows: Tensor, generator: Generator) -> None:
        super().__init__()
        self.discrete = places.samples is None
        known = places.inputs[rows] if self.discrete else torch.cat([places.inputs[rows], places.actions[rows]], 1)
        std, self.mean = torch.std_mean(known.double(), 0, correction=0)
        self.std = torch.where(std > 1e-8, std, 1.0).float()  # an input that never varied is centred only
        self.mean = self.mean.float()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            self.encoder = MLPEncoder(MLPConfig(layers=config.layers, activation="relu"), known.shape[1])
            outputs = places.probs.shape[1] if self.discrete else 1
            self.head = dense_layer(self.encoder.feature_size, outputs, gain=0.01)
        self.level = 0.0
        self.scale = _scale(places, rows)

    def forward(self, inputs: Tensor, profile: Tensor) -> Tensor:
        """Q (..., n or 1) of inputs (..., D or D + A), profile (...)."""
        seen = ((inputs - self.mean) / self.std).clamp(-INPUT_CLIP, INPUT_CLIP)
        return profile[..., None] * (self.level + self.scale * self.head(self.encoder.layers(seen)))

    @torch.no_grad()
    def of_logged(self, places: _Places, rows: Tensor) -> Tensor:
        """Q (…,) of the actions that were taken at `rows`, without gradient."""
        return torch.cat([self.taken(places, part) for part in rows.split(PLACES_AT_ONCE)])

    def taken(self, places: _Places, rows: Tensor) -> Tensor:
        """Q (…,) of the actions that were taken at `rows`."""
        inputs, actions = places.inputs[rows], places.actions[rows]
        if self.discrete:
            return self(inputs, places.profile[rows]).gather(1, actions[:, None])[:, 0]
        return self(torch.cat([inputs, actions], 1), places.profile[rows])[:, 0]

    @torch.no_grad()
    def of_places(self, places: _Places, which: Tensor) -> Tensor:
        """V (…,) under the target's actions at `which` places, without gradient."""
        return torch.cat([self._values(places, part) for part in which.split(PLACES_AT_ONCE)])

    def _values(self, places: _Places, which: Tensor) -> Tensor:
        inputs, profile = places.inputs[which], places.profile[which]
        if self.discrete:
            return (places.probs[which] * self(inputs, profile)).sum(1)
        samples = places.samples[which]
        inputs = inputs[:, None].expand(-1, samples.shape[1], -1)
        return self(torch.cat([inputs, samples], 2), profile[:, None].expand(samples.shape[:2]))[..., 0].mean(1)


def _scale(places: _Places, rows: Tensor) -> float:
    """Rough standard deviation of values per unit of profile: rewards that keep no memory, summed with their discount."""
    discount = float(places.discount[rows].max())
    horizon = min(1.0 / max(1.0 - discount**2, 1e-9), len(rows))
    spread = float(places.rewards[rows].std(correction=0)) * math.sqrt(horizon) / float(places.profile[rows].mean())
    return spread if spread > 0 else 1.0


def _fit(places: _Places, rows: Tensor, config: FittedQConfig, generator: Generator) -> _Q:
    """The target network after the last round."""
    online = _Q(config, places, rows, generator)
    target = deepcopy(online)
    optimiser = torch.optim.AdamW(online.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    decay, slope = 0.1 ** (1.0 / config.rounds), _level_slope(places, rows)
    for _ in range(config.rounds):
        drawn = rows[torch.randperm(len(rows), generator=generator)[: config.steps_per_round * config.batch_size]]
        goals = _level_goals(target, places, drawn, slope)
        online.level = target.level
        _regress(online, optimiser, places, drawn, goals, config, generator)
        for old, new in zip(target.parameters(), online.parameters(), strict=True):
            old.data.lerp_(new.data, config.target_rate)
        for group in optimiser.param_groups:
            group["lr"] *= decay
    _level_goals(target, places, rows, slope)
    return target


def _level_slope(places: _Places, rows: Tensor) -> float:
    """Mean of profile − γ profile': what a level of 1 adds to Q − backup. Above 0, for every episode has a last row."""
    carried = places.discount[rows] * places.profile[places.following[rows]]
    return float((places.profile[rows] - carried).double().mean())


@torch.no_grad()
def _level_goals(q: _Q, places: _Places, rows: Tensor, slope: float) -> Tensor:
    """Bellman backups (…,) of `rows`, after the level of `q` was set so that they agree with it on average.

    The level is the slowest mode of the backup: iterated, it would need 1 / (1 − γ) rounds. Adding c to it adds c · slope
    to the mean of Q − backup, so the level that makes this zero is known at once.
    """
    following, discount = places.following[rows], places.discount[rows]
    goals = places.rewards[rows] + discount * q.of_places(places, following)
    residual = goals - q.of_logged(places, rows)
    shift = float(residual.double().mean()) / slope
    q.level += shift
    return goals + shift * discount * places.profile[following]


def _regress(
    q: _Q,
    optimiser: torch.optim.Optimizer,
    places: _Places,
    rows: Tensor,
    goals: Tensor,
    config: FittedQConfig,
    generator: Generator,
) -> None:
    """Gradient steps on the mean squared error, in units of the network's output."""
    unit = q.scale * float(places.profile[rows].mean())
    for _ in range(config.steps_per_round):
        batch = torch.randint(len(rows), (min(config.batch_size, len(rows)),), generator=generator)
        error = (q.taken(places, rows[batch]) - goals[batch]) / unit
        optimiser.zero_grad()
        error.square().mean().backward()
        optimiser.step()
