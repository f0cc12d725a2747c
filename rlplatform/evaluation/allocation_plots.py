"""Figures of what was held: weights as stacked areas, discrete choices as a raster."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from rlplatform.evaluation.figure_style import (
    ASSETS,
    CASH,
    FAINT,
    INK,
    MUTED,
    OTHER,
    POLICY,
    EndLabel,
    date_axis,
    label_line_ends,
    new_figure,
    percent_axis,
    room_for,
)
from rlplatform.evaluation.scoretable import percent
from rlplatform.evaluation.track import Track

Array = np.ndarray
MAX_ASSETS = len(ASSETS)  # more colours cannot be told apart; the smaller ones are summed
MAX_COLUMNS = 320  # time steps an eye can tell apart; beyond, the mean of a few bars is drawn


def plot_weights(track: Track) -> Figure:
    """Weights over time, stacked; shorts below zero, cash (where nothing is short) on top, in grey."""
    names, weights = _grouped(track.symbols, track.weights)
    cash = 1.0 - track.weights.sum(-1)
    shorts = bool((track.weights < -1e-9).any() or (cash < -1e-6).any())
    step = -(-len(track) // MAX_COLUMNS)
    dates, areas, cash = (
        _coarser(track.dates[:-1], step),
        _coarser_mean(weights, step),
        _coarser_mean(cash[:, None], step)[:, 0],
    )
    each = "each bar" if step == 1 else f"mean of every {step} bars"
    subtitle = f"Target weights, {each}, {' to '.join(track.period)}; mean weight at the right"
    figure, axes = new_figure(_weights_title(track), subtitle, right=min(0.86, room_for([f"{name}  100 %" for name in names])))
    colors = [*ASSETS[: len(names)]]
    if len(track.symbols) > MAX_ASSETS:
        colors[-1] = OTHER
    edges = np.append(dates, track.dates[-1])
    upper = _stack(axes, edges, np.clip(areas, 0, None), colors)
    _stack(axes, edges, np.clip(areas, None, 0), colors)
    labels = _area_labels(names, weights, areas, colors)
    if not shorts:
        axes.fill_between(edges, _held(upper), 1.0, step="post", color=CASH, linewidth=0)
        labels.append(EndLabel(f"cash  {percent(float(cash.mean()), 0)}", 1.0 - cash[-1] / 2, MUTED))
    axes.set_ylim(*((_limits(areas)) if shorts else (0.0, 1.0)))
    axes.axhline(0.0, color=INK, linewidth=0.8)
    axes.set_ylabel("Weight [% of wealth]")
    percent_axis(axes.yaxis)
    if not shorts:
        axes.yaxis.set_major_locator(MultipleLocator(0.25))
    axes.grid(visible=False)
    date_axis(axes, track.dates)
    label_line_ends(axes, labels)
    return figure


def plot_actions(track: Track, action_names: Sequence[str] = ()) -> Figure:
    """Discrete choices over time: one row for each action ever chosen, most frequent on top, a mark on each bar.

    Args:
        track: with integer `actions` (S,).
        action_names: by number; "action 3" where not given.
    """
    chosen, counts = np.unique(track.actions, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    chosen, shares = chosen[order], counts[order] / counts.sum()
    names = [action_names[a] if a < len(action_names) else f"action {a}" for a in chosen]
    changes = int((np.diff(track.actions) != 0).sum())
    title = f"{track.name} chose {names[0]} on {percent(float(shares[0]), 0)} of all bars"
    title += f" and changed its mind {changes:,} times in {len(track):,}" if len(track) > 1 else ""
    subtitle = f"Chosen action at each close, {' to '.join(track.period)}; share of bars at the right"
    figure, axes = new_figure(title, subtitle, height_inches=max(2.6, 1.5 + 0.27 * len(chosen)), right=0.93)
    left, bottom, width, height = axes.get_position().bounds
    axes.set_position((0.17, bottom, left + width - 0.17, height))
    starts, ends = track.dates[:-1], track.dates[1:]
    for row, action in enumerate(chosen):
        at = track.actions == action
        axes.broken_barh(_spans(starts, ends, at), (row - 0.38, 0.76), color=POLICY if row == 0 else ASSETS[5], linewidth=0)
        axes.text(
            1.012,
            row,
            percent(float(shares[row]), 1),
            transform=axes.get_yaxis_transform(),
            va="center",
            fontsize=9,
            color=MUTED,
        )
    axes.set_yticks(range(len(chosen)), names)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(len(chosen) - 0.5, -0.5)
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    date_axis(axes, track.dates)
    return figure


def is_discrete(track: Track) -> bool:
    """Whether the track's actions are choices out of a list."""
    return track.actions is not None and track.actions.ndim == 1 and np.issubdtype(track.actions.dtype, np.integer)


