"""BenchmarkTable: entries of any origin on the same days, each against one of them: intervals, deflated ratios, gate."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from envs.errors import ConfigError
from rlplatform.evaluation.comparison import said_p, shown_p
from rlplatform.evaluation.deflated import SharpeEvidence, Trials, judge_sharpe
from rlplatform.evaluation.gate import GateConfig, GateReport, check
from rlplatform.evaluation.scoretable import ScoreTable, number, percent
from rlplatform.evaluation.significance import MIN_BARS, BootstrapConfig, Edge, compare
from rlplatform.evaluation.superiority import Superiority, better_than_benchmark
from rlplatform.evaluation.track import Track

BASELINE = "baseline"


@dataclass(frozen=True, kw_only=True)
class BenchmarkEntry:
    """One row to be.

    Attributes:
        kind: "run", "baseline" or "weights".
        track: on the benchmark's days.
        trials: that it was chosen from.
        setting: what it shares with other seeds of the same; empty for one by itself.
        in_sample: whether its training or validation saw some of the days.
        notes: lines on it.
    """

    kind: str
    track: Track
    trials: Trials = field(default_factory=Trials)
    setting: str = ""
    in_sample: bool = False
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.track.name


@dataclass(frozen=True, kw_only=True, eq=False)
class BenchmarkTable:
    """What was found out.

    Attributes:
        entries: as given.
        against: name of the entry that the others are compared with.
        table: metrics of all, by Sharpe ratio.
        edges: name → edge over `against`, of all others.
        evidence: name → deflated statistics, of runs and weights.
        gates: name → regression gate, of runs and weights.
        superiority: of runs and weights together over `against`; None where there is none, or one was ruined.
        confidence: of the intervals.
        notes: how it was done.
    """

    entries: tuple[BenchmarkEntry, ...]
    against: str
    table: ScoreTable
    edges: Mapping[str, Edge]
    evidence: Mapping[str, SharpeEvidence]
    gates: Mapping[str, GateReport]
    superiority: Superiority | None
    confidence: float
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every run and every file of weights passes the gate."""
        return all(gate.passed for gate in self.gates.values())

    @property
    def sentence(self) -> str:
        """The honest first sentence: who is shown to beat the benchmark, counting that several were tried."""
        start, end = self._track(self.against).period
        judged = [name for name in self.table.metrics if name in self.evidence]
        groups = {kind: [n for n in judged if self.edges[n].verdict == kind] for kind in ("beats", "loses to")}
        parts = [f"{', '.join(names)} {kind} it" for kind, names in groups.items() if names]
        rest = [name for name in judged if self.edges[name].verdict == "no edge shown"]
        parts += [f"no edge shown for {', '.join(rest)}"] if rest else []
        counted = ""
        if self.superiority is not None and len(self.superiority.compared) > 1:
            counted = f"; counting all {len(self.superiority.compared)}, {said_p(self.superiority.p_value)}"
        level = f"{percent(self.confidence, 0)} intervals of log growth"
        seen = [entry.name for entry in self.entries if entry.in_sample]
        warning = f" IN SAMPLE: training or validation of {', '.join(seen)} saw some of these days." if seen else ""
        return f"{start} to {end} against {self.against}: {'; '.join(parts) or 'baselines only'} ({level}{counted}).{warning}"

    def edge_rows(self) -> list[dict[str, str]]:
        """For print: each against the benchmark, best first."""
        return [
            {
                "policy": name,
                "growth a year": percent(edge.growth, sign=True),
                "interval": _interval(edge),
                "Sharpe": number(edge.sharpe),
                "verdict": edge.verdict,
                "deflated p": shown_p(self.evidence[name].p_value) if name in self.evidence else "–",
                "gate": {None: "–", True: "pass", False: "FAIL"}[self.gates[name].passed if name in self.gates else None],
            }
            for name, edge in ((name, self.edges[name]) for name in self.table.metrics if name in self.edges)
        ]

    def to_dict(self) -> dict[str, Any]:
        start, end = self._track(self.against).period
        kinds = {e.name: {"kind": e.kind, "in_sample": e.in_sample, "trials": e.trials.count} for e in self.entries}
        rows = [row | kinds[row["name"]] for row in self.table.to_dict()["policies"]]
        return {
            "verdict": self.sentence,
            "start": start,
            "end": end,
            "against": self.against,
            "confidence": self.confidence,
            "passed": self.passed,
            "policies": rows,
            "edges": [{"policy": name} | edge.to_dict() for name, edge in self.edges.items()],
            "evidence": [{"policy": name} | evidence.to_dict() for name, evidence in self.evidence.items()],
            "gates": [{"policy": name} | gate.to_dict() for name, gate in self.gates.items()],
            "superiority": self.superiority and self.superiority.to_dict(),
            "notes": [*self.notes, *(note for entry in self.entries for note in entry.notes)],
        }

    def to_markdown(self) -> str:
        """The whole as text; its first sentence is the verdict."""
        rows = self.edge_rows()
        lines = [" | ".join(rows[0]), " | ".join("---" for _ in rows[0]), *(" | ".join(row.values()) for row in rows)]
        edges = "\n".join(f"| {line} |" for line in lines)
        notes = "\n".join(f"- {note}" for note in self.to_dict()["notes"])
        return "\n\n".join([self.sentence, self.table.to_markdown().rstrip(), f"Against {self.against}:", edges, notes]) + "\n"

    def _track(self, name: str) -> Track:
        return next(entry.track for entry in self.entries if entry.name == name)


