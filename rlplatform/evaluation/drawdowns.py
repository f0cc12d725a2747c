"""Drawdowns and tails: how deep, how long, how fast a track falls, and how often its tail is hit."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np

from envs.errors import ConfigError
from rlplatform.evaluation.metrics import finite_or_none, worst_mean
from rlplatform.evaluation.track import Track

Array = np.ndarray


@dataclass(frozen=True, kw_only=True)
class Drawdown:
    """One fall from a peak.

    Attributes:
        peak, trough, end: rows of `Track.dates`; `end` is the first row back at the peak's wealth, None if it never was.
        depth: W / peak − 1 at the trough, below 0.
        bars: from the peak to the end, or to the last row.
    """

    peak: int
    trough: int
    end: int | None
    depth: float
    bars: int

    @property
    def velocity(self) -> float:
        """Depth a bar on the way down, below 0 [fraction a bar]."""
        return self.depth / (self.trough - self.peak)


@dataclass(frozen=True, kw_only=True)
class DownsideFigures:
    """Figures of a track's losses. NaN where a figure is not defined.

    Attributes:
        max_drawdown: deepest fall, at most 0.
        longest_drawdown_bars: from a peak until it is reached again, or to the end.
        longest_drawdown_recovered: whether that one ended inside the track.
        drawdown_velocity: of the deepest fall, peak to trough [fraction a bar], at most 0.
        fastest_velocity: of the fastest fall at least a quarter as deep as the deepest [fraction a bar].
        time_under_water: share of closes below an earlier peak.
        average_drawdown: mean of all W / peak − 1, at most 0.
        cdar_5: mean of the deepest 5 % of them, conditional drawdown at risk, at most 0.
        cvar_5, cvar_1: mean of the worst 5 % and 1 % of bar returns, returns: below 0 for a loss.
        tail_hit_rate: share of bars whose return fell below the 5 % quantile of the `tail_bars` bars before; 5 % where the
            tail is stable, more where losses grow or cluster.
        drawdowns: falls of more than 1 %.
    """

    max_drawdown: float
    longest_drawdown_bars: int
    longest_drawdown_recovered: bool
    drawdown_velocity: float
    fastest_velocity: float
    time_under_water: float
    average_drawdown: float
    cdar_5: float
    cvar_5: float
    cvar_1: float
    tail_hit_rate: float
    drawdowns: int

    def to_dict(self) -> dict:
        return {name: finite_or_none(value) for name, value in asdict(self).items()}


def downside(track: Track, tail_bars: int = 252) -> DownsideFigures:
    """All of them for one track.

    Args:
        tail_bars: history of the quantile that `tail_hit_rate` compares with.
    """
    falls, below = find_drawdowns(track), track.drawdown
    deepest = min(falls, key=lambda fall: fall.depth, default=None)
    longest = max(falls, key=lambda fall: fall.bars, default=None)
    notable = [fall for fall in falls if deepest is not None and fall.depth <= deepest.depth / 4]
    return DownsideFigures(
        max_drawdown=deepest.depth if deepest else 0.0,
        longest_drawdown_bars=longest.bars if longest else 0,
        longest_drawdown_recovered=longest is None or longest.end is not None,
        drawdown_velocity=deepest.velocity if deepest else 0.0,
        fastest_velocity=min((fall.velocity for fall in notable), default=0.0),
        time_under_water=float((below < 0).mean()),
        average_drawdown=float(below.mean()),
        cdar_5=worst_mean(below),
        cvar_5=worst_mean(track.returns),
        cvar_1=worst_mean(track.returns, 0.01),
        tail_hit_rate=tail_hit_rate(track.returns, tail_bars),
        drawdowns=sum(fall.depth < -0.01 for fall in falls),
    )


def find_drawdowns(track: Track) -> list[Drawdown]:
    """Every fall below a peak, in order; the starting wealth is the first peak."""
    below = track.drawdown < 0
    edges = np.diff(np.concatenate([[False], below, [False]]).astype(int))
    spells = zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True)
    return [_fall(track, int(start), int(stop)) for start, stop in spells]


def _fall(track: Track, start: int, stop: int) -> Drawdown:
    """The fall whose rows under water are start … stop − 1."""
    trough = start + int(np.argmin(track.drawdown[start:stop]))
    end = stop if stop < len(track.dates) else None
    last = stop if end is not None else len(track.dates) - 1
    return Drawdown(peak=start - 1, trough=trough, end=end, depth=float(track.drawdown[trough]), bars=last - (start - 1))


def tail_hit_rate(returns: Array, history: int = 252, fraction: float = 0.05) -> float:
    """Share of bars whose return lies below the `fraction` quantile of the `history` bars before it; NaN if there are fewer.

    Source: the violation rate of value at risk by historical simulation (Kupiec 1995).

    Raises:
        ConfigError: history too short for the quantile.
    """
    if history * fraction < 1:
        raise ConfigError(f"history = {history} bars; a {fraction:.0%} quantile needs at least {math.ceil(1 / fraction)}.")
    if len(returns) <= history:
        return math.nan
    past = np.lib.stride_tricks.sliding_window_view(returns, history)[:-1]
    return float((returns[history:] < np.quantile(past, fraction, axis=1)).mean())
