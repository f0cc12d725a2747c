"""The terms of an account: what trading costs, what money costs, what may be held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from envs.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class CostConfig:
    """Cost of trading.

    Attributes:
        proportional_bps: commission plus half spread [bp of traded value].
        impact: square-root impact k [fraction of wealth at W = 1, d = 1].
    """

    proportional_bps: float = 5.0
    impact: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.proportional_bps < 2_000:
            raise ConfigError(f"costs.proportional_bps = {self.proportional_bps}; expected 0 ≤ bp < 2000.")
        if 0 < self.proportional_bps < 0.01:
            raise ConfigError(
                f"costs.proportional_bps = {self.proportional_bps} looks like a fraction; it is in basis points. "
                f"Did you mean {self.proportional_bps * 1e4:g}?"
            )
        if not 0 <= self.impact <= 1:
            raise ConfigError(f"costs.impact = {self.impact}; expected a fraction of wealth in [0, 1].")


@dataclass(frozen=True, kw_only=True)
class FinancingConfig:
    """What money itself costs and earns, accrued every bar.

    Attributes:
        basis: "gross" finances gross exposure above 1 (a +1/−1 pair pays); "debit" finances borrowed cash only.
        rate_annual: paid on the financed part [fraction a year].
        cash_rate_annual: earned on the free part [fraction a year].
        borrow_fee_annual: paid on the value of shorts [fraction a year].
        bars_per_year: bars over which a year's rate accrues.
    """

    basis: Literal["gross", "debit"] = "gross"
    rate_annual: float = 0.0675
    cash_rate_annual: float = 0.0
    borrow_fee_annual: float = 0.0
    bars_per_year: int = 252

    def __post_init__(self) -> None:
        if self.basis not in ("gross", "debit"):
            raise ConfigError(f"financing.basis = {self.basis!r}; expected 'gross' or 'debit'.")
        for name in ("rate_annual", "cash_rate_annual", "borrow_fee_annual"):
            rate = getattr(self, name)
            if not -0.5 < rate <= 1:
                raise ConfigError(f"financing.{name} = {rate} is not a fraction a year in (−0.5, 1]. 6.75 % is 0.0675.")
        if self.bars_per_year < 1:
            raise ConfigError(f"financing.bars_per_year = {self.bars_per_year}; expected at least 1.")


@dataclass(frozen=True, kw_only=True)
class CapsConfig:
    """The set of weights an account may hold.

    Attributes:
        long_only: no weight below zero.
        gross: largest Σ|w|.
        net: largest |Σw|.
        per_asset: largest |wₙ|.
        gross_overnight: largest Σ|w| carried past the last bar of a session; `gross` if not given.
    """

    long_only: bool = True
    gross: float = 1.0
    net: float = 1.0
    per_asset: float = 1.0
    gross_overnight: float | None = None

    def __post_init__(self) -> None:
        for name in ("gross", "net", "per_asset"):
            if not 0 < getattr(self, name) <= 100:
                raise ConfigError(f"caps.{name} = {getattr(self, name)}; expected a multiple of wealth in (0, 100].")
        if self.gross_overnight is not None and not 0 < self.gross_overnight <= self.gross:
            raise ConfigError(f"caps.gross_overnight = {self.gross_overnight}; expected in (0, caps.gross = {self.gross}].")
