"""The plan of a pipeline: prices, pairs and settings, checked before a training is spent on them."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from envs.errors import ConfigError
from rlplatform.data import Prices, load_prices
from rlplatform.evaluation.pair_choice import ChosenPair
from rlplatform.experiments.experiment import checked_market
from rlplatform.experiments.market import Market, prepare_market
from rlplatform.experiments.pipeline_config import GENERIC, PAIRS, SPECIALISTS, STAGES, Pipeline
from rlplatform.features.forecasts.chronos_training import training_series
from rlplatform.features.forecasts.panel import log_returns_of
from rlplatform.features.forecasts.specialists import generic_model, specialists_at


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a pipeline is going to make, after all that can be checked before a training is spent on it."""

    prices: Prices
    market: Market
    symbols: tuple[str, ...]
    pairs: tuple[ChosenPair, ...]

    @classmethod
    def of(cls, pipeline: Pipeline) -> Plan:
        """Raises ConfigError, MarketDataError."""
        prices = load_prices(pipeline.base.data)
        if prices.num_assets < 2:
            raise ConfigError(f"{pipeline.where}: data.symbols has {prices.num_assets}; a pair needs two. Name more.")
        symbols, pairs = pipeline.specialists(prices), pipeline.pairs(prices)
        _check_forecasters(pipeline, prices, pairs)
        if pipeline.is_run(PAIRS):
            _check_trainings(pipeline, pairs)
        plain_features = dataclasses.replace(pipeline.base.features, forecasts=None)
        market = prepare_market(dataclasses.replace(pipeline.base, features=plain_features))
        return cls(prices=prices, market=market, symbols=symbols, pairs=pairs)


def _check_forecasters(pipeline: Pipeline, prices: Prices, pairs: Sequence[ChosenPair]) -> None:
    stages, forecast, horizon = pipeline.block.stages, pipeline.forecast, pipeline.forecasts.horizons[-1]
    if pipeline.has_forecasters and importlib.util.find_spec("chronos") is None:
        raise ConfigError(
            f"{pipeline.where}: the forecasters need chronos-forecasting, which is not installed. pip install "
            "'rlplatform[forecast]', or leave them out: --skip generic --skip specialists"
        )
    if stages.generic is not None:
        generic_model(Path(stages.generic))
    if stages.specialists is not None:
        known = specialists_at(Path(stages.specialists))
        without = [symbol for pair in pairs for symbol in pair.symbols if symbol not in known]
        if without and stages.generic is None and not pipeline.is_run(GENERIC):
            raise ConfigError(
                f"{pipeline.where}: pipeline.stages.specialists has none of {without[0]}, and no generic forecaster speaks of "
                "it. Give one with pipeline.stages.generic=DIR, or leave the pair out."
            )
    if pipeline.is_run(GENERIC):
        if horizon > forecast.train.horizon:
            raise ConfigError(
                f"{pipeline.where}: features.forecasts.horizons reach {horizon} bars; forecast.train.horizon = "
                f"{forecast.train.horizon}. Choose nearer ones, or forecast.train.horizon={horizon}."
            )
        training_series(prices.dates, log_returns_of(prices), pipeline.forecasters_until, forecast.train, 0.94)
    elif pipeline.is_run(SPECIALISTS) and stages.generic is None:
        raise ConfigError(
            f"{pipeline.where}: specialists go on from a generic forecaster, and that stage is left out. Give one with "
            "pipeline.stages.generic=DIR, or leave the specialists out too."
        )


def _check_trainings(pipeline: Pipeline, pairs: Sequence[ChosenPair]) -> None:
    """Every pair with the first allocation, every allocation with the first pair; forecasts apart, which are not there yet."""
    first = next(iter(pipeline.block.allocation))
    for pair in pairs:
        for arm in pipeline.block.allocation if pair == pairs[0] else (first,):
            config = pipeline.pair_config(pair, arm, pipeline.seeds[0], None, Path())
            observe = tuple(name for name in config.env.observe if not name.startswith("forecast_"))
            market = checked_market(dataclasses.replace(config, env=dataclasses.replace(config.env, observe=observe)))
            if pipeline.block.walkforward is not None:
                walk = pipeline.walk(config)
                for fold in walk.folds(market.tape.dates):
                    walk.config_for(fold, market.tape.dates, walk.seeds[0])


def check_stage(option: str, stages: Sequence[str]) -> None:
    """Raises ConfigError where one is no stage."""
    for stage in stages:
        if stage not in STAGES:
            raise ConfigError(f"{option} {stage}: no such stage; expected one of {', '.join(STAGES)}.")
