"""RawEpisode: one episode as it lies in a file, before anything about it is believed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from rlplatform.offline.episodes import Episodes

Array = np.ndarray

RLLIB_NAMES = {"log_prob": "action_logp", "terminated": "terminateds", "truncated": "truncateds"}


@dataclass(frozen=True, kw_only=True, eq=False)
class RawEpisode:
    """T decisions.

    Attributes:
        episode_id: a number that no other episode of the dataset has.
        obs, last_obs: (T, D) and (D,).
        actions, rewards: (T, …) and (T,).
        terminated, truncated: (T,) flags of each step; exactly one of them is set, on the last.
        log_prob: (T,) or None.
        extras: name → (T, …).
    """

    episode_id: int
    obs: Array
    last_obs: Array
    actions: Array
    rewards: Array
    terminated: Array
    truncated: Array
    log_prob: Array | None = None
    extras: Mapping[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def next_obs(self) -> Array:
        """(T, D) what was seen after each decision."""
        return np.concatenate([self.obs[1:], self.last_obs[None]])


class Place(NamedTuple):
    """Where in a file an episode lies, and how to take it out; `read` raises DatasetError if it is no episode."""

    where: str
    read: Callable[[], RawEpisode]


class Format(Protocol):
    """A file format."""

    suffix: str

    def write(self, path: Path, episodes: Episodes, first_id: int) -> None:
        """The episodes, numbered from `first_id`, as one file."""

    def places(self, path: Path) -> Iterator[Place]:
        """The episodes of a file, in order."""


def split(episodes: Episodes, first_id: int) -> Iterator[RawEpisode]:
    """Episodes one by one. A log-probability that is nowhere known is left out."""
    has_log_prob = not np.isnan(episodes.log_prob).all()
    for number, (start, length) in enumerate(zip(episodes.starts, episodes.lengths, strict=True)):
        rows = slice(start, start + length)
        last = np.arange(length) == length - 1
        yield RawEpisode(
            episode_id=first_id + number,
            obs=episodes.obs[rows],
            last_obs=episodes.last_obs[number],
            actions=episodes.actions[rows],
            rewards=episodes.rewards[rows],
            terminated=last & episodes.terminated[number],
            truncated=last & ~episodes.terminated[number],
            log_prob=episodes.log_prob[rows] if has_log_prob else None,
            extras={name: values[rows] for name, values in episodes.extras.items()},
        )


def together(raw: list[RawEpisode]) -> Episodes:
    """Checked episodes as one `Episodes`."""
    lengths = np.array([len(each) for each in raw])
    names = raw[0].extras.keys()

    def end_to_end(values: list[Array]) -> Array:
        return np.concatenate(values)

    return Episodes(
        lengths=lengths,
        last_obs=np.stack([each.last_obs for each in raw]),
        terminated=np.array([bool(each.terminated[-1]) for each in raw]),
        obs=end_to_end([each.obs for each in raw]),
        actions=end_to_end([each.actions for each in raw]),
        rewards=end_to_end([each.rewards for each in raw]),
        log_prob=end_to_end(
            [np.full(len(each), np.nan, np.float32) if each.log_prob is None else each.log_prob for each in raw]
        ),
        extras={name: end_to_end([each.extras[name] for each in raw]) for name in names},
    )
