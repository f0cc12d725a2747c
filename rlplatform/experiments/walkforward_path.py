"""The path of a walk-forward: one account over all tests, each fold's policy in its turn, judged like any policy."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from envs.errors import ConfigError
from envs.tape import MarketTape
from rlplatform.evaluation.backtest import Policy
from rlplatform.evaluation.deflated import SharpeEvidence, Trials, judge_sharpe
from rlplatform.evaluation.folds import Fold
from rlplatform.evaluation.metrics import Metrics, finite_or_none, sharpe_ratio, summarize
from rlplatform.evaluation.scoretable import number, percent
from rlplatform.evaluation.seed_spread import SeedSpread
from rlplatform.evaluation.track import Track
from rlplatform.evaluation.verdict import Verdict
from rlplatform.experiments.config import ExperimentConfig
from rlplatform.experiments.judging import backtest, judge_policy

K = TypeVar("K", bound=Hashable)
SPREAD = ("total_return", "cagr", "sharpe", "max_drawdown", "turnover_per_day")


class RelayPolicy:
    """Policies that take over from each other: number k decides from its first bar on, until k + 1 does.

    The account goes on as it is: weights, peak and guards are those that the policy before left. A policy's recurrent state
    starts anew, as in each of its training episodes.

    Args:
        policies: one a fold.
        starts: decision, counted from 0, at which each takes over; the first is 0.
    """

    def __init__(self, policies: Sequence[Policy], starts: Sequence[int]) -> None:
        ordered = list(starts) == sorted(set(starts)) and len(starts) == len(policies) > 0 and starts[0] == 0
        if not ordered:
            raise ConfigError(f"{len(policies)} policies take over at {list(starts)}; expected one rising start each, from 0.")
        self.policies, self.starts = tuple(policies), tuple(starts)

    @property
    def mode_names(self) -> tuple[str, ...]:
        """Of the modes that all of them have, see `Policy.mode_names`."""
        return getattr(self.policies[0], "mode_names", ())

    def initial_state(self, batch: int) -> Any:
        return 0, None

    def act(self, obs: np.ndarray, state: Any, deterministic: bool) -> tuple[np.ndarray, Any, dict[str, np.ndarray]]:
        bar, inner = state
        policy = self.policies[int(np.searchsorted(self.starts, bar, "right")) - 1]
        if bar in self.starts:
            inner = policy.initial_state(len(obs))
        action, inner, extras = policy.act(obs, inner, deterministic)
        return action, (bar + 1, inner), extras


def joined_tape(tapes: Sequence[MarketTape], folds: Sequence[Fold]) -> MarketTape:
    """One tape whose rows show each fold's policy the features as its own scaler makes them.

    Rows before the first test are the first fold's; a row where a fold takes over is already the new one's.

    Args:
        tapes: (T rows each) of the same prices, scaled fold by fold.
    """
    features, context = tapes[0].features.copy(), tapes[0].context.copy()
    for tape, fold in zip(tapes[1:], folds[1:], strict=True):
        features[fold.test[0] :], context[fold.test[0] :] = tape.features[fold.test[0] :], tape.context[fold.test[0] :]
    return dataclasses.replace(tapes[0], features=features, context=context)


@dataclass(frozen=True, kw_only=True, eq=False)
class WalkForwardResult:
    """What a walk-forward found out.

    Attributes:
        verdict: of the seed with the median Sharpe ratio (of two in the middle the lower one), never of the best.
        evidence: probabilistic and deflated Sharpe ratio of that path.
        seed: of that path.
        tracks: seed → its path over all tests.
        folds: rows with "fold", "seed", "start", "end", "total_return", "sharpe", "seam_turnover", "seam_cost".
    """

    verdict: Verdict
    evidence: SharpeEvidence
    seed: int
    tracks: dict[int, Track]
    folds: list[dict[str, Any]]

    @property
    def metrics(self) -> dict[int, Metrics]:
        return {seed: summarize(track, self.verdict.bars_per_year) for seed, track in self.tracks.items()}

    @property
    def folds_of_tracks(self) -> list[dict[str, Any]]:
        """Rows of `folds` that `tracks` are made of."""
        return self.folds

    @property
    def trained(self) -> str:
        """What each fold was trained on, as the beginning of a sentence."""
        return "Trained anew before each fold on what came before it"

    @property
    def benchmark(self) -> Track:
        """The first baseline that the verdict speaks about, on the same days."""
        return next(track for track in self.verdict.baselines if track.name == self.verdict.main_names[0])

    @property
    def spread(self) -> dict[str, SeedSpread]:
        """Each figure over the seeds."""
        found = self.metrics.values()
        return {name: SeedSpread.of(getattr(one, name) for one in found) for name in SPREAD}

    @property
    def sentence(self) -> str:
        """What follows the verdict: how far luck and choice go."""
        e, sharpe = self.evidence, self.spread["sharpe"]
        seeds = f"{len(self.tracks)} seed{'s' * (len(self.tracks) > 1)}"
        if not math.isfinite(e.sharpe):
            return f"The path of seed {self.seed} (median of {seeds}) has no Sharpe ratio: its returns do not vary."
        among = f" (seeds {number(sharpe.lowest)} to {number(sharpe.highest)})" if len(self.tracks) > 1 else ""
        return (
            f"Median of {seeds}: Sharpe {number(e.sharpe)}{among}; after "
            f"{e.trials} tried setting{'s' * (e.trials > 1)} the probability that it is above zero is "
            f"{percent(e.deflated, 0)}, {'enough' if e.convincing else 'not enough'} for {percent(e.confidence, 0)}."
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict.sentence,
            "sentence": self.sentence,
            "seed": self.seed,
            "seeds": {str(seed): metrics.to_dict() for seed, metrics in self.metrics.items()},
            "spread": {name: spread.to_dict() for name, spread in self.spread.items()},
            "deflated_sharpe": self.evidence.to_dict(),
            "folds": self.folds,
            **self.verdict.table.to_dict(),
        }

    def wealth(self) -> pd.DataFrame:
        """(S + 1, seeds) wealth by day; a ruined path stays where it fell."""
        columns = {f"seed{seed}": pd.Series(t.wealth, index=pd.DatetimeIndex(t.dates)) for seed, t in self.tracks.items()}
        table = pd.DataFrame(columns).ffill()
        table.index.name = "date"
        return table

    def rows(self) -> list[dict[str, str]]:
        """For print: one row a fold: its return over the seeds, the benchmark's, and the largest trade at its seam."""
        lines = []
        for start, end in dict.fromkeys((row["start"], row["end"]) for row in self.folds):
            own = [row for row in self.folds if (row["start"], row["end"]) == (start, end)]
            returns, sharpe = SeedSpread.of(row["total_return"] for row in own), SeedSpread.of(row["sharpe"] for row in own)
            lines.append(
                {
                    "fold": str(own[0]["fold"]),
                    "from": start,
                    "return": percent(returns.median, sign=True),
                    "lowest": percent(returns.lowest, sign=True),
                    "highest": percent(returns.highest, sign=True),
                    "Sharpe": number(sharpe.median),
                    self.benchmark.name: percent(_growth(self.benchmark, start, end), sign=True),
                    "handover": percent(max(row["seam_turnover"] for row in own), 0),
                }
            )
        return lines


