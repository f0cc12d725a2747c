"""The scoreboard: every run, its settings ranked by the median over seeds; what is not comparable is marked, not ranked."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from envs.errors import ConfigError
from rlplatform.evaluation.comparison import shown_p
from rlplatform.evaluation.deflated import Trials, deflated_from_error
from rlplatform.evaluation.metrics import finite_or_none
from rlplatform.evaluation.scoretable import number, percent
from rlplatform.evaluation.seed_spread import SeedSpread
from rlplatform.experiments.registry import FIGURES, RUN, WALK, update_registry
from rlplatform.experiments.scoreboard_page import render_page
from rlplatform.files import write_json, write_text

DEFLATED = "deflated_sharpe"
RANKED_BY = (*(name for name in FIGURES if name not in ("sharpe_se", "bars")), DEFLATED)
LOWER_IS_BETTER = ("volatility", "turnover_per_day", "cost_paid", "cost_paid_money", "financing_paid")
RATIOS = ("sharpe", "sortino", "calmar", "sharpe_se", DEFLATED, "cost_paid_money")
EXPLAINED = (
    "One row a setting: the median over its seeds, never the best seed. Deflated p: how often luck alone, given the trials "
    "made, does as well; each is charged with its own sweep's trials or with the number of settings in this table, whichever "
    "is more. Rows marked – were judged on other days or costs than most of their kind and have no rank. Walk-forwards, whose "
    "policies are trained anew before each test, are ranked among themselves."
)


@dataclass(frozen=True, kw_only=True)
class ScoredRun:
    """One run: its row of the registry, its deflated Sharpe ratio, and why it has no rank, if so."""

    row: Mapping[str, Any]
    deflated: float = math.nan
    not_comparable: str | None = None

    def figure(self, name: str) -> float:
        """NaN where there is none."""
        value = self.deflated if name == DEFLATED else self.row.get(name)
        return math.nan if value is None or pd.isna(value) else float(value)

    def to_dict(self) -> dict[str, Any]:
        plain = {key: None if pd.isna(value) else value for key, value in self.row.items()}
        return plain | {DEFLATED: finite_or_none(self.deflated), "not_comparable": self.not_comparable}


@dataclass(frozen=True, kw_only=True)
class RankedSetting:
    """One setting in the table; `rank` from 1, None where it has none."""

    rank: int | None
    runs: tuple[ScoredRun, ...]
    metric: str

    @property
    def spread(self) -> SeedSpread:
        return SeedSpread.of(run.figure(self.metric) for run in self.runs)

    @property
    def not_comparable(self) -> str | None:
        return self.runs[0].not_comparable

    @property
    def name(self) -> str:
        return str(self.runs[0].row["name"])

    @property
    def kind(self) -> str:
        return kind_of(self.runs[0].row)

    def median(self, name: str) -> float:
        return SeedSpread.of(run.figure(name) for run in self.runs).median

    def cells(self) -> dict[str, str]:
        """For print: heading → text."""
        first, spread = self.runs[0].row, self.spread
        value, low, high = (shown(self.metric, x) for x in (spread.median, spread.lowest, spread.highest))
        beside = [name for name in ("sharpe", "cagr", "max_drawdown", "turnover_per_day") if name != self.metric]
        return {
            "#": "–" if self.rank is None else str(self.rank),
            "kind": self.kind,
            "setting": self.name if len(self.runs) > 1 else str(first["run"]),
            self.metric: value if spread.seeds < 2 else f"{value} ({low} to {high})",
            "seeds": str(spread.seeds),
            **{name: shown(name, self.median(name)) for name in beside},
            "deflated p": shown_p(1 - self.median(DEFLATED)),
            "trials": str(first["trials"]),
            "test": f"{first['start']} to {first['end']}",
            "note": self.not_comparable or ("" if any(run.row["present"] for run in self.runs) else "directory gone"),
        }


@dataclass(frozen=True, kw_only=True)
class Scoreboard:
    """The table of all runs.

    Attributes:
        metric: of the ranking.
        standings: of each kind, runs first: ranked settings, then those without a rank.
        unjudged: runs without test figures: running, stopped, failed.
    """

    metric: str
    standings: tuple[RankedSetting, ...]
    unjudged: tuple[ScoredRun, ...]

    @classmethod
    def of(cls, registry: pd.DataFrame, metric: str = "sharpe") -> Scoreboard:
        """From the registry's current rows.

        Raises:
            ConfigError: no such metric.
        """
        if metric not in RANKED_BY:
            raise ConfigError(f"metric = {metric!r}; expected one of {', '.join(RANKED_BY)}.")
        rows = registry[registry["current"].astype(bool)].to_dict("records") if len(registry) else []
        judged = [row for row in rows if not pd.isna(row["bars"])]
        standings = [_standings([row for row in judged if kind_of(row) == kind], metric) for kind in (RUN, WALK)]
        unjudged = tuple(ScoredRun(row=row) for row in rows if pd.isna(row["bars"]))
        return cls(metric=metric, standings=tuple(itertools.chain(*standings)), unjudged=unjudged)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: the ranking, and every run with its own figures."""
        return {
            "metric": self.metric,
            "explained": EXPLAINED,
            "settings": [_setting_dict(standing) for standing in self.standings],
            "runs": [run.to_dict() for standing in self.standings for run in standing.runs],
            "unjudged": [run.to_dict() for run in self.unjudged],
        }

    def rows(self) -> list[dict[str, str]]:
        """For print: one row a setting."""
        rows = [standing.cells() for standing in self.standings]
        told = any(row["kind"] != RUN for row in rows)
        return [{name: text for name, text in row.items() if told or name != "kind"} for row in rows]

    def short_rows(self) -> list[dict[str, str]]:
        """For a terminal of 80 columns."""
        kept = ("#", "kind", "setting", self.metric, "seeds", "deflated p", "note")
        return [{name: row[name] for name in kept if name in row} for row in self.rows()]

    def run_rows(self) -> list[dict[str, str]]:
        """For print: every run, seed by seed."""
        names = ("sharpe", "cagr", "max_drawdown", "turnover_per_day")
        return [
            {"run": str(run.row["run"]), "seed": str(run.row["seed"]), "status": str(run.row["status"])}
            | {name: shown(name, run.figure(name)) for name in names}
            | {"finished": "–" if pd.isna(run.row["finished"]) else str(run.row["finished"])[:16].replace("T", " ")}
            for run in [*(run for standing in self.standings for run in standing.runs), *self.unjudged]
        ]

    def to_markdown(self) -> str:
        sections = ["# Scoreboard", f"By {self.metric}, out of sample. {EXPLAINED}", _markdown(self.rows())]
        return "\n\n".join([*sections, "## Every run", _markdown(self.run_rows())]) + "\n"

    def write(self, results: Path) -> None:
        """scoreboard.md, .json and .html, each replaced whole."""
        write_json(Path(results) / "scoreboard.json", self.to_dict())
        write_text(Path(results) / "scoreboard.md", self.to_markdown())
        page = render_page("Scoreboard", f"By {self.metric}, out of sample. {EXPLAINED}", self.rows(), self.run_rows())
        write_text(Path(results) / "scoreboard.html", page)


