"""What the commands write: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from rlplatform.evaluation.verdict import Verdict

log = Console(stderr=True)


def print_verdict(verdict: Verdict, as_json: bool, extras: dict[str, Any]) -> None:
    if as_json:
        sentence = {"verdict": verdict.sentence, "gate": verdict.gate.to_dict()}
        print_json(verdict.table.to_dict() | sentence | extras)
        return
    console = Console()
    console.print(verdict.table.to_rich())
    console.print(verdict.sentence, markup=False, highlight=False, soft_wrap=not console.is_terminal)


def print_rows(title: str, rows: list[dict[str, Any]]) -> None:
    table = Table(title=title, box=box.SIMPLE_HEAD, show_edge=False, title_justify="left")
    for heading in rows[0] if rows else ():
        table.add_column(heading.replace("_", " "))
    for row in rows:
        table.add_row(*(escape(_cell(value)) for value in row.values()))
    Console().print(table)


def print_table(title: str, rows: Sequence[Mapping[str, str]]) -> None:
    """Names are folded where they are too long, never cut: one must be able to type them."""
    table = Table(title=title, box=box.SIMPLE_HEAD, show_edge=False, title_justify="left", padding=(0, 1, 0, 0))
    for heading in rows[0] if rows else ():
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row.values()))
    Console().print(table)


def _cell(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def print_json(content: Any) -> None:
    print(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False, default=str))


def note(text: str) -> None:
    log.print(text, markup=False, highlight=False, soft_wrap=True)


def shown(path: Path) -> Path:
    """Relative to here where that is shorter."""
    path, here = Path(path).resolve(), Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