def judge_entries(
    entries: Sequence[BenchmarkEntry],
    against: str,
    *,
    gate: GateConfig | None = None,
    bootstrap: BootstrapConfig | None = None,
    bars_per_year: int = 252,
    notes: Sequence[str] = (),
) -> BenchmarkTable:
    """Compare every entry with `against`.

    A policy's Sharpe ratio is deflated by its own trials or by the number of settings in the table, whichever is more.

    Raises:
        ConfigError: too few bars, or entries that trade on other days.
    """
    bootstrap, tracks = bootstrap or BootstrapConfig(), {entry.name: entry.track for entry in entries}
    benchmark = tracks[against]
    _check_days(benchmark, entries)
    judged = [entry for entry in entries if entry.kind != BASELINE and entry.name != against]
    settings = len({entry.setting or entry.name for entry in judged})
    simple = [entry.track for entry in entries if entry.kind == BASELINE or entry.name == against]
    checked = dataclasses.replace(gate or GateConfig(), benchmark=against, bars_per_year=bars_per_year)
    alive = bool(judged) and not any(entry.track.ruined for entry in judged)
    return BenchmarkTable(
        entries=tuple(entries),
        against=against,
        table=ScoreTable.of(list(tracks.values()), tuple(entry.name for entry in judged), bars_per_year),
        edges={name: compare(track, benchmark, bootstrap, bars_per_year) for name, track in tracks.items() if name != against},
        evidence={e.name: _evidence(e, settings, bars_per_year, bootstrap) for e in judged},
        gates={e.name: check(e.track, simple, checked) for e in judged},
        superiority=better_than_benchmark([e.track for e in judged], benchmark, bootstrap) if alive else None,
        confidence=bootstrap.confidence,
        notes=tuple(notes),
    )


def _evidence(entry: BenchmarkEntry, settings: int, bars_per_year: int, bootstrap: BootstrapConfig) -> SharpeEvidence:
    trials = dataclasses.replace(entry.trials, count=max(entry.trials.count, settings))
    return judge_sharpe(entry.track.returns, trials, bars_per_year, bootstrap.confidence)


def _check_days(benchmark: Track, entries: Sequence[BenchmarkEntry]) -> None:
    start, end = benchmark.period
    if benchmark.ruined:
        raise ConfigError(f"{benchmark.name} was ruined; nothing can be compared with it. Choose another `against`.")
    if len(benchmark) < MIN_BARS:
        raise ConfigError(f"{start} to {end} holds {len(benchmark)} bars; a comparison needs at least {MIN_BARS}.")
    for entry in entries:
        if not entry.track.ruined and not np.array_equal(entry.track.dates, benchmark.dates):
            raise ConfigError(
                f"{entry.name} trades {len(entry.track)} bars from {entry.track.period[0]} to {entry.track.period[1]} and "
                f"{benchmark.name} {len(benchmark)} from {start} to {end}: not the same days."
            )


def _interval(edge: Edge) -> str:
    if not math.isfinite(edge.growth_low):
        return "–"
    return f"{percent(edge.growth_low, sign=True)} to {percent(edge.growth_high, sign=True)}"
