import subprocess
import sys
from dataclasses import FrozenInstanceError
from datetime import date
from typing import Annotated

import pytest
from numpy.testing import assert_allclose
from pydantic import Field, TypeAdapter

from envs.errors import ConfigError, MarketDataError
from rlplatform.data import (
    BundledConfig,
    FolderConfig,
    PriceSource,
    SourceConfig,
    SyntheticConfig,
    YahooConfig,
    list_sources,
    load_prices,
)


def test_the_bundled_stocks_load_without_a_download():
    prices = load_prices(BundledConfig(symbols=["AAPL", "XOM"], start="2022-12-27", end=date(2022, 12, 28)))
    assert prices.symbols == ("AAPL", "XOM")
    assert len(prices) == 2
    assert prices.calendar == "XNYS"


def test_the_bundled_set_is_all_of_it_by_default():
    assert len(load_prices(BundledConfig()).symbols) == 20
    assert load_prices(BundledConfig(dataset="factors")).symbols == ("MTUM", "QUAL", "SIZE", "USMV", "VLUE")


@pytest.mark.parametrize("name", ["SP500", "^GSPC"])
def test_the_index_stands_beside_either_set(name):
    prices = load_prices(BundledConfig(dataset="factors", symbols=["SIZE", name]))
    assert prices.symbols == ("SIZE", name)
    assert_allclose(prices.between(end="2014-01-02").close[0, 1], 1831.98, atol=0.01)


def test_a_symbol_the_bundle_lacks_says_which_it_has():
    with pytest.raises(MarketDataError, match=r"bundled sp500 has no 'APPL'; it has AAPL.*Did you mean AAPL\?"):
        load_prices(BundledConfig(symbols=["APPL"]))


def test_an_unknown_data_set_or_period_is_refused():
    with pytest.raises(ConfigError, match=r"data.dataset = 'sp5000'; expected one of sp500, factors. Did you mean sp500\?"):
        BundledConfig(dataset="sp5000")
    with pytest.raises(MarketDataError, match="holds none of the 8313 rows"):
        load_prices(BundledConfig(start="2023-01-01"))


def test_what_is_no_source_is_refused():
    for wrong in ("bundled", BundledConfig):
        with pytest.raises(ConfigError, match="is not a source of prices"):
            load_prices(wrong)


def test_every_config_is_a_source_and_says_what_it_holds():
    configs = [BundledConfig(), FolderConfig(path="x"), YahooConfig(path="x", symbols=["SPY"]), SyntheticConfig()]
    for config in configs:
        assert isinstance(config, PriceSource)
        assert "\n" not in config.describe()
        with pytest.raises(FrozenInstanceError):
            config.source = "other"


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"source": "bundled", "dataset": "factors"}, BundledConfig),
        ({"source": "folder", "path": "p", "symbols": ["SPY"], "calendar": None}, FolderConfig),
        ({"source": "yahoo", "path": "p", "symbols": ["SPY"], "start": date(2020, 1, 1)}, YahooConfig),
        ({"source": "synthetic", "market": "pair", "parameters": {"kappa": 0.1}}, SyntheticConfig),
    ],
)
def test_the_field_source_chooses_the_config_in_a_pydantic_union(given, kind):
    adapter = TypeAdapter(Annotated[SourceConfig, Field(discriminator="source")])
    config = adapter.validate_python(given)
    assert type(config) is kind
    assert config == kind(**given)


def test_the_list_of_sources_names_each_data_set_and_market():
    found = {(info.source, info.name) for info in list_sources()}
    assert {("bundled", "sp500"), ("bundled", "factors"), ("folder", ""), ("yahoo", "")} < found
    assert {("synthetic", name) for name in ("momentum", "regimes", "pair", "no_signal")} < found
    assert all(info.description for info in list_sources())


def test_importing_the_room_does_not_import_ray():
    code = "import sys, rlplatform.data; sys.exit(any(name.split('.')[0] in ('ray', 'yfinance') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
