"""The figure of estimates against the truth: may one trust a policy's value before it has traded?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from envs.errors import ConfigError
from rlplatform.evaluation.figure_style import BASELINES, FAINT, INK, MUTED, POLICY, RULE, EndLabel, new_figure, room_for

COLORS = {"wdr": POLICY, "fqe": BASELINES[0], "wis": BASELINES[1], "dr": BASELINES[2], "is": BASELINES[3]}
NAMES = {
    "is": "importance sampling",
    "wis": "weighted IS",
    "dr": "doubly robust",
    "wdr": "weighted doubly robust",
    "fqe": "fitted Q",
}
DODGE = 0.011  # between the estimators of one policy [fraction of the x axis]
CHARACTER = 0.0115  # width of a letter of a policy's name [fraction of the x axis]
NAME_INCHES = 0.18  # height of a level of names
REACH = 0.6  # how far beyond the true values the y axis goes at most [fraction of their range]


@dataclass(frozen=True, kw_only=True)
class EstimatePoint:
    """One estimate of one policy's value, and the truth.

    Attributes:
        policy: its name.
        estimator: "is", "wis", "dr", "wdr", "fqe", or another name.
        value, low, high: estimate and its interval.
        truth: value by rollouts or backtest, in the same unit.
    """

    policy: str
    estimator: str
    value: float
    low: float
    high: float
    truth: float

    @property
    def holds_truth(self) -> bool:
        return self.low <= self.truth <= self.high


def plot_estimates(
    points: Sequence[EstimatePoint], unit: str = "discounted reward of an episode", note: str = "", confidence: float = 0.95
) -> Figure:
    """Estimate with interval against truth; on the diagonal they agree. Hollow where the interval misses the truth.

    The estimators of one policy stand side by side around its true value. What lies far outside is drawn as an arrow at
    the edge, so that one estimate that exploded does not flatten all others.

    Args:
        unit: of both axes.
        note: added to the subtitle, such as the data the estimates stand on.
        confidence: of the intervals.

    Raises:
        ConfigError: nothing to draw.
    """
    points = [point for point in points if math.isfinite(point.truth)]
    if not points:
        raise ConfigError("there are no estimates to draw with a finite true value; give at least one EstimatePoint.")
    held = sum(point.holds_truth for point in points)
    names = list(dict.fromkeys(point.estimator for point in points))
    subtitle = f"{100 * confidence:g} % intervals, by estimator; hollow where they miss the truth; side by side for legibility"
    labels = [_legend(name, points) for name in names]
    figure, axes = new_figure(
        f"{held} of {len(points)} intervals hold the true value",
        subtitle + (f"; {note}" if note else ""),
        height_inches=5.6,
        right=room_for([label.text for label in labels]),
    )
    x_limits, y_limits = _limits(points)
    axes.set_xlim(*x_limits)
    axes.set_ylim(*y_limits)
    _axes_text(axes, unit)
    _policies(axes, points)
    _diagonal(axes, points)
    for i, name in enumerate(names):
        shift = (i - (len(names) - 1) / 2) * DODGE * (x_limits[1] - x_limits[0])
        for point in (p for p in points if p.estimator == name):
            _draw(axes, point, point.truth + shift, labels[i].color)
    _write_legend(axes, labels)
    return figure


def _legend(name: str, points: Sequence[EstimatePoint]) -> EndLabel:
    of_name = [point for point in points if point.estimator == name]
    held = sum(point.holds_truth for point in of_name)
    known = list(COLORS)
    color = COLORS.get(name, BASELINES[(len(known) + len(name)) % len(BASELINES)])
    return EndLabel(f"{NAMES.get(name, name)}  {held} of {len(of_name)}", 0.0, color)


def _limits(points: Sequence[EstimatePoint]) -> tuple[tuple[float, float], tuple[float, float]]:
    """x: the truths with room. y: the same, and more where estimates need it, but never more than `REACH` beyond."""
    truths = np.array([point.truth for point in points])
    low, high = float(truths.min()), float(truths.max())
    widths = np.array([point.high - point.low for point in points])
    spread = max(high - low, float(np.median(widths[np.isfinite(widths)])) if np.isfinite(widths).any() else 0.0, 1e-9)
    ends = np.array([(point.low, point.high) for point in points])
    ends = np.where(np.isfinite(ends), ends, np.sign(np.nan_to_num(ends, nan=0.0)) * 1e300)
    bottom = max(min(low, float(ends[:, 0].min())), low - REACH * spread)
    top = min(max(high, float(ends[:, 1].max())), high + REACH * spread)
    pad = 0.05 * (top - bottom)
    return (low - 0.1 * spread, high + 0.1 * spread), (bottom - pad, top + pad)


def _axes_text(axes: Axes, unit: str) -> None:
    axes.set_xlabel(f"True value [{unit}]")
    axes.set_ylabel(f"Estimate [{unit}]")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(7))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))


def _diagonal(axes: Axes, points: Sequence[EstimatePoint]) -> None:
    """Where estimate = truth; its name stands along it in the widest gap between policies."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    ends = [max(left, bottom), min(right, top)]
    axes.plot(ends, ends, color=MUTED, linewidth=1.0, linestyle=(0, (5, 4)), zorder=1)
    stops = np.unique([left, *(point.truth for point in points), right])
    widest = int(np.argmax(np.diff(stops)))
    at = float(stops[widest : widest + 2].mean())
    axes.annotate(
        "estimate = truth", (at, at), xytext=(0, 3), textcoords="offset points", rotation=_slope(axes), rotation_mode="anchor",
        color=MUTED, fontsize=8.5, ha="center", va="bottom", zorder=1,
    )  # fmt: skip


