"""A source whose prices after one day are other ones: what looks ahead of that day gives itself away."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from rlplatform.data import Prices, SyntheticConfig


@dataclass(frozen=True, kw_only=True)
class PerturbedMarket:
    """`inner`'s prices; those after the day `after` times random factors."""

    inner: SyntheticConfig
    after: str
    seed: int = 0
    source: str = "perturbed"

    def describe(self) -> str:
        return f"{self.inner.describe()}, perturbed after {self.after}"

    def load(self) -> Prices:
        prices = self.inner.load()
        late = prices.dates.astype("datetime64[D]") > np.datetime64(self.after)
        factors = np.random.default_rng(self.seed).uniform(0.5, 2.0, size=prices.close.shape)
        return dataclasses.replace(prices, close=np.where(late[:, None], prices.close * factors, prices.close))
