"""From prices to a tape: what every run and every judgement starts with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from envs.errors import MarketDataError
from envs.tape import MarketTape
from rlplatform.data import Prices, load_prices
from rlplatform.experiments.config import ExperimentConfig, SplitConfig
from rlplatform.features import FeatureBuilder, FeatureConfig, FeatureScaler
from rlplatform.features.context.asof import AlignedSeries, load_series
from rlplatform.features.context.series import Series
from rlplatform.features.technical import ASSET_FEATURES


@dataclass(frozen=True, kw_only=True)
class Market:
    """Prices, the scaler that training rows gave, the tape that environments read, and the series of `features.context`."""

    prices: Prices
    scaler: FeatureScaler
    tape: MarketTape
    series: Mapping[str, Series] = field(default_factory=dict)

    def described(self) -> dict[str, Any]:
        """For a manifest: which prices, of what, from when to when."""
        prices = self.prices
        series = {name: each.described() for name, each in self.series.items()}
        return {
            "source": prices.source,
            "sha256": prices.sha256,
            "symbols": list(prices.symbols),
            "first": str(prices.dates[0])[:10],
            "last": str(prices.dates[-1])[:10],
            **({"series": series} if series else {}),
        }


def prepare_market(config: ExperimentConfig, scaler: FeatureScaler | None = None) -> Market:
    """Load prices, build features on all rows, scale them by training rows only.

    Args:
        scaler: of an earlier run, for judging its policy on other prices; fitted on `config.split.train` if not given.

    Raises:
        MarketDataError: prices that cannot be traded on, or a period of the split without rows.
    """
    prices = load_prices(config.data)
    if scaler is not None:
        prices = _as_learnt(config, prices, scaler)
    context = config.features.context
    series = {} if context is None else load_series(context, prices)
    cube = FeatureBuilder(config.features).build(prices, series=series)
    if scaler is None:
        _check_periods(cube.to_tape(), config.split)
        start, end = map(str, config.split.train)
        left_out = [(str(first), str(last)) for first, last in config.split.left_out]
        scaler = cube.fit_scaler(train_end=end, train_start=start, left_out=left_out)
    tape = _with_value_traded(config, cube.scaled(scaler).to_tape(), prices)
    return Market(prices=prices, scaler=scaler, tape=tape, series=series)


def tape_of(config: ExperimentConfig, prices: Prices, scaler: FeatureScaler, series: AlignedSeries | None = None) -> MarketTape:
    """What the policy of a run sees of other prices, such as a scenario's: its features, scaled as in training.

    Args:
        series: what the bars knew of the series of `features.context`; read from its files if not given.

    Raises:
        ConfigError: the prices lack what the scaler was fitted on, such as volume.
    """
    cube = FeatureBuilder(config.features).build(_as_learnt(config, prices, scaler), series=series)
    return _with_value_traded(config, cube.scaled(scaler).to_tape(), prices)


def _with_value_traded(config: ExperimentConfig, tape: MarketTape, prices: Prices) -> MarketTape:
    """With the value traded where the environment limits trades by it; other tapes, and their hashes, stay as they were."""
    if config.env.liquidity is None:
        return tape
    tape = dataclasses.replace(tape, dollar_volume=prices.dollar_volume)
    config.env.liquidity.check_tape(tape)
    return tape


def _as_learnt(config: ExperimentConfig, prices: Prices, scaler: FeatureScaler) -> Prices:
    """Without volume where the policy learnt without; other prices may have it."""
    learnt = bool(volume_features(config.features) & set(scaler.feature_names))
    return prices if learnt else dataclasses.replace(prices, volume=None)


def volume_features(config: FeatureConfig) -> set[str]:
    """Names of the features that need volume."""
    return {name for entry in ASSET_FEATURES if entry.group == "volume" for name, _ in entry.columns(config)}


def _check_periods(tape: MarketTape, split: SplitConfig) -> None:
    for name in ("train", "validation", "test"):
        period = getattr(split, name)
        if period is None:
            continue
        try:
            tape.row_range(str(period[0]), str(period[1]))
        except MarketDataError as error:
            raise MarketDataError(f"split.{name} = {error}") from None
