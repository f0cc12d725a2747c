"""The report as one HTML page: no network, no scripts, light and dark, readable on a phone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from rlplatform.evaluation import html_report_statistics as lines
from rlplatform.evaluation.allocation_plots import is_discrete, plot_actions, plot_weights
from rlplatform.evaluation.cost_realism import CostRealism
from rlplatform.evaluation.deflated import SharpeEvidence
from rlplatform.evaluation.drawdowns import DownsideFigures
from rlplatform.evaluation.gate import find_benchmark
from rlplatform.evaluation.html_report_figures import inline_figure, plot_regimes, plot_rolling_sharpe, plot_windows
from rlplatform.evaluation.html_report_style import stylesheet
from rlplatform.evaluation.html_report_tables import heat_map, statistics, table
from rlplatform.evaluation.plots import plot_drawdown, plot_equity, plot_learning_curve
from rlplatform.evaluation.scoretable import number, percent
from rlplatform.evaluation.significance import Edge
from rlplatform.evaluation.superiority import Superiority
from rlplatform.evaluation.track import Track
from rlplatform.evaluation.verdict import Verdict
from rlplatform.evaluation.windows import HoldOut
from rlplatform.files import write_text

FILE = "report.html"
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"  # nothing is fetched, nothing runs


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


def write_html_report(directory: str | Path, findings: Findings) -> Path:
    """Write report.html beside the other reports; it is never half there.

    Returns:
        Its path.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    write_text(directory / FILE, render_html(findings))
    return directory / FILE


def render_html(findings: Findings) -> str:
    """The whole page; every text in it is escaped."""
    sections = [(name, content) for name, content in _sections(findings) if content]
    links = "".join(f'<a href="#{_anchor(name)}">{escape(name)}</a>' for name, _ in sections)
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(findings.run)}</title>\n<style>{stylesheet()}</style>\n</head>\n<body>",
        _top(findings),
        f"<nav>{links}</nav>",
        *(f'<h2 id="{_anchor(name)}">{escape(name)}</h2>\n{content}' for name, content in sections),
        "</body>\n</html>\n",
    ]
    return "\n".join(parts)


def _top(findings: Findings) -> str:
    verdict = findings.verdict
    where = f"{findings.run} · {verdict.sample.lower()}, {' to '.join(verdict.policy.period)}"
    overline, headline = f'<p class="overline">{escape(where)}</p>', f"<h1>{escape(findings.headline)}</h1>"
    parts = [overline, headline, _cards(findings), _paragraph(verdict.sentence)]
    return "\n".join(parts).replace(" %", "\u00a0%")  # no line may start with the sign


def _cards(findings: Findings) -> str:
    ours, theirs = (findings.verdict.metrics[t.name] for t in (findings.verdict.policy, findings.against))
    name = findings.against.name
    cards = [
        ("Growth a year", percent(ours.cagr, sign=True), f"{name} {percent(theirs.cagr, sign=True)}"),
        ("Sharpe ratio", number(ours.sharpe), f"± {number(ours.sharpe_se)}; {name} {number(theirs.sharpe)}"),
        ("Deepest drawdown", percent(ours.max_drawdown), f"{name} {percent(theirs.max_drawdown)}"),
    ]
    if findings.evidence is not None:
        trials = f"{findings.evidence.trials} trial{'s' if findings.evidence.trials != 1 else ''}"
        cards.append(("Sharpe above zero", percent(findings.evidence.deflated), f"probability, after {trials}"))
    texts = [[escape(text) for text in card] for card in cards]
    return f'<dl class="cards">{"".join(f"<div><dt>{a}</dt><dd>{b}<small>{c}</small></dd></div>" for a, b, c in texts)}</dl>'


def _sections(findings: Findings) -> Iterator[tuple[str, str]]:
    """Heading and content, in order; a section without content is left out."""
    verdict, policy = findings.verdict, findings.verdict.policy
    yield "Wealth", _wealth(findings)
    yield (
        "Month by month",
        heat_map(policy) + _paragraph("Return of each month in %, after costs; the year's own at the right."),
    )
    yield "What it held", _held(findings)
    yield "Baselines", _baselines(verdict)
    yield "Is the difference more than luck?", _edges(verdict)
    yield "Statistics", _statistics(findings)
    yield "Hold-out windows", _windows(findings)
    yield "Costs", _costs(findings)
    yield "Guards", _guards(findings.guards)
    yield "Off-policy estimates", _off_policy(findings.off_policy)
    yield (
        "Learning",
        inline_figure("learning", partial(plot_learning_curve, verdict.learning_curve)) if verdict.learning_curve else "",
    )
    yield "How it was judged", _judged(findings)
    yield "What ran", _folded(findings)


