"""Figures of the HTML report: as SVG inside the page, in the page's own colours, and those that report.md does not have."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from html import escape

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from envs.indicators import REGIME_NAMES
from rlplatform.evaluation.figure_style import (
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
    spans,
)
from rlplatform.evaluation.html_report_style import PALETTE
from rlplatform.evaluation.metrics import sharpe_ratio
from rlplatform.evaluation.scoretable import number, percent
from rlplatform.evaluation.track import Track
from rlplatform.evaluation.windows import HoldOut

Array = np.ndarray
_VARIABLES = {light: f"var(--{name})" for name, (light, _) in reversed(PALETTE.items())} | {
    "#000000": "var(--ink)",  # matplotlib's own, where a plot names none
    "#1f77b4": "var(--policy)",
}
_SETTINGS = {"svg.fonttype": "none", "path.simplify": True, "path.simplify_threshold": 0.6}


def inline_figure(name: str, draw: Callable[[], Figure], from_start: bool = False) -> str:
    """A figure as a `<figure>` that takes the page's colours, light or dark, and needs nothing outside it.

    Title and subtitle become the caption, which wraps on a phone; the rest becomes an `<svg>` whose texts stay texts.

    Args:
        name: sets the element's ids apart from those of other figures on the page.
        draw: makes the figure, see `figure_style.new_figure`.
        from_start: a phone shows its left side first, where names stand, instead of the end of time.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context(_SETTINGS | {"svg.hashsalt": name}):
        figure = draw()
        title, subtitle = (escape(text.get_text().replace("\n", " "), quote=True) for text in figure.texts[:2])
        for text in figure.texts[:2]:
            text.set_visible(False)
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Type": None, "Format": None})
    svg = _embedded(buffer.getvalue(), title, _space_above(figure))
    caption = f"<figcaption><strong>{title}</strong><br>{subtitle}</figcaption>"
    side = "wide start" if from_start else "wide"
    return f'<figure>{caption}<div class="{side}" tabindex="0">{svg}</div></figure>'


def _space_above(figure: Figure) -> float:
    """Height that the title block leaves empty [1/72 inch]."""
    top = max(axes.get_position().y1 for axes in figure.axes)
    return max(0.0, (1.0 - top) * figure.get_figheight() * 72 - 12)


