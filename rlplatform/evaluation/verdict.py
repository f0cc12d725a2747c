"""Verdict: one policy judged against its baselines, with everything a report needs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from envs.errors import ConfigError
from rlplatform.evaluation.gate import GateConfig, GateReport, check, find_benchmark
from rlplatform.evaluation.metrics import Metrics, finite_or_none, share_of, summarize
from rlplatform.evaluation.scoretable import ScoreTable, percent
from rlplatform.evaluation.significance import BootstrapConfig, Edge, compare_all
from rlplatform.evaluation.track import Track


@dataclass(frozen=True, kw_only=True, eq=False)
class Verdict:
    """What was found out about one policy.

    Attributes:
        policy: its out-of-sample track.
        baselines: tracks on the same dates.
        edges: the policy against each baseline, in their order.
        gate: the regression gate.
        main_names: baselines that the first sentence speaks about and plots label.
        earlier: tracks of rows before the test (train, validation), of the policy or of baselines, by name.
        learning_curve: rows with "env_steps", "episode_return_mean" and, where evaluated, "validation_sharpe".
        action_names: names of discrete actions, by number.
        notes: lines on how it was judged, such as costs.
        bars_per_year: for annual figures.
        confidence: of the intervals in `edges`.
        sample: where the days stand to what training saw, the first words of the sentence.
        optimal_growth: log growth of the known optimum on the same days, of a planted market only.
    """

    policy: Track
    baselines: tuple[Track, ...]
    edges: tuple[Edge, ...]
    gate: GateReport
    main_names: tuple[str, ...]
    earlier: tuple[Track, ...] = ()
    learning_curve: tuple[Mapping[str, float], ...] = ()
    action_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    bars_per_year: int = 252
    confidence: float = 0.95
    sample: str = "Out of sample"
    optimal_growth: float | None = None

    @cached_property
    def metrics(self) -> dict[str, Metrics]:
        """Metrics of the policy and of every baseline, by name."""
        return {track.name: summarize(track, self.bars_per_year) for track in (self.policy, *self.baselines)}

    @property
    def table(self) -> ScoreTable:
        return ScoreTable(self.metrics, (self.policy.name,))

    @property
    def main_edges(self) -> list[Edge]:
        edges = {edge.baseline: edge for edge in self.edges}
        return [edges[name] for name in self.main_names]

    @property
    def sentence(self) -> str:
        """The honest first sentence: what may be said against each main baseline."""
        start, end = self.policy.period
        opening = f"{self.sample}, {start} to {end}, {self.policy.name}"
        if self.policy.ruined:
            return f"{opening} was ruined; no edge shown against any baseline."
        words = {"beats": "beats", "no edge shown": "no edge shown over", "loses to": "loses to"}
        groups = {kind: [self._against(e) for e in self.main_edges if e.verdict == kind] for kind in words}
        parts = [f"{words[kind]} {_join(names)}" for kind, names in groups.items() if names]
        figures = f"difference of log growth a year with its {percent(self.confidence, 0)} interval, one baseline at a time"
        reached = "" if self.share_of_optimum is None else f" {percent(self.share_of_optimum)} of the known optimum's growth."
        return f"{opening}: {'; '.join(parts)} ({figures}).{reached}"

    @property
    def share_of_optimum(self) -> float | None:
        """Log growth of the policy over that of the known optimum; None where there is none."""
        return share_of(self.optimal_growth, self.policy)

    def _against(self, edge: Edge) -> str:
        name = edge.baseline
        if name == self.best_baseline and len(self.baselines) > 1:
            name += ", the best baseline in hindsight,"
        if not math.isfinite(edge.growth_low):
            return f"{name} (no interval)"
        low, high = percent(edge.growth_low, sign=True), percent(edge.growth_high, sign=True)
        return f"{name} ({percent(edge.growth, sign=True)}, {low} to {high})"

    @property
    def best_baseline(self) -> str | None:
        """The baseline with the highest Sharpe ratio; chosen in hindsight."""
        return best_by_sharpe({track.name: self.metrics[track.name] for track in self.baselines})

    def to_dict(self) -> dict:
        """Everything but the paths, ready for JSON."""
        start, end = self.policy.period
        return {
            "verdict": self.sentence,
            "policy": self.policy.name,
            "sample": self.sample,
            **({} if self.optimal_growth is None else {"share_of_optimum": finite_or_none(self.share_of_optimum)}),
            "start": start,
            "end": end,
            "bars_per_year": self.bars_per_year,
            "confidence": self.confidence,
            **self.table.to_dict(),
            "edges": [edge.to_dict() for edge in self.edges],
            "gate": self.gate.to_dict(),
            **({"guards": self.policy.guard_summary} if self.policy.guards else {}),
            "learning_curve": [dict(row) for row in self.learning_curve],
            "notes": list(self.notes),
        }


def judge(
    policy: Track,
    baselines: Sequence[Track],
    *,
    gate: GateConfig | None = None,
    bootstrap: BootstrapConfig | None = None,
    main_names: Sequence[str] | None = None,
    bars_per_year: int = 252,
    sample: str = "Out of sample",
    optimal_growth: float | None = None,
    **extras,
) -> Verdict:
    """Compare a policy's track with its baselines: metrics, intervals, gate.

    Args:
        main_names: baselines for the first sentence; the benchmark, EQUAL_WEIGHT, CASH and the highest Sharpe if not given.
        extras: `earlier`, `learning_curve`, `action_names`, `notes` of `Verdict`.

    Raises:
        ConfigError: two tracks share a name, a main baseline or the benchmark is missing.
        ShapeError: the tracks do not share their dates.
    """
    gate, bootstrap = gate or GateConfig(bars_per_year=bars_per_year), bootstrap or BootstrapConfig()
    names = [track.name for track in baselines]
    twice = sorted({name for name in [*names, policy.name] if [*names, policy.name].count(name) > 1})
    if twice:
        raise ConfigError(f"Two tracks are called {', '.join(twice)}. Give the policy and each baseline its own name.")
    main = list(main_names) if main_names is not None else _main_names(baselines, gate, bars_per_year)
    missing = [name for name in main if name not in names]
    if missing:
        raise ConfigError(f"main_names: {', '.join(missing)} not among the baselines: {', '.join(names)}.")
    return Verdict(
        policy=policy,
        baselines=tuple(baselines),
        edges=tuple(compare_all(policy, baselines, bootstrap, bars_per_year)),
        gate=check(policy, baselines, gate),
        main_names=tuple(main),
        bars_per_year=bars_per_year,
        confidence=bootstrap.confidence,
        sample=sample,
        optimal_growth=optimal_growth,
        **{name: tuple(rows) for name, rows in extras.items()},
    )


def best_by_sharpe(metrics: Mapping[str, Metrics]) -> str | None:
    """Name of the highest Sharpe ratio; None if none is defined."""
    defined = {name: m.sharpe for name, m in metrics.items() if math.isfinite(m.sharpe)}
    return max(defined, key=defined.get) if defined else None


def _main_names(baselines: Sequence[Track], gate: GateConfig, bars_per_year: int) -> list[str]:
    names = [track.name for track in baselines]
    best = best_by_sharpe({track.name: summarize(track, bars_per_year) for track in baselines})
    wanted = [find_benchmark(names, gate.benchmark), "EQUAL_WEIGHT", "CASH", best]
    return [name for name in dict.fromkeys(wanted) if name in names]


def _join(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]
