"""PipelineSummary: every checkpoint, figure and setting of a pipeline, for programs and for people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlplatform.evaluation.pair_choice import ChosenPair
from rlplatform.evaluation.pair_plot import PairScore, plot_pairs
from rlplatform.evaluation.scoretable import number
from rlplatform.experiments.pipeline_config import PAIRS, SPECIALISTS, Pipeline
from rlplatform.experiments.pipeline_directory import WAITING, PipelineDirectory, PipelineItem
from rlplatform.experiments.results_directory import FAILED, FINISHED, RUNNING
from rlplatform.files import replaced_file, write_json, write_text

SKIPPED, GIVEN = "skipped", "given"


@dataclass(frozen=True, kw_only=True)
class PipelineSummary:
    """How a pipeline stands.

    Attributes:
        name: of its directory.
        manifest: of the pipeline.
        config: the file's mapping.
        stages: stage → its status.
        items: one mapping each, see `PipelineItem`.
        pairs: and why they were chosen.
    """

    name: str
    manifest: Mapping[str, Any]
    config: Mapping[str, Any]
    stages: Mapping[str, str]
    items: tuple[Mapping[str, Any], ...]
    pairs: tuple[ChosenPair, ...]

    @classmethod
    def of(
        cls,
        directory: PipelineDirectory,
        pipeline: Pipeline,
        pairs: Sequence[ChosenPair],
        stages: Mapping[str, Sequence[PipelineItem]],
    ) -> PipelineSummary:
        items = [
            {"stage": item.stage, "name": item.name, "status": WAITING, "path": str(item.path)} | item.record()
            for found in stages.values()
            for item in found
        ]
        return cls(
            name=directory.name,
            manifest=directory.manifest(),
            config=pipeline.content,
            stages={stage: _status(pipeline, stage, found) for stage, found in stages.items()},
            items=tuple(items),
            pairs=tuple(pairs),
        )

    @property
    def forecasters(self) -> Mapping[str, Any]:
        """What the judgement of the forecasters found; empty without one."""
        found = [item for item in self.items if (item["stage"], item["name"]) == (SPECIALISTS, "evaluation")]
        return found[0].get("metrics", {}) if found else {}

    @property
    def scores(self) -> list[PairScore]:
        """One of each pair and allocation that is judged: the seed with the median Sharpe ratio, of two the lower."""
        judged = [item for item in self.items if item["stage"] == PAIRS and item["status"] == FINISHED]
        groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
        for item in judged:
            what = item["allocation"] + ("" if "seed" in item else " walk-forward")
            groups.setdefault(("-".join(item["pair"]), what), []).append(item)
        return [_score(pair, what, found) for (pair, what), found in groups.items()]

    @property
    def sentence(self) -> str:
        """How many pairs show an edge over equal weight, plainly."""
        scores = self.scores
        if not scores:
            return "No pair has been judged."
        better = [score for score in scores if score.verdict == "beats"]
        worse = [score for score in scores if score.verdict == "loses to"]
        return (
            f"Of {len(scores)} judged paths {len(better)} beat{'s' * (len(better) == 1)} {scores[0].benchmark}, {len(worse)} "
            f"lose{'s' * (len(worse) == 1)} to it, {len(scores) - len(better) - len(worse)} show no edge (95 % intervals)."
        )

    def to_dict(self) -> dict[str, Any]:
        told = ("status", "error", "started", "finished", "resumed", "data", "seeds", "config_sha256", "code_commit")
        return {
            "pipeline": self.name,
            **{name: self.manifest[name] for name in told if name in self.manifest},
            "seconds": round(sum(item.get("seconds", 0.0) for item in self.items), 3),
            "stages": dict(self.stages),
            "pairs": [pair.to_dict() for pair in self.pairs],
            "scores": [score.to_dict() for score in self.scores],
            "sentence": self.sentence,
            "items": [dict(item) for item in self.items],
            "config": dict(self.config),
        }

    def write(self, directory: PipelineDirectory) -> None:
        """pipeline_summary.json, pipeline_summary.md and, once a pair is judged, pairs.png."""
        write_json(directory.summary, self.to_dict())
        scores = self.scores
        if scores:
            with replaced_file(directory.path / "pairs.png") as draft:
                plot_pairs(scores).savefig(draft, format="png")
        write_text(directory.path / "pipeline_summary.md", self.markdown())

    @property
    def pair_title(self) -> str:
        """Of the table of pairs."""
        scores = self.scores
        if not scores:
            return "Pairs, out of sample"
        first, last = scores[0].period
        return f"Pairs, {first} to {last}, benchmark {scores[0].benchmark}, growth a year against it"

    def pair_rows(self) -> list[dict[str, str]]:
        """For print."""
        return [score.cells() for score in self.scores]

    def item_rows(self) -> list[dict[str, str]]:
        """For print: what was made, how long it took, where it lies."""
        return [
            {
                "stage": item["stage"],
                "item": item["name"],
                "status": item["status"],
                "seconds": f"{item['seconds']:.0f}" if "seconds" in item else "–",
                "sha256": (item.get("sha256") or "–")[:12],
            }
            for item in self.items
        ]

    def difference_rows(self) -> list[dict[str, str]]:
        """For print: specialists against the generic forecaster."""
        return [
            {
                "symbol": row["symbol"],
                "bars": str(row["horizon"]),
                "gain %": _signed(row["gain_percent"]),
                "95 % interval": f"{_signed(row['low'])} to {_signed(row['high'])}" if row["low"] is not None else "–",
                "DM t": "–" if row["dm_t"] is None else f"{row['dm_t']:+.1f}",
            }
            for row in self.forecasters.get("specialists_against_generic", ())
        ]

    def forecast_rows(self) -> list[dict[str, str]]:
        """For print: CRPS of all forecasters on the test period."""
        return [
            {
                "forecaster": row["backend"],
                "bars": str(row["horizon"]),
                "CRPS bp": f"{row['crps_bp']:.2f}",
                "against bootstrap %": _signed(row["gain_percent"]),
                "DM t": "–" if row["dm_t"] is None else f"{row['dm_t']:+.1f}",
                "in 80 %": f"{row['coverage_80']:.3f}",
            }
            for row in self.forecasters.get("scores", ())
        ]

    def markdown(self) -> str:
        parts = [f"# {self.name}", self.sentence, _table(self.pair_title, self.pair_rows())]
        if self.scores:
            parts.append("![Sharpe ratios of the pairs](pairs.png)")
        parts += [f"- {item['name']}: {item['verdict']}" for item in self.items if "verdict" in item]
        parts.append(_table("Why these pairs", [_chosen(pair) for pair in self.pairs]))
        parts.append(_table("Forecasters on the test period", self.forecast_rows()))
        parts.append(_table("Specialists against the generic forecaster", self.difference_rows()))
        stages = [{"stage": stage, "status": status} for stage, status in self.stages.items()]
        parts += [_table("Stages", stages), _table("What was made", self.item_rows())]
        parts += [f"- {item['name']}: {item['error']}" for item in self.items if item.get("error")]
        return "\n\n".join(part for part in parts if part) + "\n"


def _status(pipeline: Pipeline, stage: str, items: Sequence[PipelineItem]) -> str:
    if stage in pipeline.block.skip:
        return SKIPPED
    if not pipeline.is_run(stage):
        return GIVEN
    found = {item.status for item in items}
    for status in (FAILED, RUNNING):
        if status in found:
            return status
    return FINISHED if found == {FINISHED} else WAITING if found == {WAITING} else "begun"


def _score(pair: str, what: str, items: Sequence[Mapping[str, Any]]) -> PairScore:
    def sharpe(item: Mapping[str, Any]) -> float:
        found = item["metrics"]["test"].get("sharpe")
        return -math.inf if found is None else found

    ordered = sorted(items, key=sharpe)
    chosen = ordered[(len(ordered) - 1) // 2]
    edge = chosen["edges"][0]  # over the market's stand-in: equal weight where the pair has no fund
    baselines = {name: figures.get("sharpe") for name, figures in chosen["baselines"].items()}
    return PairScore(
        pair=pair,
        what=what,
        sharpe=chosen["metrics"]["test"].get("sharpe"),
        seeds=tuple(item["metrics"]["test"].get("sharpe") for item in items),
        baselines=baselines,
        benchmark=edge["baseline"],
        growth=edge["growth"],
        growth_low=edge["growth_low"],
        growth_high=edge["growth_high"],
        verdict=edge["verdict"],
        max_drawdown=chosen["metrics"]["test"].get("max_drawdown"),
        period=tuple(chosen["period"]),
    )


def _chosen(pair: ChosenPair) -> dict[str, str]:
    return {
        "pair": pair.name,
        "by": pair.method,
        "correlation": "–" if pair.correlation is None else number(pair.correlation),
        "Engle-Granger p": "–" if pair.p_value is None else f"{pair.p_value:.3f}",
        "times the tests": "–" if pair.p_adjusted is None else f"{pair.p_adjusted:.3f}",
    }


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}"


def _table(title: str, rows: Sequence[Mapping[str, str]]) -> str:
    if not rows:
        return ""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    lines += ["| " + " | ".join(str(value).replace("|", "\\|") for value in row.values()) + " |" for row in rows]
    return f"## {title}\n\n" + "\n".join(lines)
