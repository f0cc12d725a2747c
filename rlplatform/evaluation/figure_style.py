"""How every figure looks: one palette, one title block, labels at the line's end instead of a legend."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

Array = np.ndarray

INK, MUTED, RULE, FAINT = "#1B2330", "#5C6675", "#E4E7EC", "#D3D7DE"
POLICY = "#0B5CAD"
SHADE = "#F1F5FA"
BASELINES = ("#D9730D", "#12876F", "#8A5CC2", "#B03A5B", "#8A6D1D", "#3D7A99")
ASSETS = ("#0B5CAD", "#E08A2E", "#2A9D8F", "#8A5CC2", "#C44E6B", "#7FB2E5", "#A3B54A", "#8C6A4F")
OTHER, CASH = "#AEB6C2", "#E9ECF1"  # too pale for text: their labels are MUTED
DPI = 150
WIDTH_INCHES = 9.6


@dataclass(frozen=True)
class EndLabel:
    """A line's name, written where the line ends."""

    text: str
    y: float
    color: str | tuple[float, ...]
    bold: bool = False


def new_figure(title: str, subtitle: str, height_inches: float = 5.0, right: float = 0.80) -> tuple[Figure, Axes]:
    """A figure with its finding as title, what is shown as subtitle, and one empty axes.

    Args:
        right: where the axes end [fraction of the width]; labels stand to the right of it.
    """
    figure = Figure(figsize=(WIDTH_INCHES, height_inches), dpi=DPI, facecolor="white")
    lines = textwrap.wrap(title, 88)
    inch = 1.0 / height_inches
    figure.text(
        0.012,
        1 - 0.12 * inch,
        "\n".join(lines),
        ha="left",
        va="top",
        color=INK,
        fontsize=12.5,
        fontweight="bold",
        linespacing=1.25,
    )
    below = 0.12 + 0.245 * len(lines)
    figure.text(0.012, 1 - below * inch, subtitle, ha="left", va="top", color=MUTED, fontsize=9.5)
    axes = figure.add_axes((0.09, 0.55 * inch, right - 0.09, 1 - (below + 0.42 + 0.55) * inch))
    tidy(axes)
    return figure, axes


def room_for(texts: Sequence[str]) -> float:
    """`right` of `new_figure` that leaves the longest label its place."""
    return 0.975 - 0.0092 * max((len(text) for text in texts), default=0)


def tidy(axes: Axes) -> None:
    """No box, a light grid behind the data, quiet ticks."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="both", which="both", colors=MUTED, labelsize=9, length=0, pad=5)
    axes.tick_params(axis="x", which="major", length=3, color=FAINT)
    axes.yaxis.label.set(color=MUTED, fontsize=9.5)
    axes.xaxis.label.set(color=MUTED, fontsize=9.5)


def date_axis(axes: Axes, dates: Array) -> None:
    """Ticks that say no more than needed, from the first to the last date."""
    locator = AutoDateLocator(minticks=4, maxticks=9)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=False))
    axes.set_xlim(dates[0], dates[-1])


def percent_axis(axis) -> None:
    """As many digits as a tick has: 0.025 is 2.5 %, not 2 %."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{round(100 * value, 6) + 0.0:g} %".replace("-", "−")))


def label_line_ends(axes: Axes, labels: Sequence[EndLabel], fontsize: float = 9.0) -> None:
    """Write each label right of the axes at its line's height, moved apart where they would overlap.

    Call it when limits and scales are final.
    """
    if not labels:
        return
    height = axes.bbox.height
    gap = 1.32 * fontsize * axes.figure.dpi / 72 / height
    ordered = sorted(labels, key=lambda label: label.y)
    points = axes.transData.transform([(0.0, label.y) for label in ordered])
    wanted = axes.transAxes.inverted().transform(points)[:, 1]
    for label, at, y in zip(ordered, _spread(wanted, gap), wanted, strict=True):
        axes.plot([1.0, 1.012], [y, at], transform=axes.transAxes, color=label.color, linewidth=0.8, clip_on=False, alpha=0.7)
        axes.text(
            1.016, at, label.text, transform=axes.transAxes, color=label.color, va="center", ha="left",
            fontsize=fontsize, fontweight="bold" if label.bold else "normal", clip_on=False,
        )  # fmt: skip


def spans(edges: Sequence[float], at: Array) -> list[tuple[float, float]]:
    """(start, width) of each run of true values in `at` (S,) between `edges` (S + 1,)."""
    change = np.diff(np.concatenate([[0], at.astype(int), [0]]))
    first, stop = np.flatnonzero(change == 1), np.flatnonzero(change == -1)
    return [(edges[a], edges[b] - edges[a]) for a, b in zip(first, stop, strict=True)]


def _spread(wanted: Array, gap: float) -> Array:
    """Positions at least `gap` apart, close to the sorted `wanted` in least squares: pool neighbours that collide."""
    blocks: list[list[float]] = []  # [mean of (wanted − offset), count]
    for i, y in enumerate(wanted):
        blocks.append([float(y) - i * gap, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            mean, count = blocks.pop()
            blocks[-1] = [(blocks[-1][0] * blocks[-1][1] + mean * count) / (blocks[-1][1] + count), blocks[-1][1] + count]
    bases = np.concatenate([np.full(int(count), mean) for mean, count in blocks])
    return bases + gap * np.arange(len(wanted))
