"""Datasets from an experiment's market: collected with a behaviour, or imported from somebody's trades."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.spaces import Discrete

from envs.accounts import TradingTask
from envs.catalog import CATALOG, make_task
from envs.errors import ConfigError
from envs.trading_config import EpisodeConfig
from envs.trading_env import TradingVectorEnv
from rlplatform.data import FolderConfig, load_prices
from rlplatform.data.request import check_choice
from rlplatform.experiments.config import ExperimentConfig
from rlplatform.experiments.loading import plain, structure
from rlplatform.experiments.market import Market, prepare_market
from rlplatform.models.heads import head_for
from rlplatform.offline.behaviour import TableBehaviour, make_behaviour
from rlplatform.offline.behaviour_config import BehaviourConfig, behaviour_config
from rlplatform.offline.collecting import collect
from rlplatform.offline.columns import RECORDED, ColumnRecorder, describe_columns
from rlplatform.offline.episodes import Episodes
from rlplatform.offline.manifest import FORMATS, DatasetManifest
from rlplatform.offline.trade_history import TradeHistory, check_history, read_history
from rlplatform.offline.weight_actions import actions_for, feasible
from rlplatform.offline.writing import write_dataset

Array = np.ndarray
Progress = Callable[[int, int], None]

PERIODS = ("train", "validation", "test")
DEFAULT_SPLIT = {
    "train": ["1991-01-02", "2011-12-30"],
    "validation": ["2012-01-03", "2014-12-31"],
    "test": ["2015-01-02", "2022-12-28"],
}
TECHNICAL = {
    "groups": ["returns", "volatility", "trend", "market"],
    "return_windows": [5, 21, 252],
    "volatility_windows": [63],
    "average_windows": [50],
}
DEFAULTS: dict[str, dict[str, Any]] = {  # what `--env ID` alone means: prices that come with the installation
    "Portfolio-v0": {
        "data": {"source": "bundled", "dataset": "sp500"},
        "features": TECHNICAL,
        "env": {"id": "Portfolio-v0", "reward": {"excess_log_growth": 1.0}, "observe_forecasts": False},
    },
    "MultiAssetRegime-v0": {
        "data": {"source": "bundled", "dataset": "sp500", "symbols": ["SP500", "MSFT", "XOM"]},
        "env": {"id": "MultiAssetRegime-v0"},
    },
    "PairLeverage-v0": {
        "data": {"source": "bundled", "dataset": "sp500", "symbols": ["KO", "PEP"]},
        "env": {"id": "PairLeverage-v0"},
    },
}


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """What to collect.

    Attributes:
        policy: the behaviour, see `behaviour_config`.
        episodes: how many complete ones.
        format: "json" (lines), "parquet" (one row a step) or "parquet_episodes".
        period: of the experiment's split; a policy may be judged only on what it was not trained on, so "train".
        seed: of start rows and actions.
        columns: extras to record, see rlplatform/offline/columns.py.
        shard_rows: rows of a file, about; what is in memory at a time.
        compress: pack observations with lz4; JSON only.
    """

    policy: BehaviourConfig
    episodes: int = 200
    format: str = "json"
    period: str = "train"
    seed: int = 0
    columns: tuple[str, ...] = RECORDED
    shard_rows: int = 32_768
    compress: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "policy", behaviour_config(self.policy))
        check_choice("format", self.format, FORMATS)
        check_choice("period", self.period, PERIODS)
        for name in ("episodes", "shard_rows"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}; expected at least 1.")
        if self.seed < 0:
            raise ConfigError(f"seed = {self.seed}; expected at least 0.")
        if self.compress and self.format != "json":
            raise ConfigError(f"compress packs JSON; {self.format} is compressed as it is. Leave it out.")


def default_experiment(env_id: str, prices: Path | None = None, symbols: Sequence[str] = ()) -> ExperimentConfig:
    """The experiment that `--env ID` alone means: bundled prices, or a folder's, cut 60/20/20 into periods.

    Raises:
        ConfigError: no such environment.
    """
    check_choice("env", env_id, CATALOG)
    content = {"name": "offline", "split": DEFAULT_SPLIT, **DEFAULTS[env_id]}
    if prices is not None:
        data = FolderConfig(path=str(prices), symbols=tuple(symbols))
        content |= {"data": plain(data), "split": _split(load_prices(data).dates)}
    elif symbols:
        content["data"] = {**content["data"], "symbols": list(symbols)}
    return structure(ExperimentConfig, content, where=f"env {env_id}")


def _split(dates: Array) -> dict[str, list[str]]:
    days = [str(date)[:10] for date in dates]
    validation, test = int(0.6 * len(days)), int(0.8 * len(days))
    bounds = {"train": (0, validation - 1), "validation": (validation, test - 1), "test": (test, len(days) - 1)}
    return {name: [days[first], days[last]] for name, (first, last) in bounds.items()}


OBSERVED = ("name", "seed", "data", "split", "features", "env")  # what prices, features and environment depend on


def experiment_of(manifest: DatasetManifest) -> ExperimentConfig:
    """The experiment that a dataset was collected from: its prices, features and environment can be rebuilt.

    Its model and training are left at their defaults: they say nothing of the data.

    Raises:
        ConfigError: the dataset carries none, or one of another version.
    """
    if manifest.experiment is None:
        raise ConfigError(
            "the dataset does not say which experiment it comes from (dataset.json: experiment). Collect it again."
        )
    content = {name: manifest.experiment[name] for name in OBSERVED if name in manifest.experiment}
    return structure(ExperimentConfig, content, where="dataset.json: experiment")


def collect_dataset(
    config: ExperimentConfig, collecting: CollectConfig, directory: Path, on_shard: Progress = lambda episodes, rows: None
) -> DatasetManifest:
    """Let a behaviour trade complete episodes in an experiment's environment and write them as a dataset.

    The same command gives the same bytes; an interrupted one goes on where it stopped.

    Raises:
        ConfigError: the behaviour makes no sense for the environment.
        DatasetError: the directory holds something else.
    """
    market = prepare_market(config)
    ColumnRecorder(market.tape, collecting.columns)
    start, end = _period(config, collecting.period)
    task, visible = make_task(config.env, market.tape, end)
    behaviour = make_behaviour(collecting.policy, task, market.scaler)
    window = visible.row_range(start)
    length = TradingVectorEnv(task, window, 1).accounts.length
    in_shard = max(1, collecting.shard_rows // length)
    counts = [min(in_shard, collecting.episodes - done) for done in range(0, collecting.episodes, in_shard)]

    def shard(number: int) -> Episodes:
        env = TradingVectorEnv(task, window, counts[number], autoreset_mode="same_step")
        return collect(env, behaviour, (collecting.seed, number), collecting.columns)

    plan = _plan(
        config, market, task, collecting.format, _days(collecting.period, start, end, window),
        behaviours=({**collecting.policy.to_dict(), "episodes": collecting.episodes, "shard_rows": collecting.shard_rows},),
        columns=collecting.columns,
        has_log_prob=_has_log_prob(collecting.policy, task),
        seed=collecting.seed,
    )  # fmt: skip
    return write_dataset(directory, plan, [lambda n=n: shard(n) for n in range(len(counts))], collecting.compress, on_shard)


def import_dataset(
    config: ExperimentConfig,
    history_path: Path,
    directory: Path,
    format: str = "json",
    capital: float | None = None,
    length_bars: int | None = None,
    columns: Sequence[str] = RECORDED,
) -> DatasetManifest:
    """Replay somebody's weights or trades through the environment and write the episodes as a dataset.

    Rewards are those of our ledger, with the experiment's costs. Each episode starts in cash and buys the first day's
    weights.

    Args:
        history_path: see `trade_history.read_history`.
        capital: money at the start; for trades.
        length_bars: cut the history into episodes of so many decisions, the rest dropped; one episode if not given.

    Raises:
        DatasetError: a symbol or day that the prices do not have, or weights beyond the caps.
    """
    check_choice("format", format, FORMATS)
    market = prepare_market(config)
    history = read_history(history_path, market.prices, config.env.financing, capital)
    total = history.last - history.first + 1
    if length_bars is not None and not 1 <= length_bars <= total:
        raise ConfigError(f"--episode-bars = {length_bars}; the history has {total} decisions. Choose 1 to {total}.")
    length = length_bars or total
    env_config = dataclasses.replace(
        config.env, episode=EpisodeConfig(length_bars=length, random_start=False, wealth_floor=config.env.episode.wealth_floor)
    )
    task, visible = make_task(env_config, market.tape.rows(0, history.last + 1))
    check_history(history, task)
    behaviour = TableBehaviour(actions_for(task, feasible(task, history.table(len(visible)))))
    starts = history.first + length * np.arange(total // length)
    window = (history.first, history.last + 1)

    def replay() -> Episodes:
        env = TradingVectorEnv(task, window, len(starts), autoreset_mode="same_step")
        episodes = collect(env, behaviour, (0,), columns, starts)
        # What somebody did is known, not how likely they were to do it.
        return dataclasses.replace(episodes, log_prob=np.full(episodes.num_rows, np.nan, np.float32))

    days = [str(visible.dates[row])[:10] for row in window]
    plan = _plan(
        dataclasses.replace(config, env=env_config), market, task, format, _days("imported", *days, window),
        behaviours=(_imported(history, capital),),
        columns=tuple(columns),
        has_log_prob=False,
        seed=None,
    )  # fmt: skip
    return write_dataset(directory, plan, [replay])


def _imported(history: TradeHistory, capital: float | None) -> dict[str, Any]:
    return {"kind": "imported", "source": history.source, "form": history.kind, "capital": capital}


def _has_log_prob(policy: BehaviourConfig, task: TradingTask) -> bool:
    """A discrete action always has a mass; a continuous one has a density unless part of it is certain."""
    if isinstance(task.action_space, Discrete):
        return True
    return bool(policy.sigma) or policy.kind == "uniform" or (policy.kind == "policy" and not policy.deterministic)


def _period(config: ExperimentConfig, name: str) -> tuple[str, str]:
    period = getattr(config.split, name)
    if period is None:
        raise ConfigError(f"split.{name} is not given in the config. Choose another period, or give it.")
    return str(period[0]), str(period[1])


def _days(name: str, start: str, end: str, window: tuple[int, int]) -> dict[str, Any]:
    return {"name": name, "start": start, "end": end, "days": window[1] - window[0] + 1}


def _plan(
    config: ExperimentConfig, market: Market, task: TradingTask, format: str, period: Mapping[str, Any], **known: Any
) -> DatasetManifest:
    """The manifest as far as it is known before the first row."""
    columns = known.pop("columns")
    return DatasetManifest(
        format=format,
        env=plain(config.env),
        observation_names=tuple(task.observation_names),
        action_space=head_for(task.action_space).describe(),
        columns=describe_columns(columns),
        period=period,
        experiment=plain(config),
        scaler=market.scaler.to_dict(),
        prices_sha256=market.prices.sha256,
        tape_sha256=market.tape.sha256,
        **known,
    )
