"""Which mode a policy with a gate acted in, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from rlplatform.evaluation.figure_style import BASELINES, INK, MUTED, POLICY, date_axis, new_figure, spans
from rlplatform.evaluation.metrics import finite_or_none
from rlplatform.evaluation.scoretable import percent
from rlplatform.evaluation.track import Track

Array = np.ndarray
HOW_MODES = (
    "The mode of a bar is the gate's most probable one, which acts alone. Return and turnover are means of its bars, after "
    "costs; the first bar in a mode pays for the way into it."
)
_COLORS = (BASELINES[1], BASELINES[0], POLICY)


@dataclass(frozen=True, kw_only=True)
class ModeUsage:
    """One mode on one track. Means are NaN where it never acted.

    Attributes:
        mode: its name.
        share: of the bars.
        probability: mean of the gate's over all bars.
        mean_return: simple, net [per bar].
        turnover: Σ|Δw| [fraction of wealth per bar].
        exposure: Σ|w| [fraction of wealth].
    """

    mode: str
    share: float
    probability: float
    mean_return: float
    turnover: float
    exposure: float

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {name: value if name == "mode" else finite_or_none(value) for name, value in asdict(self).items()}

    def row(self) -> dict[str, str]:
        """For print."""
        return {
            "Mode": self.mode,
            "Share of bars": percent(self.share),
            "Gate's mean": percent(self.probability),
            "Mean return": percent(self.mean_return, 3, sign=True),
            "Turnover/bar": percent(self.turnover),
            "Exposure": percent(self.exposure),
        }


def mode_usage(track: Track) -> tuple[ModeUsage, ...]:
    """One for each mode of the track's gate, in order; empty without a gate."""
    if track.gate is None:
        return ()
    acted = track.gate.argmax(-1)
    held = np.abs(track.weights).sum(-1)
    return tuple(
        ModeUsage(
            mode=name,
            share=float((acted == number).mean()),
            probability=float(track.gate[:, number].mean()),
            mean_return=_mean(track.returns, acted == number),
            turnover=_mean(track.turnover, acted == number),
            exposure=_mean(held, acted == number),
        )
        for number, name in enumerate(track.mode_names)
    )


def plot_modes(track: Track) -> Figure:
    """Modes over time, a row each; share of bars, mean return and exposure at the right."""
    usage = mode_usage(track)
    acted, edges = track.gate.argmax(-1), matplotlib.dates.date2num(track.dates)
    most = max(usage, key=lambda each: each.share)
    title = f"{track.name} was {most.mode} on {percent(most.share, 0)} of bars, holding {percent(most.exposure, 0)} then"
    subtitle = "Most probable mode of each bar; at the right its share of bars, mean return a bar and mean exposure Σ|w|"
    figure, axes = new_figure(title, subtitle, 2.6, right=0.74)
    for row, (each, color) in enumerate(zip(usage, _colors(usage), strict=True)):
        axes.broken_barh(spans(edges, acted == row), (row - 0.36, 0.72), color=color, linewidth=0)
        figures = percent(each.share, 0), percent(each.mean_return, 2, sign=True), percent(each.exposure, 0)
        text = "{}, {}, held {}".format(*figures)
        axes.text(1.012, row, text, transform=axes.get_yaxis_transform(), va="center", fontsize=9, color=MUTED)
    axes.set_yticks(range(len(usage)), [each.mode for each in usage])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(len(usage) - 0.5, -0.5)
    axes.grid(visible=False)
    date_axis(axes, track.dates)
    return figure


def _colors(usage: Sequence[ModeUsage]) -> list[str]:
    """The last mode, which is free, in the policy's colour."""
    return [*_COLORS[: len(usage) - 1], _COLORS[-1]]


def _mean(values: Array, where: Array) -> float:
    return float(values[where].mean()) if where.any() else float("nan")