def _wealth(findings: Findings) -> str:
    v, policy, against = findings.verdict, findings.verdict.policy, findings.against
    window = min(v.bars_per_year, len(policy) // 2)
    figures = [
        inline_figure("equity", partial(plot_equity, policy, v.baselines, v.main_names, v.earlier, v.sample)),
        inline_figure("drawdown", partial(plot_drawdown, policy, v.baselines, v.main_names)),
    ]
    if window >= 10 and len(against) == len(policy):
        figures.append(inline_figure("rolling", partial(plot_rolling_sharpe, policy, against, window, v.bars_per_year)))
    return "\n".join(figures)


def _held(findings: Findings) -> str:
    policy = findings.verdict.policy
    figures = [inline_figure("weights", partial(plot_weights, policy))]
    if is_discrete(policy):
        figures.append(inline_figure("actions", partial(plot_actions, policy, findings.verdict.action_names)))
    if findings.regimes is not None:
        figures.append(inline_figure("regimes", partial(plot_regimes, policy, findings.regimes)))
    return "\n".join(figures)


def _baselines(verdict: Verdict) -> str:
    rows = [
        {
            "Portfolio": name,
            "Total return": percent(m.total_return, sign=True),
            "CAGR": percent(m.cagr, sign=True),
            "Sharpe ± s.e.": f"{number(m.sharpe)} ± {number(m.sharpe_se)}" if np.isfinite(m.sharpe) else "–",
            "Sortino": number(m.sortino),
            "Max drawdown": percent(m.max_drawdown),
            "CVaR 5 %": percent(m.cvar_5, 2),
            "Turnover/day": percent(m.turnover_per_day),
            "Cost paid": percent(m.cost_paid, 2),
        }
        for name, m in verdict.table.metrics.items()
    ]
    return table(rows, strong=(verdict.policy.name,), name="Baselines") + _paragraph(
        "Sorted by Sharpe ratio; all on the same days, with the same costs and financing."
    )


def _edges(verdict: Verdict) -> str:
    rows = [
        {
            "Baseline": e.baseline,
            "Growth a year": percent(e.growth, sign=True),
            "interval": _interval(percent(e.growth_low, sign=True), percent(e.growth_high, sign=True)),
            "Sharpe": number(e.sharpe),
            "its interval": _interval(number(e.sharpe_low), number(e.sharpe_high)),
            "Verdict": e.verdict,
        }
        for e in sorted(verdict.edges, key=lambda edge: -edge.growth if np.isfinite(edge.growth) else np.inf)
    ]
    level = percent(verdict.confidence, 0)
    return table(rows, strong=verdict.main_names, text=("Verdict",), name="Policy minus baseline") + _paragraph(
        f"Policy minus baseline, {level} intervals from a paired stationary bootstrap. An edge is claimed only where the whole "
        "interval of growth lies above zero. Each line stands by itself: with many baselines some miss the truth by chance."
    )


def _statistics(findings: Findings) -> str:
    metrics = findings.verdict.metrics[findings.verdict.policy.name]
    rows = lines.return_rows(metrics)
    rows += lines.evidence_rows(findings.evidence) if findings.evidence else []
    rows += lines.superiority_rows(findings.superiority) if findings.superiority else []
    rows += lines.downside_rows(findings.downside) if findings.downside else []
    return statistics(rows + lines.trading_rows(metrics))


def _windows(findings: Findings) -> str:
    found = findings.hold_out
    if found is None:
        return ""
    explained = (
        f"The test period as windows of {found.config.length_bars} bars, against {found.benchmark}; its regime is that "
        "of most of its bars. Windows overlap: the number of independent ones is the sample size."
    )
    figure = inline_figure("windows", partial(plot_windows, found, findings.verdict.policy.dates))
    return figure + table(found.rows(), name="Hold-out windows") + _paragraph(explained)


def _costs(findings: Findings) -> str:
    if findings.costs is None:
        return ""
    notes = [*findings.costs.missing, "The weights are those decided under the run's own costs, traded in each way."]
    return table(findings.costs.table(), name="Cost realism") + statistics(lines.cost_rows(findings.costs)) + _list(notes)


def _guards(guards: GuardsFindings | None) -> str:
    if guards is None:
        return ""
    return "".join(_paragraph(line) for line in guards.lines) + table(guards.rows, name="Guards")


def _off_policy(report: Mapping[str, Any] | None) -> str:
    if not report:
        return ""
    explained = "Value of an episode, estimated from logged data alone, beside what trading it gave."
    return table(lines.off_policy_rows(report), name="Off-policy estimates") + _paragraph(explained)


def _judged(findings: Findings) -> str:
    gate = findings.verdict.gate
    rows = [
        {
            "Check": c.name,
            "Figure": number(c.figure),
            "Threshold": f"{c.comparison} {number(c.threshold)}",
            "Result": "pass" if c.passed else "FAIL",
            "meaning": c.detail,
        }
        for c in gate.checks
    ]
    left_out = [f"Left out: {line}" for line in findings.left_out]
    heading = f"Regression gate: {'pass' if gate.passed else 'FAIL'}."
    shown = table(rows, text=("Result", "meaning"), name="Regression gate") if rows else ""
    return _list([*findings.verdict.notes, *left_out]) + _paragraph(heading) + shown


def _folded(findings: Findings) -> str:
    manifest = json.dumps(findings.manifest, indent=2, ensure_ascii=False, default=str) if findings.manifest else ""
    parts = (("Manifest", manifest), ("Config", findings.config))
    return "\n".join(f"<details><summary>{n}</summary><pre>{escape(text)}</pre></details>" for n, text in parts if text)


def _paragraph(text: str) -> str:
    return f'<p class="quiet">{escape(text)}</p>'


def _list(texts: list[str]) -> str:
    items = "".join(f'<li class="quiet">{escape(text)}</li>' for text in texts)
    return f"<ul>{items}</ul>" if texts else ""


def _interval(low: str, high: str) -> str:
    return "–" if low == high == "–" else f"{low} to {high}"


def _anchor(name: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())
