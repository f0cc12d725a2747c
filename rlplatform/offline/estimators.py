"""Estimates: what a policy would have earned, judged from episodes that another policy logged."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np

from envs.errors import ConfigError
from rlplatform.evaluation.metrics import finite_or_none
from rlplatform.evaluation.significance import BootstrapConfig
from rlplatform.models.policy import Policy
from rlplatform.offline.episodes import Episodes
from rlplatform.offline.estimators_target import TargetActions, target_actions
from rlplatform.offline.estimators_weights import WeightedEpisodes, log_ratios, resample_counts, weighted_episodes
from rlplatform.offline.fitted_q import AfterTruncation, FittedQConfig, QValues, cross_fitted_q

Array = np.ndarray

ESTIMATORS: dict[str, str] = {
    "is": "importance sampling per decision",
    "wis": "weighted importance sampling per decision",
    "dr": "doubly robust",
    "wdr": "weighted doubly robust",
    "fqe": "fitted Q evaluation",
}
WITH_Q, WITH_WEIGHTS = ("dr", "wdr", "fqe"), ("is", "wis", "dr", "wdr")
FEW_EPISODES = 10  # a smaller effective sample is said to be small


@dataclass(frozen=True, kw_only=True)
class EstimatorConfig:
    """How values are estimated.

    Attributes:
        ratio_clip: largest product of ratios ρₜ that counts, at least 1; none for no limit. Clipping buys less spread with
            a bias: of importance sampling towards 0 for rewards > 0, of doubly robust towards Q.
        after_truncation: "bootstrap" judges the endless value: fitted Q values what comes after a truncated episode, in every
            estimator. "nothing" judges the rewards of the logged windows alone, as a backtest over windows does.
        deterministic: judge the policy's mode; see `target_actions`.
        action_samples: continuous actions drawn at each observation, for V.
        bootstrap: the interval, over episodes; its own seed is not used, that of `estimate_value` is.
        fitted_q: how Q is fitted.
    """

    ratio_clip: float | None = None
    after_truncation: AfterTruncation = "bootstrap"
    deterministic: bool = False
    action_samples: int = 8
    bootstrap: BootstrapConfig = field(default_factory=BootstrapConfig)
    fitted_q: FittedQConfig = field(default_factory=FittedQConfig)

    def __post_init__(self) -> None:
        if self.ratio_clip is not None and not self.ratio_clip >= 1:
            raise ConfigError(f"ratio_clip = {self.ratio_clip}; expected at least 1, or nothing for no limit.")
        if self.after_truncation not in ("bootstrap", "nothing"):
            raise ConfigError(f"after_truncation = {self.after_truncation!r}; expected 'bootstrap' or 'nothing'.")


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A policy's value by one estimator.

    Intervals of small effective samples are too short, for a resample cannot show an episode that was never logged. Of 400
    simulated data sets, 95 % intervals of is, wis, dr, wdr held the truth in 92, 92, 89, 86 % at about 14 effective episodes,
    and in 93, 93, 95, 92 % at 180 (Q was noise). Far below 10 they say nothing.

    Attributes:
        name: a key of `ESTIMATORS`.
        value: discounted sum of rewards of an episode, expected [units of the reward].
        low, high: its interval, by bootstrap over episodes.
        effective_sample_size: episodes of equal weight that would do as well, averaged over decisions by their discount;
            all episodes for fitted Q, which weighs none.
        note: what a reader must know before trusting it.
    """

    name: str
    value: float
    low: float
    high: float
    effective_sample_size: float
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can carry; what is not finite is None."""
        return {key: entry if isinstance(entry, str) else finite_or_none(entry) for key, entry in asdict(self).items()}


def estimate_value(
    policy: Policy,
    episodes: Episodes,
    gamma: float,
    estimators: Sequence[str] = tuple(ESTIMATORS),
    seed: int = 0,
    config: EstimatorConfig | None = None,
) -> list[Estimate]:
    """Discounted value of `policy` where the logged episodes start, by each estimator.

    The order of the episodes does not matter, and the same seed gives the same estimates to the last bit.

    Args:
        gamma: discount per decision, in [0, 1].
        estimators: keys of `ESTIMATORS`.
        seed: of fitted Q, action samples and resampling.

    Raises:
        ConfigError: an unknown estimator; a behaviour without probabilities for one that needs them (all but "fqe");
            fewer than two episodes; a value that is not finite.
        ShapeError: observations or actions that the policy does not have.
    """
    config = config or EstimatorConfig()
    _check(episodes, gamma, estimators)
    ordered = episodes.select(canonical_order(episodes))
    target = target_actions(policy, ordered, config.deterministic, config.action_samples, seed)
    return estimates_of(target, ordered, gamma, estimators, seed, config)


def estimates_of(
    target: TargetActions,
    episodes: Episodes,
    gamma: float,
    estimators: Sequence[str] = tuple(ESTIMATORS),
    seed: int = 0,
    config: EstimatorConfig | None = None,
    q: QValues | None = None,
) -> list[Estimate]:
    """`estimate_value` of any target whose action law is known, in the order in which the episodes stand.

    Args:
        q: values to use instead of fitting them; they must not come from these episodes, or intervals are too narrow.
    """
    config = config or EstimatorConfig()
    _check(episodes, gamma, estimators)
    target.check_against(episodes)
    log_weights = log_ratios(episodes, target.log_prob) if set(estimators) & set(WITH_WEIGHTS) else None
    tail_counts = config.after_truncation == "bootstrap" and not episodes.terminated.all()
    if q is None and (tail_counts or set(estimators) & set(WITH_Q)):
        q = cross_fitted_q(episodes, target, gamma, config.fitted_q, config.after_truncation, seed)
    judge = _Judge(
        episodes=episodes, gamma=gamma, q=q, config=config, log_weights=log_weights, tail_counts=tail_counts,
        target_note=target.note, seed=seed,
    )  # fmt: skip
    return [judge.estimate(name) for name in estimators]


def canonical_order(episodes: Episodes) -> Array:
    """(E,) an order of the episodes that depends on what they hold and not on where they stand."""
    starts, stops = episodes.starts, episodes.ends + 1
    rows = [np.ascontiguousarray(getattr(episodes, name)) for name in ("obs", "actions", "rewards", "log_prob")]
    marks = []
    for i, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        mark = blake2b(np.ascontiguousarray(episodes.last_obs[i]).tobytes() + bytes([bool(episodes.terminated[i])]))
        for column in rows:
            mark.update(column[start:stop].tobytes())
        marks.append(mark.digest())
    return np.array(sorted(range(len(episodes)), key=marks.__getitem__), dtype=np.int64)


def _check(episodes: Episodes, gamma: float, estimators: Sequence[str]) -> None:
    unknown = [name for name in estimators if name not in ESTIMATORS]
    if unknown or isinstance(estimators, str):
        raise ConfigError(f"estimators = {estimators!r}; expected a list of names out of {', '.join(ESTIMATORS)}.")
    if not 0 <= gamma <= 1:
        raise ConfigError(f"gamma = {gamma}; expected in [0, 1].")
    if len(episodes) < 2:
        raise ConfigError(f"got {len(episodes)} episodes; an interval over episodes needs at least 2. Collect more.")


@dataclass(frozen=True, kw_only=True, eq=False)
class _Judge:
    """One set of episodes, target and Q, asked for several estimates.

    Attributes:
        log_weights: (E, T) before clipping, or None when no estimator weighs.
        tail_counts: whether some episode was truncated and the future after it counts.
    """

    episodes: Episodes
    gamma: float
    q: QValues | None
    config: EstimatorConfig
    log_weights: Array | None
    tail_counts: bool
    target_note: str
    seed: int

    def estimate(self, name: str) -> Estimate:
        if name == "fqe":
            return self._by_q()
        sums = self._sums(self.q if name in WITH_Q else None)
        if name in ("is", "dr"):
            contributions = sums.ordinary()
            value, resampled = contributions.mean(), self._resampled(lambda counts: counts @ contributions / len(contributions))
        else:
            value, resampled = sums.weighted()[0], self._resampled(sums.weighted)
        sizes = sums.effective_sizes()
        return self._estimate(name, value, resampled, self._discounted_mean(sizes), self._notes(name, sizes))

    def _by_q(self) -> Estimate:
        values = self.q.v[self.episodes.starts]
        resampled = self._resampled(lambda counts: counts @ values / len(values))
        notes = ["the interval is of the starts alone and takes Q for exact"]
        return self._estimate("fqe", values.mean(), resampled, float(len(values)), notes)

    def _sums(self, q: QValues | None) -> WeightedEpisodes:
        tail = np.where(self.episodes.terminated | (not self.tail_counts), 0.0, 0.0 if self.q is None else self.q.v_last)
        return weighted_episodes(self.episodes, self._clipped(), self.gamma, q, tail)

    def _clipped(self) -> Array:
        clip = self.config.ratio_clip
        return self.log_weights if clip is None else np.minimum(self.log_weights, math.log(clip))

    def _resampled(self, statistic: Callable[[Array], Array]) -> Array:
        rng = np.random.default_rng(self.seed)
        batches = resample_counts(len(self.episodes), self.config.bootstrap.resamples, rng)
        return np.concatenate([statistic(counts) for counts in batches])

    def _discounted_mean(self, sizes: Array) -> float:
        return float(np.average(sizes, weights=self.gamma ** np.arange(len(sizes))))

    def _estimate(self, name: str, value: float, resampled: Array, size: float, notes: list[str]) -> Estimate:
        outside = (1.0 - self.config.bootstrap.confidence) / 2.0
        low, high = np.quantile(resampled, [outside, 1.0 - outside])
        notes = [note for note in (*notes, self.target_note) if note]
        figures = {"value": float(value), "low": float(low), "high": float(high), "effective_sample_size": size}
        return Estimate(name=name, **figures, note="; ".join(notes))

    def _notes(self, name: str, sizes: Array) -> list[str]:
        episodes, notes = self.episodes, []
        if self.config.ratio_clip is not None:
            inside = np.arange(len(sizes)) < episodes.lengths[:, None]
            share = float((self.log_weights > math.log(self.config.ratio_clip))[inside].mean())
            notes.append(f"ratios clipped at {self.config.ratio_clip:g} on {100 * share:.1f} % of decisions")
        if not sizes[-1]:
            notes.append(f"no episode follows the policy beyond decision {int(np.argmin(sizes > 0))}, rewards after it count 0")
        elif sizes[-1] < min(FEW_EPISODES, 0.5 * len(episodes)):
            notes.append(f"at the last decision only {sizes[-1]:.1f} of {len(episodes)} episodes count")
        if self.tail_counts and name not in WITH_Q:
            notes.append("what comes after a truncation is valued by fitted Q")
        return notes
