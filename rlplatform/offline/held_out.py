"""HoldOut: which logged episodes no training sees, so that estimates from them can judge it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rlplatform.offline.episodes import Episodes
from rlplatform.offline.manifest import DatasetManifest

Array = np.ndarray
DATE, STREAM = "date", 23  # the column of days; the number of our random stream beside others of the same seed


@dataclass(frozen=True, kw_only=True)
class HoldOut:
    """A share of the logged episodes.

    Where rows carry their day, the last `share` of the days is held out: an episode that begins on `first_day` or later is
    held out, one that has made its last decision before is learnt from, and one that reaches across is left out of both.
    Windows of a market overlap: episodes drawn at random would share their days with those that are learnt from, and a
    policy that remembers days would be praised for it (López de Prado 2018, chapter 7, calls this purging). Without days
    episodes are drawn at random.

    Attributes:
        share: of the days, or of the episodes, in (0, 1).
        seed: of the draw; without days only.
        first_day: seconds since 1970-01-01 of the first held-out day, or None without days.
        episodes: of the whole dataset.
    """

    share: float
    seed: int
    first_day: int | None
    episodes: int

    @classmethod
    def of(cls, manifests: Sequence[DatasetManifest], share: float, seed: int) -> HoldOut:
        """For datasets that are mixed, in this order."""
        first_day = None
        if all(DATE in manifest.columns for manifest in manifests):
            starts, ends = ([_seconds(manifest.period[name]) for manifest in manifests] for name in ("start", "end"))
            first_day = int(min(starts) + (1.0 - share) * (max(ends) - min(starts)))
        return cls(share=share, seed=seed, first_day=first_day, episodes=sum(manifest.episodes for manifest in manifests))

    def split(self, episodes: Episodes, first: int = 0) -> tuple[Array, Array]:
        """Numbers within `episodes` of those to learn from, and of those held out.

        Args:
            first: how many episodes of the whole dataset stand before these.
        """
        number = np.arange(len(episodes))
        if self.first_day is None:
            held = self._drawn[first + number]
            return number[~held], number[held]
        days = episodes.extras[DATE]
        return number[days[episodes.ends] < self.first_day], number[days[episodes.starts] >= self.first_day]

    @cached_property
    def _drawn(self) -> Array:
        """(E,) bool, of the whole dataset."""
        mask = np.zeros(self.episodes, bool)
        drawn = np.random.default_rng([self.seed, STREAM]).permutation(self.episodes)
        mask[drawn[: round(self.share * self.episodes)]] = True
        return mask


def _seconds(day: object) -> int:
    return int(np.datetime64(str(day), "s").astype(np.int64))