def _slope(axes: Axes) -> float:
    """Angle of the diagonal on the page [degrees]."""
    (x0, y0), (x1, y1) = axes.transData.transform([(0.0, 0.0), (1.0, 1.0)])
    return math.degrees(math.atan2(y1 - y0, x1 - x0))


def _name_levels(axes: Axes, points: Sequence[EstimatePoint]) -> list[tuple[str, float, float, int]]:
    """Policy, true value, centre of its name [fraction of the x axis] and level above the axes, so that no two names touch."""
    left, right = axes.get_xlim()
    reached: list[float] = []
    placed = []
    for name, truth in sorted({point.policy: point.truth for point in points}.items(), key=lambda item: item[1]):
        half = CHARACTER / 2 * (len(name) + 2)
        at = min(max((truth - left) / (right - left), half), 1.0 - half)
        level = next((i for i, end in enumerate(reached) if at - half > end), len(reached))
        reached[level : level + 1] = [at + half]
        placed.append((name, truth, at, level))
    return placed


def _policies(axes: Axes, points: Sequence[EstimatePoint]) -> None:
    """A faint rule at each policy's true value and its name above the axes, which make room for as many levels as needed."""
    placed = _name_levels(axes, points)
    x0, y0, width, height = axes.get_position().bounds
    levels = 1 + max(level for *_, level in placed)
    axes.set_position((x0, y0, width, height - (levels - 1) * NAME_INCHES / axes.figure.get_figheight()))
    for name, truth, at, level in placed:
        axes.axvline(truth, color=RULE, linewidth=0.9, zorder=0)
        axes.annotate(
            name, (at, 1.0), xycoords="axes fraction", xytext=(0, 4 + 72 * NAME_INCHES * level), textcoords="offset points",
            ha="center", va="bottom", color=INK, fontsize=8.5, annotation_clip=False,
        )  # fmt: skip


def _draw(axes: Axes, point: EstimatePoint, x: float, color: str) -> None:
    bottom, top = axes.get_ylim()
    low, high = (min(max(end, bottom), top) for end in (point.low, point.high))
    axes.plot([x, x], [low, high], color=color, linewidth=1.7, alpha=0.75, solid_capstyle="butt", zorder=3)
    outside = not bottom <= point.value <= top
    marker = ("^" if point.value > top else "v") if outside else "o"
    inset = 0.012 * (top - bottom)
    y = min(max(point.value, bottom + inset), top - inset)
    fill = color if point.holds_truth else "white"
    axes.plot(
        [x], [y], marker=marker, markersize=5.5, markerfacecolor=fill, markeredgecolor=color, markeredgewidth=1.4, zorder=4
    )


def _write_legend(axes: Axes, labels: Sequence[EndLabel]) -> None:
    """The estimators right of the axes, each with how often its interval holds the truth."""
    axes.text(
        1.02, 0.97, "held the truth", transform=axes.transAxes, color=MUTED, fontsize=8.5, va="center", ha="left", clip_on=False
    )
    for i, label in enumerate(labels):
        y = 0.91 - 0.055 * i
        axes.plot([1.025], [y], marker="o", markersize=5.5, color=label.color, transform=axes.transAxes, clip_on=False)
        axes.text(
            1.042, y, label.text, transform=axes.transAxes, color=label.color, fontsize=9, va="center", ha="left", clip_on=False
        )
    axes.spines["left"].set_visible(True)
    axes.spines["left"].set_color(FAINT)
