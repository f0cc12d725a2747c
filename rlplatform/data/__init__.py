"""Prices: where they come from, and that they can be traded on."""

from rlplatform.data.bundled import BundledConfig
from rlplatform.data.folder import FolderConfig
from rlplatform.data.prices import Prices
from rlplatform.data.report import FolderReport, SymbolReport, check_folder
from rlplatform.data.sources import PriceSource, SourceConfig, SourceInfo, list_sources, load_prices
from rlplatform.data.synthetic import SyntheticConfig, SyntheticMarket, make_market
from rlplatform.data.yahoo import YahooConfig, download

__all__ = [
    "BundledConfig",
    "FolderConfig",
    "FolderReport",
    "PriceSource",
    "Prices",
    "SourceConfig",
    "SourceInfo",
    "SymbolReport",
    "SyntheticConfig",
    "SyntheticMarket",
    "YahooConfig",
    "check_folder",
    "download",
    "list_sources",
    "load_prices",
    "make_market",
]