@dataclass(frozen=True, kw_only=True, eq=False)
class JoinedPath:
    """One account over all tests: what it sees, who decides when.

    Attributes:
        tape: see `joined_tape`.
        folds: in order of time, their tests without a gap.
        relay: one policy a fold.
    """

    tape: MarketTape
    folds: tuple[Fold, ...]
    relay: RelayPolicy

    @classmethod
    def of(cls, tapes: Sequence[MarketTape], folds: Sequence[Fold], policies: Sequence[Policy]) -> JoinedPath:
        relay = RelayPolicy(policies, [fold.test[0] - folds[0].test[0] for fold in folds])
        return cls(tape=joined_tape(tapes, folds), folds=tuple(folds), relay=relay)

    @property
    def period(self) -> tuple[str, str]:
        """First decision and last valuation."""
        first, last = (str(self.tape.dates[row])[:10] for row in (self.folds[0].test[0], self.folds[-1].test[1]))
        return first, last

    def play(self, config: ExperimentConfig) -> Track:
        return backtest(config, self.tape, self.relay, *self.period)

    def judge(self, config: ExperimentConfig, seed: int, notes: Sequence[str]) -> Verdict:
        """Against every baseline on the same days."""
        verdict = judge_policy(dataclasses.replace(config, seed=seed), self.tape, self.relay, *self.period)
        return dataclasses.replace(verdict, notes=(*verdict.notes, *notes))


