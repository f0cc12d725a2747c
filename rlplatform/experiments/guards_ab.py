"""The same policy with and without guards: over its test period, and on its calm and its stressed windows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs import make
from envs.guards import GuardsConfig, RegimeGuardConfig
from envs.indicators import volatility_regime
from envs.tape import MarketTape
from rlplatform.evaluation.backtest import Policy as Decider
from rlplatform.evaluation.backtest import run_policy
from rlplatform.evaluation.scoretable import percent
from rlplatform.evaluation.track import Track
from rlplatform.experiments.config import ExperimentConfig
from rlplatform.experiments.judging import policy_name, whole_period
from rlplatform.experiments.market import prepare_market
from rlplatform.experiments.run_directory import RunDirectory
from rlplatform.models.ensemble import load_policy

Array = np.ndarray

PRESET = GuardsConfig(regime=RegimeGuardConfig())  # for a run that was trained without guards
WINDOW_BARS = 42
FIGURES = ("turnover_per_bar", "drawdown", "total_return")


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One stretch of one path.

    Attributes:
        turnover_per_bar: mean Σ|Δw|.
        drawdown: deepest W / peak − 1 inside, ≤ 0; the first close counts as a peak.
        total_return: W_end / W_start − 1.
    """

    turnover_per_bar: float
    drawdown: float
    total_return: float

    @classmethod
    def of(cls, track: Track, first: int, last: int) -> Figures:
        """Of the bars first … last − 1."""
        wealth = track.wealth[first : last + 1]
        end = wealth[-1] / wealth[0] - 1.0 if wealth[0] > 0 else 0.0
        depth = (wealth / np.maximum.accumulate(np.maximum(wealth, 1e-300)) - 1.0).min()
        return cls(turnover_per_bar=float(track.turnover[first:last].mean()), drawdown=float(depth), total_return=float(end))


@dataclass(frozen=True, kw_only=True)
class Window:
    """One window of both paths; stressed when at least half of its decisions fell on days that were not calm."""

    start: str
    end: str
    stressed: bool
    without: Figures
    guarded: Figures


@dataclass(frozen=True, kw_only=True, eq=False)
class GuardsComparison:
    """Both paths, and what the guards changed.

    Attributes:
        without, guarded: paths of the same policy on the same days.
        windows: one after the other; a remainder shorter than a window is left out.
        guards: the settings, as YAML has them.
        preset: whether those are the preset because the run has none of its own.
    """

    without: Track
    guarded: Track
    windows: tuple[Window, ...]
    guards: Mapping[str, Any]
    preset: bool

    @property
    def telemetry(self) -> dict[str, float]:
        """See `Track.guard_summary`."""
        return self.guarded.guard_summary

    def rows(self) -> list[dict[str, Any]]:
        """One row for the whole period, the calm and the stressed windows; figures of windows are means over them."""
        bars = min(len(self.without), len(self.guarded))
        whole = [(Figures.of(self.without, 0, bars), Figures.of(self.guarded, 0, bars))]
        parts = {"whole period": whole}
        for name, stressed in (("calm windows", False), ("stressed windows", True)):
            parts[name] = [(w.without, w.guarded) for w in self.windows if w.stressed is stressed]
        return [_row(name, pairs) for name, pairs in parts.items() if pairs]

    def figure_rows(self) -> list[dict[str, Any]]:
        """For print: one row for each part and figure."""
        return [_figure_row(row, figure) for row in self.rows() for figure in FIGURES]

    def lines(self) -> list[str]:
        """What the guards did, in words."""
        rates = ", ".join(
            f"{name.removeprefix('guard_').removesuffix('_rate')} {value:.1%}"
            for name, value in self.telemetry.items()
            if name.endswith("_rate")
        )
        penalty = self.telemetry.get("guard_penalty")
        extra = "" if penalty is None else f"; penalty that training would have counted: {penalty:.4f}"
        origin = "the preset; the run was trained without guards" if self.preset else "the run's own"
        return [
            f"Share of bars on which each guard held: {rates}. Mean exposure left: {self.telemetry['guard_scale']:.3f}{extra}.",
            f"Guards: {origin}. Windows of {WINDOW_BARS} bars out of two continuous paths; change = guarded − without.",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "period": list(self.without.period),
            "summary": self.rows(),
            "windows": [dataclasses.asdict(window) for window in self.windows],
            "telemetry": self.telemetry,
            "guards": dict(self.guards),
            "preset": self.preset,
        }


def compare_guards(run: RunDirectory, guards: GuardsConfig | None = None) -> GuardsComparison:
    """Judge a run's policy twice over its test period.

    Guards are in no observation, so the policy sees what it would see without them but for its own weights and wealth. A
    `shutdown` that the run was trained with stays in both paths, for its cooldowns are in the observation.

    Args:
        guards: those of the run if not given; the preset if it has none.

    Raises:
        ConfigError: the run has no policy yet.
    """
    config, scaler = run.config(), run.scaler()
    tape = prepare_market(config, scaler).tape
    return compare(config, tape, load_policy(run.policy), guards)


def compare(
    config: ExperimentConfig, tape: MarketTape, policy: Decider, guards: GuardsConfig | None = None
) -> GuardsComparison:
    """`compare_guards` for a policy and a tape at hand."""
    own = guards or config.env.guards
    chosen = own or PRESET
    without, guarded = (_path(config, tape, policy, guards) for guards in (None, chosen))
    return GuardsComparison(
        without=without,
        guarded=guarded,
        windows=_windows(without, guarded, tape),
        guards=dataclasses.asdict(chosen),
        preset=own is None,
    )


def _path(config: ExperimentConfig, tape: MarketTape, policy: Decider, guards: GuardsConfig | None) -> Track:
    settings = dataclasses.replace(whole_period(config.env), guards=guards)
    name = policy_name(config, policy) + ("" if guards is None else "_GUARDED")
    return run_policy(name, make(settings, tape, *map(str, config.split.test)), policy, symbols=tape.symbols)


def _windows(without: Track, guarded: Track, tape: MarketTape) -> tuple[Window, ...]:
    """Windows of bars that both paths have."""
    uneasy = volatility_regime(tape.gross.mean(axis=1))[np.searchsorted(tape.dates, without.dates)] > 0
    windows = []
    for first in range(0, min(len(without), len(guarded)) - WINDOW_BARS + 1, WINDOW_BARS):
        last = first + WINDOW_BARS
        windows.append(
            Window(
                start=str(without.dates[first])[:10],
                end=str(without.dates[last])[:10],
                stressed=bool(uneasy[first:last].mean() >= 0.5),
                without=Figures.of(without, first, last),
                guarded=Figures.of(guarded, first, last),
            )
        )
    return tuple(windows)


def _figure_row(row: dict[str, Any], figure: str) -> dict[str, Any]:
    sides = {"without": row[figure], "guarded": row[f"{figure}_guarded"], "change": row[f"{figure}_change"]}
    shown = {name: percent(value, 2, sign=name == "change") for name, value in sides.items()}
    return {"part": row["part"], "windows": row["windows"], "figure": figure.replace("_", " "), **shown}


def _row(name: str, pairs: list[tuple[Figures, Figures]]) -> dict[str, Any]:
    row: dict[str, Any] = {"part": name, "windows": len(pairs)}
    for figure in FIGURES:
        a, b = (float(np.mean([getattr(pair[side], figure) for pair in pairs])) for side in (0, 1))
        row |= {figure: round(a, 5), f"{figure}_guarded": round(b, 5), f"{figure}_change": round(b - a, 5)}
    return row
