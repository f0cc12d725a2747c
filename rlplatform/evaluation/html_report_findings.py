"""Findings: everything that the HTML report shows of one run or walk-forward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rlplatform.evaluation.attribution import Attribution
from rlplatform.evaluation.cost_realism import CostRealism
from rlplatform.evaluation.deflated import SharpeEvidence
from rlplatform.evaluation.drawdowns import DownsideFigures
from rlplatform.evaluation.gate import find_benchmark
from rlplatform.evaluation.overfitting import Overfitting
from rlplatform.evaluation.scoretable import percent
from rlplatform.evaluation.seed_spread import SeedSpread
from rlplatform.evaluation.shapley import Explanation
from rlplatform.evaluation.significance import Edge
from rlplatform.evaluation.stress_findings import StressFindings
from rlplatform.evaluation.superiority import Superiority
from rlplatform.evaluation.track import Track
from rlplatform.evaluation.verdict import Verdict
from rlplatform.evaluation.windows import HoldOut


@dataclass(frozen=True, kw_only=True, eq=False)
class WalkFindings:
    """The folds of a walk-forward.

    Attributes:
        seed: whose path is judged, the median one.
        tracks: seed → its path over all tests.
        folds: rows with "fold", "seed", "start", "end", "total_return", "sharpe", "seam_turnover", "seam_cost".
        sentence: how far luck of seeds and choice go.
        trained: what each fold was trained on, as the beginning of a sentence.
    """

    seed: int
    tracks: Mapping[int, Track]
    folds: Sequence[Mapping[str, Any]]
    sentence: str
    trained: str = "Trained anew before each fold on what came before it"


@dataclass(frozen=True, kw_only=True)
class SeedsFindings:
    """One setting trained with several seeds.

    Attributes:
        names: of the runs, or seeds.
        spread: figure → its distribution over them.
        own: figure → that of the run on this page.
    """

    names: tuple[str, ...]
    spread: Mapping[str, SeedSpread]
    own: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class GuardsFindings:
    """What guards did: lines in words, and rows of a table."""

    lines: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Findings:
    """Everything that is known about one run; what is None has no section.

    Attributes:
        run: its name.
        verdict: policy, baselines, intervals, gate.
        benchmark: name of the baseline that costs, windows and figures compare with; found among them if not given.
        regimes: (S,) state of the market at each decision of the policy.
        walk: of a walk-forward, its folds and seeds.
        seeds: runs of the same setting.
        overfitting: of the sweep that the run was chosen from.
        decisions, result: what moved its weights, and where its return came from.
        off_policy: content of off_policy.json.
        manifest, config: folded at the end.
        left_out: lines on what could not be found out, and why.
    """

    run: str
    verdict: Verdict
    benchmark: str | None = None
    hold_out: HoldOut | None = None
    costs: CostRealism | None = None
    downside: DownsideFigures | None = None
    evidence: SharpeEvidence | None = None
    superiority: Superiority | None = None
    regimes: np.ndarray | None = None
    walk: WalkFindings | None = None
    seeds: SeedsFindings | None = None
    overfitting: Overfitting | None = None
    decisions: Explanation | None = None
    result: Attribution | None = None
    stress: StressFindings | None = None
    guards: GuardsFindings | None = None
    off_policy: Mapping[str, Any] | None = None
    manifest: Mapping[str, Any] = field(default_factory=dict)
    config: str = ""
    left_out: tuple[str, ...] = ()

    @property
    def against(self) -> Track:
        """The benchmark's track."""
        tracks = {track.name: track for track in self.verdict.baselines}
        return tracks[find_benchmark(list(tracks), self.benchmark)]

    @property
    def headline(self) -> str:
        """One sentence: better than the benchmark or not, by how much, how surely."""
        policy, name = self.verdict.policy, self.against.name
        if policy.ruined:
            return f"{policy.name} was ruined: it lost everything before the period ended."
        edge = next(edge for edge in self.verdict.edges if edge.baseline == name)
        words = {"beats": f"{policy.name} beats {name}", "loses to": f"{policy.name} loses to {name}"}
        opening = words.get(edge.verdict, f"No edge shown: {policy.name} against {name}")
        return f"{opening}: growth differs by {percent(edge.growth, sign=True)} a year, {self._surely(edge)}."

    def _surely(self, edge: Edge) -> str:
        if not np.isfinite(edge.growth_low):
            return "too few bars for an interval"
        low, high = percent(edge.growth_low, sign=True), percent(edge.growth_high, sign=True)
        return f"between {low} and {high} with {percent(self.verdict.confidence, 0)} confidence"
