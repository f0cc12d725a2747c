"""Figures over time: wealth, drawdown, learning curve. Each title states what the figure shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from rlplatform.evaluation.figure_style import (
    BASELINES,
    FAINT,
    INK,
    MUTED,
    POLICY,
    SHADE,
    EndLabel,
    date_axis,
    label_line_ends,
    new_figure,
    percent_axis,
    room_for,
    tidy,
)
from rlplatform.evaluation.scoretable import percent
from rlplatform.evaluation.track import Track

Array = np.ndarray
LOSSES = ("policy_loss", "critic_loss", "total_loss")  # of an offline training, the first that it reports
_A_DECADE = (1, 1.5, 2, 3, 4, 6, 8), (1, 2, 5), (1,)  # ticks of a log axis
_DECADES_APART = 2, 5, 10, 20, 50, 100
LOG_SCALE_FROM = 3.0  # highest over lowest wealth above which equal steps of growth no longer look equal


def plot_equity(
    policy: Track,
    baselines: Sequence[Track],
    main_names: Sequence[str],
    earlier: Sequence[Track] = (),
    sample: str = "Out of sample",
) -> Figure:
    """Wealth of the policy (bold), of the main baselines (labelled) and of the others (grey).

    Args:
        main_names: baselines to label.
        earlier: tracks of rows before the test, matched by name and scaled to join at the test's start, which is 1;
            then the test is shaded.
        sample: as in `Verdict`; what stands in brackets is left out.
    """
    main, rest = _split(baselines, main_names)
    against = main[0] if main else None
    title = f"{policy.name} turned 1 into {policy.wealth[-1]:.2f}"
    title += f"; {against.name} turned it into {against.wealth[-1]:.2f}" if against is not None else ""
    days = f"{sample.partition(' (')[0].lower()} {' to '.join(policy.period)}"
    subtitle = f"Wealth after costs and financing, {days}, start of the test = 1"
    colors = _colors(main_names)
    labels = [EndLabel(f"{t.name}  {t.wealth[-1]:.2f}", t.wealth[-1], colors[t.name]) for t in main]
    labels.append(EndLabel(f"{policy.name}  {policy.wealth[-1]:.2f}", policy.wealth[-1], POLICY, bold=True))
    figure, axes = new_figure(title, subtitle, right=room_for([label.text for label in labels]))
    shown = [(track, FAINT, 0.8, 1) for track in rest] + [(track, colors[track.name], 1.3, 2) for track in main]
    shown.append((policy, POLICY, 2.1, 3))
    lines = [(*_joined(track, earlier), color, width, z) for track, color, width, z in shown]
    for dates, wealth, color, width, z in lines:
        axes.plot(dates, wealth, color=color, linewidth=width, zorder=z, solid_joinstyle="round")
    _wealth_axis(axes, [wealth for _, wealth, *_ in lines])
    date_axis(axes, np.concatenate([[min(dates[0] for dates, *_ in lines)], policy.dates]))
    _shade_test(axes, policy, earlier)
    label_line_ends(axes, _visible(axes, labels))
    if rest:
        _grey_note(figure, len(rest))
    return figure


def plot_drawdown(policy: Track, baselines: Sequence[Track], main_names: Sequence[str]) -> Figure:
    """How far each lies below its own peak; the policy filled, main baselines as lines labelled with their deepest point."""
    main = [track for track in _split(baselines, main_names)[0] if track.drawdown.min() < 0]
    deepest = percent(-policy.drawdown.min())
    title = f"{policy.name} fell at most {deepest} below its peak"
    title += f"; {main[0].name} fell {percent(-main[0].drawdown.min())}" if main else ""
    colors = _colors(main_names)
    subtitle = f"Wealth below its highest value so far, {' to '.join(policy.period)}; deepest fall at the right"
    labels = [EndLabel(_fall(track), track.drawdown[-1], colors[track.name]) for track in main]
    labels.append(EndLabel(_fall(policy), policy.drawdown[-1], POLICY, bold=True))
    figure, axes = new_figure(title, subtitle, height_inches=4.2, right=room_for([label.text for label in labels]))
    axes.fill_between(policy.dates, policy.drawdown, 0, color=POLICY, alpha=0.16, linewidth=0, zorder=1)
    for track in main:
        axes.plot(track.dates, track.drawdown, color=colors[track.name], linewidth=1.1, zorder=2)
    axes.plot(policy.dates, policy.drawdown, color=POLICY, linewidth=1.7, zorder=3)
    axes.set_ylabel("Drawdown [% of peak]")
    axes.set_ylim(1.08 * min(-0.01, *(track.drawdown.min() for track in [*main, policy])), 0)
    percent_axis(axes.yaxis)
    date_axis(axes, policy.dates)
    label_line_ends(axes, labels)
    return figure


def plot_learning_curve(rows: Sequence[Mapping[str, float]]) -> Figure:
    """Training return (offline: the loss) and validation Sharpe against steps, one above the other.

    Args:
        rows: with "env_steps" and "episode_return_mean", or "gradient_steps" and a loss; and, where evaluated,
            "validation_sharpe".
    """
    online = not rows or "env_steps" in rows[0]
    unit, name = ("environment steps", "Episode return, training") if online else ("gradient steps", "Loss, training")
    key = "episode_return_mean" if online else next((k for k in LOSSES if k in rows[-1]), LOSSES[0])
    returns, sharpes = _points(rows, key), _points(rows, "validation_sharpe")
    steps = max((_step(row) for row in rows), default=0.0)
    title = _learning_title(returns, sharpes, "Episode return" if online else "The loss")
    figure, axes = new_figure(title, f"Training over {count(steps)} {unit}", right=0.965)
    panels = [(axes, name, returns, MUTED)]
    if len(sharpes):
        x0, y0, width, height = axes.get_position().bounds
        below = figure.add_axes((x0, y0, width, 0.46 * height), sharex=axes)
        axes.set_position((x0, y0 + 0.54 * height, width, 0.46 * height))
        axes.tick_params(labelbottom=False)
        panels.append((below, "Sharpe, validation", sharpes, POLICY))
    for panel, label, points, color in panels:
        _learning_panel(panel, label, points, color)
    panels[-1][0].set_xlabel(unit.capitalize())
    panels[-1][0].xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    panels[-1][0].xaxis.set_major_locator(MaxNLocator(7))
    if len(sharpes):
        _mark_best(panels[-1][0], sharpes)
    figure.align_ylabels()
    return figure


def _fall(track: Track) -> str:
    return f"{track.name}  {percent(track.drawdown.min(), 0)}"


def count(value: float) -> str:
    """1_250_000 → "1.25M"."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"


