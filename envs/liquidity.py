"""Liquidity: how much of an asset one account may trade in a bar, from what the market itself has traded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from envs.backend import Array, Backend
from envs.errors import ConfigError, MarketDataError
from envs.ledger import at_least, at_most
from envs.tape import MarketTape

SMALLEST, LARGEST = 1e-12, 1e30  # wealth is taken to lie between, so that the room stays finite in float32 too


@dataclass(frozen=True, kw_only=True)
class LiquidityConfig:
    """A limit on how much of an asset one decision trades.

    Attributes:
        capital: what an account begins with [currency of the prices]; it is worth wealth × capital later.
        participation: largest share of the average value traded in a bar.
        adv_bars: bars of that trailing average, the bar of the decision included; fewer at the start of the tape.
    """

    capital: float
    participation: float = 0.1
    adv_bars: int = 20

    def __post_init__(self) -> None:
        if not 0 < self.capital <= 1e15:
            raise ConfigError(f"constraints.liquidity.capital = {self.capital}; expected what an account begins with, > 0.")
        if not 0 < self.participation <= 1:
            raise ConfigError(
                f"constraints.liquidity.participation = {self.participation}; expected a share of the value traded in (0, 1]."
            )
        if self.adv_bars < 1:
            raise ConfigError(f"constraints.liquidity.adv_bars = {self.adv_bars}; expected at least 1.")

    def check_tape(self, tape: MarketTape) -> None:
        """Whether the tape knows what was traded.

        Raises:
            MarketDataError: it does not.
        """
        if tape.dollar_volume is None:
            raise MarketDataError(
                "env.constraints.liquidity needs the value traded in each bar, and these prices have no volume for "
                f"{', '.join(tape.symbols[:3])}{' …' * (tape.num_assets > 3)}. Use prices with a volume column, or leave "
                "liquidity out."
            )


class Liquidity:
    """Largest trade of each asset at each row:

        room = participation × mean of dollar volume over rows t − adv_bars + 1 … t / (capital × W)

    Rows ≤ t only. An asset that has not traded at all over the average cannot be traded: room 0.
    """

    def __init__(self, config: LiquidityConfig, tape: MarketTape, backend: Backend) -> None:
        config.check_tape(tape)
        average = np.concatenate([trailing_mean(piece.dollar_volume, config.adv_bars) for piece in tape.pieces()])
        self._at_start = backend.real(average * (config.participation / config.capital))
        self._backend = backend

    def room(self, rows: Array, wealth: Array) -> Array:
        """Largest |Δw| (B, N) [fraction of wealth] at rows (B,) for accounts of wealth W (B,) [initial wealth]."""
        return room_of(wealth, self._backend.rows(self._at_start, rows), self._backend)


def room_of(wealth: Array, at_start: Array, backend: Backend) -> Array:
    """Largest |Δw| (B, N) of accounts of wealth W (B,), from that of accounts of wealth 1 (B, N) or (N,)."""
    size = at_most(at_least(wealth, SMALLEST), LARGEST)[..., None]
    return at_start / (size.to(at_start.dtype) if backend.library == "torch" else size.astype(at_start.dtype))


def trailing_mean(values: np.ndarray, bars: int) -> np.ndarray:
    """Mean over rows t − bars + 1 … t of (T, N), over all rows so far where there are fewer."""
    bars = min(bars, len(values))
    windows = np.lib.stride_tricks.sliding_window_view(values, bars, axis=0)
    begin = values[: bars - 1].cumsum(axis=0) / np.arange(1, bars)[:, None]
    return np.concatenate([begin, windows.mean(axis=-1)])
