"""Comparison: several policies on the same dates and costs; who is better, and with what confidence."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from envs.errors import ConfigError
from rlplatform.evaluation.deflated import SharpeEvidence, Trials, judge_sharpe
from rlplatform.evaluation.metrics import finite_or_none
from rlplatform.evaluation.scoretable import ScoreTable, number, percent
from rlplatform.evaluation.seed_spread import SeedSpread
from rlplatform.evaluation.significance import MIN_BARS, BootstrapConfig, Edge, compare
from rlplatform.evaluation.superiority import Superiority, better_than_benchmark
from rlplatform.evaluation.track import Track


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One policy to compare.

    Attributes:
        track: on the common dates, with the common costs.
        trials: that it was chosen from.
        setting: what it shares with those that differ from it by their seed only.
    """

    track: Track
    trials: Trials = dataclasses.field(default_factory=Trials)
    setting: str = ""

    @property
    def name(self) -> str:
        return self.track.name


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """What was found out about several policies.

    Attributes:
        contenders: as given.
        benchmark: track that stands for the market.
        table: metrics of all, by Sharpe ratio.
        edges: (name, edge) of every ordered pair of which the first has the higher Sharpe ratio.
        benchmark_edges: name → edge over the benchmark.
        evidence: name → deflated statistics.
        seeds: names of a setting's runs → Sharpe ratios over its seeds, where there are several.
        superiority: over the benchmark, of all at once; None where one was ruined.
        confidence: of the intervals.
        notes: how it was done.
    """

    contenders: tuple[Contender, ...]
    benchmark: Track
    table: ScoreTable
    edges: tuple[tuple[str, Edge], ...]
    benchmark_edges: Mapping[str, Edge]
    evidence: Mapping[str, SharpeEvidence]
    seeds: Mapping[str, SeedSpread]
    superiority: Superiority | None
    confidence: float
    notes: tuple[str, ...] = ()

    @property
    def ranking(self) -> list[str]:
        """Names by Sharpe ratio, the benchmark left out."""
        return [name for name in self.table.metrics if name != self.benchmark.name]

    @property
    def sentence(self) -> str:
        """The honest first sentence: whether the first is shown to be better than the second."""
        start, end = self.benchmark.period
        first, second = self.ranking[:2]
        edge = next(edge for name, edge in self.edges if name == first and edge.baseline == second)
        figures = f"{percent(edge.growth, sign=True)} log growth a year"
        if math.isfinite(edge.growth_low):
            low, high = percent(edge.growth_low, sign=True), percent(edge.growth_high, sign=True)
            figures += f", {percent(self.confidence, 0)} interval {low} to {high}"
        shown = {"beats": "beats", "loses to": "grows more slowly than", "no edge shown": "is not shown to be better than"}
        proven = [name for name in self.ranking if self.evidence[name].convincing]
        deflated = f"deflated Sharpe ratio above zero: {', '.join(proven)}" if proven else "no deflated Sharpe ratio above zero"
        opening = f"{start} to {end}: {first} {shown[edge.verdict]} {second} ({figures})"
        return f"{opening}{self._luck_of_seeds(first, second)}; {deflated}."

    def _luck_of_seeds(self, first: str, second: str) -> str:
        setting = {contender.name: contender.setting or contender.name for contender in self.contenders}
        same = setting[first] == setting[second]
        return ", two seeds of one setting, so the difference is the seed's" if same else ""

    def to_dict(self) -> dict:
        start, end = self.benchmark.period
        return {
            "verdict": self.sentence,
            "start": start,
            "end": end,
            "benchmark": self.benchmark.name,
            "confidence": self.confidence,
            **self.table.to_dict(),
            "pairs": [{"policy": name} | edge.to_dict() for name, edge in self.edges],
            "benchmark_edges": [{"policy": name} | edge.to_dict() for name, edge in self.benchmark_edges.items()],
            "evidence": [{"policy": name} | evidence.to_dict() for name, evidence in self.evidence.items()],
            "seeds": [{"runs": name} | spread.to_dict() for name, spread in self.seeds.items()],
            "superiority": self.superiority and self.superiority.to_dict(),
            "notes": list(self.notes),
        }

    def evidence_rows(self) -> list[dict[str, str]]:
        """For print: what each Sharpe ratio proves."""
        return [
            {
                "policy": name,
                "trials": str(e.trials),
                "hurdle": number(e.hurdle),
                "deflated p": shown_p(e.p_value),
                "years needed": "never" if math.isinf(e.min_track_record_years) else number(e.min_track_record_years, 1),
                "years": number(e.years, 1),
                f"over {self.benchmark.name}": self.benchmark_edges[name].verdict,
            }
            for name, e in self.evidence.items()
        ]

    def pair_rows(self) -> list[dict[str, str]]:
        """For print: every pair with its interval."""
        return [
            {
                "policy": name,
                "against": edge.baseline,
                "growth a year": percent(edge.growth, sign=True),
                "interval": f"{percent(edge.growth_low, sign=True)} to {percent(edge.growth_high, sign=True)}",
                "Sharpe": number(edge.sharpe),
                "verdict": edge.verdict,
            }
            for name, edge in self.edges
        ]