def _grouped(symbols: Sequence[str], weights: Array) -> tuple[list[str], Array]:
    """The assets that matter most, largest mean |w| first, and the sum of the others as the last column."""
    order = np.argsort(-np.abs(weights).mean(0), kind="stable")
    if len(symbols) <= MAX_ASSETS:
        return [symbols[i] for i in order], weights[:, order]
    top, rest = order[: MAX_ASSETS - 1], order[MAX_ASSETS - 1 :]
    return [*(symbols[i] for i in top), f"{len(rest)} others"], np.column_stack([weights[:, top], weights[:, rest].sum(-1)])


def _weights_title(track: Track) -> str:
    mean = track.weights.mean(0)
    largest = int(np.argmax(np.abs(mean)))
    trades = percent(float(track.turnover.mean()), 1)
    if not np.abs(mean[largest]) > 0.005:
        return f"{track.name} held next to nothing on average and traded {trades} of wealth a bar"
    side = "held" if mean[largest] > 0 else "was short"
    share = percent(abs(float(mean[largest])), 0)
    return f"{track.name} {side} {track.symbols[largest]} most: {share} on average; it traded {trades} of wealth a bar"


def _coarser(dates: Array, step: int) -> Array:
    return dates[::step]


def _coarser_mean(values: Array, step: int) -> Array:
    """Mean over groups of `step` rows; the last group may be shorter."""
    starts = np.arange(0, len(values), step)
    return np.add.reduceat(values, starts, axis=0) / np.diff(np.append(starts, len(values)))[:, None]


def _held(values: Array) -> Array:
    """Repeat the last value, so that a step area reaches the last valuation."""
    return np.append(values, values[-1])


def _stack(axes: Axes, edges: Array, areas: Array, colors: Sequence[str]) -> Array:
    """Step areas piled up from zero; returns the pile's height (S,)."""
    base = np.zeros(len(areas))
    for column, color in zip(areas.T, colors, strict=True):
        axes.fill_between(edges, _held(base), _held(base + column), step="post", color=color, linewidth=0)
        base = base + column
    return base


def _area_labels(names: Sequence[str], weights: Array, areas: Array, colors: Sequence[str]) -> list[EndLabel]:
    """Each name at the middle of its area at the right edge."""
    last = areas[-1]
    top = np.where(last >= 0, np.cumsum(np.clip(last, 0, None)), np.cumsum(np.clip(last, None, 0)))
    means = weights.mean(0)
    return [
        EndLabel(f"{name}  {percent(float(mean), 0)}", float(t - w / 2), ink_of(color))
        for name, mean, t, w, color in zip(names, means, top, last, colors, strict=True)
    ]


def ink_of(color: str) -> tuple[float, ...] | str:
    """An area's colour, dark enough to read as text."""
    return MUTED if color == OTHER else tuple(0.8 * part for part in to_rgb(color))


def _limits(areas: Array) -> tuple[float, float]:
    low, high = np.clip(areas, None, 0).sum(-1).min(), np.clip(areas, 0, None).sum(-1).max()
    pad = 0.04 * max(high - low, 0.1)
    return min(low - pad, 0.0), high + pad


def _spans(starts: Array, ends: Array, at: Array) -> list[tuple]:
    """(start, width) in days since the epoch of each run of true values in `at` (S,)."""
    day = np.timedelta64(1, "D")
    epoch = np.datetime64("1970-01-01")
    change = np.diff(np.concatenate([[0], at.astype(int), [0]]))
    first, last = np.flatnonzero(change == 1), np.flatnonzero(change == -1) - 1
    return [((starts[a] - epoch) / day, (ends[b] - starts[a]) / day) for a, b in zip(first, last, strict=True)]