def make_scoreboard(results: Path, metric: str = "sharpe") -> Scoreboard:
    """Feed the registry from every manifest under `results`, rank, and write the three files there."""
    board = Scoreboard.of(update_registry(results), metric)
    board.write(results)
    return board


def shown(name: str, value: float) -> str:
    """Ratios as numbers, all else as per cent."""
    return number(value) if name in RATIOS else percent(value)


def kind_of(row: Mapping[str, Any]) -> str:
    """A registry that knew runs only has no kinds."""
    return RUN if pd.isna(row["kind"]) else str(row["kind"])


def _standings(rows: Sequence[Mapping[str, Any]], metric: str) -> tuple[RankedSetting, ...]:
    """Of one kind."""
    groups: dict[str, list[ScoredRun]] = {}
    for run in _scored(rows):
        groups.setdefault(str(run.row["setting"]), []).append(run)
    return _ranked(list(groups.values()), metric)


def _scored(rows: Sequence[Mapping[str, Any]]) -> list[ScoredRun]:
    """Each row with what sets it apart from most; deflated by its trials or by the number of comparable settings."""
    usual = _majority(rows)
    settings = len({row["setting"] for row in rows if _terms(row) == usual})
    scored = []
    for row in rows:
        deviation = None if pd.isna(row["trials_deviation"]) else float(row["trials_deviation"])
        run = ScoredRun(row=row, not_comparable=_difference(row, usual))
        trials = Trials(count=max(int(row["trials"]), settings, 1), deviation=deviation)
        deflated = deflated_from_error(
            run.figure("sharpe"), run.figure("sharpe_se"), int(row["bars"]), trials, int(row["bars_per_year"])
        )
        scored.append(dataclasses.replace(run, deflated=deflated))
    return scored


def _terms(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return str(row["start"]), str(row["end"]), str(row["terms"])


def _majority(rows: Sequence[Mapping[str, Any]]) -> tuple[str, str, str] | None:
    """Days and costs of most runs; of the newest where two are level."""
    counts = Counter(_terms(row) for row in rows)
    newest = {_terms(row): place for place, row in enumerate(rows)}
    return max(counts, key=lambda terms: (counts[terms], newest[terms]), default=None)


def _difference(row: Mapping[str, Any], usual: tuple[str, str, str]) -> str | None:
    own = _terms(row)
    parts = [*(["other days"] if own[:2] != usual[:2] else []), *(["other costs"] if own[2] != usual[2] else [])]
    return f"not comparable: {' and '.join(parts)}" if parts else None


def _ranked(groups: Sequence[Sequence[ScoredRun]], metric: str) -> tuple[RankedSetting, ...]:
    sign = 1.0 if metric in LOWER_IS_BETTER else -1.0
    unranked = [RankedSetting(rank=None, runs=tuple(sorted(g, key=lambda run: run.row["seed"])), metric=metric) for g in groups]

    def order(standing: RankedSetting) -> tuple[bool, bool, float]:
        value = standing.spread.median
        return standing.not_comparable is not None, not math.isfinite(value), sign * value if math.isfinite(value) else 0.0

    ordered = sorted(unranked, key=order)
    return tuple(
        dataclasses.replace(standing, rank=place) if not any(order(standing)[:2]) else standing
        for place, standing in enumerate(ordered, 1)
    )


def _setting_dict(standing: RankedSetting) -> dict[str, Any]:
    head = {"rank": standing.rank, "kind": standing.kind, "name": standing.name, "setting": standing.runs[0].row["setting"]}
    tail = {"runs": [str(run.row["run"]) for run in standing.runs], "not_comparable": standing.not_comparable}
    return head | {"metric": standing.metric} | standing.spread.to_dict() | tail


def _markdown(rows: Sequence[Mapping[str, str]]) -> str:
    if not rows:
        return "None yet."
    lines = [" | ".join(rows[0]), " | ".join("---" for _ in rows[0])]
    lines += [" | ".join(cell.replace("|", "∣") for cell in row.values()) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)