def _split(baselines: Sequence[Track], main_names: Sequence[str]) -> tuple[list[Track], list[Track]]:
    """Main baselines in the order named, and the rest."""
    by_name = {track.name: track for track in baselines}
    main = [by_name[name] for name in main_names if name in by_name]
    return main, [track for track in baselines if track.name not in set(main_names)]


def _colors(main_names: Sequence[str]) -> dict[str, str]:
    """One colour a baseline, the same in every figure; cash is grey."""
    coloured = [name for name in main_names if name != "CASH"]
    return dict(zip(coloured, BASELINES * len(coloured), strict=False)) | {"CASH": MUTED}


def _joined(track: Track, earlier: Sequence[Track]) -> tuple[Array, Array]:
    """Dates and wealth with the earlier tracks of the same name chained in front, so that the test still starts at 1."""
    dates, wealth = track.dates, track.wealth
    before = [part for part in earlier if part.name == track.name and part.dates[-1] <= track.dates[0]]
    for part in sorted(before, key=lambda part: part.dates[0], reverse=True):
        dates = np.concatenate([part.dates, dates])
        wealth = np.concatenate([part.wealth / part.wealth[-1] * wealth[0], wealth])
    return dates, wealth


def _shade_test(axes: Axes, policy: Track, earlier: Sequence[Track]) -> None:
    if not any(part.dates[-1] <= policy.dates[0] for part in earlier):
        return
    axes.axvspan(policy.dates[0], policy.dates[-1], color=SHADE, zorder=0, linewidth=0)
    axes.axvline(policy.dates[0], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    for text, side, shift in (("test", "left", 6), ("before the test", "right", -6)):
        axes.annotate(
            text, (policy.dates[0], 1), xycoords=("data", "axes fraction"), xytext=(shift, -4), textcoords="offset points",
            ha=side, va="top", color=INK if text == "test" else MUTED, fontsize=9,
        )  # fmt: skip


def _wealth_axis(axes: Axes, wealths: Sequence[Array]) -> None:
    """Linear while growth is small, logarithmic beyond; room above and below; a rule at 1."""
    lowest = min(wealth[wealth > 0].min() for wealth in wealths)
    highest = max(wealth.max() for wealth in wealths)
    if highest / lowest > LOG_SCALE_FROM:
        axes.set_yscale("log")
        pad = (highest / lowest) ** 0.06
        axes.set_ylim(lowest / pad, highest * pad)
        axes.yaxis.set_major_locator(FixedLocator(_log_ticks(lowest, highest)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylabel("Wealth [start of test = 1, log scale]")
    else:
        pad = 0.06 * max(highest - lowest, 0.02)
        axes.set_ylim(lowest - pad, highest + pad)
        axes.set_ylabel("Wealth [start of test = 1]")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.axhline(1.0, color=MUTED, linewidth=0.8, zorder=1)


def _log_ticks(lowest: float, highest: float) -> list[float]:
    """Round numbers, nine of them at most: several a decade, every decade, or powers of ten further apart."""
    first, last = math.floor(math.log10(lowest)), math.ceil(math.log10(highest))
    several = [[step * 10.0**k for k in range(first, last + 1) for step in steps] for steps in _A_DECADE]
    further = [[10.0**k for k in range(first, last + 1) if k % stride == 0] for stride in _DECADES_APART]
    for ticks in (*several, *further):
        inside = [tick for tick in ticks if lowest * 0.97 <= tick <= highest * 1.03]
        if len(inside) <= 9:
            break
    return inside


def _visible(axes: Axes, labels: Sequence[EndLabel]) -> list[EndLabel]:
    """A ruined account's zero has no place on a log axis: its label goes to the lower edge."""
    low, high = axes.get_ylim()
    return [EndLabel(label.text, min(max(label.y, low), high), label.color, label.bold) for label in labels]


def _grey_note(figure: Figure, others: int) -> None:
    figure.text(
        0.985,
        0.012,
        f"grey: {others} other baseline{'s' if others > 1 else ''}",
        ha="right",
        va="bottom",
        color=MUTED,
        fontsize=8.5,
    )


def _step(row: Mapping[str, float]) -> float:
    return float(row["env_steps"] if "env_steps" in row else row["gradient_steps"])


def _points(rows: Sequence[Mapping[str, float]], key: str) -> Array:
    """(K, 2) steps and value of the rows where the value is known."""
    known = [(_step(row), row[key]) for row in rows if row.get(key) is not None and math.isfinite(row[key])]
    return np.array(known, dtype=np.float64).reshape(-1, 2)


def _learning_title(returns: Array, sharpes: Array, what: str) -> str:
    if len(sharpes):
        best = int(np.argmax(sharpes[:, 1]))
        title = f"Validation Sharpe was highest after {count(sharpes[best, 0])} steps, at {sharpes[best, 1]:.2f}"
        ending = ", its last evaluation" if best == len(sharpes) - 1 else f"; it ended at {sharpes[-1, 1]:.2f}"
        return (title + ending).replace("-", "−")
    if len(returns):
        return f"{what} went from {returns[0, 1]:.3g} to {returns[-1, 1]:.3g}".replace("-", "−")
    return "No learning curve was recorded"


def _learning_panel(axes: Axes, label: str, points: Array, color: str) -> None:
    tidy(axes)
    axes.set_ylabel(label)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    if not len(points):
        return
    window = max(1, len(points) // 20)
    if window > 1:
        axes.plot(*points.T, color=color, linewidth=0.8, alpha=0.35)
        kernel = np.ones(window)
        smooth = np.convolve(points[:, 1], kernel, mode="same") / np.convolve(np.ones(len(points)), kernel, mode="same")
        axes.plot(points[:, 0], smooth, color=color, linewidth=1.8)
    else:
        axes.plot(*points.T, color=color, linewidth=1.8, marker="o", markersize=3.5)
    axes.margins(x=0.02, y=0.12)


def _mark_best(axes: Axes, points: Array) -> None:
    step, best = points[np.argmax(points[:, 1])]
    axes.plot(
        [step], [best], marker="o", markersize=7, markerfacecolor="white", markeredgecolor=POLICY, markeredgewidth=2, zorder=4
    )
    axes.annotate("best", (step, best), xytext=(0, 8), textcoords="offset points", ha="center", color=POLICY, fontsize=9)
    axes.set_ylim(top=axes.get_ylim()[1] + 0.12 * np.ptp(axes.get_ylim()))
