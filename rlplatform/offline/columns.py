"""Columns beyond observation, action and reward: execution and risk context of each row, with units.

A column that is known at the decision may become part of the observation (`observed`); an outcome never may.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property

import numpy as np

from envs.accounts import Accounts, StepRecord
from envs.errors import ConfigError
from envs.observation import guard_state, regime_label, risk_budget, spread_bps
from envs.tape import MarketTape
from rlplatform.data.request import did_you_mean
from rlplatform.offline.episodes import Episodes

Array = np.ndarray


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column.

    Attributes:
        meaning: one phrase.
        unit: of its numbers; codes are spelt out.
        dtype: on disk and in memory.
        per_asset: (R, N), one entry an asset, else (R,).
        known: at the decision, so that a policy might see it; else an outcome of the step.
        lowest, highest: of a plausible value.
    """

    meaning: str
    unit: str
    dtype: str = "float32"
    per_asset: bool = False
    known: bool = True
    lowest: float = -np.inf
    highest: float = np.inf


COLUMNS: dict[str, Column] = {
    "date": Column(meaning="close at which the decision fell", unit="seconds since 1970-01-01", dtype="int64", known=False),
    "wealth": Column(meaning="before the decision's trade", unit="initial wealth", lowest=0),
    "drawdown": Column(meaning="wealth / highest wealth − 1", unit="fraction", lowest=-1, highest=0),
    "regime_label": Column(
        meaning="state of the equal-weight market", unit="0 calm, 1 choppy, 2 crisis", dtype="int8", lowest=0, highest=2
    ),
    "spread_bps": Column(meaning="quoted spread, mean of the assets", unit="bp of price", lowest=0, highest=10_000),
    "latency_ms": Column(meaning="from decision to execution", unit="milliseconds", lowest=0),
    "risk_budget": Column(meaning="largest Σ|w| allowed at the decision", unit="fraction of wealth", lowest=0, highest=100),
    "guard_state": Column(
        meaning="sides that the loss shutdown holds flat",
        unit="0 none, 1 long, 2 short, 3 both",
        dtype="int8",
        lowest=0,
        highest=3,
    ),
    "forecast_cvar": Column(meaning="mean loss in the worst 5 % of next bars", unit="fraction", per_asset=True, lowest=0),
    "forecast_uncertainty": Column(meaning="q90 − q10 of the next bar's return", unit="fraction", per_asset=True, lowest=0),
    "forecast_q10": Column(meaning="10 % quantile of the next bar's return", unit="fraction", per_asset=True),
    "forecast_q50": Column(meaning="median of the next bar's return", unit="fraction", per_asset=True),
    "forecast_q90": Column(meaning="90 % quantile of the next bar's return", unit="fraction", per_asset=True),
    "weights": Column(meaning="target held over the bar", unit="fraction of wealth", per_asset=True, known=False),
    "turnover": Column(meaning="Σ|Δw| of the trade", unit="fraction of wealth", known=False, lowest=0),
    "cost": Column(meaning="paid for the trade", unit="fraction of wealth", known=False, lowest=0, highest=1),
    "slippage_bps": Column(
        meaning="cost per traded value beyond the commission",
        unit="bp of traded value",
        known=False,
        lowest=-10_000,
        highest=10_000,
    ),
    "financing": Column(meaning="paid on borrowed money", unit="fraction of wealth after trading", known=False),
    "portfolio_return": Column(meaning="of the bar, after financing", unit="fraction of wealth after trading", known=False),
}
PER_ASSET = tuple(name for name, column in COLUMNS.items() if column.per_asset)
RECORDED = tuple(name for name in COLUMNS if name not in (*PER_ASSET, "latency_ms"))  # what collecting writes by default


def column(name: str) -> Column:
    """The column of this name; an unknown one is the user's own, in the user's own unit."""
    return COLUMNS.get(name, Column(meaning="not one of the platform's columns", unit="unknown", known=False))


def describe_columns(names: Sequence[str]) -> dict[str, dict[str, object]]:
    """Meaning and unit of each, for `dataset.json` and for Parquet's field metadata."""
    return {name: {key: asdict(column(name))[key] for key in ("meaning", "unit", "per_asset", "known")} for name in names}


