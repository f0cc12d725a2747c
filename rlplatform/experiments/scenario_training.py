"""Training on generated histories beside the real one: real training rows, then paths, each a segment of one tape."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from envs.errors import ConfigError
from envs.tape import MarketTape
from rlplatform.data import Prices
from rlplatform.data.request import check_choice
from rlplatform.experiments.config import ExperimentConfig
from rlplatform.experiments.market import tape_of, volume_features
from rlplatform.experiments.scenario_config import ScenariosConfig
from rlplatform.experiments.visible_rows import training_rows
from rlplatform.features import FeatureBuilder, FeatureScaler
from rlplatform.scenarios.config import KINDS, ScenarioModelConfig
from rlplatform.scenarios.model import ScenarioModel, fit_model
from rlplatform.scenarios.shocks import shocked

Array = np.ndarray
log = logging.getLogger(__name__)

LONGEST_WINDOW = 256  # of what environments make of returns themselves
SHOCK_BLOCK_BARS = 10  # of the days that a crash is made of
FIRST_DAY = np.datetime64("2000-01-03")


def learning_rows(config: ExperimentConfig, tape: MarketTape) -> MarketTape:
    """What accounts of a training live on: `training_rows`, and behind them the histories that `config.scenarios` asks for.

    Model and scaler are fitted on the training rows alone, so no later row has a part in it. Features are built on each
    generated history by itself; its first rows, on which they rest on fewer bars, begin no episode. Dates of generated rows
    are seconds after the last real one: they say the order, and nothing else. The same config and tape give the same rows.

    Raises:
        ConfigError: a feature that cannot be built from generated prices.
    """
    rows = training_rows(config, tape)
    settings = config.scenarios
    if settings is None:
        return rows
    _check_columns(config, rows)
    gross, warm_up = fitting_rows(config, tape), max(config.features.warm_up, LONGEST_WINDOW)
    log.info("scenarios: fitting %s on %d rows", settings.model.kind, len(gross))
    paths = scenario_paths(settings, fit_model(settings.model, gross), gross, warm_up)
    scaler = training_scaler(config, rows)
    return with_paths(
        rows, [tape_of(config, prices_of(path, rows.symbols), scaler) for path in paths], settings, config, warm_up
    )


def fitting_rows(config: ExperimentConfig, tape: MarketTape) -> Array:
    """(T, N) gross returns of the training period alone, what a law is fitted on."""
    rows = training_rows(config, tape)
    return rows.gross[max(rows.row_range(str(config.split.train[0]))[0], 1) :]


def model_config(name: str, config: ExperimentConfig) -> ScenarioModelConfig:
    """Settings of the law of that name: those of `config.scenarios` where it is the same, else its defaults."""
    check_choice("scenario model", name, KINDS)
    own = config.scenarios
    return own.model if own is not None and own.model.kind == name else KINDS[name]()


def scenario_paths(settings: ScenariosConfig, model: ScenarioModel, gross: Array, warm_up: int) -> Array:
    """(paths, warm_up + bars, N) gross returns; crashes lie behind the warm-up, in evenly chosen paths, at drawn bars.

    Args:
        gross: (T, N) training rows, whose days crashes are made of.
    """
    rng = np.random.default_rng(settings.seed)
    paths = model.sample(settings.paths, warm_up + settings.bars, rng, antithetic=settings.antithetic)
    if settings.shocks:
        count = max(1, round(settings.stress_share * settings.paths))
        for number, path in enumerate(np.linspace(0, settings.paths - 1, count).astype(int)):
            crash = shocked(gross, settings.shocks[number % len(settings.shocks)], SHOCK_BLOCK_BARS, rng)
            begin = warm_up + int(rng.integers(0, settings.bars - len(crash) + 1))
            paths[path, begin : begin + len(crash)] = crash
    return paths


def with_paths(
    rows: MarketTape, paths: list[MarketTape], settings: ScenariosConfig, config: ExperimentConfig, warm_up: int
) -> MarketTape:
    """Real rows and paths, one segment each; `settings.share` of the episodes begin in paths."""
    length = config.env.episode.length_bars
    first = rows.row_range(str(config.split.train[0]))[0]
    real_starts, path_starts = len(rows) - first - length, len(paths) * (settings.bars - length)
    real, made = 1.0, settings.share / max(1.0 - settings.share, 1e-12) * max(real_starts, 0) / path_starts
    if settings.share == 1.0:
        real, made = 0.0, 1.0
    tapes, date = [replace(rows, start_weight=np.full(len(rows), real))], rows.dates[-1]
    for path in paths:
        dates = date + np.timedelta64(1, "s") * np.arange(1, len(path) + 1)
        weight = np.where(np.arange(len(path)) < warm_up, 0.0, made)
        tapes.append(replace(path, dates=dates, start_weight=weight))
        date = dates[-1]
    return MarketTape.joined(tapes)


def training_scaler(config: ExperimentConfig, rows: MarketTape) -> FeatureScaler:
    """The run's scaler, made again from what the training may see: features of its rows, in their own units."""
    start, end = map(str, config.split.train)
    cube = FeatureBuilder(config.features).build(prices_of(rows.gross, rows.symbols, rows.dates))
    return cube.fit_scaler(train_end=end, train_start=start)


def prices_of(gross: Array, symbols: tuple[str, ...], dates: Array | None = None) -> Prices:
    """Gross returns (T, N) as closes, of weekdays if no dates are given; no volume."""
    if dates is None:
        dates = np.busday_offset(FIRST_DAY, np.arange(len(gross)), roll="forward")
    return Prices(dates=dates, symbols=symbols, close=np.cumprod(gross, axis=0), source="generated")


def _check_columns(config: ExperimentConfig, rows: MarketTape) -> None:
    volume = sorted(volume_features(config.features) & set(rows.feature_names))
    if volume:
        kept = ", ".join(group for group in config.features.groups if group != "volume")
        raise ConfigError(
            f"scenarios: {volume[0]} needs volume, and a generated history has none. Leave it out: features.groups=[{kept}]"
        )
    for name in ("half_spread_bps", "impact_scale"):
        column = getattr(rows, name)
        if (column != column.flat[0]).any():
            raise ConfigError(f"scenarios: {name} of the real days differs from day to day; a generated history has none.")
