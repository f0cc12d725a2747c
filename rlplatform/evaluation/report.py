"""The report: report.md, report.json and pictures, in one directory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from rlplatform.evaluation.allocation_plots import is_discrete, plot_actions, plot_weights
from rlplatform.evaluation.mode_usage import HOW_MODES, mode_usage, plot_modes
from rlplatform.evaluation.plots import plot_drawdown, plot_equity, plot_learning_curve
from rlplatform.evaluation.scoretable import number, percent
from rlplatform.evaluation.significance import Edge
from rlplatform.evaluation.verdict import Verdict
from rlplatform.files import replaced_file, write_json, write_text

_CAPTIONS = {
    "equity.png": "Wealth after costs and financing",
    "drawdown.png": "Drawdown",
    "weights.png": "Weights over time",
    "actions.png": "Chosen actions over time",
    "modes.png": "Modes over time",
    "learning_curve.png": "Learning curve",
}

_HOW_TABLE = (
    "Sorted by Sharpe ratio. CVaR 5 % is the mean return of the worst 5 % of bars; turnover is Σ|Δw|, both sides of a "
    "trade; cost is the sum of what trading took, in % of the wealth at the time."
)
_HOW_EDGES = (
    "Policy minus baseline, with {level} intervals from a paired stationary bootstrap of the bars. An edge is claimed only "
    "where the whole interval of growth lies above zero. Each line stands by itself: with {baselines} baselines, some "
    "intervals miss the truth by chance."
)


def write_report(directory: str | Path, verdict: Verdict, details: Mapping[str, Any] | None = None) -> Path:
    """Write the whole report; each file is written beside its place and then renamed, so none is ever half there.

    Args:
        details: further sections of report.json, ready for JSON.

    Returns:
        Path of report.md.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    pictures = []
    for name, figure in figures(verdict):
        with replaced_file(directory / name) as draft:
            figure.savefig(draft, format="png")
        pictures.append(name)
    for stale in set(_CAPTIONS) - set(pictures):
        (directory / stale).unlink(missing_ok=True)
    modes = [usage.to_dict() for usage in mode_usage(verdict.policy)]
    content = verdict.to_dict() | ({"modes": modes} if modes else {}) | dict(details or {}) | {"pictures": pictures}
    write_json(directory / "report.json", content)
    write_text(directory / "report.md", render_markdown(verdict, pictures))
    return directory / "report.md"


def figures(verdict: Verdict) -> Iterator[tuple[str, Figure]]:
    """File name and figure, one after the other."""
    policy = verdict.policy
    yield "equity.png", plot_equity(policy, verdict.baselines, verdict.main_names, verdict.earlier, verdict.sample)
    yield "drawdown.png", plot_drawdown(policy, verdict.baselines, verdict.main_names)
    yield "weights.png", plot_weights(policy)
    if is_discrete(policy):
        yield "actions.png", plot_actions(policy, verdict.action_names)
    if policy.gate is not None:
        yield "modes.png", plot_modes(policy)
    if verdict.learning_curve:
        yield "learning_curve.png", plot_learning_curve(verdict.learning_curve)


def render_markdown(verdict: Verdict, pictures: list[str]) -> str:
    """The report as text; its first sentence is the verdict."""
    sections = [
        verdict.sentence,
        f"# {verdict.policy.name}, {' to '.join(verdict.policy.period)}",
        verdict.table.to_markdown().rstrip(),
        _HOW_TABLE,
        *_pictures(pictures[:2]),
        "## Is the difference more than luck?",
        _edges(verdict.edges),
        _HOW_EDGES.format(level=percent(verdict.confidence, 0), baselines=len(verdict.edges)),
        f"## Regression gate: {'pass' if verdict.gate.passed else 'FAIL'}",
        _gate(verdict),
        "## How it traded",
        *_pictures(pictures[2:]),
    ]
    if verdict.policy.gate is not None:
        sections += ["## Which mode it acted in", _modes(verdict), HOW_MODES]
    if verdict.notes:
        sections += ["## How it was judged", "\n".join(f"- {note}" for note in verdict.notes)]
    return "\n\n".join(sections) + "\n"


def _pictures(names: list[str]) -> list[str]:
    return [f"![{_CAPTIONS[name]}]({name})" for name in names]


def _edges(edges: tuple[Edge, ...]) -> str:
    lines = [_row("Baseline", "Growth a year", "interval", "Sharpe", "interval", "Verdict"), _row("---", *["---:"] * 4, "---")]
    for e in sorted(edges, key=lambda edge: -edge.growth):
        growth = _interval(percent(e.growth_low, sign=True), percent(e.growth_high, sign=True))
        sharpe = _interval(number(e.sharpe_low), number(e.sharpe_high))
        lines.append(_row(e.baseline, percent(e.growth, sign=True), growth, number(e.sharpe), sharpe, e.verdict))
    return "\n".join(lines)


def _interval(low: str, high: str) -> str:
    return "–" if low == high == "–" else f"{low} to {high}"


def _gate(verdict: Verdict) -> str:
    lines = [_row("Check", "Figure", "Threshold", "", "What stands behind it"), _row("---", "---:", "---:", "---", "---")]
    for check in verdict.gate.checks:
        threshold = f"{check.comparison} {number(check.threshold)}"
        result = "pass" if check.passed else "**FAIL**"
        lines.append(_row(check.name, number(check.figure), threshold, result, check.detail))
    return "\n".join(lines)


def _modes(verdict: Verdict) -> str:
    rows = [usage.row() for usage in mode_usage(verdict.policy)]
    return "\n".join([_row(*rows[0]), _row("---", *["---:"] * (len(rows[0]) - 1)), *(_row(*row.values()) for row in rows)])


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "∣") for cell in cells) + " |"
