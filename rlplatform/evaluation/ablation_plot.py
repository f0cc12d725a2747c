"""The figure of an ablation: every arm's difference to the reference, on validation and test, seed by seed."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from rlplatform.evaluation.ablation import ArmEdge, signed
from rlplatform.evaluation.ablation_report import TEST, VALIDATION, AblationResult
from rlplatform.evaluation.figure_style import INK, MUTED, POLICY, new_figure, room_for

COLORS = {VALIDATION: MUTED, TEST: POLICY}
DODGE = {VALIDATION: 0.17, TEST: -0.17}  # of a row's height
ROW_INCHES = 0.62


def plot_ablation(result: AblationResult) -> Figure:
    """One row an arm: the mean difference of Sharpe ratios with its interval, and each seed as a hollow dot."""
    arms = list(result.edges[TEST])
    texts = [_label(result.edges[TEST][arm]) for arm in arms]
    figure, axes = new_figure(
        result.sentence,
        f"Difference of annualised Sharpe ratios to {result.reference}; dot: mean, line: "
        f"{100 * next(iter(result.edges[TEST].values())).confidence:g} % interval, hollow: single seeds",
        height_inches=1.75 + ROW_INCHES * len(arms),
        right=room_for(texts),
    )
    x0, y0, width, height = axes.get_position().bounds
    names = 0.02 + 0.0085 * max(map(len, arms))  # their room, left of the axes
    axes.set_position((max(x0, names), y0, x0 + width - max(x0, names), height))
    for row, arm in enumerate(arms):
        for period in result.edges:
            _draw(axes, result.edges[period][arm], len(arms) - 1 - row + DODGE[period], COLORS[period])
    axes.axvline(0.0, color=INK, linewidth=1.0, zorder=1)
    axes.set_ylim(-0.6, len(arms) - 0.4)
    axes.set_yticks(range(len(arms)), arms[::-1])
    axes.tick_params(axis="y", labelcolor=INK, labelsize=10)
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_locator(MaxNLocator(8))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g}".replace("-", "−") if value else "0"))
    axes.set_xlabel(f"Sharpe ratio − {result.reference}'s")
    for row, text in enumerate(texts):
        axes.text(
            1.02,
            len(arms) - 1 - row + DODGE[TEST],
            text,
            transform=axes.get_yaxis_transform(),
            color=POLICY,
            fontsize=9,
            va="center",
        )
    for period in result.edges:
        y = len(arms) - 1 + DODGE[period]
        if period == VALIDATION:
            axes.text(1.02, y, "grey: validation", transform=axes.get_yaxis_transform(), color=MUTED, fontsize=9, va="center")
    return figure


def _label(edge: ArmEdge) -> str:
    return f"test {signed(edge.sharpe)}  ({signed(edge.sharpe_low)} to {signed(edge.sharpe_high)})"


def _draw(axes: Axes, edge: ArmEdge, y: float, color: str) -> None:
    seeds = np.array([value for value in edge.differences if math.isfinite(value)])
    if math.isfinite(edge.sharpe_low):
        axes.plot(
            [edge.sharpe_low, edge.sharpe_high], [y, y], color=color, linewidth=2.0, alpha=0.8, solid_capstyle="butt", zorder=3
        )
    if math.isfinite(edge.sharpe):
        axes.plot([edge.sharpe], [y], "o", markersize=7, color=color, zorder=5)
    axes.plot(seeds, np.full(len(seeds), y), "o", markersize=4.5, markerfacecolor="white", markeredgecolor=color, zorder=4)
