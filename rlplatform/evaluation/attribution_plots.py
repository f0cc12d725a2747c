"""Figures of where a policy's decisions and its return came from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlplatform.evaluation.allocation_plots import ink_of
from rlplatform.evaluation.attribution import Attribution
from rlplatform.evaluation.figure_style import (
    ASSETS,
    BASELINES,
    INK,
    MUTED,
    POLICY,
    EndLabel,
    date_axis,
    label_line_ends,
    new_figure,
    percent_axis,
    room_for,
)
from rlplatform.evaluation.scoretable import percent
from rlplatform.evaluation.shapley import Explanation

Array = np.ndarray
MOST = 12  # sources in one figure
PERIODS = 60  # steps in time that an eye can tell apart in a stack


def plot_effects(found: Explanation) -> Figure:
    """How much of wealth each group of columns moves at a bar, on average; largest first."""
    sizes, order = found.sizes, found.order[:MOST]
    total = float(sizes.sum())
    share = percent(float(sizes[order[0]] / total), 0) if total > 0 else "–"
    title = f"{found.groups[order[0]]} moves the policy's weights most: {share} of all effects"
    subtitle = (
        "Mean over the bars of Σ|Shapley value| over the assets [% of wealth], against a policy that sees only a baseline"
    )
    figure, axes = _bars(title, subtitle, [found.groups[g] for g in order])
    axes.barh(range(len(order)), sizes[order], height=0.62, color=POLICY)
    for row, g in enumerate(order):
        _beside(axes, float(sizes[g]), row, percent(float(sizes[g]), 2))
    axes.set_xlim(0, max(float(sizes.max()) * 1.15, 1e-9))
    percent_axis(axes.xaxis)
    return figure


def plot_effects_over_time(found: Explanation) -> Figure:
    """The same as shares of time: size of each group's effect, stacked, in stretches of equal length."""
    order = found.order[: len(ASSETS)]
    each = np.abs(found.effects).sum(2)
    step = max(1, -(-len(each) // PERIODS))
    starts = np.arange(0, len(each), step)
    means = np.add.reduceat(each, starts) / np.diff(np.append(starts, len(each)))[:, None]
    dates = np.append(found.dates[starts], found.dates[-1])
    title = f"What moved the weights, over time: together {percent(float(found.sizes.sum()), 1)} of wealth a bar"
    subtitle = f"Σ|Shapley value| over the assets, mean of every {step} bars [% of wealth]; mean at the right"
    names = [f"{found.groups[g]}  {percent(float(found.sizes[g]), 1)}" for g in order]
    figure, axes = new_figure(title, subtitle, 3.8, min(0.86, room_for(names)))
    base, labels = np.zeros(len(starts)), []
    for name, g, color in zip(names, order, ASSETS, strict=False):
        upper = base + means[:, g]
        axes.fill_between(dates, np.append(base, base[-1]), np.append(upper, upper[-1]), step="post", color=color, linewidth=0)
        labels.append(EndLabel(name, float(base[-1] + upper[-1]) / 2, ink_of(color)))
        base = upper
    axes.set_ylim(0, max(float(base.max()) * 1.05, 1e-9))
    axes.set_ylabel("Effect [% of wealth]")
    percent_axis(axes.yaxis)
    if len(found.dates) > 1:
        date_axis(axes, found.dates)
    label_line_ends(axes, labels)
    return figure


def plot_contributions(found: Attribution) -> Figure:
    """Net contribution to return beside the contribution to risk, by source; those that matter most."""
    net, risk = found.return_parts + found.cost_parts, found.risk_parts
    order = np.argsort(-np.abs(net), kind="stable")
    names, net, risk = _grouped([found.sources[i] for i in order], net[order], risk[order])
    shares = (net / _total(found.total_return), risk / _total(found.volatility))
    title = f"{names[0]} brought {percent(float(net[0]), sign=True)} of the {percent(found.total_return, sign=True)} return"
    title += f" and {percent(float(shares[1][0]), 0)} of the risk"
    subtitle = "Share of the net return after costs (linked over time, Carino) and of volatility (Euler), by source"
    figure, axes = _bars(title, subtitle, names, 0.46)
    rows = np.arange(len(names))
    axes.barh(rows - 0.19, shares[0], height=0.34, color=POLICY)
    axes.barh(rows + 0.19, shares[1], height=0.34, color=BASELINES[0])
    axes.axvline(0.0, color=INK, linewidth=0.8)
    for row, (ours, of_risk) in enumerate(zip(*shares, strict=True)):
        _beside(
            axes, max(ours, of_risk, 0.0), row, f"{percent(float(ours), 0)} of return, {percent(float(of_risk), 0)} of risk"
        )
    low, high = min(0.0, *(s.min() for s in shares)), max(s.max() for s in shares)
    axes.set_xlim(low * 1.1, max(high, 1e-9) + 0.42 * (high - low))
    percent_axis(axes.xaxis)
    return figure


def _bars(title: str, subtitle: str, names: Sequence[str], row_inches: float = 0.34) -> tuple[Figure, Axes]:
    figure, axes = new_figure(title, subtitle, max(2.4, 1.5 + row_inches * len(names)), right=0.97)
    _, bottom, _, height = axes.get_position().bounds
    left = min(0.3, 0.04 + 0.0092 * max(map(len, names)))
    axes.set_position((left, bottom, 0.97 - left, height))
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False)
    return figure, axes


def _beside(axes: Axes, x: float, row: int, text: str) -> None:
    """A label right of a bar's end."""
    axes.annotate(text, (x, row), xytext=(6, 0), textcoords="offset points", va="center", fontsize=9, color=MUTED)


def _grouped(names: list[str], net: Array, risk: Array) -> tuple[list[str], Array, Array]:
    """The largest, and the sum of the others as the last."""
    if len(names) <= MOST:
        return names, net, risk
    kept = MOST - 1
    both = (np.append(values[:kept], values[kept:].sum()) for values in (net, risk))
    return [*names[:kept], f"{len(names) - kept} others"], *both


def _total(value: float) -> float:
    """What a share is of; infinite where there is nothing to share."""
    return value if abs(value) > 1e-12 and np.isfinite(value) else np.inf
