"""The figure of a pipeline's pairs: each policy's Sharpe ratio between those of simple ones on the same days."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from envs.errors import ConfigError
from rlplatform.evaluation.figure_style import BASELINES, FAINT, INK, MUTED, POLICY, RULE, new_figure
from rlplatform.evaluation.scoretable import number

ROW_INCHES = 0.55


@dataclass(frozen=True, kw_only=True)
class PairScore:
    """One judged path: a pair and how it was traded.

    Attributes:
        pair, what: such as "AAPL-AMZN" and "ppo".
        sharpe: of the path that is told about; None where returns do not vary.
        seeds: of every seed.
        baselines: name → Sharpe ratio on the same days.
        benchmark: the baseline that the growth is held against.
        growth, growth_low, growth_high: difference of log growth to it a year, with its interval; None where there is none.
        verdict: "beats", "loses to" or "no edge shown".
        max_drawdown: of the path, ≤ 0.
        period: first and last day.
    """

    pair: str
    what: str
    sharpe: float | None
    seeds: tuple[float | None, ...]
    baselines: Mapping[str, float | None]
    benchmark: str
    growth: float | None
    growth_low: float | None
    growth_high: float | None
    verdict: str
    max_drawdown: float | None
    period: tuple[str, ...]

    @property
    def best_baseline(self) -> tuple[str, float | None]:
        """By Sharpe ratio; chosen in hindsight."""
        return max(self.baselines.items(), key=lambda item: -math.inf if item[1] is None else item[1])

    def cells(self) -> dict[str, str]:
        """For print: growth against the benchmark in percent a year, with its 95 % interval."""
        known = None not in (self.growth, self.growth_low, self.growth_high)
        spread = f" ({number(min(found))} to {number(max(found))})" if len(found := self._known_seeds()) > 1 else ""
        return {
            "pair": self.pair,
            "by": self.what,
            "Sharpe": _number(self.sharpe) + spread,
            "benchmark": _number(self.baselines.get(self.benchmark)),
            "best": _number(self.best_baseline[1]),
            "growth %": " ".join(
                [_percent(self.growth), f"({_percent(self.growth_low)} to {_percent(self.growth_high)})"] if known else ["–"]
            ),
            "verdict": self.verdict,
        }

    def _known_seeds(self) -> list[float]:
        return [value for value in self.seeds if value is not None]

    def to_dict(self) -> dict[str, Any]:
        figures = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return figures | {"seeds": list(self.seeds), "baselines": dict(self.baselines), "period": list(self.period)}


def plot_pairs(scores: Sequence[PairScore]) -> Figure:
    """A row for each path: the policy's Sharpe ratio, its seeds, and the baselines.

    Raises:
        ConfigError: nothing to draw.
    """
    if not scores:
        raise ConfigError("there are no judged pairs to draw; give at least one PairScore.")
    beaten = sum(score.verdict == "beats" for score in scores)
    first, last = scores[0].period
    seeds = "; small dots are seeds, the large one is in the middle" if any(len(score.seeds) > 1 for score in scores) else ""
    figure, axes = new_figure(
        f"{beaten} of {len(scores)} pair policies show an edge over {scores[0].benchmark}",
        f"Sharpe ratio, out of sample, {first} to {last}, after costs and financing" + seeds,
        height_inches=1.6 + ROW_INCHES * len(scores),
        right=0.80,
    )
    left, bottom, width, height = axes.get_position().bounds
    axes.set_position((left + 0.13, bottom, width - 0.13, height))
    names = list(dict.fromkeys(name for score in scores for name, value in score.baselines.items() if value is not None))
    colors = {name: BASELINES[i % len(BASELINES)] for i, name in enumerate(names)}
    for row, score in enumerate(scores):
        _draw(axes, len(scores) - 1 - row, score, colors)
    axes.axvline(0.0, color=FAINT, linewidth=1.0, zorder=0)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=RULE, linewidth=0.8)
    axes.set_ylim(-0.6, len(scores) - 0.4)
    axes.set_yticks(range(len(scores)), [f"{score.pair}\n{score.what}" for score in reversed(scores)], color=INK, fontsize=9)
    axes.set_xlabel("Sharpe ratio a year")
    _legend(axes, colors)
    return figure


def _draw(axes: Axes, y: float, score: PairScore, colors: Mapping[str, str]) -> None:
    for name, value in score.baselines.items():
        if value is not None:
            axes.plot([value], [y], marker="|", markersize=16, markeredgewidth=2.2, color=colors[name], zorder=2)
    for value in score.seeds:
        if value is not None and len(score.seeds) > 1:
            axes.plot([value], [y], marker="o", markersize=4, color=POLICY, alpha=0.45, linestyle="none", zorder=3)
    if score.sharpe is not None:
        axes.plot([score.sharpe], [y], marker="o", markersize=9, color=POLICY, linestyle="none", zorder=4)


def _legend(axes: Axes, colors: Mapping[str, str]) -> None:
    """Right of the axes, a line each, from the top."""
    line = 0.21 / (axes.get_position().height * axes.figure.get_figheight())
    entries = [("the policy", POLICY, "o"), *((name, color, "|") for name, color in colors.items())]
    for i, (name, color, marker) in enumerate(entries):
        y = 1.0 - line * (i + 0.5)
        size, edge = (7, 1.0) if marker == "o" else (11, 2.2)
        axes.plot(
            [1.03],
            [y],
            marker=marker,
            markersize=size,
            markeredgewidth=edge,
            color=color,
            transform=axes.transAxes,
            clip_on=False,
        )
        axes.text(1.055, y, name, transform=axes.transAxes, color=INK if marker == "o" else MUTED, fontsize=9, va="center")


def _percent(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")


def _number(value: float | None) -> str:
    return "–" if value is None else number(value)
