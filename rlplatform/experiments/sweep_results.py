"""The results of a sweep: one row a trial, settings ranked by the mean over their seeds, never by their best seed."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from rlplatform.evaluation.scoretable import number, percent
from rlplatform.evaluation.sweep_plots import plot_parallel_coordinates, plot_parameter_effects
from rlplatform.experiments.search import METRICS, SearchConfig, Settings
from rlplatform.experiments.standing import Standing
from rlplatform.experiments.sweep_directory import FINISHED, STOPPED, SweepDirectory, TrialDirectory, count_statuses
from rlplatform.experiments.sweep_frontier import sweep_frontier
from rlplatform.files import replaced_file

if TYPE_CHECKING:
    from rich.table import Table

FRACTIONS = tuple(
    f"validation_{name}"
    for name in ("total_return", "cagr", "volatility", "max_drawdown", "cvar_5", "turnover_per_day", "hit_rate")
)
BESIDE = ("validation_total_return", "validation_max_drawdown", "validation_turnover_per_day")  # shown next to the metric


@dataclass(frozen=True, kw_only=True)
class SettingResult:
    """One setting over all its seeds.

    Attributes:
        settings: parameter → value.
        trials: names, one a seed.
        scores: of the trials that have one, in the same order; a diverged or still running trial has none.
        figures: means over those trials.
        rank: from 1; None without a score.
    """

    settings: Settings
    trials: tuple[str, ...]
    scores: tuple[float, ...]
    figures: Mapping[str, float | None] = field(default_factory=dict)
    rank: int | None = None

    @property
    def mean(self) -> float:
        return statistics.fmean(self.scores) if self.scores else math.nan

    @property
    def spread(self) -> float:
        """Sample standard deviation over seeds; NaN of one seed."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else math.nan

    @property
    def complete(self) -> bool:
        return len(self.scores) == len(self.trials)


@dataclass(frozen=True, kw_only=True)
class SweepResults:
    """What the trials on disk come to.

    Attributes:
        search: how they are compared.
        trials: one row each: name, status, seed, settings, figures of the validation period, error.
        returns: (T, trials) daily net returns on the validation period; of every trial that was looked at.
        settings: ranked; those whose seeds all have a score before those of which some failed.
        median_trial: the trial of the best setting whose score is its median; None without any score.
    """

    search: SearchConfig
    trials: pd.DataFrame
    returns: pd.DataFrame
    settings: tuple[SettingResult, ...]
    statuses: Mapping[str, int]
    manifest: Mapping[str, Any]

    @classmethod
    def of(cls, directory: SweepDirectory, search: SearchConfig | None = None) -> SweepResults:
        """Read from disk.

        Args:
            search: of the sweep, if it is known already.
        """
        search, found = search or directory.config().search, directory.trials()
        rows = [_row(trial) for trial in found]
        validations = {trial.name: trial.validation() for trial in found}
        returns = {name: pd.Series(v["returns"], index=pd.to_datetime(v["dates"])) for name, v in validations.items() if v}
        return cls(
            search=search,
            trials=_table(rows, tuple(search.parameters)),
            returns=pd.DataFrame(returns).rename_axis("date"),
            settings=ranked(rows, search.metric, search.mode),
            statuses=count_statuses(found),
            manifest=directory.manifest(),
        )

    @property
    def median_trial(self) -> str | None:
        best = self.settings[0] if self.settings else None
        if best is None or best.rank is None:
            return None
        scored = self.trials.set_index("trial")[self.search.metric].reindex(best.trials).dropna().sort_values(kind="stable")
        return str(scored.index[(len(scored) - 1) // 2])

    def errors(self) -> dict[str, str]:
        """Trial → what went wrong."""
        failed = self.trials.dropna(subset="error") if len(self.trials) else self.trials
        return dict(zip(failed["trial"], failed["error"], strict=True)) if len(failed) else {}

    def write(self, directory: SweepDirectory) -> None:
        """results.parquet, results.csv, trial_returns.parquet and the plots, each replaced whole."""
        with replaced_file(directory.path / "results.parquet") as path:
            self.trials.to_parquet(path, index=False)
        with replaced_file(directory.path / "results.csv") as path:
            self.trials.to_csv(path, index=False)
        with replaced_file(directory.path / "trial_returns.parquet") as path:
            self.returns.to_parquet(path)
        self.plot(directory)

    def plot(self, directory: SweepDirectory) -> None:
        """plots/*.png, once two settings have a score."""
        scored = [setting for setting in self.settings if setting.scores]
        if len(scored) < 2:
            return
        figures = {
            "parallel_coordinates": plot_parallel_coordinates(
                [s.settings for s in scored], [s.mean for s in scored], self.search.metric, self.search.mode
            ),
            "parameter_effects": plot_parameter_effects(
                [s.settings for s in scored for _ in s.scores], [x for s in scored for x in s.scores], self.search.metric
            ),
        }
        frontier = sweep_frontier(tuple(scored), self.trials, directory.config().base)
        if frontier is not None:
            figures["frontier"] = frontier
        (directory.path / "plots").mkdir(exist_ok=True)
        for name, figure in figures.items():
            with replaced_file(directory.path / "plots" / f"{name}.png") as path:
                figure.savefig(path, format="png")

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "metric": self.search.metric,
            "mode": self.search.mode,
            "trials": self.statuses,
            "settings": [_setting_dict(setting) for setting in self.settings],
            "winner": self.manifest.get("winner"),
            "overfitting": self.manifest.get("overfitting"),
        }

    def overfitting_lines(self) -> list[str]:
        """The probability of backtest overfitting and how to read it, or why there is none; nothing without a winner."""
        found = self.manifest.get("overfitting") or {}
        if found.get("probability") is None:
            return [f"probability of overfitting: not known. {found['left_out']}"] if "left_out" in found else []
        kept = [number(math.nan if found[name] is None else found[name]) for name in ("chosen", "kept")]
        return [
            f"probability of overfitting {percent(found['probability'], 0)}: in so many of {found['splits']:,} ways to halve "
            f"the validation days, the best of {found['trials']} trials on one half was no better than the middle one on the "
            f"other (50 % is choosing by lot); Sharpe {kept[0]} where chosen, {kept[1]} on the other half."
        ]

    def to_rich(self) -> Table:
        """For a terminal: one row a setting."""
        from rich import box
        from rich.table import Table

        several = any(len(setting.trials) > 1 for setting in self.settings)
        names = short_names(tuple(self.search.parameters))
        caption = "Validation period" + ("; mean ± standard deviation over seeds." if several else ".")
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, caption=caption, caption_justify="left")
        for heading in ("#", *names.values()):
            table.add_column(heading, justify="right", overflow="fold")
        for heading in (*map(_heading, self._columns), *(("seeds",) if several else ())):
            table.add_column(heading.replace(" ", "\n"), justify="right", no_wrap=True)
        for setting in self.settings:
            cells = ["–" if setting.rank is None else str(setting.rank), *(shown_value(setting.settings[key]) for key in names)]
            cells += [_cell(name, setting, several and name == self.search.metric) for name in self._columns]
            cells += [f"{len(setting.scores)}/{len(setting.trials)}"] if several else []
            table.add_row(*cells, style="bold green" if setting.rank == 1 else None)
        return table

    @property
    def _columns(self) -> list[str]:
        return [self.search.metric, *(name for name in BESIDE if name != self.search.metric)]


