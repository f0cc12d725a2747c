"""The paths of a combinatorial walk-forward: what one policy might have done, as a distribution over histories and seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from envs.tape import MarketTape
from rlplatform.evaluation.backtest import Policy
from rlplatform.evaluation.deflated import Trials, judge_sharpe
from rlplatform.evaluation.folds import Fold
from rlplatform.evaluation.metrics import Metrics, finite_or_none, sharpe_ratio, summarize
from rlplatform.evaluation.scoretable import number, percent
from rlplatform.evaluation.seed_spread import SeedSpread
from rlplatform.evaluation.track import Track
from rlplatform.experiments.config import ExperimentConfig
from rlplatform.experiments.walkforward_path import SPREAD, JoinedPath, WalkForwardResult, fold_rows, median_track

Key = tuple[int, int]  # seed, path


@dataclass(frozen=True, kw_only=True, eq=False)
class CombinatorialResult(WalkForwardResult):
    """What a combinatorial walk-forward found out. `tracks` has each seed's median path, and the median of all is judged.

    Attributes:
        path: that is judged.
        paths: (seed, path) → its track over the whole history.
        middle: seed → number of its median path.
    """

    path: int
    paths: dict[Key, Track]
    middle: dict[int, int]

    @property
    def folds_of_tracks(self) -> list[dict[str, Any]]:
        return [row for row in self.folds if self.middle[row["seed"]] == row["path"]]

    @property
    def trained(self) -> str:
        return (
            "Each fold was traded by a policy that was trained on what lies before and after it, apart from purge and embargo"
        )

    @property
    def path_metrics(self) -> dict[Key, Metrics]:
        return {key: summarize(track, self.verdict.bars_per_year) for key, track in self.paths.items()}

    @property
    def spread(self) -> dict[str, SeedSpread]:
        """Each figure over the paths of all seeds. Paths share tests two by two, so its standard error is none of a mean."""
        found = self.path_metrics.values()
        return {name: SeedSpread.of(getattr(one, name) for one in found) for name in SPREAD}

    @property
    def shares(self) -> dict[str, float]:
        """Share of paths whose Sharpe ratio is above zero, and above the benchmark's."""
        sharpes = np.array([metrics.sharpe for metrics in self.path_metrics.values()])
        hurdle = sharpe_ratio(self.benchmark.returns, self.verdict.bars_per_year)
        return {"above_zero": float((sharpes > 0).mean()), "above_benchmark": float((sharpes > hurdle).mean())}

    @property
    def sentence(self) -> str:
        """What follows the verdict: how far history, luck and choice go."""
        sharpe, shares = self.spread["sharpe"], self.shares
        paths = f"{len(self.paths)} paths ({len(self.paths) // len(self.tracks)} of each of {_counted(self.tracks, 'seed')})"
        if not math.isfinite(sharpe.median):
            return f"None of {paths} has a Sharpe ratio: their returns do not vary."
        e, above = self.evidence, f"above {self.benchmark.name}"
        return (
            f"{paths}: Sharpe {number(sharpe.lowest)} to {number(sharpe.highest)}, median {number(sharpe.median)}; "
            f"{percent(shares['above_zero'], 0)} above zero, {percent(shares['above_benchmark'], 0)} {above}. "
            f"The judged path: after {_counted(range(e.trials), 'tried setting')} the probability that its ratio is above "
            f"zero is {percent(e.deflated, 0)}, {'enough' if e.convincing else 'not enough'} for {percent(e.confidence, 0)}."
        )

    def to_dict(self) -> dict[str, Any]:
        rows = [{"seed": seed, "path": path} | one.to_dict() for (seed, path), one in self.path_metrics.items()]
        shares = {name: finite_or_none(share) for name, share in self.shares.items()}
        return super().to_dict() | {"path": self.path, "paths": rows, "shares": shares, "benchmark": self.benchmark.name}

    def wealth(self) -> pd.DataFrame:
        """(S + 1, seeds × paths) wealth by day."""
        columns = {f"seed{s}_path{p}": pd.Series(t.wealth, index=pd.DatetimeIndex(t.dates)) for (s, p), t in self.paths.items()}
        return pd.DataFrame(columns).ffill().rename_axis("date")

    def rows(self) -> list[dict[str, str]]:
        """For print: one row a path, over the seeds."""
        lines = []
        for path in sorted({path for _, path in self.paths}):
            own = [metrics for (_, each), metrics in self.path_metrics.items() if each == path]
            sharpe = SeedSpread.of(m.sharpe for m in own)
            lines.append(
                {
                    "path": str(path),
                    "Sharpe": number(sharpe.median),
                    "lowest": number(sharpe.lowest),
                    "highest": number(sharpe.highest),
                    "CAGR": percent(SeedSpread.of(m.cagr for m in own).median, sign=True),
                    "max drawdown": percent(SeedSpread.of(m.max_drawdown for m in own).median),
                    "turnover/day": percent(SeedSpread.of(m.turnover_per_day for m in own).median),
                }
            )
        return lines


def judge_paths(
    config: ExperimentConfig,
    tapes: Sequence[MarketTape],
    paths: Sequence[Sequence[Fold]],
    policies: Mapping[int, Sequence[Policy]],
    configs_tried: int = 1,
) -> CombinatorialResult:
    """Play every path of every seed, and judge the median one against every baseline.

    Args:
        config: costs, financing, baselines, bootstrap.
        tapes: one a split, scaled by what it learnt from.
        paths: see `combinatorial_paths`.
        policies: seed → one a split.
    """
    joined = {
        (seed, path): JoinedPath.of([tapes[fold.number] for fold in folds], folds, [each[fold.number] for fold in folds])
        for seed, each in policies.items()
        for path, folds in enumerate(paths)
    }
    played = {key: path.play(config) for key, path in joined.items()}
    years = config.env.financing.bars_per_year
    judged = seed, path = median_track(played, years)
    notes = (
        f"Combinatorial: {len(tapes)} splits, each trained on what it does not test, on both sides of it; "
        f"{len(paths)} paths of each seed. Out of sample at every bar, but not what could have been traded at the time.",
        f"Of {len(played)} paths the one with the median Sharpe ratio is judged, never the best.",
    )
    verdict = joined[judged].judge(config, seed, notes)
    middle = {s: median_track({key: track for key, track in played.items() if key[0] == s}, years) for s in policies}
    rows = [
        row | {"path": key[1]} for key, track in played.items() for row in fold_rows(key[0], track, joined[key].folds, years)
    ]
    return CombinatorialResult(
        verdict=verdict,
        evidence=judge_sharpe(verdict.policy.returns, Trials(count=configs_tried), years),
        seed=seed,
        path=path,
        tracks={s: played[key] for s, key in middle.items()},
        folds=rows,
        paths=played,
        middle={s: number for s, (_, number) in middle.items()},
    )


def _counted(things: Iterable[Any], name: str) -> str:
    count = len(list(things))
    return f"{count} {name}{'s' * (count > 1)}"