def judge_walk(
    config: ExperimentConfig,
    tapes: Sequence[MarketTape],
    folds: Sequence[Fold],
    policies: Mapping[int, Sequence[Policy]],
    configs_tried: int = 1,
) -> WalkForwardResult:
    """Join the folds of each seed and judge the median one against every baseline on the same days.

    Args:
        config: costs, financing, baselines, bootstrap.
        tapes: one a fold, see `joined_tape`.
        policies: seed → one a fold.
    """
    paths = {seed: JoinedPath.of(tapes, folds, each) for seed, each in policies.items()}
    tracks = {seed: path.play(config) for seed, path in paths.items()}
    seed = median_track(tracks, config.env.financing.bars_per_year)
    notes = (
        f"Walk-forward: {len(folds)} folds, trained anew before each; weights are carried over seams and that trade is paid.",
        f"Of {len(tracks)} seeds the one with the median Sharpe ratio is judged, never the best.",
    )
    verdict = paths[seed].judge(config, seed, notes)
    return WalkForwardResult(
        verdict=verdict,
        evidence=judge_sharpe(verdict.policy.returns, Trials(count=configs_tried), verdict.bars_per_year),
        seed=seed,
        tracks=tracks,
        folds=[row for each, track in tracks.items() for row in fold_rows(each, track, folds, verdict.bars_per_year)],
    )


def median_track(tracks: Mapping[K, Track], bars_per_year: int = 252) -> K:
    """The key whose Sharpe ratio is in the middle, the lower of two; ruin and undefined ratios count as the worst."""

    def score(key: K) -> float:
        sharpe = -math.inf if tracks[key].ruined else sharpe_ratio(tracks[key].returns, bars_per_year)
        return sharpe if math.isfinite(sharpe) else -math.inf

    return sorted(tracks, key=score)[(len(tracks) - 1) // 2]


def _growth(track: Track, start: str, end: str) -> float:
    """Return from the close of `start` to that of `end`; NaN where it does not reach so far."""
    days = track.dates.astype("datetime64[D]")
    first, last = (int(np.searchsorted(days, np.datetime64(day))) for day in (start, end))
    return float(track.wealth[last] / track.wealth[first] - 1.0) if last < len(days) and track.wealth[first] > 0 else math.nan


def fold_rows(seed: int, track: Track, folds: Sequence[Fold], bars_per_year: int) -> list[dict[str, Any]]:
    """Each fold's part of a path; after ruin there is none."""
    rows, first = [], folds[0].test[0]
    for fold in folds:
        begin, end = fold.test[0] - first, min(fold.test[1] - first, len(track))
        if begin >= len(track):
            break
        returns = track.returns[begin:end]
        rows.append(
            {
                "fold": fold.number,
                "seed": seed,
                "start": str(track.dates[begin])[:10],
                "end": str(track.dates[end])[:10],
                "total_return": float(track.wealth[end] / track.wealth[begin] - 1.0),
                "sharpe": finite_or_none(sharpe_ratio(returns, bars_per_year)) if len(returns) > 1 else None,
                "seam_turnover": float(track.turnover[begin]),
                "seam_cost": float(track.cost[begin]),
            }
        )
    return rows
