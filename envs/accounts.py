"""Accounts: the state of B accounts on one tape, and the only step that changes it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import gymnasium as gym
import numpy as np

from envs import ledger
from envs.backend import Array, Backend, clip_in_place
from envs.constraints import Constraints
from envs.errors import ConfigError
from envs.guards import Guards, LossShutdown, Situation
from envs.ledger import LedgerStep
from envs.liquidity import Liquidity
from envs.observation import ObservedColumns
from envs.rewards import RewardInputs, reward_terms, total_reward
from envs.snapshot import Stateful
from envs.starts import start_rows
from envs.tape import MarketTape
from envs.terms import CapsConfig
from envs.trade_book import ClosedTrades, TradeBook
from envs.trading_config import TradingConfig

OBS_LIMIT = 1e3  # observations are clipped here; nothing that means something is larger
FORECASTS = {"forecast_cvar": "predicted_cvar", "forecast_uncertainty": "forecast_uncertainty"}  # the term each one serves
WEALTH_LIMIT = 1e100  # wealth is counted no further, so that no later arithmetic overflows; there is no floor


class TradingTask(ABC):
    """What tells one environment from another: its action, and its observation. No money arithmetic.

    Attributes:
        config: settings.
        tape: the market, up to the last row the task may ever see.
        action_space: of one account.
        market_names, market: M names and (T, M) float32, the exogenous part of the observation at each row.
        account_names: names of the columns that `account_columns` returns.
        keeps_trade_book: whether the profit of each round trip is booked.
    """

    keeps_trade_book: ClassVar[bool] = False
    action_space: gym.Space
    market_names: tuple[str, ...]
    market: np.ndarray
    account_names: tuple[str, ...]

    def __init__(self, config: TradingConfig, tape: MarketTape) -> None:
        self.config, self.tape = config, tape
        if config.constraints is not None:
            config.constraints.check_tape(tape)

    def constants(self, backend: Backend) -> Any:
        """Tables that the task needs where the accounts live; they become `accounts.constants`."""
        return None

    @abstractmethod
    def target_weights(self, actions: Array, accounts: Accounts) -> Array:
        """Weights (B, N) that the actions ask for, before guards and `project`."""

    @abstractmethod
    def account_columns(self, accounts: Accounts) -> list[Array]:
        """Columns (B,) or (B, k), in the order of `account_names`."""

    @cached_property
    def observed(self) -> ObservedColumns:
        """The columns that the config adds."""
        return ObservedColumns(self.config.observe, self.tape, self.market_names + self.account_names)

    @cached_property
    def observation_table(self) -> np.ndarray:
        """(T, D) float32: each row's observation with the account's columns at 0. Made once; accounts on numpy share it."""
        market = np.pad(self.market, ((0, 0), (0, len(self.account_names))))
        table = np.concatenate([market, self.observed.table], axis=1, dtype=np.float32)
        return np.clip(table, -OBS_LIMIT, OBS_LIMIT, out=table)

    @cached_property
    def account_entries(self) -> np.ndarray:
        """(D,) bool: entries of the observation that follow from the account; all others are the market's alone."""
        own = [len(self.market_names) + len(self.account_names) + place for place in self.observed.account_places]
        entries = np.zeros(len(self.observation_names), bool)
        entries[len(self.market_names) : len(self.market_names) + len(self.account_names)] = True
        entries[own] = True
        return entries

    @property
    def observation_names(self) -> tuple[str, ...]:
        return self.market_names + self.account_names + self.observed.names


