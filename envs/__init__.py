"""The world: market tape, ledger and trading environments. Knows neither Ray nor the learner."""

from envs.catalog import CATALOG, make, make_vec, register
from envs.tape import MarketTape

register()

__all__ = ["CATALOG", "MarketTape", "make", "make_vec", "register"]
