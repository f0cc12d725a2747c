"""ObservationNormalizer: online mean and standard deviation of observations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from envs.errors import ConfigError, MarketDataError, ShapeError

Array = np.ndarray

# A column whose standard deviation is below this is constant: it is centred, not blown up to ±clip by rounding noise.
CONSTANT_STD = 1e-8


class ObservationNormalizer:
    """Centres and scales observations by what has been seen so far, and clips the result.

        normalize(x) = clip((x − mean) / std, −k, k),    std² = m2 / count

    Moments are float64 and merge in parallel without loss (Chan, Golub & LeVeque 1983):

        δ = mean_b − mean_a,   mean = mean_a + δ n_b / n,   m2 = m2_a + m2_b + δ² n_a n_b / n

    A column that never varied is centred only. Before the first update, normalizing is clipping.

    With `groups`, columns of one group (the same feature of different assets) are centred and scaled alike, by the mean and
    spread of all their values together; moments are still kept column by column.

    A column that is `hidden` normalises to 0 whatever it holds: who reads the result cannot tell.

    Attributes:
        count: observations seen.
        mean, m2: (D,) float64, mean and sum of squared deviations.
        clip: k [standard deviations].
        groups: (D,) number of each column's group, or None where each column stands alone.
        hidden: places of the hidden columns.
        frozen: whether the statistics are final, as they are in a saved policy.
    """

    def __init__(self, size: int, clip: float = 10.0, groups: Sequence[int] | None = None, hidden: Sequence[int] = ()) -> None:
        if size < 1:
            raise ConfigError(f"ObservationNormalizer.size = {size}; expected at least 1 column.")
        if groups is not None and len(groups) != size:
            raise ConfigError(f"ObservationNormalizer.groups has {len(groups)} entries; expected {size}, one a column.")
        if not 0 < clip < np.inf:
            raise ConfigError(f"ObservationNormalizer.clip = {clip}; expected a positive number of standard deviations.")
        self.clip = float(clip)
        self.groups = None if groups is None else tuple(int(group) for group in groups)
        self.hidden = tuple(int(place) for place in hidden)
        self.frozen = False
        self.count = 0
        self.mean = np.zeros(size)
        self.m2 = np.zeros(size)
        self._rescale()

    def __repr__(self) -> str:
        return f"ObservationNormalizer(size={self.size}, count={self.count}, clip={self.clip:g}, frozen={self.frozen})"

    @property
    def size(self) -> int:
        """D, the columns of an observation."""
        return len(self.mean)

    @property
    def centre(self) -> Array:
        """(D,) what is subtracted: each column's mean, or its group's."""
        return self._pooled(self.mean)

    @property
    def std(self) -> Array:
        """(D,) standard deviation, of each column or its group; 1 where it never varied."""
        std = np.sqrt(self.variance)
        return np.where(std > CONSTANT_STD, std, 1.0)

    @property
    def variance(self) -> Array:
        """(D,) of each column, or of all values of its group."""
        between = 0.0 if self.groups is None else (self.mean - self.centre) ** 2
        return self._pooled(self.m2 / max(self.count, 1) + between)

    def update(self, batch: Array) -> None:
        """Learn from observations.

        Args:
            batch: (..., D).

        Raises:
            ShapeError: the last axis is not D.
            MarketDataError: a value is not finite.
            RuntimeError: the normalizer is frozen.
        """
        if self.frozen:
            raise RuntimeError("This ObservationNormalizer is frozen; only `normalize` may be called on it.")
        rows = np.asarray(batch, dtype=np.float64)
        self._check(rows)
        rows = rows.reshape(-1, self.size)
        if not len(rows):
            return
        mean = rows.mean(0)
        deviations = rows - mean
        self._add(len(rows), mean, np.einsum("bd,bd->d", deviations, deviations))

    def normalize(self, obs: Array) -> Array:
        """Observations (..., D) as float32 in [−clip, clip]; a new array.

        Raises:
            ShapeError: the last axis is not D.
        """
        obs = np.asarray(obs)
        self._check(obs)
        return np.clip((obs - self._centre) * self._inverse_std, -self.clip, self.clip).astype(np.float32)

    def merge(self, other: ObservationNormalizer) -> None:
        """Add what another normalizer has seen, as if every observation had come here.

        Raises:
            ShapeError: the other has a different number of columns.
        """
        self._check(other.mean)
        self._add(other.count, other.mean, other.m2)

    def freeze(self) -> ObservationNormalizer:
        """Make the statistics final; returns self."""
        self.frozen = True
        return self

    def copy(self) -> ObservationNormalizer:
        """The same statistics, not frozen, in arrays of its own."""
        return self.from_state(self.state())

    def state(self) -> dict[str, Any]:
        """`settings()`, and copies of `mean` and `m2`; `tolist()` on the arrays makes it JSON."""
        return {**self.settings(), "mean": self.mean.copy(), "m2": self.m2.copy()}

    def settings(self) -> dict[str, Any]:
        """`count`, `clip`, and `groups` and `hidden` if there are any: all but the moments."""
        groups = {} if self.groups is None else {"groups": self.groups}
        hidden = {"hidden": self.hidden} if self.hidden else {}
        return {"count": self.count, "clip": self.clip, **groups, **hidden}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> ObservationNormalizer:
        """The normalizer whose `state()` this was; lists serve as well as arrays.

        Raises:
            ConfigError: statistics that no observations can have.
        """
        mean, m2 = np.array(state["mean"], dtype=np.float64), np.array(state["m2"], dtype=np.float64)
        count = int(state["count"])
        if mean.ndim != 1 or mean.shape != m2.shape or count < 0 or not np.all(m2 >= 0) or not np.all(np.isfinite(mean)):
            raise ConfigError("ObservationNormalizer state is damaged: expected mean, m2 ≥ 0 of one length and count ≥ 0.")
        settings = {"groups": state.get("groups"), "hidden": state.get("hidden", ())}
        normalizer = cls(len(mean), clip=float(state["clip"]), **settings)
        normalizer.count, normalizer.mean, normalizer.m2 = count, mean, m2
        normalizer._rescale()
        return normalizer

    def _add(self, count: int, mean: Array, m2: Array) -> None:
        if count == 0:
            return
        if not np.all(np.isfinite(mean)):
            column = int(np.argmax(~np.isfinite(mean)))
            raise MarketDataError(f"Observation column {column} is not finite. Check the features of the tape.")
        total = self.count + count
        delta = mean - self.mean
        self.mean = self.mean + delta * (count / total)
        self.m2 = self.m2 + m2 + delta**2 * (self.count * count / total)
        self.count = total
        self._rescale()

    def _rescale(self) -> None:
        self._centre, self._inverse_std = self.centre, self.factors

    @property
    def factors(self) -> Array:
        """(D,) what the centred columns are multiplied by: 1/std, 0 for a hidden one."""
        factors = 1.0 / self.std
        factors[list(self.hidden)] = 0.0
        return factors

    def _pooled(self, values: Array) -> Array:
        """(D,) mean over each column's group."""
        if self.groups is None:
            return values
        groups = np.asarray(self.groups)
        return (np.bincount(groups, values) / np.bincount(groups))[groups]

    def _check(self, obs: Array) -> None:
        if obs.ndim < 1 or obs.shape[-1] != self.size:
            raise ShapeError(f"Observations have shape {obs.shape}; the normalizer knows {self.size} columns.")