class Accounts(Stateful):
    """State of B accounts, one array a field, and the one step that changes it.

    Attributes:
        starts: (K,) rows at which episodes begin; see `start_rows`.
        leaves: (T,) bool, the last row of a segment: what is decided there would be held into another history.
    """

    STATE: ClassVar[tuple[str, ...]] = (
        *("row", "end_row", "wealth", "peak", "weights", "last_return", "sums"),
        *("shutdown", "guards", "book"),
    )

    def __init__(self, task: TradingTask, num_accounts: int, window: tuple[int, int], backend: Backend) -> None:
        self.task, self.config, self.backend = task, task.config, backend
        self.first, self.last = window
        tape, b, n = task.tape, num_accounts, task.tape.num_assets
        length = self.config.episode.length_bars
        self.length = self.last - self.first if length is None else length
        if self.length > self.last - self.first:
            raise ConfigError(
                f"episode.length_bars = {self.length} needs {self.length + 1} rows; "
                f"the window has {self.last - self.first + 1}. Shorten the episode or widen the window."
            )
        self.starts = backend.array(start_rows(tape, window, self.length), "int64")
        ends = np.append(tape.segment[1:] > tape.segment[:-1], True)
        self.leaves = backend.array(ends | (np.arange(len(tape)) >= self.last), "bool")
        self.constants = task.constants(backend)
        self.gross = backend.real(tape.gross)
        counted = [name for name, term in FORECASTS.items() if term in self.config.reward.terms]
        self._forecasts = {name: backend.real(getattr(tape, name)) for name in counted}
        self._rates = _cost_inputs(tape, backend)
        self.financing = self.config.financing
        if self.config.caps.gross <= 1:  # nothing is ever borrowed, so do not compute it at every step
            self.financing = replace(self.financing, rate_annual=0.0)
        self._gross_caps = _overnight_caps(tape, self.config.caps, backend)
        self._market_columns = len(task.market_names)
        self.market_table = backend.array(task.observation_table, "float32")
        self.row = backend.array(np.full(b, self.first), "int64")
        self.end_row = self.row + self.length
        self.wealth = backend.array(np.ones(b), "float64")
        self.peak = self.wealth
        self.weights = backend.zeros(b, n)
        self.last_return = backend.zeros(b)
        self.shutdown = None if self.config.shutdown is None else LossShutdown(self.config.shutdown, b, backend)
        guards = self.config.guards
        self.guards = None if guards is None else Guards(guards, tape, self.config.costs, b, backend)
        limits = self.config.constraints
        self.constraints = None if limits is None else Constraints(limits, self.config.caps, tape.symbols, backend)
        self.liquidity = None if self.config.liquidity is None else Liquidity(self.config.liquidity, tape, backend)
        self.book = TradeBook(b, n, backend) if task.keeps_trade_book else None
        self._wealth_limit = backend.array(WEALTH_LIMIT, "float64")
        terms = self.config.reward.terms if self.guards is None else (*self.config.reward.terms, *self.guards.reward_terms)
        self.sums = {name: self.wealth * 0.0 for name in (*terms, "turnover_paid", "cost_paid")}

    def reset(self, mask: Array, start_rows: Array) -> None:
        """Fresh accounts, all cash, where `mask` (B,); `start_rows` (B,) is read there only."""
        pick, backend = self.backend.select, self.backend
        start = backend.array(start_rows, "int64")
        self.row = pick(mask, start, self.row)
        self.end_row = pick(mask, start + self.length, self.end_row)
        self.wealth = pick(mask, 1.0, self.wealth)
        self.peak = pick(mask, 1.0, self.peak)
        self.weights = pick(mask, 0.0, self.weights)
        self.last_return = pick(mask, 0.0, self.last_return)
        self.sums = {name: pick(mask, 0.0, value) for name, value in self.sums.items()}
        for part in (self.shutdown, self.guards, self.book):
            if part is not None:
                part.reset(mask)

    def relocate(self, mask: Array, rows: Array) -> None:
        """Where `mask` (B,), go on at `rows` (B,): the market jumps, the account and the bars it has left stay as they are."""
        moved = self.backend.xp.where(mask, rows - self.row, 0)
        self.row, self.end_row = self.row + moved, self.end_row + moved

    def shorten(self, bars: np.ndarray) -> None:
        """End the running episodes after `bars` (B,) decisions, so that accounts that start together do not end together."""
        self.end_row = self.backend.xp.minimum(self.end_row, self.row + self.backend.array(bars, "int64"))

    def advance(self, actions: Array) -> StepRecord:
        """Trade at this close, hold to the next, mark to market."""
        task, rows = self.task, self.backend.rows
        gross_cap = self.gross_cap_at(self.row)
        target = self._feasible(task.target_weights(actions, self), gross_cap)
        if self.shutdown is not None or self.guards is not None:
            target = self._restrained(target, gross_cap)
        now, row = self.row, self.row + 1
        gross_next = rows(self.gross, row)
        rates = self.rates_at(now)
        step = ledger.step(self.wealth, self.weights, target, gross_next, self.config.costs, self.financing, **rates)
        closed = None
        if self.book is not None:
            closed = self.book.book(self.wealth, self.weights, step, gross_next, self.config.costs, **rates)
        if self.shutdown is not None:
            self.shutdown.observe(target, gross_next)
        wealth = self.backend.xp.minimum(step.wealth, self._wealth_limit)
        peak = self.backend.xp.maximum(self.peak, wealth)
        terms = self.reward_terms(step, self.wealth, peak, gross_next, now)
        if self.guards is not None:
            terms |= self.guards.penalties(step.turnover, self.config.reward.scale)
            self.guards.observe(step, gross_next)
        reward = self.backend.real(total_reward(terms, self.config.reward))
        self.row, self.wealth, self.peak = row, wealth, peak
        self.weights, self.last_return = step.weights, step.portfolio_return
        terminated = wealth <= self.config.episode.wealth_floor
        # Truncation is not ruin: the learner bootstraps V(obs) here. Ruin terminates, and V(obs) = 0.
        truncated = (row >= self.end_row) & ~terminated
        for name, value in terms.items():
            self.sums[name] = self.sums[name] + value
        self.sums["turnover_paid"] = self.sums["turnover_paid"] + step.turnover
        self.sums["cost_paid"] = self.sums["cost_paid"] + step.cost
        return StepRecord(step, terms, reward, terminated, truncated, closed)

    def _feasible(self, asked: Array, gross_cap: Array | None) -> Array:
        if self.constraints is None:
            return ledger.project(asked, self.config.caps, gross_cap)
        return self.constraints.apply(asked, self.weights, gross_cap, self.room)

    def _restrained(self, feasible: Array, gross_cap: Array | None) -> Array:
        """What guards leave of feasible weights, no weight larger.

        They come after the caps, else a leg that they close would make room for the other one; and the net cap comes after
        them, for a leg that is left alone may exceed it.
        """
        kept = feasible
        if self.shutdown is not None:
            kept = self.shutdown.restrain(kept)
        if self.guards is not None:
            kept = self.guards.restrain(kept, Situation(self.wealth, self.peak, self.weights, self.row))
        if self.constraints is not None:  # a leg that a guard closes may have hedged a factor; risk comes before the budget
            kept = self.constraints.feasible(kept, gross_cap)
            if self.liquidity is None:
                return kept
            return self.constraints.traded(feasible, kept, self.weights, self.room, gross_cap)
        return ledger.project(kept, self.config.caps, gross_cap)

    def reward_terms(self, step: LedgerStep, wealth: Array, peak: Array, gross_next: Array, now: Array) -> dict[str, Array]:
        """Terms of the reward of a step at rows `now` (B,), from the wealth before it and the peak after it."""
        forecasts = [self.backend.rows(self._forecasts[name], now) if name in self._forecasts else None for name in FORECASTS]
        return reward_terms(RewardInputs(step, wealth, peak, gross_next, *forecasts), self.config.reward)

    def rates_at(self, rows: Array) -> dict[str, Array]:
        """The tape's cost inputs at these rows (B,), as keywords of `ledger.step`."""
        return {name: self.backend.rows(table, rows) for name, table in self._rates.items()}

    def gross_cap_at(self, rows: Array) -> Array | None:
        """Largest Σ|w| at these rows (B,); None where it never changes."""
        return None if self._gross_caps is None else self.backend.rows(self._gross_caps, rows)

    def observe(self) -> Array:
        """Observations (B, D) float32: the market's row, then the account's columns, then what the config adds."""
        obs = self.backend.rows(self.market_table, self.row)
        account, column = obs[:, self._market_columns :], 0
        for values in self.task.account_columns(self):
            if values.ndim == 1:
                account[:, column] = values
                column += 1
            else:
                account[:, column : column + values.shape[1]] = values
                column += values.shape[1]
        for place, values in self.task.observed.of_accounts(self):
            account[:, column + place] = values
        clip_in_place(account, OBS_LIMIT)
        return obs

    @property
    def room(self) -> Array | None:
        """Largest trade of each asset at this close (B, N) [fraction of wealth]; None where liquidity does not limit it."""
        return None if self.liquidity is None else self.liquidity.room(self.row, self.wealth)

    @property
    def gross_cap(self) -> Array:
        """Largest Σ|w| that the caps allow at this close (B,)."""
        cap = self.gross_cap_at(self.row)
        return self.backend.xp.full_like(self.last_return, self.config.caps.gross) if cap is None else cap

    @property
    def drawdown(self) -> Array:
        """W/peak − 1 (B,), ≤ 0."""
        return self.wealth / self.peak - 1.0

    def summary(self) -> dict[str, Array]:
        """What an episode leaves behind: sums of reward terms and of what trading took, and the total return."""
        guards = {} if self.guards is None else self.guards.summary()
        return {**self.sums, "total_return": self.wealth - 1.0, **guards}


class StepRecord(NamedTuple):
    """What happened in one step of B accounts."""

    step: LedgerStep
    terms: dict[str, Array]
    reward: Array
    terminated: Array
    truncated: Array
    closed_trades: ClosedTrades | None


def _cost_inputs(tape: MarketTape, backend: Backend) -> dict[str, Array]:
    """The tape's cost inputs, left out where they say nothing."""
    inputs = {}
    if np.any(tape.half_spread_bps != 0):
        inputs["half_spread_bps"] = backend.real(tape.half_spread_bps)
    if np.any(tape.impact_scale != 1):
        inputs["impact_scale"] = backend.real(tape.impact_scale)
    return inputs


def _overnight_caps(tape: MarketTape, caps: CapsConfig, backend: Backend) -> Array | None:
    """Gross cap at each row (T,), or None where it never changes."""
    if caps.gross_overnight is None:
        return None
    return backend.real(np.where(tape.session_end, caps.gross_overnight, caps.gross))
