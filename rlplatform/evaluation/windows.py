"""Hold-out windows: one test period as many short ones, because nobody lives through an average."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from envs.errors import ConfigError, ShapeError
from envs.indicators import CRISIS, REGIME_NAMES, volatility_regime
from envs.tape import MarketTape
from rlplatform.evaluation.metrics import finite_or_none
from rlplatform.evaluation.scoretable import percent
from rlplatform.evaluation.track import Track

Array = np.ndarray


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """Which windows.

    Attributes:
        length_bars: of each; 42 is two months of trading days.
        stride_bars: between two starts. Below `length_bars` windows overlap, and their number is no sample size.
    """

    length_bars: int = 42
    stride_bars: int = 1

    def __post_init__(self) -> None:
        for name in ("length_bars", "stride_bars"):
            if getattr(self, name) < 1:
                raise ConfigError(f"windows.{name} = {getattr(self, name)}; expected at least 1.")


@dataclass(frozen=True, kw_only=True)
class WindowFigures:
    """Total returns over a set of windows. NaN where there is none.

    Attributes:
        windows: how many.
        independent: how many fit side by side without overlap; the honest sample size.
        median: of the returns [fraction].
        spread: their interquartile range, q75 − q25.
        worst, best: of them.
        above_zero: share of windows that made money.
        above_benchmark: share in which the track's return was above the benchmark's.
        median_excess: median of return minus the benchmark's.
    """

    windows: int
    independent: int
    median: float
    spread: float
    worst: float
    best: float
    above_zero: float
    above_benchmark: float
    median_excess: float

    def to_dict(self) -> dict:
        return {name: finite_or_none(value) for name, value in asdict(self).items()}


@dataclass(frozen=True, kw_only=True, eq=False)
class HoldOut:
    """A track in windows.

    Attributes:
        name, benchmark: of the two tracks.
        config: which windows.
        all: over every window.
        by_regime: "calm", "choppy", "crisis" → figures of the windows that were mostly so; empty without regimes.
        starts: (M,) rows of `Track.dates` where windows start.
        returns, benchmark_returns: (M,) total returns.
    """

    name: str
    benchmark: str
    config: WindowConfig
    all: WindowFigures
    by_regime: Mapping[str, WindowFigures]
    starts: Array
    returns: Array
    benchmark_returns: Array

    def to_dict(self) -> dict:
        regimes = {name: figures.to_dict() for name, figures in self.by_regime.items()}
        return {"benchmark": self.benchmark, **asdict(self.config), "all": self.all.to_dict(), "by_regime": regimes}

    def rows(self) -> list[dict[str, str | int]]:
        """For a table: one row for all windows and one for each regime."""
        return [_shown("all", self.all), *(_shown(name, figures) for name, figures in self.by_regime.items())]


def hold_out(track: Track, benchmark: Track, config: WindowConfig | None = None, regimes: Array | None = None) -> HoldOut:
    """Cut a track and its benchmark into windows.

    Args:
        regimes: (S,) code of the market's state at each decision, see `market_regimes`. A window's regime is the most
            frequent of its bars', the more troubled one where two are level.

    Raises:
        ShapeError: other dates than the benchmark's, or other regimes than bars.
        ConfigError: the track is shorter than one window.
    """
    config = config or WindowConfig()
    if not np.array_equal(track.dates, benchmark.dates):
        raise ShapeError(
            f"{track.name} covers {' to '.join(track.period)} and {benchmark.name} {' to '.join(benchmark.period)}; "
            "windows need the same dates."
        )
    if len(track) < config.length_bars:
        raise ConfigError(
            f"windows.length_bars = {config.length_bars}; {track.name} has {len(track)} bars. Choose shorter windows."
        )
    if regimes is not None and len(regimes) != len(track):
        raise ShapeError(f"hold_out: {len(regimes)} regimes for {len(track)} bars; give one for each decision.")
    starts = np.arange(0, len(track) - config.length_bars + 1, config.stride_bars)
    returns, benchmark_returns = (_window_returns(t, starts, config.length_bars) for t in (track, benchmark))
    by_regime = {}
    if regimes is not None:
        states = _most_frequent(np.asarray(regimes), starts, config.length_bars)
        for code, name in enumerate(REGIME_NAMES):
            chosen = states == code
            by_regime[name] = _figures(starts[chosen], returns[chosen], benchmark_returns[chosen], config.length_bars)
    return HoldOut(
        name=track.name,
        benchmark=benchmark.name,
        config=config,
        all=_figures(starts, returns, benchmark_returns, config.length_bars),
        by_regime=by_regime,
        starts=starts,
        returns=returns,
        benchmark_returns=benchmark_returns,
    )


def market_regimes(tape: MarketTape, dates: Array) -> Array:
    """State of the equal-weight market at each decision of a track, from what was known then.

    Args:
        tape: the whole history; rows before the track are the states' memory.
        dates: (S + 1,) of the track.

    Returns:
        (S,) codes of `envs.indicators.volatility_regime`.

    Raises:
        ShapeError: a date that the tape does not have.
    """
    rows = np.searchsorted(tape.dates, dates[:-1])
    if rows[-1] >= len(tape) or not np.array_equal(tape.dates[rows], dates[:-1]):
        raise ShapeError(f"market_regimes: the tape lacks dates of the track ({str(dates[0])[:10]} to {str(dates[-1])[:10]}).")
    return volatility_regime(tape.gross.mean(1))[rows]


def _window_returns(track: Track, starts: Array, length: int) -> Array:
    """W_end / W_start − 1; −1 from a start after ruin, as nothing is left to hold."""
    before, after = track.wealth[starts], track.wealth[starts + length]
    return np.where(before > 0, after / np.where(before > 0, before, 1.0) - 1.0, -1.0)


def _most_frequent(regimes: Array, starts: Array, length: int) -> Array:
    counts = np.stack([np.concatenate([[0], np.cumsum(regimes == code)]) for code in range(CRISIS + 1)])
    inside = counts[:, starts + length] - counts[:, starts]
    return CRISIS - np.argmax(inside[::-1], axis=0)  # the first of equals, counted from crisis down


def _figures(starts: Array, returns: Array, benchmark: Array, length: int) -> WindowFigures:
    if not len(returns):
        empty = dict.fromkeys([*WindowFigures.__dataclass_fields__][2:], math.nan)
        return WindowFigures(windows=0, independent=0, **empty)
    low, high = np.quantile(returns, [0.25, 0.75])
    return WindowFigures(
        windows=len(returns),
        independent=_side_by_side(starts, length),
        median=float(np.median(returns)),
        spread=float(high - low),
        worst=float(returns.min()),
        best=float(returns.max()),
        above_zero=float((returns > 0).mean()),
        above_benchmark=float((returns > benchmark).mean()),
        median_excess=float(np.median(returns - benchmark)),
    )


def _side_by_side(starts: Array, length: int) -> int:
    """The most windows that do not overlap: always take the next that starts after the last one ended."""
    count, free_from = 0, -1
    for start in starts.tolist():
        if start >= free_from:
            count, free_from = count + 1, start + length
    return count


def _shown(name: str, figures: WindowFigures) -> dict[str, str | int]:
    shares = {key: percent(getattr(figures, key)) for key in ("median", "spread", "worst", "above_zero", "above_benchmark")}
    return {"regime": name, "windows": figures.windows, "independent": figures.independent, **shares}
