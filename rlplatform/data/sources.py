"""Sources of prices: one small interface, one entry point."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Protocol, runtime_checkable

from envs.errors import ConfigError
from rlplatform.data.bundled import DATASETS, BundledConfig
from rlplatform.data.folder import FolderConfig
from rlplatform.data.markets import MARKETS
from rlplatform.data.prices import Prices
from rlplatform.data.synthetic import SyntheticConfig
from rlplatform.data.yahoo import YahooConfig

SourceConfig = BundledConfig | FolderConfig | YahooConfig | SyntheticConfig


@runtime_checkable
class PriceSource(Protocol):
    """Anything that prices can be loaded from. Every source config is one."""

    def load(self) -> Prices:
        """Checked prices on common dates."""

    def describe(self) -> str:
        """One line: what `load` returns."""


@dataclass(frozen=True)
class SourceInfo:
    """One line of `rlplatform data list`.

    Attributes:
        source: the value of `data.source`.
        name: data set or market inside the source; "" where the user names a folder.
        description: what it holds.
        available: whether it works with what is installed.
    """

    source: str
    name: str
    description: str
    available: bool = True


def load_prices(config: PriceSource) -> Prices:
    """The prices a source config describes.

    Raises:
        ConfigError: `config` is not a source, or needs what is not installed.
        MarketDataError: the prices cannot be traded on; the message names file, row and cure.
    """
    if isinstance(config, type) or not isinstance(config, PriceSource):
        raise ConfigError(f"data = {config!r} is not a source of prices; expected one such as BundledConfig().")
    return config.load()


def list_sources() -> list[SourceInfo]:
    """Every source there is, in the order a newcomer should try them."""
    laws = {name: " ".join(market.__doc__.split("\n")[0].split()) for name, market in MARKETS.items()}
    return [
        *(SourceInfo("bundled", name, text) for name, text in DATASETS.items()),
        SourceInfo("folder", "", "CSV or Parquet files of your own, one per symbol or one long file (FinRL's form)"),
        SourceInfo("yahoo", "", "Yahoo Finance by yfinance into a hashed snapshot", find_spec("yfinance") is not None),
        *(SourceInfo("synthetic", name, text) for name, text in laws.items()),
    ]