def ranked(rows: Sequence[Mapping[str, Any]], metric: str, mode: str) -> tuple[SettingResult, ...]:
    """Trials grouped by their settings, best first.

    Args:
        rows: with "trial", "settings", "status" and figures; a score counts when the trial finished or was stopped.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(json.dumps(row["settings"], sort_keys=True), []).append(row)
    sign = -1.0 if mode == "max" else 1.0
    made = [_setting(group, metric) for group in groups.values()]
    made.sort(key=lambda s: (not s.scores, not s.complete, sign * s.mean if s.scores else 0.0))
    return tuple(
        SettingResult(**{**vars(setting), "rank": place if setting.scores else None}) for place, setting in enumerate(made, 1)
    )


def _setting(group: Sequence[Mapping[str, Any]], metric: str) -> SettingResult:
    scored = [row for row in group if row["status"] in (FINISHED, STOPPED) and row.get(metric) is not None]
    figures = {name: _mean_of([row[name] for row in scored]) for name in METRICS} if scored else {}
    return SettingResult(
        settings=dict(group[0]["settings"]),
        trials=tuple(row["trial"] for row in group),
        scores=tuple(float(row[metric]) for row in scored),
        figures=figures,
    )


def _mean_of(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


def _row(trial: TrialDirectory) -> dict[str, Any]:
    record, run = trial.record(), trial.run
    standing = Standing.of(run) if (run.checkpoint("last") / "standing.json").is_file() else Standing()
    figures = dict.fromkeys(METRICS) | {k: v for k, v in trial.validation().get("metrics", {}).items() if k in METRICS}
    return {
        "trial": trial.name,
        "status": record["status"],
        "seed": record["seed"],
        "settings": trial.settings,
        **figures,
        "iterations": standing.iteration,
        "env_steps": standing.env_steps,
        "gradient_steps": standing.gradient_steps,
        "train_seconds": round(standing.train_seconds, 3),
        "judged_iteration": trial.validation().get("iteration"),
        "error": record["error"],
    }


def _table(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> pd.DataFrame:
    """Settings as columns of their own; where they are not all numbers, as text, so that Parquet takes them."""
    flat = []
    for row in rows:
        place = list(row).index("settings")
        items = list(row.items())
        flat.append(dict(items[:place]) | {key: row["settings"][key] for key in keys} | dict(items[place + 1 :]))
    table = pd.DataFrame(flat)
    for key in keys if rows else ():
        if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in table[key]):
            table[key] = [shown_value(value) for value in table[key]]
    for name in METRICS if rows else ():
        table[name] = table[name].astype(float)
    return table


def _setting_dict(setting: SettingResult) -> dict[str, Any]:
    spread = None if math.isnan(setting.spread) else setting.spread
    scores = {"mean": setting.mean if setting.scores else None, "spread": spread, "scores": list(setting.scores)}
    return {"rank": setting.rank, "settings": setting.settings, **scores, "trials": list(setting.trials), **setting.figures}


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Each dotted key by as few of its last parts as tell it from the others."""
    names = {}
    for key in keys:
        parts = key.split(".")
        tails = [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]
        names[key] = next(
            t for t in tails if t == key or not any(f".{other}".endswith(f".{t}") for other in keys if other != key)
        )
    return names


def shown_value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _heading(metric: str) -> str:
    return metric.removeprefix("validation_").replace("_", " ").removesuffix(" per day") + (
        "/day" if "per_day" in metric else ""
    )


def _cell(name: str, setting: SettingResult, with_spread: bool) -> str:
    value = setting.figures.get(name)
    if value is None:
        return "–"
    show = percent if name in FRACTIONS else number
    return f"{show(value)} ± {show(setting.spread)}" if with_spread and not math.isnan(setting.spread) else show(value)
