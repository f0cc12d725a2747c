"""The frontier of a sweep: what each setting earns, and what it loses on its worst days."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from rlplatform.evaluation.figure_style import MUTED, OTHER, POLICY, new_figure, percent_axis
from rlplatform.evaluation.scoretable import percent

Array = np.ndarray

SUBTITLE = "A ring is one seed, a dot the mean over seeds; up and to the right is better"


@dataclass(frozen=True, kw_only=True)
class FrontierPoint:
    """One setting.

    Attributes:
        label: what tells it from the others.
        worst: mean of the worst 5 % of daily returns of each seed [fraction].
        growth: return a year of each seed [fraction].
    """

    label: str
    worst: tuple[float, ...]
    growth: tuple[float, ...]

    @property
    def mean(self) -> tuple[float, float]:
        """Worst days and growth, the means over seeds."""
        return float(np.mean(self.worst)), float(np.mean(self.growth))


def plot_frontier(
    points: Sequence[FrontierPoint], name: str = "", ordered: bool = False, known: Sequence[tuple[float, float]] = ()
) -> Figure:
    """Growth against the mean of the worst 5 % of the days.

    Args:
        points: settings, two or more.
        name: of what is varied, where it is one thing.
        ordered: whether the points follow each other, so that a line may join them.
        known: worst days and growth of the best weights on the same days, where the law of the market is known.
    """
    means = np.array([point.mean for point in points])
    first, last = means[np.argmin(means[:, 0])], means[np.argmax(means[:, 0])]
    title = (
        f"From {percent(first[0], 2)} to {percent(last[0], 2)} on the worst 5 % of the days, "
        f"from {percent(first[1])} to {percent(last[1])} a year"
    )
    figure, axes = new_figure(title, f"{SUBTITLE}{f'; labels are {name}' if name else ''}", right=0.96)
    if len(known):
        curve = np.array(known)
        axes.plot(*curve.T, color=OTHER, linewidth=2.2, zorder=1)
        lowest = curve[np.argmin(curve[:, 0])]
        axes.annotate("best weights by the law", lowest, (8, 8), textcoords="offset points", color=MUTED, fontsize=9)
    if ordered:
        axes.plot(*means.T, color=POLICY, linewidth=1.0, alpha=0.5, zorder=2)
    for point in points:
        axes.plot(point.worst, point.growth, "o", color="none", markeredgecolor=POLICY, markersize=4.5, alpha=0.6, zorder=3)
        axes.plot(*point.mean, "o", color=POLICY, markersize=7, zorder=4)
    for point, at in zip(points, _label_places(means), strict=True):
        axes.annotate(
            point.label, point.mean, at, textcoords="offset points", color=POLICY, fontsize=9.5, fontweight="bold",
            arrowprops={"arrowstyle": "-", "color": POLICY, "linewidth": 0.6, "alpha": 0.5}, zorder=5,
        )  # fmt: skip
    axes.margins(0.08, 0.1)
    axes.set(xlabel="mean of the worst 5 % of daily returns", ylabel="return a year")
    percent_axis(axes.xaxis)
    percent_axis(axes.yaxis)
    return figure


def _label_places(means: Array) -> list[tuple[float, float]]:
    """Offsets [points]: to the left; lower for every other point that stands close."""
    span = np.ptp(means, axis=0)
    scaled = (means - means.min(0)) / np.where(span > 0, span, 1.0)
    places: list[tuple[float, float]] = []
    for i, here in enumerate(scaled):
        close = sum(float(np.hypot(*(here - other))) < 0.08 for other in scaled[:i])
        places.append((-38.0 - 8.0 * close, -7.0 - 14.0 * close))
    return places
