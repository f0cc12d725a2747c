"""Parts of the observation that environments share, and further columns that a config may ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

import numpy as np

from envs import indicators
from envs.backend import Array
from envs.errors import ConfigError
from envs.ledger import total
from envs.tape import MarketTape

if TYPE_CHECKING:
    from envs.accounts import Accounts

FORECAST_COLUMNS = ("forecast_cvar", "forecast_uncertainty")  # of the tape


def feature_table(tape: MarketTape, forecasts: bool) -> tuple[tuple[str, ...], np.ndarray]:
    """All of the tape that a policy may read at each row, as names and (T, M) float32.

    Columns: `<symbol>.<feature>` asset by asset, then the context, then (with `forecasts`) each asset's
    `<symbol>.forecast_cvar` and `<symbol>.forecast_uncertainty` [percent].
    """
    rows = len(tape)
    names = [f"{symbol}.{feature}" for symbol in tape.symbols for feature in tape.feature_names]
    blocks = [tape.features.reshape(rows, -1), tape.context]
    names += tape.context_names
    if forecasts:
        for name in FORECAST_COLUMNS:
            names += per_asset(name, tape)
            blocks.append(100.0 * getattr(tape, name))
    return tuple(names), np.concatenate(blocks, axis=1).astype(np.float32)


def per_asset(name: str, tape: MarketTape) -> list[str]:
    """`<symbol>.<name>` of each asset."""
    return [f"{symbol}.{name}" for symbol in tape.symbols]


def account_basics(accounts: Accounts) -> list[Array]:
    """Cash, weights, last bar's return [percent] and drawdown."""
    return [1.0 - total(accounts.weights), accounts.weights, 100.0 * accounts.last_return, accounts.drawdown]


# ── columns that `env.observe` may add ───────────────────────────────────────────────────────────────────────────────


def regime_label(tape: MarketTape) -> np.ndarray:
    """(T,) state of the equal-weight market: 0 calm, 1 choppy, 2 crisis."""
    return np.concatenate([indicators.volatility_regime(piece.gross.mean(axis=1)) for piece in tape.pieces()])


def spread_bps(tape: MarketTape) -> np.ndarray:
    """(T,) quoted spread, mean of the assets [bp of price]."""
    return 2.0 * tape.half_spread_bps.mean(axis=1)


def risk_budget(accounts: Accounts) -> Array:
    """(B,) largest Σ|w| that the caps allow at this close [fraction of wealth]."""
    return accounts.gross_cap


def guard_state(accounts: Accounts) -> Array:
    """(B,) sides that the loss shutdown holds flat: 0 none, 1 long, 2 short, 3 both."""
    if accounts.shutdown is None:
        return accounts.last_return * 0.0
    long, short = accounts.shutdown.cooldown
    return (long > 0) * 1.0 + (short > 0) * 2.0


def kill_switch(accounts: Accounts) -> Array:
    """(B,) 1 where the kill switch held everything flat at the last decision."""
    switches = [] if accounts.guards is None else [part for part in accounts.guards.parts if "kill_switch" in part.names]
    return switches[0].on if switches else accounts.last_return * 0.0


# Known at the close of row t. One number an account; what grows with the account (wealth) is not offered, because on a long
# path it leaves every trained range (docs/LOG.md, 2026-11-21).
MARKET_COLUMNS: dict[str, Callable[[MarketTape], np.ndarray]] = {"regime_label": regime_label, "spread_bps": spread_bps}
ACCOUNT_COLUMNS: dict[str, Callable[[Accounts], Array]] = {
    "risk_budget": risk_budget,
    "guard_state": guard_state,
    "kill_switch": kill_switch,
}


class ObservedColumns:
    """What `env.observe` adds on the right of an environment's own observation, in the order in which it is asked for.

    A name is one of `MARKET_COLUMNS` or `ACCOUNT_COLUMNS`, a forecast of the tape (`<symbol>.forecast_cvar`, percent), a
    column of the tape's context, or one of its features (`<symbol>.<feature>`, scaled as the tape has it).

    Args:
        asked: names.
        tape: of the task.
        shown: the observation's names without these columns.

    Attributes:
        names: K names of the added entries.
        table: (T, K) float32, market columns; zeros where the account's belong.

    Raises:
        ConfigError: a name that neither the tape nor the account has, or that is in the observation already.
    """

    def __init__(self, asked: Sequence[str], tape: MarketTape, shown: Sequence[str]) -> None:
        names, blocks = list[str](), [np.zeros((len(tape), 0))]
        self._of_account: list[tuple[int, Callable[[Accounts], Array]]] = []
        for name in asked:
            if name in ACCOUNT_COLUMNS:
                self._of_account.append((len(names), ACCOUNT_COLUMNS[name]))
            added, block = _column(name, tape)
            twice = [each for each in added if each in (*shown, *names)]
            if twice:
                raise ConfigError(f"env.observe: {name!r} is in the observation already, as {twice[0]}. Leave it out.")
            names += added
            blocks.append(block)
        self.names = tuple(names)
        self.table = np.concatenate(blocks, axis=1).astype(np.float32)

    @property
    def account_places(self) -> list[int]:
        """Places among `names` that the account fills in."""
        return [place for place, _ in self._of_account]

    def of_accounts(self, accounts: Accounts) -> list[tuple[int, Array]]:
        """Place among `names` and values (B,) of each of the account's columns."""
        return [(place, read(accounts)) for place, read in self._of_account]


def _column(name: str, tape: MarketTape) -> tuple[list[str], np.ndarray]:
    """Names and values (T, k) of one column; zeros for one of the account."""
    if name in ACCOUNT_COLUMNS:
        return [name], np.zeros((len(tape), 1))
    if name in MARKET_COLUMNS:
        return [name], MARKET_COLUMNS[name](tape)[:, None]
    if name in FORECAST_COLUMNS:
        return per_asset(name, tape), 100.0 * getattr(tape, name)
    if name in tape.context_names:
        return [name], tape.context[:, [tape.context_names.index(name)]]
    if name in tape.feature_names:
        return per_asset(name, tape), tape.features[:, :, tape.feature_names.index(name)]
    known = (*MARKET_COLUMNS, *ACCOUNT_COLUMNS, *FORECAST_COLUMNS, *tape.context_names, *tape.feature_names)
    close = get_close_matches(name, known, n=1)
    raise ConfigError(
        f"env.observe: no column {name!r} here; choose from {', '.join(known)}.{f' Did you mean {close[0]}?' if close else ''}"
    )