class ColumnRecorder:
    """Reads the columns that are wanted off the market and the accounts, step by step.

    Args:
        tape: of the task.
        names: of the columns wanted.

    Raises:
        ConfigError: a column that cannot be recorded here.
    """

    def __init__(self, tape: MarketTape, names: Sequence[str] = RECORDED) -> None:
        recordable = (*RECORDED, "forecast_cvar", "forecast_uncertainty", "weights")
        for name in names:
            if name not in recordable:
                raise ConfigError(
                    f"column {name!r} cannot be recorded from a simulation; choose from {', '.join(recordable)}."
                    f"{did_you_mean(name, recordable)}"
                )
        self.tape, self.names = tape, tuple(names)

    @cached_property
    def _of_market(self) -> dict[str, Array]:
        """Columns that depend on the row alone, (T, …)."""
        tape = self.tape
        return {
            "date": tape.dates.astype("datetime64[s]").astype(np.int64),
            "regime_label": regime_label(tape),
            "spread_bps": spread_bps(tape),
            "forecast_cvar": tape.forecast_cvar,
            "forecast_uncertainty": tape.forecast_uncertainty,
        }

    def before(self, accounts: Accounts) -> dict[str, Array]:
        """Columns known at the decision, (B, …), read before the step."""
        rows = accounts.row
        values = {
            "wealth": accounts.wealth,
            "drawdown": accounts.drawdown,
            "risk_budget": risk_budget(accounts),
            "guard_state": guard_state(accounts),
        }
        return self._wanted(values | {name: table[rows] for name, table in self._of_market.items()})

    def after(self, record: StepRecord, accounts: Accounts) -> dict[str, Array]:
        """Outcomes of the step, (B, …)."""
        step = record.step
        paid_bps = 1e4 * step.cost / np.maximum(step.turnover, 1e-12)
        slippage = np.where(step.turnover > 1e-9, paid_bps - accounts.config.costs.proportional_bps, 0.0)
        values = {
            "weights": step.target,
            "turnover": step.turnover,
            "cost": step.cost,
            "slippage_bps": np.where(abs(slippage) < 1e-2, 0.0, slippage),  # float32 rounding of the ratio
            "financing": step.financing,
            "portfolio_return": step.portfolio_return,
        }
        return self._wanted(values)

    def _wanted(self, values: Mapping[str, Array]) -> dict[str, Array]:
        return {name: np.array(values[name], dtype=COLUMNS[name].dtype) for name in self.names if name in values}


def total_returns(episodes: Episodes) -> Array | None:
    """(E,) wealth at the end / wealth at the start − 1, from the columns; None where they lack."""
    if not {"wealth", "cost", "portfolio_return"} <= set(episodes.extras):
        return None
    wealth, cost, earned = (episodes.extras[name].astype(np.float64) for name in ("wealth", "cost", "portfolio_return"))
    ends = episodes.ends
    return wealth[ends] * (1.0 - cost[ends]) * (1.0 + earned[ends]) / wealth[episodes.starts] - 1.0


def observed(episodes: Episodes, names: Sequence[str]) -> Episodes:
    """The same episodes with columns joined to the observation, on its right, in the order of `names`.

    What stood there after an episode's last decision was not logged: `last_obs` repeats the last row's values.

    Raises:
        ConfigError: no such column in the data, or one that is not known at the decision.
    """
    for name in names:
        if name not in episodes.extras:
            raise ConfigError(f"observe: the dataset has no column {name!r}; it has {', '.join(episodes.extras)}.")
        if not column(name).known:
            raise ConfigError(f"observe: {name!r} is not known at the decision; observing it would look ahead. Leave it out.")
    if not names:
        return episodes
    added = [np.asarray(episodes.extras[name], dtype=np.float32).reshape(episodes.num_rows, -1) for name in names]
    table = np.concatenate(added, axis=1)
    return replace(
        episodes,
        obs=np.concatenate([episodes.obs, table], axis=1),
        last_obs=np.concatenate([episodes.last_obs, table[episodes.ends]], axis=1),
    )