def _embedded(svg: str, title: str, crop: float) -> str:
    """matplotlib's SVG file as an element of the page, without its first `crop` [1/72 inch].

    Coordinates keep two decimals; ids that nothing refers to, which would stand twice on the page, go.
    """
    svg = re.sub(r"<(metadata|style)[ >].*?</\1>|<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r' d="[^"]*"', lambda match: re.sub(r"(\.\d\d)\d+", r"\1", match[0]), svg)
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", svg)
    svg = re.sub(r"#[0-9a-f]{6}\b", lambda match: _VARIABLES.get(match[0], match[0]), svg)
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    width, height = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups()
    box = f'viewBox="0 {crop:.1f} {width} {float(height) - crop:.1f}"'
    svg = re.sub(r'viewBox="[^"]*"', box, svg, count=1)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1).strip()


def plot_rolling_sharpe(policy: Track, benchmark: Track, window: int, bars_per_year: int = 252) -> Figure:
    """Sharpe ratio of the last `window` bars, at each close that has as many behind it.

    Args:
        window: bars, at most as many as the tracks have.
    """
    lines = {track.name: rolling_sharpe(track.returns, window, bars_per_year) for track in (policy, benchmark)}
    ours, dates = lines[policy.name], policy.dates[window:]
    above = np.nanmean(ours > lines[benchmark.name]) if len(ours) else 0.0
    share = percent(float(above), 0)
    title = f"Over {window} bars, {policy.name}'s Sharpe ratio stood above {benchmark.name}'s {share} of the time"
    subtitle = f"Annualised Sharpe ratio of the last {window} bars, {' to '.join(policy.period)}; the last at the right"
    colors = {policy.name: POLICY, benchmark.name: BASELINES[0]}
    labels = [EndLabel(f"{n}  {number(v[-1])}", _finite(v[-1]), colors[n], n == policy.name) for n, v in lines.items()]
    figure, axes = new_figure(title, subtitle, 3.8, room_for([label.text for label in labels]))
    axes.axhline(0.0, color=MUTED, linewidth=0.8)
    for name, values in reversed(lines.items()):
        axes.plot(dates, values, color=colors[name], linewidth=1.8 if name == policy.name else 1.1)
    axes.set_ylabel("Sharpe ratio [per √year]")
    if len(dates) > 1:
        date_axis(axes, dates)
    label_line_ends(axes, labels)
    return figure


def rolling_sharpe(returns: Array, window: int, bars_per_year: int = 252) -> Array:
    """(S − window + 1,) annualised Sharpe ratio of each `window` bars in a row; NaN where returns do not vary."""
    views = np.lib.stride_tricks.sliding_window_view(returns, window)
    return np.array([sharpe_ratio(view, bars_per_year) for view in views])


def plot_regimes(policy: Track, regimes: Array) -> Figure:
    """The market's state over time, one row each, with the policy's mean exposure in it.

    Args:
        regimes: (S,) codes, see `windows.market_regimes`.
    """
    exposure = np.abs(policy.weights).sum(-1)
    shares = [float((regimes == code).mean()) for code in range(len(REGIME_NAMES))]
    held = [float(exposure[regimes == code].mean()) if shares[code] else float("nan") for code in range(len(REGIME_NAMES))]
    most = int(np.argmax(shares))
    title = f"The market was {REGIME_NAMES[most]} on {percent(shares[most], 0)} of bars"
    title += f"; {policy.name} held {percent(held[most], 0)} then"
    subtitle = "State of the equal-weight market, known at each close; share of bars and mean exposure Σ|w| at the right"
    figure, axes = new_figure(title, subtitle, 2.6, right=0.84)
    colors = (BASELINES[1], BASELINES[0], BASELINES[3])
    edges = matplotlib.dates.date2num(policy.dates)
    for row, color in enumerate(colors):
        axes.broken_barh(spans(edges, regimes == row), (row - 0.36, 0.72), color=color, linewidth=0)
        text = f"{percent(shares[row], 0)}, held {percent(held[row], 0)}"
        axes.text(1.012, row, text, transform=axes.get_yaxis_transform(), va="center", fontsize=9, color=MUTED)
    axes.set_yticks(range(len(REGIME_NAMES)), REGIME_NAMES)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(len(REGIME_NAMES) - 0.5, -0.5)
    axes.grid(visible=False)
    date_axis(axes, policy.dates)
    return figure


def plot_windows(found: HoldOut, dates: Array) -> Figure:
    """Return of each hold-out window by the day it starts, the policy's and the benchmark's.

    Args:
        dates: of the track, `Track.dates`.
    """
    length, figures = found.config.length_bars, found.all
    title = f"{percent(figures.above_benchmark, 0)} of windows of {length} bars ended above {found.benchmark}"
    title += f", {percent(figures.above_zero, 0)} above zero"
    subtitle = f"Total return of {length} bars by their first day; median {percent(figures.median, sign=True)}"
    subtitle += f", worst {percent(figures.worst)}"
    lines = ((found.benchmark, found.benchmark_returns, BASELINES[0], 1.0), (found.name, found.returns, POLICY, 1.6))
    labels = [EndLabel(name, float(values[-1]), color, color == POLICY) for name, values, color, _ in lines]
    figure, axes = new_figure(title, subtitle, 3.8, room_for([label.text for label in labels]))
    axes.axhline(0.0, color=MUTED, linewidth=0.8)
    for _, values, color, width in lines:
        axes.plot(dates[found.starts], values, color=color, linewidth=width)
    axes.set_ylabel("Return [% of wealth]")
    percent_axis(axes.yaxis)
    if len(found.starts) > 1:
        date_axis(axes, dates[found.starts])
    label_line_ends(axes, labels)
    return figure


def _finite(value: float) -> float:
    return float(value) if np.isfinite(value) else 0.0
