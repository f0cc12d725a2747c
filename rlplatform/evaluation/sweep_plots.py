"""Figures of a sweep: which settings went where, and what each parameter did."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Curve
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from rlplatform.evaluation.figure_style import FAINT, INK, MUTED, POLICY, new_figure, tidy

Array = np.ndarray

MOST_PARAMETERS = 8  # more panels than a page can hold; the strongest are shown
LOG_FROM = 10.0  # a range of positive numbers whose ends lie so many times apart is drawn on a log scale
SHADES = LinearSegmentedColormap.from_list("scores", ["#D7DEE8", "#8FB4DA", POLICY])


@dataclass(frozen=True)
class _Scale:
    """One parameter's values as heights in [0, 1].

    Attributes:
        name: of the parameter.
        heights: (S,) of each setting.
        ticks: height and text of what is written at the axis.
        discrete: few values, each used by itself.
        numbers: (S,) values as drawn (logarithms on a log scale); the index of the value where it is no number.
    """

    name: str
    heights: Array
    ticks: tuple[tuple[float, str], ...]
    discrete: bool
    numbers: Array
    log: bool = False

    @classmethod
    def of(cls, name: str, values: Sequence[Any]) -> _Scale:
        texts = [_text(value) for value in values]
        numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        known = sorted(set(values)) if numeric else list(dict.fromkeys(texts))
        if not numeric or len(known) <= 6:
            indices = np.array([known.index(value) for value in (values if numeric else texts)], dtype=float)
            step = 1 / max(1, len(known) - 1)
            middle = 0.5 if len(known) == 1 else 0.0
            ticks = tuple((middle + i * step, _text(value)) for i, value in enumerate(known))
            return cls(name, middle + indices * step, ticks, True, indices)
        log = min(known) > 0 and max(known) / min(known) >= LOG_FROM
        numbers = np.log10(np.asarray(values, float)) if log else np.asarray(values, float)
        low, high = numbers.min(), numbers.max()
        at = _round_logs(low, high) if log else MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high)
        ticks = tuple(((x - low) / (high - low), _text(float(10**x if log else x))) for x in at if low <= x <= high)
        return cls(name, (numbers - low) / (high - low), ticks, False, numbers, log)


def plot_parallel_coordinates(
    settings: Sequence[Mapping[str, Any]], scores: Sequence[float], metric: str, mode: str = "max"
) -> Figure:
    """Each setting one line across its parameters to its score; the best one bold.

    Args:
        settings: S mappings, parameter → value, of the same parameters.
        scores: S scores, means over seeds.
        metric: what the scores are.
        mode: "max" or "min", whichever is better.
    """
    scores = np.asarray(scores, float)
    best = int(np.argmax(scores) if mode == "max" else np.argmin(scores))
    scales = [_Scale.of(key, [each[key] for each in settings]) for key in _strongest(settings, scores)]
    word = metric_words(metric)
    title = f"Best of {len(scores)} settings: {_settings_text(settings[best], [scale.name for scale in scales])}"
    subtitle = f"{word}, mean over seeds: {_text(scores[best])} there, {_text(scores.min())} to {_text(scores.max())} in all"
    figure, axes = new_figure(title, subtitle, right=0.93)
    low, high = scores.min(), max(scores.max(), scores.min() + 1e-9)
    ends = (scores - low) / (high - low)
    better = ends if mode == "max" else 1 - ends
    for i in sorted(range(len(scores)), key=lambda i: (i == best, better[i])):
        heights = [*(scale.heights[i] for scale in scales), ends[i]]
        axes.add_patch(_curve(heights, SHADES(better[i]), 2.8 if i == best else 1.3, 1.0 if i == best else 0.75))
    for x, scale in enumerate(scales):
        _coordinate(axes, x, scale.ticks, _last(scale.name, scales))
    marks = np.linspace(low, high, 5) if high - low > 1e-9 else [low]
    _coordinate(axes, len(scales), tuple(((y - low) / (high - low), _text(float(y))) for y in marks), word, bold=True)
    axes.set(xlim=(-0.12, len(scales) + 0.12), ylim=(-0.05, 1.05), xticks=[], yticks=[])
    axes.grid(False)
    axes.spines["bottom"].set_visible(False)
    return figure


def plot_parameter_effects(settings: Sequence[Mapping[str, Any]], scores: Sequence[float], metric: str) -> Figure:
    """Score against each parameter by itself, the strongest first.

    A dot is one trial. Where values are few, a bar is their mean; else the line is a quadratic fit. The share of the
    spread is R² of those means or of that fit; with few trials chance alone makes it large.

    Args:
        settings: R mappings, one a trial.
        scores: R scores.
    """
    scores = np.asarray(scores, float)
    keys = _strongest(settings, scores)
    scales = [_Scale.of(key, [each[key] for each in settings]) for key in keys]
    shares = [_explained(scale, scores) for scale in scales]
    columns = min(4, len(scales)) if len(scales) != 4 else 2
    rows = math.ceil(len(scales) / columns)
    word = metric_words(metric)
    title = f"{_last(keys[0], scales)} explains {100 * shares[0]:.0f} % of the spread of {_lower(word)}"
    if len(keys) > 1:
        title += f", {_last(keys[1], scales)} {100 * shares[1]:.0f} %"
    subtitle = (
        f"{len(scores)} trials, one dot each; bars and lines are means by that parameter alone, so chance has a share too"
    )
    figure, first = new_figure(title, subtitle, height_inches=1.6 + 2.7 * rows, right=0.985)
    x0, y0, width, height = first.get_position().bounds
    first.remove()
    inch_x, inch_y = 1 / figure.get_figwidth(), 1 / figure.get_figheight()
    gap_x, gap_y = 0.42 * inch_x, 0.85 * inch_y
    each_x, each_y = (width - (columns - 1) * gap_x) / columns, (height - (rows - 1) * gap_y) / rows
    for i, (scale, share) in enumerate(zip(scales, shares, strict=True)):
        row, column = divmod(i, columns)
        place = (x0 + column * (each_x + gap_x), y0 + (rows - 1 - row) * (each_y + gap_y), each_x, each_y)
        axes = figure.add_axes(place)
        _effect(axes, scale, scores)
        axes.set_title(f"{100 * share:.0f} %", loc="right", color=MUTED, fontsize=9, pad=4)
        axes.set_xlabel(_last(scale.name, scales), color=INK)
        if column:
            axes.tick_params(labelleft=False)
        else:
            axes.set_ylabel(word)
    return figure


def metric_words(metric: str) -> str:
    """ "validation_max_drawdown" → "Validation max drawdown"."""
    words = metric.replace("_", " ").replace("sharpe", "Sharpe").replace("sortino", "Sortino")
    return words[:1].upper() + words[1:]


def _effect(axes: Axes, scale: _Scale, scores: Array) -> None:
    tidy(axes)
    pad = 0.08 * max(np.ptp(scores), 1e-6)
    axes.set_ylim(scores.min() - pad, scores.max() + pad)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _text(float(value))))
    spread = 0.03 * np.random.default_rng(0).uniform(-1, 1, len(scores)) if scale.discrete else 0.0
    axes.plot(scale.heights + spread, scores, "o", color=POLICY, alpha=0.45, markersize=5, markeredgewidth=0, clip_on=False)
    if scale.discrete:
        half = 0.28 / max(1, len(scale.ticks) - 1) if len(scale.ticks) > 1 else 0.2
        for height, _ in scale.ticks:
            here = scores[np.isclose(scale.heights, height)]
            axes.plot([height - half, height + half], [here.mean()] * 2, color=INK, linewidth=2, solid_capstyle="butt")
    elif len(scores) >= 5:
        grid = np.linspace(0, 1, 60)
        axes.plot(grid, np.polyval(np.polyfit(scale.heights, scores, 2), grid), color=INK, linewidth=1.6)
    margin = 0.32 / max(1, len(scale.ticks) - 1) if scale.discrete else 0.05
    axes.set_xlim(-max(margin, 0.05), 1 + max(margin, 0.05))
    axes.set_xticks([height for height, _ in scale.ticks], [_short(text, 14) for _, text in scale.ticks])
    axes.xaxis.set_minor_locator(NullLocator())


def _coordinate(axes: Axes, x: float, ticks: Sequence[tuple[float, str]], name: str, bold: bool = False) -> None:
    """One vertical axis with its name below and its values at the left; at the right of the last one, which is bold."""
    side = 1 if bold else -1
    axes.plot([x, x], [0, 1], color=FAINT, linewidth=1.2, zorder=3)
    for height, text in ticks:
        axes.text(
            x + side * 0.02, height, _short(text, 18), ha="left" if bold else "right", va="center", fontsize=8.5,
            color=INK if bold else MUTED, zorder=5,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8},
        )  # fmt: skip
        axes.plot([x], [height], "_", color=MUTED, markersize=6, zorder=4)
    axes.text(x, -0.07, name, ha="center", va="top", fontsize=9.5, color=INK, fontweight="bold" if bold else "normal")


def _curve(heights: Sequence[float], color: Any, width: float, alpha: float) -> PathPatch:
    """A line through the heights that leaves and reaches every axis level, so that crossings can be followed."""
    points, codes = [(0.0, heights[0])], [Curve.MOVETO]
    for x, (here, there) in enumerate(itertools.pairwise(heights)):
        points += [(x + 0.4, here), (x + 0.6, there), (x + 1.0, there)]
        codes += [Curve.CURVE4] * 3
    return PathPatch(Curve(points, codes), facecolor="none", edgecolor=color, linewidth=width, alpha=alpha)


def _strongest(settings: Sequence[Mapping[str, Any]], scores: Array) -> list[str]:
    """Parameters that vary, by the share of the spread that each explains; all of them if none varies."""
    keys = list(settings[0])
    varying = [key for key in keys if len({_text(each[key]) for each in settings}) > 1] or keys
    share = {key: _explained(_Scale.of(key, [each[key] for each in settings]), scores) for key in varying}
    return sorted(varying, key=lambda key: -share[key])[:MOST_PARAMETERS]


def _explained(scale: _Scale, scores: Array) -> float:
    """R² of the means by value, or of a quadratic fit; 0 where scores do not vary."""
    total = float(((scores - scores.mean()) ** 2).sum())
    if total <= 1e-18:
        return 0.0
    if scale.discrete:
        fitted = np.array([scores[scale.heights == height].mean() for height in scale.heights])
    else:
        fitted = np.polyval(np.polyfit(scale.heights, scores, min(2, len(scores) - 1)), scale.heights)
    return max(0.0, 1.0 - float(((scores - fitted) ** 2).sum()) / total)


def _round_logs(low: float, high: float) -> list[float]:
    steps = (1,) if high - low > 2.5 else (1, 3)
    return [math.log10(s * 10.0**k) for k in range(math.floor(low), math.ceil(high) + 1) for s in steps]


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int | float | np.floating):
        text = f"{value:.3g}" if abs(value) >= 1e-3 or value == 0 else f"{value:.2e}".replace("e-0", "e-").replace(".00e", "e")
        return text.replace("-", "−") if "e" not in text else text
    if isinstance(value, list) and value and all(isinstance(point, list) and len(point) == 2 for point in value):
        return " → ".join(_text(y) for _, y in value)  # a schedule
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False).replace('"', "")


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _last(key: str, scales: Sequence[_Scale]) -> str:
    """The last part of a dotted key; more of it where two end alike."""
    tail = key.rpartition(".")[2]
    alike = [scale.name for scale in scales if scale.name.rpartition(".")[2] == tail]
    return tail if len(alike) <= 1 else ".".join(key.split(".")[-2:])


def _settings_text(settings: Mapping[str, Any], keys: Sequence[str]) -> str:
    return ", ".join(f"{key.rpartition('.')[2]} {_short(_text(settings[key]), 24)}" for key in keys[:4])


def _lower(word: str) -> str:
    return word[:1].lower() + word[1:]
