"""Look-ahead proof of an experiment: change prices and news after a day, and nothing decided by that day may move."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from envs.tape import MarketTape
from rlplatform.data import Prices, load_prices
from rlplatform.experiments.config import ExperimentConfig
from rlplatform.experiments.lookahead_accounts import (
    Columns,
    account_life,
    judged_env,
    training_statistics,
    validation_wealth,
)
from rlplatform.experiments.market import Market, prepare_market
from rlplatform.features import FeatureScaler
from rlplatform.features.context.asof import load_series
from rlplatform.features.context.panel import reads_series
from rlplatform.features.context.series import Series
from rlplatform.features.lookahead import LookaheadError, PricesAndSeries, first_leak, tape_columns, with_changed_future

Array = np.ndarray

ENV_BARS = 64  # that one account trades up to each cut
NOTHING = 1e-12  # a growth that moves by less does not depend on the bar


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """The steps from prices to a decision. Give one of your own to have it proved instead of ours.

    Attributes:
        prepare: (config, scaler or None) → Market, like `prepare_market`.
        env: (config, tape, first row, last row) → an environment of one account that decides first on `first`.
        normaliser: (config, tape) → what training learns to scale observations by, by name.
        selection: (config, tape) → what the best checkpoint is chosen by, by name.
    """

    prepare: Callable[[ExperimentConfig, FeatureScaler | None], Market] = prepare_market
    env: Callable[[ExperimentConfig, MarketTape, int, int], gym.Env] = judged_env
    normaliser: Callable[[ExperimentConfig, MarketTape], Columns] = training_statistics
    selection: Callable[[ExperimentConfig, MarketTape], Columns] = validation_wealth


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that knew what it could not know.

    Attributes:
        check: which check found it: "symbols", "features", "series", "scaler", "env", "execution", "normaliser" or "selection".
        culprit: feature, column of the observation, or statistic.
        where: asset, date and row of the value, as far as it has them.
        changed_after: day whose later prices were changed.
        explanation: one sentence.
    """

    check: str
    culprit: str
    where: str
    changed_after: str
    explanation: str

    def __str__(self) -> str:
        return f"{self.check}: {self.culprit} {self.where}: {self.explanation}"


@dataclass(frozen=True, kw_only=True)
class LookaheadProof:
    """What was checked, and what was found.

    Attributes:
        checks: name of each check → values it compared.
        cuts: days whose later prices were changed.
        findings: the first one of each check that failed; none is a proof for these cuts.
    """

    checks: Mapping[str, int]
    cuts: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def clean(self) -> bool:
        return not self.findings

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        found = [dataclasses.asdict(finding) for finding in self.findings]
        return {"clean": self.clean, "checks": dict(self.checks), "cuts": list(self.cuts), "findings": found}


@dataclass(frozen=True, kw_only=True)
class GivenPrices:
    """A source of prices that are at hand already."""

    prices: Prices
    source: str = "given"

    def describe(self) -> str:
        return self.prices.source

    def load(self) -> Prices:
        return self.prices


@dataclass(frozen=True, kw_only=True)
class GivenSeries:
    """In place of a `SeriesConfig`: a series that is at hand already."""

    series: Series

    @property
    def kind(self) -> str:
        return self.series.kind

    @property
    def max_age_days(self) -> int:
        return self.series.max_age_days

    def load(self, name: str, folder: str | None, since: np.datetime64 | None = None) -> Series:
        return self.series


def prove(config: ExperimentConfig, cuts: int = 6, seed: int = 0, pipeline: Pipeline | None = None) -> LookaheadProof:
    """Run the experiment's pipeline on its prices and on prices that differ after a cut, and compare all before it.

    With the prices change the series of `features.context`: every value published after the close of the cut, and revisions
    published then of values known before.

    | check | must not move when prices change after | |
    |---|---|---|
    | symbols | any cut | the list of assets |
    | features | any cut t | features, context, forecasts, returns of rows ≤ t, the scaler held fixed |
    | series | the middle cut | the same, when the series alone change |
    | scaler | the last training day | mean and standard deviation of every column |
    | env | any cut t | observations, masks, rewards and infos up to t; weights decided at t |
    | execution | (must move) | the reward for what was decided at t: else it is traded at a price that is known already |
    | normaliser | the last training day | statistics of training's observations |
    | selection | the last validation day | the figures that choose the checkpoint |

    Args:
        cuts: rows to cut at, spread over all periods; each costs one build of the features and two short episodes.
        seed: of the changed prices and of the actions.

    Raises:
        LookaheadError: nothing at all moves, not even later rows: the pipeline does not read the prices of `config.data`, or
            not the series of `config.features.context`.
    """
    return _Proof(config, pipeline or Pipeline(), cuts, seed).run()


