"""Figures of how far a result can be trusted: folds and seeds of a walk-forward, losses under stress."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from rlplatform.evaluation.figure_style import (
    BASELINES,
    FAINT,
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
from rlplatform.evaluation.scoretable import number, percent
from rlplatform.evaluation.stress_findings import StressFindings

if TYPE_CHECKING:
    from rlplatform.evaluation.html_report_findings import WalkFindings

Array = np.ndarray


def plot_folds(found: WalkFindings) -> Figure:
    """Wealth of every seed's path, the judged one bold, with a line where a new fold's policy takes over."""
    ends = {seed: float(track.wealth[-1]) for seed, track in found.tracks.items()}
    judged = found.tracks[found.seed]
    folds = sorted({row["fold"] for row in found.folds})
    title = f"{len(ends)} seed{'s' * (len(ends) > 1)} turned 1 into {min(ends.values()):.2f} to {max(ends.values()):.2f}"
    title += f" over {len(folds)} folds; the median by Sharpe into {ends[found.seed]:.2f}"
    subtitle = f"Wealth after costs, {' to '.join(judged.period)}; a vertical line where a newly trained policy takes over"
    colors = dict(zip([seed for seed in ends if seed != found.seed], BASELINES * len(ends), strict=False))
    labels = [EndLabel(f"seed {s}  {w:.2f}", w, colors.get(s, POLICY), s == found.seed) for s, w in ends.items()]
    figure, axes = new_figure(title, subtitle, 4.2, room_for([label.text for label in labels]))
    for start in sorted({str(row["start"]) for row in found.folds if row["fold"] > folds[0]}):
        axes.axvline(np.datetime64(start), color=FAINT, linewidth=0.8, zorder=0)
    for seed, track in found.tracks.items():
        color, width = (POLICY, 2.0) if seed == found.seed else (colors[seed], 1.0)
        axes.plot(track.dates, track.wealth, color=color, linewidth=width)
    axes.axhline(1.0, color=MUTED, linewidth=0.8)
    axes.set_ylabel("Wealth [start = 1]")
    date_axis(axes, judged.dates)
    label_line_ends(axes, labels)
    return figure


def fold_rows(found: WalkFindings) -> list[dict[str, str]]:
    """For print: one row a fold, the judged seed's figures, then the return of every other seed."""
    by_fold: dict[int, dict[int, dict]] = {}
    for row in found.folds:
        by_fold.setdefault(row["fold"], {})[row["seed"]] = row
    others = [seed for seed in found.tracks if seed != found.seed]
    return [_fold_row(number_, seeds, found.seed, others) for number_, seeds in sorted(by_fold.items())]


def _fold_row(fold: int, seeds: dict[int, dict], judged: int, others: list[int]) -> dict[str, str]:
    own, any_seed = seeds.get(judged), next(iter(seeds.values()))
    sharpe = own["sharpe"] if own and own["sharpe"] is not None else float("nan")
    return {
        "fold": str(fold),
        "from": any_seed["start"],
        f"return, seed {judged}": _signed(own),
        "Sharpe": number(sharpe),
        **{f"return, seed {seed}": _signed(seeds.get(seed)) for seed in others},
        "turnover at the seam": percent(own["seam_turnover"], 0) if own else "–",
    }


def _signed(row: dict | None) -> str:
    return percent(row["total_return"], sign=True) if row else "–"  # after ruin there is none


def plot_stress(found: StressFindings) -> Figure:
    """Worst, 5 % quantile and median total return by kind of scenario, the policy's beside the benchmark's."""
    ours, theirs = found.of(found.policy), found.of(found.benchmark)
    better = sum(a.return_5 > b.return_5 for a, b in zip(ours, theirs, strict=True))
    title = f"In {better} of {len(ours)} kinds of scenario, {found.policy}'s bad paths lost less than {found.benchmark}'s"
    subtitle = f"Total return: worst of {ours[0].paths} paths (thin), 5 % quantile to median (thick), dot at the median"
    figure, axes = new_figure(title, subtitle, max(2.6, 1.6 + 0.42 * len(ours)), right=0.82)
    left, bottom, width, height = axes.get_position().bounds
    axes.set_position((0.13, bottom, left + width - 0.13, height))
    for rows, color, shift in ((ours, POLICY, -0.17), (theirs, BASELINES[0], 0.17)):
        for place, row in enumerate(rows):
            y = place + shift
            axes.plot([row.worst_return, row.return_5], [y, y], color=color, linewidth=1.0)
            axes.plot([row.return_5, row.median_return], [y, y], color=color, linewidth=4.0, alpha=0.55)
            axes.plot([row.median_return], [y], marker="o", markersize=5, color=color)
    for name, color, place in ((found.policy, POLICY, 0.92), (found.benchmark, BASELINES[0], 0.78)):
        axes.text(1.02, place, name, transform=axes.transAxes, color=color, fontsize=9, fontweight="bold", va="top")
    axes.axvline(0.0, color=MUTED, linewidth=0.8)
    axes.set_yticks(range(len(ours)), [row.scenario.replace("_", " ") for row in ours])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(len(ours) - 0.5, -0.5)
    axes.grid(visible=False)
    percent_axis(axes.xaxis)
    return figure
