"""The report as one HTML page: no network, no scripts, light and dark, readable on a phone."""

from __future__ import annotations

from html import escape
from pathlib import Path

from rlplatform.evaluation.html_report_findings import Findings, GuardsFindings, SeedsFindings, WalkFindings
from rlplatform.evaluation.html_report_sections import paragraph, sections
from rlplatform.evaluation.html_report_style import stylesheet
from rlplatform.evaluation.scoretable import number, percent
from rlplatform.files import write_text

__all__ = ["Findings", "GuardsFindings", "SeedsFindings", "WalkFindings", "render_html", "write_html_report"]

FILE = "report.html"
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"  # nothing is fetched, nothing runs


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
    shown = [(name, content) for name, content in sections(findings) if content]
    links = "".join(f'<a href="#{_anchor(name)}">{escape(name)}</a>' for name, _ in shown)
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(findings.run)}</title>\n<style>{stylesheet()}</style>\n</head>\n<body>",
        _top(findings),
        f"<nav>{links}</nav>",
        *(f'<h2 id="{_anchor(name)}">{escape(name)}</h2>\n{content}' for name, content in shown),
        "</body>\n</html>\n",
    ]
    return "\n".join(parts)


def _top(findings: Findings) -> str:
    verdict = findings.verdict
    where = f"{findings.run} · {verdict.sample.lower()}, {' to '.join(verdict.policy.period)}"
    overline, headline = f'<p class="overline">{escape(where)}</p>', f"<h1>{escape(findings.headline)}</h1>"
    parts = [overline, headline, _cards(findings), paragraph(verdict.sentence)]
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


def _anchor(name: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())
