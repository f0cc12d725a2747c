"""The finding of an ablation: every arm against the reference on validation and test, as data, as text and for print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from envs.errors import ConfigError
from rlplatform.evaluation.ablation import ArmEdge, compare_arms, signed
from rlplatform.evaluation.comparison import said_p
from rlplatform.evaluation.metrics import finite_or_none, share_of, sharpe_ratio, summarize
from rlplatform.evaluation.scoretable import number, percent
from rlplatform.evaluation.significance import BootstrapConfig
from rlplatform.evaluation.superiority import Superiority, superior_gains
from rlplatform.evaluation.track import Track

VALIDATION, TEST = "validation", "test"
PERIODS = (VALIDATION, TEST)
FIGURES = {
    "cagr": "CAGR",
    "volatility": "volatility",
    "max_drawdown": "max DD",
    "cvar_5": "CVaR 5 %",
    "turnover_per_day": "turnover/day",
    "cost_paid": "cost",
}
Tracks = Mapping[str, Mapping[int, Track]]  # arm → seed → track


@dataclass(frozen=True, kw_only=True, eq=False)
class AblationResult:
    """What an ablation found.

    Attributes:
        reference: the arm that the others are held against.
        tracks: period → arm → seed → track.
        edges: period → arm → its edge over the reference.
        superiority: on the test, whether any arm grows faster, after counting how many were tried; of the means over these
            seeds, whose own luck it does not count; None where one was ruined.
        num_trials: trainings.
        notes: how it was done.
        optimal_growth: period → log growth of the known optimum of a planted market; empty for real prices.
    """

    reference: str
    tracks: Mapping[str, Tracks]
    edges: Mapping[str, Mapping[str, ArmEdge]]
    superiority: Superiority | None
    num_trials: int
    bars_per_year: int = 252
    notes: tuple[str, ...] = ()
    optimal_growth: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        tracks: Mapping[str, Tracks],
        reference: str,
        config: BootstrapConfig | None = None,
        bars_per_year: int = 252,
        notes: Sequence[str] = (),
        optimal_growth: Mapping[str, float] | None = None,
    ) -> AblationResult:
        """From the tracks of every period, arm and seed.

        Raises:
            ConfigError, ShapeError: as `compare_arms`; no arm but the reference.
        """
        arms = tracks[TEST]
        if len(arms) < 2:
            raise ConfigError(f"{reference} alone; an ablation needs at least one arm more.")
        edges = {period: compare_arms(of_period, reference, config, bars_per_year) for period, of_period in tracks.items()}
        ruined = any(track.ruined for of_arm in arms.values() for track in of_arm.values())
        return cls(
            reference=reference,
            tracks=tracks,
            edges=edges,
            superiority=None if ruined else superior_gains(_mean_gains(arms, reference), config),
            num_trials=sum(map(len, arms.values())),
            bars_per_year=bars_per_year,
            notes=tuple(notes),
            optimal_growth=dict(optimal_growth or {}),
        )

    @property
    def sentence(self) -> str:
        """The honest first sentence, about the test."""
        edges = self.edges[TEST]
        start, end = next(iter(self.tracks[TEST][self.reference].values())).period
        better, worse = ([name for name, edge in edges.items() if edge.verdict == verdict] for verdict in ("better", "worse"))
        found = []
        if better:
            found.append(f"{' and '.join(better)} shown to be better than {self.reference}")
        if worse:
            found.append(f"{' and '.join(worse)} shown to be worse than {self.reference}")
        seeds = f"{len(self.tracks[TEST][self.reference])} seed(s)"
        said = "; ".join(found) if found else f"no arm is shown to differ from {self.reference}"
        luck = ""
        if self.superiority is not None and np.isfinite(self.superiority.p_value):
            luck = f"; of these very trainings {said_p(self.superiority.p_value)} that none grows faster (SPA)"
        return f"{start} to {end}, {seeds}: {said}{luck}."

    def shares_of_optimum(self, period: str, arm: str) -> list[float | None]:
        """Log growth over that of the known optimum, seed by seed."""
        return [share_of(self.optimal_growth.get(period), track) for track in self.tracks[period][arm].values()]

    def rows(self) -> list[dict[str, str]]:
        """For print."""
        rows = []
        for period, arms in self.tracks.items():
            for arm, tracks in arms.items():
                edge = self.edges[period].get(arm)
                sharpes = [sharpe_ratio(track.returns, self.bars_per_year) for track in tracks.values()]
                rows.append(
                    {
                        "period": period,
                        "arm": arm,
                        "Sharpe by seed": "  ".join(map(number, sharpes)),
                        "mean": number(float(np.mean(sharpes))),
                        "difference": "–" if edge is None else signed(edge.sharpe),
                        "interval": "–" if edge is None else f"{signed(edge.sharpe_low)} to {signed(edge.sharpe_high)}",
                        "verdict": "reference" if edge is None else edge.verdict,
                    }
                    | self._optimum_cell(period, arm)
                )
        return rows

    def figures(self) -> list[dict[str, str]]:
        """For print: what each arm made of the test, means over its seeds."""
        rows = []
        for arm, tracks in self.tracks[TEST].items():
            each = [summarize(track, self.bars_per_year) for track in tracks.values()]
            mean = {name: float(np.mean([getattr(metrics, name) for metrics in each])) for name in FIGURES}
            rows.append({"arm": arm} | {FIGURES[name]: percent(value, 2) for name, value in mean.items()})
        return rows

    def _optimum_cell(self, period: str, arm: str) -> dict[str, str]:
        shares = self.shares_of_optimum(period, arm)
        return {} if None in shares else {"of optimum": "  ".join(percent(share) for share in shares)}

    def to_dict(self) -> dict:
        sharpes = {
            period: {
                arm: {str(seed): sharpe_ratio(track.returns, self.bars_per_year) for seed, track in tracks.items()}
                for arm, tracks in arms.items()
            }
            for period, arms in self.tracks.items()
        }
        return {
            "verdict": self.sentence,
            "reference": self.reference,
            "num_trials": self.num_trials,
            "periods": {name: list(next(iter(arms[self.reference].values())).period) for name, arms in self.tracks.items()},
            "sharpe": sharpes,
            **self._optimum(),
            "edges": {period: [edge.to_dict() for edge in edges.values()] for period, edges in self.edges.items()},
            "superiority": self.superiority and self.superiority.to_dict(),
            "notes": list(self.notes),
        }

    def _optimum(self) -> dict[str, dict]:
        """Period → arm → share by seed, of a planted market."""
        shares = {p: {arm: self.shares_of_optimum(p, arm) for arm in self.tracks[p]} for p in self.optimal_growth}
        finite = {p: {arm: list(map(finite_or_none, each)) for arm, each in of.items()} for p, of in shares.items()}
        return {"share_of_optimum": finite} if finite else {}

    def to_markdown(self) -> str:
        """Verdict, table and a sentence for each arm."""
        sentences = [f"- {period}: {edge.sentence}" for period, edges in self.edges.items() for edge in edges.values()]
        notes = [f"- {note}" for note in self.notes]
        figures = ["Test, means over seeds:", "", *_markdown_table(self.figures())]
        plot = ["![Sharpe differences](ablation.png)"]
        parts = [[self.sentence], _markdown_table(self.rows()), figures, sentences, plot, notes]
        return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _markdown_table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    lines = [rows[0].keys(), ["---"] * len(rows[0]), *(row.values() for row in rows)]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def _mean_gains(arms: Tracks, reference: str) -> dict[str, np.ndarray]:
    """Arm → (bars,) difference of log returns to the reference, mean over seeds."""
    logs = {name: np.mean([np.log1p(track.returns) for track in tracks.values()], axis=0) for name, tracks in arms.items()}
    return {name: values - logs[reference] for name, values in logs.items() if name != reference}
