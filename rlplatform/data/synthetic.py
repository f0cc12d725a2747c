"""Synthetic prices: a seeded path of a market with a planted signal, and the optimum it allows."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd

from envs.errors import ConfigError
from envs.ledger import path
from envs.terms import CapsConfig, CostConfig, FinancingConfig
from rlplatform.data.log_optimal import Forecast, log_optimal_weights
from rlplatform.data.market_law import MarketModel
from rlplatform.data.markets import MARKETS, RegimeMarket
from rlplatform.data.prices import Prices
from rlplatform.data.request import check_choice, clean_date, did_you_mean

Array = np.ndarray

FRICTIONLESS = (CostConfig(proportional_bps=0.0), FinancingConfig(rate_annual=0.0))
MOST_BARS = 60_000  # weekdays from 2000 that datetime64[ns] can still count


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """A seeded market with a planted signal and a known optimum, for tests of learning.

    Attributes:
        market: "momentum" (AR(1) asset), "regimes" (three assets, four hidden regimes), "pair" (cointegrated), "lead_lag"
            (assets that follow their sector's others), "fat_tail" (more mean, rare crashes), "two_mode" (a signal that
            misleads in one of two regimes), or "no_signal" (nothing to learn). See rlplatform/data/markets.py.
        seed: of the path; the same seed gives the same prices.
        bars: rows T.
        start: day of the first row; the rows are weekdays from there.
        parameters: fields of the market's class, for instance {phi: 0.3}; its defaults are strong signals.
    """

    source: Literal["synthetic"] = "synthetic"
    market: Literal["momentum", "regimes", "pair", "no_signal", "lead_lag", "fat_tail", "two_mode"] = "momentum"
    seed: int = 0
    bars: int = 5_000
    start: str | datetime.date = "2000-01-03"
    parameters: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice("data.source", self.source, ["synthetic"])
        check_choice("data.market", self.market, MARKETS)
        if not 2 <= self.bars <= MOST_BARS:
            raise ConfigError(f"data.bars = {self.bars}; expected in [2, {MOST_BARS}].")
        if self.seed < 0:
            raise ConfigError(f"data.seed = {self.seed}; expected at least 0.")
        object.__setattr__(self, "start", clean_date("data.start", self.start))
        known = [f.name for f in fields(MARKETS[self.market])]
        for name in self.parameters:
            if name not in known:
                raise ConfigError(
                    f"unknown key data.parameters.{name} of market {self.market!r}; it has {', '.join(known)}."
                    f"{did_you_mean(name, known)}"
                )
        self.model()

    def model(self) -> MarketModel:
        """The market's law."""
        return MARKETS[self.market](**self.parameters)

    def describe(self) -> str:
        """One line: what `load` returns."""
        return f"synthetic {self.market}, seed {self.seed}, {self.bars} bars: {self.model()}"

    def load(self) -> Prices:
        """The prices of the path; its optimum is in `make_market`."""
        return make_market(self).prices


@dataclass(frozen=True, eq=False, kw_only=True)
class SyntheticMarket:
    """One path, its law, and the optimum the law allows without costs.

    Attributes:
        prices: T closes of N symbols.
        model: the law that made them.
        states: (T,) hidden regime of the bar that ends at t, or None.
    """

    prices: Prices
    model: MarketModel
    states: Array | None = None

    @property
    def caps(self) -> CapsConfig:
        """The feasible set of the optimum."""
        return self.model.caps

    @cached_property
    def forecast(self) -> Forecast:
        """The true distribution of the next bar at each close, given the prices up to it."""
        return self.model.forecast(self.prices.close)

    @cached_property
    def optimal_weights(self) -> Array:
        """(T, N) log-optimal target weights, decided at the close of t from rows ≤ t; the honest known optimum.

        Exact without costs, where log utility is myopic; with costs it is an upper bound on growth.
        """
        return log_optimal_weights(self.forecast, self.caps)

    @cached_property
    def clairvoyant_weights(self) -> Array | None:
        """(T, N) weights of one who knows the next bar's hidden regime, an unreachable bound; None without regimes."""
        if not isinstance(self.model, RegimeMarket):
            return None
        return log_optimal_weights(self.model.clairvoyant_forecast(self.states), self.caps)

    def expected_log_growth(self, weights: Array | None = None) -> float:
        """Mean over the path of E_t[log(1 + w_t·r_{t+1})] per bar, without costs; of the optimum if no weights are given.

        Args:
            weights: (T, N), w_t decided from rows ≤ t. Weights that look further make the figure meaningless.
        """
        weights = self.optimal_weights if weights is None else weights
        return float(self.forecast.expected_log_growth(weights)[:-1].mean())

    def realised_log_growth(
        self,
        weights: Array | None = None,
        costs: CostConfig = FRICTIONLESS[0],
        financing: FinancingConfig = FRICTIONLESS[1],
    ) -> Array:
        """(T − 1,) log(W_{t+1} / W_t) of target weights (T, N) through the ledger; of the optimum if none are given."""
        weights = self.optimal_weights if weights is None else weights
        wealth = path(weights[:-1, None, :], self.prices.gross()[1:], costs, financing).wealth[:, 0]
        return np.diff(np.log(wealth), prepend=0.0)

    @property
    def optimal_log_growth(self) -> float:
        """Mean realised log growth of the optimum per bar on this path, without costs."""
        return float(self.realised_log_growth().mean())


def make_market(config: SyntheticConfig) -> SyntheticMarket:
    """Simulate the path `config` describes."""
    model = config.model()
    simulated = model.simulate(config.bars, np.random.default_rng(config.seed))
    prices = Prices(
        dates=pd.bdate_range(config.start, periods=config.bars).to_numpy(),
        symbols=model.symbols,
        close=simulated.close,
        source=config.describe(),
    )
    return SyntheticMarket(prices=prices, model=model, states=simulated.states)