def compare_policies(
    contenders: Sequence[Contender],
    benchmark: Track,
    config: BootstrapConfig | None = None,
    bars_per_year: int = 252,
    notes: Sequence[str] = (),
) -> Comparison:
    """Policies side by side: metrics, paired intervals of every pair, deflated statistics, seeds as a distribution.

    To compare M policies is itself to choose among M settings: each ratio is deflated by its own trials or by the number of
    settings compared, whichever is more.

    Raises:
        ConfigError: fewer than two policies, two of one name, or too few bars.
        ShapeError: other dates than the benchmark's.
    """
    config, names = config or BootstrapConfig(), [contender.name for contender in contenders]
    _check(names, benchmark)
    tracks = [contender.track for contender in contenders]
    table = ScoreTable.of([*tracks, benchmark], tuple(names), bars_per_year)
    by_name = {contender.name: contender for contender in contenders}
    order = [name for name in table.metrics if name in by_name]
    settings = {contender.setting or contender.name for contender in contenders}
    ruined = any(track.ruined for track in tracks)
    return Comparison(
        contenders=tuple(contenders),
        benchmark=benchmark,
        table=table,
        edges=tuple(
            (first, compare(by_name[first].track, by_name[second].track, config, bars_per_year))
            for first, second in itertools.combinations(order, 2)
        ),
        benchmark_edges={name: compare(by_name[name].track, benchmark, config, bars_per_year) for name in order},
        evidence={name: _evidence(by_name[name], len(settings), bars_per_year, config) for name in order},
        seeds=_seeds(contenders, table),
        superiority=None if ruined else better_than_benchmark(tracks, benchmark, config),
        confidence=config.confidence,
        notes=tuple(notes),
    )


def _check(names: Sequence[str], benchmark: Track) -> None:
    if len(names) < 2:
        raise ConfigError(f"{len(names)} run(s) given; a comparison needs at least two.")
    twice = sorted({name for name in [*names, benchmark.name] if [*names, benchmark.name].count(name) > 1})
    if twice:
        raise ConfigError(f"Two tracks are called {', '.join(twice)}. Give each run once, and each its own name.")
    if len(benchmark) < MIN_BARS:
        start, end = benchmark.period
        raise ConfigError(f"{start} to {end} holds {len(benchmark)} bars; a comparison needs at least {MIN_BARS}.")


def _evidence(contender: Contender, settings: int, bars_per_year: int, config: BootstrapConfig) -> SharpeEvidence:
    trials = contender.trials
    if settings > trials.count:
        trials = dataclasses.replace(trials, count=settings)
    return judge_sharpe(contender.track.returns, trials, bars_per_year, config.confidence)


def _seeds(contenders: Sequence[Contender], table: ScoreTable) -> dict[str, SeedSpread]:
    groups: dict[str, list[Contender]] = {}
    for contender in contenders:
        groups.setdefault(contender.setting or contender.name, []).append(contender)
    return {
        ", ".join(c.name for c in group): SeedSpread.of(table.metrics[c.name].sharpe for c in group)
        for group in groups.values()
        if len(group) > 1
    }


def shown_p(value: float) -> str:
    """A p-value for print; a dash where undefined."""
    finite = finite_or_none(value)
    return "–" if finite is None else "< 0.001" if finite < 0.001 else number(finite, 3)


def said_p(value: float) -> str:
    """A p-value in a sentence: "p = 0.025", "p < 0.001"."""
    shown = shown_p(value)
    return f"p {shown}" if shown.startswith("<") else f"p = {shown}"
