"""Benchmarks: a list of policies of any origin, replayed on the same days with the same costs against one of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from envs.errors import ConfigError
from envs.tape import MarketTape
from envs.terms import CapsConfig, CostConfig, FinancingConfig
from rlplatform.data import Prices, load_prices
from rlplatform.data.request import did_you_mean
from rlplatform.evaluation.backtest import run_targets
from rlplatform.evaluation.baselines import BaselineConfig, judge_baselines, standard_baselines
from rlplatform.evaluation.benchmark_table import BenchmarkEntry, BenchmarkTable, judge_entries
from rlplatform.evaluation.deflated import Trials
from rlplatform.evaluation.gate import GateConfig
from rlplatform.evaluation.significance import BootstrapConfig
from rlplatform.evaluation.track import Track
from rlplatform.experiments.config import DataConfig, Period
from rlplatform.experiments.judging import backtest, sample_of
from rlplatform.experiments.loading import structure
from rlplatform.experiments.market import tape_of
from rlplatform.experiments.registry import setting_of, trials_of
from rlplatform.experiments.run_directory import RunDirectory
from rlplatform.experiments.weights_file import read_weights
from rlplatform.experiments.yaml_text import read_yaml
from rlplatform.models.ensemble import load_policy
from rlplatform.models.policy import ENSEMBLE_DIRECTORY, WEIGHTS_FILE


@dataclass(frozen=True, kw_only=True)
class RunEntry:
    """A run of any algorithm: its directory, or the policy directory inside it.

    Attributes:
        path: from where the command is given.
        name: in the table; the directory's if not given.
    """

    kind: Literal["run"] = "run"
    path: str
    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class BaselineEntry:
    """One of the standard baselines, by its name."""

    kind: Literal["baseline"] = "baseline"
    name: str


@dataclass(frozen=True, kw_only=True)
class WeightsEntry:
    """Daily target weights of another system, see `weights_file.read_weights`.

    Attributes:
        name: in the table.
        path: of the CSV file, from where the command is given.
        trials: that the system was chosen from, by what its maker says; its Sharpe ratio is deflated by them.
    """

    kind: Literal["weights"] = "weights"
    name: str
    path: str
    trials: int = 1

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise ConfigError(f"trials = {self.trials}; expected at least 1.")


Entry = Annotated[RunEntry | BaselineEntry | WeightsEntry, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """One benchmark.

    Attributes:
        name: first part of the directory's name in `results_dir`.
        data: prices that all trade.
        period: first decision and last valuation, days included.
        against: name of the entry that all others are compared with.
        policies: entries of the table, each with a name of its own.
        costs, financing: that all pay, whatever they were trained under.
        caps: of baselines and of weights from files; a run keeps those of its own environment.
        baselines, bootstrap: see their own configs.
        gate: for `--check`; its benchmark is `against`, its share of baselines that of the entries which are baselines.
        results_dir: where the directory is made.
    """

    name: str
    data: DataConfig
    period: Period
    against: str
    policies: tuple[Entry, ...]
    costs: CostConfig = field(default_factory=CostConfig)
    financing: FinancingConfig = field(default_factory=FinancingConfig)
    caps: CapsConfig = field(default_factory=CapsConfig)
    baselines: BaselineConfig = field(default_factory=BaselineConfig)
    bootstrap: BootstrapConfig = field(default_factory=BootstrapConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    results_dir: str = "results"

    def __post_init__(self) -> None:
        if not self.name or any(c in self.name for c in "/\\ :"):
            raise ConfigError(f"name = {self.name!r}; it becomes a folder's name, so no spaces, colons or slashes.")
        if self.period[0] >= self.period[1]:
            raise ConfigError(f"period = [{self.period[0]}, {self.period[1]}] ends before it starts. Swap the dates.")
        names = self.names
        if self.against not in names:
            raise ConfigError(
                f"against = {self.against!r} is none of the policies: {', '.join(names)}.{did_you_mean(self.against, names)}"
            )
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(f"policies: two are called {twice[0]}. Give one of them a name of its own.")
        if len(names) < 2:
            raise ConfigError("policies: one alone; give at least one more to compare.")

    @property
    def names(self) -> list[str]:
        """In the table, entry by entry."""
        return [entry.name or _run_path(entry.path).name for entry in self.policies]


def load_bench(path: Path) -> BenchConfig:
    """BENCH.yaml, strictly.

    Raises:
        ConfigError: names the file and the key.
    """
    return structure(BenchConfig, read_yaml(path), Path(path).name)


def run_bench(config: BenchConfig, on_phase: Callable[[str], None] = lambda text: None) -> BenchmarkTable:
    """Replay every entry and compare it with the one that the config names.

    Raises:
        ConfigError: an entry that is not there, does not fit the prices, or breaks the caps.
        MarketDataError: the prices do not hold the period.
    """
    prices = load_prices(config.data)
    tape = MarketTape(dates=prices.dates, symbols=prices.symbols, gross=prices.gross())
    entries = []
    for entry, name in zip(config.policies, config.names, strict=True):
        on_phase(f"replaying {name}")
        entries.append(_replayed(entry, name, config, prices, tape))
    on_phase("comparing")
    return judge_entries(
        entries,
        config.against,
        gate=config.gate,
        bootstrap=config.bootstrap,
        bars_per_year=config.financing.bars_per_year,
        notes=_notes(config, prices),
    )


def _replayed(entry: Entry, name: str, config: BenchConfig, prices: Prices, tape: MarketTape) -> BenchmarkEntry:
    if isinstance(entry, RunEntry):
        return _run(entry, name, config, prices)
    if isinstance(entry, BaselineEntry):
        return BenchmarkEntry(kind="baseline", track=_baseline(entry.name, config, tape))
    inside = tape.between(*map(str, config.period))
    weights = read_weights(Path(entry.path), inside, config.caps)
    track = run_targets(name, weights, inside, config.costs, config.financing, config.caps)
    return BenchmarkEntry(kind="weights", track=track, trials=Trials(count=entry.trials))


def _run(entry: RunEntry, name: str, config: BenchConfig, prices: Prices) -> BenchmarkEntry:
    """The run's policy on the benchmark's prices, with features scaled as in its training."""
    run = RunDirectory.open(_run_path(entry.path))
    settings, scaler = run.config(), run.scaler()
    symbols = _symbols(run, prices, name)
    if settings.env.financing.bars_per_year != config.financing.bars_per_year:
        raise ConfigError(
            f"{name} was trained on bars of {settings.env.financing.bars_per_year} a year; the benchmark's have "
            f"{config.financing.bars_per_year}. Set financing.bars_per_year to the same."
        )
    tape = tape_of(settings, prices.select(symbols), scaler)
    env = dataclasses.replace(settings.env, costs=config.costs, financing=config.financing)
    same_terms = dataclasses.replace(settings, env=env)
    track = backtest(same_terms, tape, load_policy(run.policy), *config.period, name)
    notes = []
    if (settings.env.costs, settings.env.financing) != (config.costs, config.financing):
        notes.append(f"{name} was trained under other costs or financing.")
    if settings.env.liquidity is not None:
        notes.append(f"{name} keeps its own env.constraints.liquidity; baselines and weights from files trade without.")
    return BenchmarkEntry(
        kind="run",
        track=track,
        trials=trials_of(run.path),
        setting=setting_of(run.path),
        in_sample=sample_of(settings.split, *config.period).startswith("In sample"),
        notes=tuple(notes),
    )


def _symbols(run: RunDirectory, prices: Prices, name: str) -> Sequence[str]:
    """What the run trades, in its order."""
    symbols = run.manifest().get("data", {}).get("symbols") or list(prices.symbols)
    missing = [symbol for symbol in symbols if symbol not in prices.symbols]
    if missing:
        raise ConfigError(
            f"{name} trades {', '.join(missing)}, which the benchmark's data lack: they hold {', '.join(prices.symbols)}. "
            "Add them to data.symbols."
        )
    return symbols


def _run_path(path: str) -> Path:
    """The run that a policy directory lies in, or the run itself."""
    given = Path(path)
    return given.parent if (given / WEIGHTS_FILE).is_file() or (given / ENSEMBLE_DIRECTORY).is_dir() else given


def _baseline(name: str, config: BenchConfig, tape: MarketTape) -> Track:
    known = list(standard_baselines(tape.symbols, config.baselines))
    if name not in known:
        raise ConfigError(f"policies: unknown baseline {name}; there are {', '.join(known)}.{did_you_mean(name, known)}")
    start, end = map(str, config.period)
    terms = (config.costs, config.financing, config.caps)
    return judge_baselines(tape, start, end, *terms, config=config.baselines, only=[name])[0]


def _notes(config: BenchConfig, prices: Prices) -> list[str]:
    costs = config.costs
    impact = f" and square-root impact {costs.impact:g}" if costs.impact else ""
    return [
        f"Everyone pays {costs.proportional_bps:g} bp of traded value{impact}; decisions at each close, held to the next.",
        f"Prices: {prices.source}.",
    ]
