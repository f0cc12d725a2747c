"""Track: what one portfolio did, bar by bar, over one continuous period."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from envs.errors import ShapeError
from envs.ledger import LedgerStep

Array = np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Track:
    """One continuous path of S bars, from the first decision to the last valuation.

    Row s of the (S, …) arrays is the bar from `dates[s]`, where its weights were decided, to `dates[s + 1]`.

    Attributes:
        name: what a table calls it.
        dates: (S + 1,) datetime64[ns] closes.
        wealth: (S + 1,) [units of initial wealth], starts at 1, net of everything.
        symbols: N names.
        weights: (S, N) targets held over each bar [fraction of wealth after trading]; cash is 1 − Σₙ.
        turnover: (S,) Σ|Δw| against drifted weights [fraction of wealth before trading].
        cost: (S,) κ paid to trade [fraction of wealth before trading].
        financing: (S,) financing and borrow fees paid [fraction of wealth after trading].
        actions: (S, …) what the policy chose; integers for discrete choices.
        entropy: (S,) of the policy's action distribution [nats].
        gate: (S, M) probabilities of the modes among which the policy's gate chooses, or None without a gate.
        mode_names: M names of these.
        guards: name → (S,) what the account's guards did, see `envs.guards.Guards.last`; empty without guards.
        ruined: the account ended before the period did, or its wealth reached zero.

    Raises:
        ShapeError: arrays whose axes disagree.
    """

    name: str
    dates: Array
    wealth: Array
    symbols: tuple[str, ...]
    weights: Array
    turnover: Array
    cost: Array
    financing: Array
    actions: Array | None = None
    entropy: Array | None = None
    gate: Array | None = None
    mode_names: tuple[str, ...] = ()
    guards: Mapping[str, Array] = field(default_factory=dict)
    ruined: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "symbols", tuple(self.symbols))
        object.__setattr__(self, "dates", np.asarray(self.dates).astype("datetime64[ns]"))
        bars, assets = len(self.dates) - 1, len(self.symbols)
        expected = {"wealth": (bars + 1,), "weights": (bars, assets)} | dict.fromkeys(
            ("turnover", "cost", "financing"), (bars,)
        )
        for name, shape in expected.items():
            array = np.asarray(getattr(self, name), dtype=np.float64)
            if array.shape != shape:
                raise ShapeError(f"Track {self.name!r}: {name} has shape {array.shape}; expected {shape} for {bars} bars.")
            object.__setattr__(self, name, array)
        optional = {"actions": self.actions, "entropy": self.entropy, **self.guards}
        for name, array in optional.items():
            if array is not None and len(array) != bars:
                raise ShapeError(f"Track {self.name!r}: {name} has {len(array)} rows; expected {bars}, one for each bar.")
        modes = (bars, len(self.mode_names))
        if self.gate is not None and np.shape(self.gate) != modes:
            raise ShapeError(f"Track {self.name!r}: gate has shape {np.shape(self.gate)}; expected {modes}, a column a mode.")
        if bars < 1:
            raise ShapeError(f"Track {self.name!r} has {bars} bars; a decision and its outcome need at least 1.")

    @classmethod
    def from_ledger_steps(cls, name: str, dates: Array, symbols: Sequence[str], steps: LedgerStep, **extras) -> Track:
        """From the ledger steps of one account over S bars: (S, 1) or (S,) fractions, (S, 1, N) or (S, N) weights."""
        bars, assets = len(dates) - 1, len(symbols)
        wealth = np.append(1.0, np.reshape(steps.wealth, bars))
        return cls(
            name=name,
            dates=dates,
            wealth=wealth,
            symbols=tuple(symbols),
            weights=np.reshape(steps.target, (bars, assets)),
            turnover=np.reshape(steps.turnover, bars),
            cost=np.reshape(steps.cost, bars),
            financing=np.reshape(steps.financing + steps.borrow_fee, bars),
            ruined=bool(wealth[-1] <= 0),
            **extras,
        )

    def __len__(self) -> int:
        return len(self.dates) - 1

    @property
    def returns(self) -> Array:
        """(S,) simple net returns W'/W − 1; zero after ruin."""
        before, after = self.wealth[:-1], self.wealth[1:]
        return np.where(before > 0, after / np.where(before > 0, before, 1.0) - 1.0, 0.0)

    @property
    def drawdown(self) -> Array:
        """(S + 1,) W / max(W so far) − 1, at most 0; the starting wealth is the first peak."""
        return self.wealth / np.maximum.accumulate(self.wealth) - 1.0

    @property
    def guard_summary(self) -> dict[str, float]:
        """Share of bars on which each guard held, mean `guard_scale` (exposure kept / asked for), sum of `guard_penalty`."""
        guards = {name: np.asarray(values, dtype=np.float64) for name, values in self.guards.items()}
        return {name: float(v.sum() if name == "guard_penalty" else v.mean()) for name, v in guards.items()}

    @property
    def period(self) -> tuple[str, str]:
        """First and last close, as ISO days."""
        return str(self.dates[0])[:10], str(self.dates[-1])[:10]
