"""Importance weights of logged episodes, and the weighted sums whose expectation is the target policy's value."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from envs.errors import ConfigError
from rlplatform.offline.episodes import Episodes
from rlplatform.offline.fitted_q import QValues

Array = np.ndarray
LARGEST_LOG = 600.0  # exp of more than 709 is no float64
COUNTS_AT_ONCE = 4_000_000  # numbers of one batch of resamples: bounds memory


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightedEpisodes:
    """The sums that all estimators share, for E episodes of at most T decisions, γ counted in.

        ordinary:  Σᵢ (baselineᵢ + Σₜ ρₜᵢ residualₜᵢ) / E                  (Precup et al. 2000, per decision)
        weighted:  Σᵢ baselineᵢ / E + Σₜ (Σᵢ ρₜᵢ residualₜᵢ / Σᵢ ρₜᵢ)      (self-normalised: biased, far less spread)

    with ρₜ = Π_{k ≤ t} π(aₖ) / b(aₖ). Without Q the baseline is 0 and the residual γᵗ rₜ: importance sampling. With Q they are
    V(s₀) and γᵗ (rₜ + γ V(sₜ₊₁) − Q(sₜ, aₜ)): doubly robust (Jiang and Li 2016), weighted (Thomas and Brunskill 2016).
    An episode that has ended stays in a state that pays nothing, and keeps its weight.

    Attributes:
        log_weights: (E, T) log ρₜ, −inf from the first action that the target never takes.
        residuals: (E, T), 0 after an episode's end.
        baseline: (E,).
    """

    log_weights: Array
    residuals: Array
    baseline: Array

    def ordinary(self) -> Array:
        """(E,) contribution of each episode; their mean is the estimate."""
        weights = np.exp(np.minimum(self.log_weights, LARGEST_LOG))
        return self.baseline + (weights * self.residuals).sum(1)

    def weighted(self, counts: Array | None = None) -> Array:
        """(S,) estimates of S resamples in which episode i stands `counts` (S, E) times; once each if not given.

        Where no episode has weight left, nothing is known of the rewards and they count as 0.
        """
        counts = np.ones((1, len(self.baseline))) if counts is None else counts
        weights = self.relative_weights()
        total, paid = counts @ weights, counts @ (weights * self.residuals)
        rewards = np.divide(paid, total, out=np.zeros_like(paid), where=total > 0).sum(1)
        return counts @ self.baseline / counts.sum(1) + rewards

    def relative_weights(self) -> Array:
        """(E, T) weights divided by the largest of each time, so that none overflows."""
        largest = self.log_weights.max(0)
        relative = self.log_weights - np.where(np.isfinite(largest), largest, 0.0)
        # A resample may miss the largest weight: the others must not all round to 0 then.
        return np.exp(np.where(relative == -np.inf, -np.inf, np.maximum(relative, -LARGEST_LOG)))

    def effective_sizes(self) -> Array:
        """(T,) episodes of equal weight that would do as well, (Σ ρ)² / Σ ρ² (Kish 1965); 0 where no weight is left."""
        weights = self.relative_weights()
        squares = (weights**2).sum(0)
        return np.divide(weights.sum(0) ** 2, squares, out=np.zeros_like(squares), where=squares > 0)


def in_time(episodes: Episodes, column: Array) -> Array:
    """(E, T) float64 of a column (R,), 0 after an episode's end."""
    grid = np.zeros((len(episodes), int(episodes.lengths.max(initial=0))))
    grid[np.arange(grid.shape[1]) < episodes.lengths[:, None]] = column
    return grid


def log_ratios(episodes: Episodes, target_log_prob: Array) -> Array:
    """(E, T) log of ρₜ, the product of π/b up to each decision; constant after an episode's end.

    Raises:
        ConfigError: the behaviour policy has no probability of an action it took.
    """
    behaviour = episodes.log_prob.astype(np.float64)
    missing = ~np.isfinite(behaviour)
    if missing.any():
        row = int(np.argmax(missing))
        raise ConfigError(
            f"log_prob is {behaviour[row]} at row {row} of the episodes ({int(missing.sum())} of {len(missing)} rows): the "
            "behaviour policy has no probability there, and is, wis, dr and wdr divide by it. Use estimators: [fqe], which "
            "needs none, or collect with a policy that has one, for instance with ε-noise."
        )
    return np.cumsum(in_time(episodes, target_log_prob - behaviour), axis=1)


def weighted_episodes(episodes: Episodes, log_weights: Array, gamma: float, q: QValues | None, tail: Array) -> WeightedEpisodes:
    """What is summed: rewards alone, or with `q` what they differ by from its prediction.

    Args:
        log_weights: (E, T) of `log_ratios`, clipped or not.
        tail: (E,) value of each last observation, as seen from there.
    """
    following = np.zeros(episodes.num_rows)
    following[episodes.ends] = tail
    residual = episodes.rewards.astype(np.float64)
    if q is not None:
        following[~episodes.is_last] = q.v[1:][~episodes.is_last[:-1]]
        residual = residual - q.q
    discounted = in_time(episodes, residual + gamma * following) * gamma ** np.arange(log_weights.shape[1])
    baseline = np.zeros(len(episodes)) if q is None else q.v[episodes.starts]
    return WeightedEpisodes(log_weights=log_weights, residuals=discounted, baseline=baseline)


def resample_counts(episodes: int, resamples: int, rng: np.random.Generator) -> list[Array]:
    """Batches (S, E) of how often each episode stands in a resample with replacement."""
    batch = max(1, COUNTS_AT_ONCE // max(episodes, 1))
    sizes = [min(batch, resamples - done) for done in range(0, resamples, batch)]
    return [rng.multinomial(episodes, np.full(episodes, 1.0 / episodes), size=size).astype(np.float64) for size in sizes]
