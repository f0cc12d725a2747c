"""Episodes: logged experience as flat arrays, episode after episode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType

import numpy as np

from envs.errors import ShapeError

Array = np.ndarray
ROW_COLUMNS = ("obs", "actions", "rewards", "log_prob")


@dataclass(frozen=True, kw_only=True, eq=False)
class Episodes:
    """E complete episodes of R decisions in all. Row i of the (R, …) arrays is one decision.

    Attributes:
        lengths: (E,) decisions of each episode, at least 1; Σ = R.
        obs: (R, D) float32, as the environment gave them, not normalised.
        last_obs: (E, D) float32, what was seen after an episode's last decision.
        actions: (R, …) float32 of a Box, int64 of a Discrete space.
        rewards: (R,) float32.
        terminated: (E,) bool; ruin. False means that the window ended and the future has a value.
        log_prob: (R,) float32 of the behaviour policy's density or mass at its action [nats]; NaN where it has none.
        extras: name → (R, …) further columns, such as "spread_bps"; see `offline/columns.py` for their meaning.

    Raises:
        ShapeError: arrays whose axes disagree.
    """

    lengths: Array
    obs: Array
    last_obs: Array
    actions: Array
    rewards: Array
    terminated: Array
    log_prob: Array
    extras: Mapping[str, Array] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        episodes, rows = len(self.lengths), int(np.sum(self.lengths))
        if episodes and int(np.min(self.lengths)) < 1:
            raise ShapeError("Episodes: an episode has no decision; expected at least one in each.")
        expected = dict.fromkeys(ROW_COLUMNS, rows) | {"last_obs": episodes, "terminated": episodes}
        columns = {name: getattr(self, name) for name in expected} | dict(self.extras)
        for name, column in columns.items():
            wanted = expected.get(name, rows)
            if len(column) != wanted:
                raise ShapeError(
                    f"Episodes: {name} has {len(column)} rows; expected {wanted} for {episodes} episodes of {rows} rows."
                )
        if self.obs.shape[1:] != self.last_obs.shape[1:]:
            raise ShapeError(f"Episodes: obs are {self.obs.shape[1:]} wide, last_obs {self.last_obs.shape[1:]}.")

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def num_rows(self) -> int:
        return len(self.rewards)

    @property
    def starts(self) -> Array:
        """(E,) row of each episode's first decision."""
        return np.concatenate([[0], np.cumsum(self.lengths)[:-1]]).astype(np.int64)

    @property
    def ends(self) -> Array:
        """(E,) row of each episode's last decision."""
        return np.cumsum(self.lengths).astype(np.int64) - 1

    @property
    def is_last(self) -> Array:
        """(R,) bool, the episode ends with this row."""
        mask = np.zeros(self.num_rows, bool)
        mask[self.ends] = True
        return mask

    def next_obs(self) -> Array:
        """(R, D) what was seen after each decision."""
        following = np.empty_like(self.obs)
        following[:-1] = self.obs[1:]
        following[self.ends] = self.last_obs
        return following

    def returns(self) -> Array:
        """(E,) sums of rewards, undiscounted."""
        return np.add.reduceat(self.rewards.astype(np.float64), self.starts) if len(self) else np.zeros(0)

    def returns_to_go(self, gamma: float, after_last: Array | None = None) -> Array:
        """(R,) Monte-Carlo returns Σ_k γᵏ r_{t+k} up to the episode's real end.

        Args:
            after_last: (E,) value of `last_obs`, counted where the episode was truncated; 0 if not given.
        """
        tail = np.zeros(len(self)) if after_last is None else np.where(self.terminated, 0.0, after_last)
        result = np.empty(self.num_rows)
        alive, lengths, ends = np.arange(len(self)), self.lengths, self.ends
        running = tail.astype(np.float64)
        for back in range(int(lengths.max(initial=0))):
            alive = alive[lengths[alive] > back]
            rows = ends[alive] - back
            running[alive] = self.rewards[rows] + gamma * running[alive]
            result[rows] = running[alive]
        return result

    def select(self, which: Array) -> Episodes:
        """The episodes with these numbers, in this order."""
        which = np.asarray(which)
        which = np.flatnonzero(which) if which.dtype == bool else which
        lengths = self.lengths[which]
        first = np.repeat(self.starts[which] - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths) if len(which) else []
        rows = np.asarray(first, dtype=np.int64) + np.arange(int(lengths.sum()))
        return Episodes(
            lengths=lengths,
            last_obs=self.last_obs[which],
            terminated=self.terminated[which],
            **{name: getattr(self, name)[rows] for name in ROW_COLUMNS},
            extras={name: column[rows] for name, column in self.extras.items()},
        )


def joined(parts: Sequence[Episodes]) -> Episodes:
    """One after another. Extras that not all parts have are left out.

    Raises:
        ShapeError: no parts, or observations of different widths.
    """
    if not parts:
        raise ShapeError("no episodes to join; expected at least one part.")
    common = set.intersection(*(set(part.extras) for part in parts))
    names = [f.name for f in fields(Episodes) if f.name != "extras"]
    widths = {part.obs.shape[1:] for part in parts}
    if len(widths) > 1:
        raise ShapeError(f"parts have observations of different shapes: {sorted(widths)}.")
    return Episodes(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in names},
        extras={name: np.concatenate([part.extras[name] for part in parts]) for name in sorted(common)},
    )