class _Proof:
    """One run of all checks; collects values compared and findings."""

    def __init__(self, config: ExperimentConfig, pipeline: Pipeline, cuts: int, seed: int) -> None:
        self.config, self.pipeline, self.rng = config, pipeline, np.random.default_rng(seed)
        prices, context = load_prices(config.data), config.features.context
        self.seed, self.prices = seed, prices
        self.source = PricesAndSeries(prices=prices, series={} if context is None else load_series(context, prices))
        self.market = self._build(self.source, None)
        self.tape = self.market.tape
        self.checks: dict[str, int] = {}
        self.findings: list[Finding] = []
        first = self.tape.row_range(str(config.split.train[0]))[0]
        last = self.tape.row_range(None, str(config.split.test[1]))[1]
        edges = np.linspace(first + 2, last - 2, cuts + 1).astype(int)
        self.cuts = [int(self.rng.integers(low, max(high, low + 1))) for low, high in itertools.pairwise(edges)]

    def run(self) -> LookaheadProof:
        split = self.config.split
        for cut in self.cuts:
            self._check_rows(cut)
        if self.source.series:
            self._check_series(self.cuts[len(self.cuts) // 2])
        self._check_fit("scaler", split.train[1], lambda market: _scaler_columns(market.scaler))
        if self.config.dataset is None:
            self._check_fit("normaliser", split.train[1], lambda market: self.pipeline.normaliser(self.config, market.tape))
        if split.validation is not None:
            chosen = lambda market: self.pipeline.selection(self.config, market.tape)  # noqa: E731
            self._check_fit("selection", split.validation[1], chosen)
        return LookaheadProof(
            checks=self.checks, cuts=tuple(self._date(cut) for cut in self.cuts), findings=tuple(self.findings)
        )

    def _build(self, source: PricesAndSeries, scaler: FeatureScaler | None) -> Market:
        features = self.config.features
        if source.series:
            given = {name: GivenSeries(series=series) for name, series in source.series.items()}
            features = dataclasses.replace(features, context=dataclasses.replace(features.context, series=given))
        data = GivenPrices(prices=source.prices)
        return self.pipeline.prepare(dataclasses.replace(self.config, data=data, features=features), scaler)

    def _changed(self, cut: int) -> PricesAndSeries:
        """Prices and series that differ after the cut."""
        return with_changed_future(self.source, self._price_row(cut), self.rng)

    def _check_series(self, cut: int) -> None:
        """The series alone change: what moves then, and what must not."""
        changed = dataclasses.replace(self._changed(cut), prices=self.prices)
        before, after = tape_columns(self.tape), tape_columns(self._build(changed, self.market.scaler).tape)
        if first_leak(before, after) is None and reads_series(self.config.features.context):
            raise LookaheadError("nothing moved when series alone changed: does the pipeline read features.context.series?")
        self._compare("series", before, after, cut, upto=cut)

    def _check_rows(self, cut: int) -> None:
        changed = self._build(self._changed(cut), self.market.scaler).tape
        self._count("symbols", self.tape.num_assets)
        if changed.symbols != self.tape.symbols:
            lost = sorted(set(self.tape.symbols) - set(changed.symbols)) or ["their order"]
            self._found("symbols", ", ".join(lost), "", cut, "the list of assets was chosen by prices of later days")
            return
        before, after = tape_columns(self.tape), tape_columns(changed)
        if first_leak(before, after) is None:
            raise LookaheadError("nothing at all moved when later prices changed: does the pipeline read config.data?")
        self._compare("features", before, after, cut, upto=cut)
        self._check_env(changed, cut)

    def _check_env(self, changed: MarketTape, cut: int) -> None:
        """One account decides at the rows up to cut + 1 on both tapes, with the same actions."""
        first, last = max(cut - ENV_BARS, 0), cut + 2
        lives = []
        for tape in (self.tape, changed):
            life = account_life(self.pipeline.env(self.config, tape, first, last), last - first + 1, self.seed)
            lives.append({name: _from_row(first, values) for name, values in life.items()})
        self._compare("env", *lives, cut, upto=cut)
        self._check_execution(*lives, cut)

    def _check_execution(self, true: Columns, changed: Columns, cut: int) -> None:
        """What is decided at the cut must earn the bar after it."""
        growth = np.array([life["wealth"][cut + 1] / life["wealth"][cut] for life in (true, changed)])
        if not (np.isfinite(growth).all() and np.abs(true["weights"][cut]).max() > 0):
            return
        self._count("execution", 1)
        if abs(growth[0] - growth[1]) <= NOTHING:
            reason = "what is decided at this close does not earn the next bar: it trades at a price that is known already"
            self._found("execution", "wealth", f"[{self._date(cut)}, row {cut}]", cut, reason)

    def _check_fit(self, check: str, day: Any, figures: Callable[[Market], Columns]) -> None:
        """Figures that rest on days up to `day` stay when every later price changes."""
        cut = self.tape.row_range(None, str(day))[1]
        if cut >= len(self.tape) - 1:
            return
        source = self._changed(cut)
        changed = self._build(source, None)
        if changed.tape.symbols != self.tape.symbols:
            return  # reported by the cuts
        if check != "scaler":  # a scaler that peeks moves all that is scaled; it has a check of its own
            changed = self._build(source, self.market.scaler)
        self._compare(check, figures(self.market), figures(changed), cut, upto=None)

    def _compare(self, check: str, true: Columns, changed: Columns, cut: int, upto: int | None) -> None:
        rows = {name: slice(None) if upto is None else slice(0, upto + 1) for name in true}
        true = {name: np.atleast_1d(values)[rows[name]] for name, values in true.items()}
        changed = {name: np.atleast_1d(changed[name])[rows[name]] for name in true}
        self._count(check, sum(values.size for values in true.values()))
        found = first_leak(true, changed)
        if found is None:
            return
        name, cell = found
        where = f"[row {cell[0]}]" if upto is None else f"[{self._date(cell[0])}, row {cell[0]}{self._asset(cell)}]"
        values = (float(np.atleast_1d(each[name])[cell]) for each in (true, changed))
        what = "series" if check == "series" else "prices and series" if self.source.series else "prices"
        explanation = "moves from {:.6g} to {:.6g} when {} after {} change".format(*values, what, self._date(cut))
        self._found(check, name, where, cut, explanation)

    def _found(self, check: str, culprit: str, where: str, cut: int, explanation: str) -> None:
        if check not in {finding.check for finding in self.findings}:
            day = self._date(cut)
            self.findings.append(Finding(check=check, culprit=culprit, where=where, changed_after=day, explanation=explanation))

    def _count(self, check: str, values: int) -> None:
        self.checks[check] = self.checks.get(check, 0) + int(values)

    def _price_row(self, row: int) -> int:
        """Row of the prices at the tape's row: a pipeline may drop rows at the start."""
        return int(np.searchsorted(self.prices.dates, self.tape.dates[row]))

    def _date(self, row: int) -> str:
        return str(self.tape.dates[row])[:10]

    def _asset(self, cell: tuple[int, ...]) -> str:
        return f", {self.tape.symbols[cell[1]]}" if len(cell) > 1 and cell[1] < self.tape.num_assets else ""


def _scaler_columns(scaler: FeatureScaler) -> Columns:
    """Mean and standard deviation (2,) of each column."""
    names = (*scaler.feature_names, *scaler.context_names)
    mean, std = (*scaler.feature_mean, *scaler.context_mean), (*scaler.feature_std, *scaler.context_std)
    return dict(zip(names, np.stack([mean, std], axis=1), strict=True))


def _from_row(first: int, values: Array) -> Array:
    """Values of rows first, first + 1, … with NaN before, so that the index is the tape's row."""
    return np.concatenate([np.full((first, *values.shape[1:]), np.nan), values])
