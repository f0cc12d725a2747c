"""Ablations: arms of one experiment that differ in named settings, against a reference arm, seed by seed on the same days."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from envs.errors import ConfigError, ShapeError
from rlplatform.evaluation.metrics import finite_or_none, sharpe_ratio
from rlplatform.evaluation.scoretable import number
from rlplatform.evaluation.significance import MIN_BARS, BootstrapConfig, block_length
from rlplatform.evaluation.track import Track

Array = np.ndarray
CHUNK = 200  # resamples held in memory at once


@dataclass(frozen=True, kw_only=True)
class ArmEdge:
    """One arm against the reference on one period. NaN where too few bars, or ruin, allow no figure.

    Attributes:
        arm, reference: names.
        seeds: in the order of the tuples.
        sharpes, reference_sharpes: annualised Sharpe ratio of each seed.
        sharpe: mean over seeds of arm − reference.
        sharpe_low, sharpe_high: its interval.
        growth, growth_low, growth_high: the same of log growth [per year].
        confidence: of the intervals.
        block_bars: mean block length of the resampling.
        bars: bars compared.
    """

    arm: str
    reference: str
    seeds: tuple[int, ...]
    sharpes: tuple[float, ...]
    reference_sharpes: tuple[float, ...]
    sharpe: float
    sharpe_low: float
    sharpe_high: float
    growth: float
    growth_low: float
    growth_high: float
    confidence: float
    block_bars: float
    bars: int

    @property
    def differences(self) -> tuple[float, ...]:
        """Of the Sharpe ratio, seed by seed."""
        return tuple(one - other for one, other in zip(self.sharpes, self.reference_sharpes, strict=True))

    @property
    def verdict(self) -> str:
        """What the interval of the Sharpe difference allows one to say."""
        if self.sharpe_low > 0:
            return "better"
        return "worse" if self.sharpe_high < 0 else "no difference shown"

    @property
    def sentence(self) -> str:
        """In plain words."""
        words = {"better": "is better than", "worse": "is worse than", "no difference shown": "is not shown to differ from"}
        opening = f"{self.arm} {words[self.verdict]} {self.reference}"
        if not math.isfinite(self.sharpe_low):
            return f"{opening}: no interval ({self.bars} bars, or a policy that was ruined)."
        each = ", ".join(signed(value) for value in self.differences)
        low, high = signed(self.sharpe_low), signed(self.sharpe_high)
        seeds = f"; by seed {each}" if len(self.seeds) > 1 else ""
        interval = f"{100 * self.confidence:g} % interval {low} to {high}"
        return f"{opening}: Sharpe {signed(self.sharpe)}, {interval}{seeds}."

    def to_dict(self) -> dict:
        figures = {k: finite_or_none(v) if isinstance(v, float) else v for k, v in asdict(self).items()}
        for name in ("sharpes", "reference_sharpes"):
            figures[name] = [finite_or_none(value) for value in figures[name]]
        figures["differences"] = [finite_or_none(value) for value in self.differences]
        return figures | {"seeds": list(self.seeds), "verdict": self.verdict}


def signed(value: float, digits: int = 2) -> str:
    """A difference for print, with its sign; a dash where undefined."""
    text = number(value, digits)
    return f"+{text}" if math.isfinite(value) and round(value, digits) > 0 else text


def compare_arms(
    arms: Mapping[str, Mapping[int, Track]], reference: str, config: BootstrapConfig | None = None, bars_per_year: int = 252
) -> dict[str, ArmEdge]:
    """Every arm but the reference against it.

    Runs are paired by their seed: the figure is the mean over seeds of (arm − reference). Each resample draws blocks of days,
    the same for all runs, so that what they have in common falls away; and it draws the seeds with replacement, so that the
    interval tells of both kinds of luck, that of the market's days and that of the training. Three seeds say little about the
    latter. Intervals are percentiles, not corrected for the number of arms. Source: Politis and Romano (1994) for the days.

    Args:
        arms: name → seed → track, the same seeds everywhere.
        reference: one of the names.

    Raises:
        ConfigError: no such arm, or arms with other seeds.
        ShapeError: tracks with other dates.
    """
    config = config or BootstrapConfig()
    if reference not in arms:
        raise ConfigError(f"reference = {reference!r}; expected one of the arms {', '.join(arms)}.")
    seeds = tuple(arms[reference])
    for name, tracks in arms.items():
        if tuple(tracks) != seeds:
            raise ConfigError(f"arm {name} has seeds {list(tracks)}; {reference} has {list(seeds)}. Give all arms the same.")
    others = [name for name in arms if name != reference]
    return {name: _edge(name, arms[name], reference, arms[reference], config, bars_per_year) for name in others}


def _edge(
    arm: str, own: Mapping[int, Track], reference: str, base: Mapping[int, Track], config: BootstrapConfig, bars_per_year: int
) -> ArmEdge:
    tracks = [*own.values(), *base.values()]
    figures = {"arm": arm, "reference": reference, "seeds": tuple(own), "confidence": config.confidence}
    sharpes = [tuple(sharpe_ratio(t.returns, bars_per_year) for t in group.values()) for group in (own, base)]
    figures |= {"sharpes": sharpes[0], "reference_sharpes": sharpes[1], "bars": len(tracks[0])}
    if any(track.ruined for track in tracks) or len(tracks[0]) < MIN_BARS:
        return ArmEdge(**figures, **dict.fromkeys((*_FIGURES, "block_bars"), math.nan))
    _check_dates(tracks)
    one, other = (np.stack([track.returns for track in group.values()]) for group in (own, base))
    return ArmEdge(**figures, **_intervals(one, other, config, bars_per_year))


_FIGURES = ("sharpe", "sharpe_low", "sharpe_high", "growth", "growth_low", "growth_high")


def _intervals(one: Array, other: Array, config: BootstrapConfig, bars_per_year: int) -> dict[str, float]:
    """From (seeds, bars) returns of both."""
    from arch.bootstrap import StationaryBootstrap  # takes a second to import

    bars, seeds = one.shape[1], len(one)
    block = block_length((np.log1p(one) - np.log1p(other)).mean(0))
    here = _differences(one[None], other[None], bars_per_year)[:, 0].mean(-1)
    days = StationaryBootstrap(block, np.arange(bars), seed=config.seed)
    drawn = np.stack([index for (index,), _ in days.bootstrap(config.resamples)])  # (R, bars)
    chosen = np.random.default_rng(config.seed).integers(0, seeds, (config.resamples, seeds))
    each = np.concatenate(
        [
            _differences(one[:, rows].swapaxes(0, 1), other[:, rows].swapaxes(0, 1), bars_per_year)
            for rows in np.array_split(drawn, max(1, config.resamples // CHUNK))
        ],
        axis=1,
    )  # (2, R, seeds)
    means = np.take_along_axis(each, chosen[None], axis=2).mean(-1)
    tail = 50 * (1 - config.confidence)
    low, high = np.percentile(means, [tail, 100 - tail], axis=1)
    values = (here[0], low[0], high[0], here[1], low[1], high[1])
    return dict(zip(_FIGURES, map(float, values), strict=True)) | {"block_bars": block}


def _differences(one: Array, other: Array, bars_per_year: int) -> Array:
    """(R, seeds, bars) returns of both → (2, R, seeds) of the Sharpe ratio, and of log growth a year."""
    with np.errstate(divide="ignore", invalid="ignore"):
        sharpes = [math.sqrt(bars_per_year) * r.mean(-1) / r.std(-1, ddof=1) for r in (one, other)]
    growths = [bars_per_year * np.log1p(r).mean(-1) for r in (one, other)]
    return np.stack([sharpes[0] - sharpes[1], growths[0] - growths[1]])


def _check_dates(tracks: Sequence[Track]) -> None:
    first = tracks[0]
    for track in tracks:
        if not np.array_equal(track.dates, first.dates):
            raise ShapeError(
                f"{track.name} covers {' to '.join(track.period)} ({len(track)} bars) and {first.name} "
                f"{' to '.join(first.period)} ({len(first)} bars); judge all arms on the same dates."
            )
