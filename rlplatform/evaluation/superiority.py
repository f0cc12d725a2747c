"""Many comparisons at once: is the best of several better than a benchmark, and which baselines are really beaten?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.errors import ConfigError, ShapeError
from rlplatform.evaluation.metrics import finite_or_none
from rlplatform.evaluation.significance import MIN_BARS, BootstrapConfig, block_length
from rlplatform.evaluation.track import Track

Array = np.ndarray


@dataclass(frozen=True, kw_only=True)
class Superiority:
    """The outcome of one family of comparisons.

    Attributes:
        p_value: of "none of them is better", by Hansen's SPA, counting all that were compared; NaN if nothing varies.
        superior: names that are better, wrong about any of them at most 1 − `confidence` of the time (StepM).
        compared: names compared.
        confidence: of `superior`.
        block_bars: mean block length of the resampling.
    """

    p_value: float
    superior: tuple[str, ...]
    compared: tuple[str, ...]
    confidence: float
    block_bars: float

    def to_dict(self) -> dict:
        lists = {"superior": list(self.superior), "compared": list(self.compared)}
        figures = {name: finite_or_none(getattr(self, name)) for name in ("p_value", "confidence", "block_bars")}
        return figures | lists


def better_than_benchmark(candidates: Sequence[Track], benchmark: Track, config: BootstrapConfig | None = None) -> Superiority:
    """Which candidates grow faster than the benchmark, after counting how many were tried.

    Raises:
        ShapeError: the tracks do not share their dates.
        ConfigError: no candidate, or fewer than 20 bars.
    """
    gains = {track.name: _log_returns(track) - _log_returns(benchmark) for track in _same_dates([*candidates, benchmark])[:-1]}
    return superior_gains(gains, config)


def beaten_baselines(policy: Track, baselines: Sequence[Track], config: BootstrapConfig | None = None) -> Superiority:
    """Which baselines the policy outgrows, when all of them together may be wrong only 1 − confidence of the time.

    `p_value` is of "it beats none"; intervals of `significance.compare` treat each baseline by itself.

    Raises:
        ShapeError, ConfigError: as `better_than_benchmark`.
    """
    gains = {track.name: _log_returns(policy) - _log_returns(track) for track in _same_dates([*baselines, policy])[:-1]}
    return superior_gains(gains, config)


def superior_gains(gains: dict[str, Array], config: BootstrapConfig | None = None) -> Superiority:
    """SPA and StepM on differences of log returns, resampled in blocks for all at once (arch).

    The blocks are the longest that any of the differences asks for. A difference that does not vary is left out; the others
    are divided by their standard deviation, so that a wild one does not drown the rest (arch 8 does not divide).
    Source: Hansen (2005), "A test for superior predictive ability" (the consistent p-value); Romano and Wolf (2005),
    "Stepwise multiple testing as formalized data snooping".

    Args:
        gains: name → (S,) difference of log returns, above zero where it is better.
    """
    from arch.bootstrap import SPA  # takes a second to import

    config = config or BootstrapConfig()
    compared = tuple(gains)
    if not compared:
        raise ConfigError("nothing to compare: give at least one track.")
    bars = len(next(iter(gains.values())))
    if bars < MIN_BARS:
        raise ConfigError(f"{bars} bars; a comparison needs at least {MIN_BARS}. Choose a longer period.")
    varying = {name: gain for name, gain in gains.items() if np.ptp(gain) > 1e-14}
    if not varying:
        return Superiority(p_value=np.nan, superior=(), compared=compared, confidence=config.confidence, block_bars=1.0)
    block = max(block_length(gain) for gain in varying.values())
    losses, zero = -np.column_stack([gain / gain.std() for gain in varying.values()]), np.zeros(bars)
    test = SPA(zero, losses, block_size=max(1, round(block)), reps=config.resamples, seed=config.seed)
    test.compute()
    p_value, names = float(test.pvalues["consistent"]), list(varying)
    return Superiority(
        p_value=p_value,
        superior=tuple(names[column] for column in _step_down(test, len(names), 1.0 - config.confidence)),
        compared=compared,
        confidence=config.confidence,
        block_bars=float(max(1, round(block))),
    )


def _step_down(test: Any, count: int, size: float) -> list[int]:
    """StepM on one SPA test: leave out those found superior and ask again, until none is added.

    arch's own StepM raises ValueError when the second step finds all that were left.
    """
    left = np.ones(count, dtype=bool)
    while left.any():
        test.subset(left)
        test.compute()
        found = np.asarray(test.better_models(size), dtype=int)
        if not len(found):
            break
        left[found] = False
    return np.flatnonzero(~left).tolist()


def _same_dates(tracks: Sequence[Track]) -> list[Track]:
    first = tracks[-1]
    for track in tracks:
        if track.ruined:
            raise ConfigError(f"{track.name} was ruined; it has no growth rate to compare. Leave it out.")
        if not np.array_equal(track.dates, first.dates):
            raise ShapeError(
                f"{track.name} covers {' to '.join(track.period)} ({len(track)} bars) and {first.name} "
                f"{' to '.join(first.period)} ({len(first)} bars); judge all on the same dates."
            )
    return list(tracks)


def _log_returns(track: Track) -> Array:
    return np.log1p(track.returns)
