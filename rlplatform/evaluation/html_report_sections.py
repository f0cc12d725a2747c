"""Sections of the HTML report: heading and content of each, left out where nothing is known."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from html import escape
from typing import Any

import numpy as np

from rlplatform.evaluation import html_report_statistics as lines
from rlplatform.evaluation.allocation_plots import is_discrete, plot_actions, plot_weights
from rlplatform.evaluation.attribution import Attribution
from rlplatform.evaluation.attribution_plots import plot_contributions, plot_effects, plot_effects_over_time
from rlplatform.evaluation.html_report_figures import inline_figure, plot_regimes, plot_rolling_sharpe, plot_windows
from rlplatform.evaluation.html_report_findings import Findings, GuardsFindings, SeedsFindings, WalkFindings
from rlplatform.evaluation.html_report_tables import heat_map, statistics, table
from rlplatform.evaluation.mode_usage import HOW_MODES, mode_usage, plot_modes
from rlplatform.evaluation.plots import plot_drawdown, plot_equity, plot_learning_curve
from rlplatform.evaluation.robustness_plots import fold_rows, plot_folds, plot_stress
from rlplatform.evaluation.scoretable import number, percent
from rlplatform.evaluation.shapley import Explanation
from rlplatform.evaluation.stress_findings import StressFindings
from rlplatform.evaluation.track import Track
from rlplatform.evaluation.verdict import Verdict

MOST_ROWS = 12  # of sources in a table


def sections(findings: Findings) -> Iterator[tuple[str, str]]:
    """Heading and content, in order; a section without content is left out."""
    verdict, policy = findings.verdict, findings.verdict.policy
    yield "Wealth", _wealth(findings)
    yield "Walk-forward folds", _walk(findings.walk)
    yield "Seeds", _seeds(findings.seeds)
    yield (
        "Month by month",
        heat_map(policy) + paragraph("Return of each month in %, after costs; the year's own at the right."),
    )
    yield "What it held", _held(findings)
    yield "Which mode it acted in", _modes(policy)
    yield "Why it decided so", _decisions(findings.decisions)
    yield "Where the result came from", _result(findings.result)
    yield "Baselines", _baselines(verdict)
    yield "Is the difference more than luck?", _edges(verdict)
    yield "Statistics", _statistics(findings)
    yield "Hold-out windows", _windows(findings)
    yield "Costs", _costs(findings)
    yield "Stress", _stress(findings.stress)
    yield "Guards", _guards(findings.guards)
    yield "Off-policy estimates", _off_policy(findings.off_policy)
    yield (
        "Learning",
        inline_figure("learning", partial(plot_learning_curve, verdict.learning_curve)) if verdict.learning_curve else "",
    )
    yield "How it was judged", _judged(findings)
    yield "What ran", _folded(findings)


def _walk(found: WalkFindings | None) -> str:
    if found is None:
        return ""
    explained = (
        f"{found.trained}; all folds are one account, whose weights go over the seams and "
        f"whose trade there is paid. Seed {found.seed}, the median one, is judged on the rest of this page."
    )
    figure = inline_figure("folds", partial(plot_folds, found))
    return (
        figure
        + table(fold_rows(found), text=("from",), name="Walk-forward folds")
        + paragraph(found.sentence)
        + paragraph(explained)
    )


def _seeds(found: SeedsFindings | None) -> str:
    if found is None:
        return ""
    explained = (
        f"The same setting trained with {len(found.names)} seeds: {', '.join(found.names)}. A setting is worth its median."
    )
    rows = [
        {
            "Figure": lines.FIGURE_NAMES.get(name, name),
            "median": lines.shown(name, s.median),
            "lowest": lines.shown(name, s.lowest),
            "highest": lines.shown(name, s.highest),
            "95 % interval of the mean": f"{lines.shown(name, s.mean_low)} to {lines.shown(name, s.mean_high)}",
            "this page": lines.shown(name, found.own.get(name, float("nan"))),
        }
        for name, s in found.spread.items()
    ]
    return table(rows, name="Seeds") + paragraph(explained)


def _decisions(found: Explanation | None) -> str:
    if found is None:
        return ""
    explained = (
        "Shapley values of what the policy sees, group by group: how its target weights (before guards) differ from those it "
        "would ask for had it seen only the baseline instead of that group, from the first bar on, so that its memory has not "
        "seen the group either. What the account holds stays as it was. Effects of all groups sum to the whole difference; "
        "columns of assets show the mean effect with its sign."
    )
    figures = [
        inline_figure("effects", partial(plot_effects, found), from_start=True),
        inline_figure("effects-time", partial(plot_effects_over_time, found)),
    ]
    rows = [{"Group": row.pop("group")} | row for row in found.rows()]
    return "\n".join(figures) + table(rows, name="Effects by group") + paragraph(found.sentence) + paragraph(explained)


def _result(found: Attribution | None) -> str:
    if found is None:
        return ""
    explained = (
        "Each bar's net return is split into what the assets earned, what trading them cost and what money cost; linked over "
        "time after Carino, so that all parts sum to the total return (a cost counts in wealth of the start: more than when it "
        "was paid, if wealth has grown). Risk is Euler's: Cov(part, return) / σ, which sums to "
        "the volatility. Years: contributions to the whole period's return, beside the year's own."
    )
    rows = found.rows()
    shown = rows if len(rows) <= MOST_ROWS else [*rows[: MOST_ROWS - 1], rows[-1]]
    left = f" {len(rows) - len(shown)} smaller ones are left out of the first table." if len(shown) < len(rows) else ""
    parts = [
        inline_figure("contributions", partial(plot_contributions, found), from_start=True),
        table(shown, strong=("sum",), name="Contributions"),
        table(found.year_rows(most=6), name="Contributions by year"),
        paragraph(f"{found.sentence} {explained}{left}"),
    ]
    return "\n".join(parts)


def _stress(found: StressFindings | None) -> str:
    if found is None:
        return ""
    figure = inline_figure("stress", partial(plot_stress, found), from_start=True)
    rows = [{"portfolio": row.pop("portfolio")} | row for row in found.table()]
    shown = table(rows, strong=(found.policy,), text=("scenario",), name="Stress")
    return figure + paragraph(found.sentence) + shown + _list(list(found.notes))


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


def _modes(policy: Track) -> str:
    if policy.gate is None:
        return ""
    figure = inline_figure("modes", partial(plot_modes, policy))
    return figure + table([usage.row() for usage in mode_usage(policy)], name="Modes") + paragraph(HOW_MODES)


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
    return table(rows, strong=(verdict.policy.name,), name="Baselines") + paragraph(
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
    return table(rows, strong=verdict.main_names, text=("Verdict",), name="Policy minus baseline") + paragraph(
        f"Policy minus baseline, {level} intervals from a paired stationary bootstrap. An edge is claimed only where the whole "
        "interval of growth lies above zero. Each line stands by itself: with many baselines some miss the truth by chance."
    )


def _statistics(findings: Findings) -> str:
    metrics = findings.verdict.metrics[findings.verdict.policy.name]
    rows = lines.return_rows(metrics)
    rows += lines.evidence_rows(findings.evidence) if findings.evidence else []
    rows += lines.overfitting_rows(findings.overfitting) if findings.overfitting else []
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
    return figure + table(found.rows(), name="Hold-out windows") + paragraph(explained)


def _costs(findings: Findings) -> str:
    if findings.costs is None:
        return ""
    notes = [*findings.costs.missing, "The weights are those decided under the run's own costs, traded in each way."]
    return table(findings.costs.table(), name="Cost realism") + statistics(lines.cost_rows(findings.costs)) + _list(notes)


def _guards(guards: GuardsFindings | None) -> str:
    if guards is None:
        return ""
    return "".join(paragraph(line) for line in guards.lines) + table(guards.rows, text=("figure",), name="Guards")


def _off_policy(report: Mapping[str, Any] | None) -> str:
    if not report:
        return ""
    explained = "Value of an episode, estimated from logged data alone, beside what trading it gave."
    return table(lines.off_policy_rows(report), name="Off-policy estimates") + paragraph(explained)


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
    return _list([*findings.verdict.notes, *left_out]) + paragraph(heading) + shown


def _folded(findings: Findings) -> str:
    manifest = json.dumps(findings.manifest, indent=2, ensure_ascii=False, default=str) if findings.manifest else ""
    parts = (("Manifest", manifest), ("Config", findings.config))
    return "\n".join(f"<details><summary>{n}</summary><pre>{escape(text)}</pre></details>" for n, text in parts if text)


def paragraph(text: str) -> str:
    return f'<p class="quiet">{escape(text)}</p>'


def _list(texts: list[str]) -> str:
    items = "".join(f'<li class="quiet">{escape(text)}</li>' for text in texts)
    return f"<ul>{items}</ul>" if texts else ""


def _interval(low: str, high: str) -> str:
    return "–" if low == high == "–" else f"{low} to {high}"
