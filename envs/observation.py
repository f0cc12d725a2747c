"""Parts of the observation that environments share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from envs.backend import Array
from envs.ledger import total
from envs.tape import MarketTape

if TYPE_CHECKING:
    from envs.accounts import Accounts


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
        for name in ("forecast_cvar", "forecast_uncertainty"):
            names += [f"{symbol}.{name}" for symbol in tape.symbols]
            blocks.append(100.0 * getattr(tape, name))
    return tuple(names), np.concatenate(blocks, axis=1).astype(np.float32)


def account_basics(accounts: Accounts) -> list[Array]:
    """Cash, weights, last bar's return [percent] and drawdown."""
    return [1.0 - total(accounts.weights), accounts.weights, 100.0 * accounts.last_return, accounts.drawdown]
