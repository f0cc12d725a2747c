"""The commands `rlplatform compare` and `rlplatform scoreboard`: runs against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rlplatform.cli_output import note, print_json, shown

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on standard output; logs go to standard error.")]


def compare(
    run_dirs: Annotated[list[Path], typer.Argument(metavar="RUN_DIR RUN_DIR...", help="Two runs or more.")],
    as_json: JsonOption = False,
) -> None:
    """Runs side by side, on the test days they share and with the costs of the first: who is better, how surely."""
    from rlplatform.experiments.comparing import compare_runs

    found = compare_runs(run_dirs)
    if as_json:
        print_json(found.to_dict())
        return
    console = Console()
    console.print(found.table.to_rich())
    _print_table("Each pair", found.pair_rows())
    _print_table("What each Sharpe ratio proves", found.evidence_rows())
    for names, spread in found.seeds.items():
        print(f"{names}: {spread.seeds} seeds, Sharpe {spread.lowest:.2f} to {spread.highest:.2f}, median {spread.median:.2f}")
    for line in found.notes:
        print(f"- {line}")
    console.print(found.sentence, markup=False, highlight=False, soft_wrap=not console.is_terminal)


def scoreboard(
    results: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where runs are written to.")] = Path("results"),
    metric: Annotated[
        str, typer.Option(metavar="NAME", help="Ranks the settings: sharpe, sortino, cagr, calmar, …")
    ] = "sharpe",
    as_json: JsonOption = False,
) -> None:
    """Every run ever made, settings ranked by the median over seeds. Writes scoreboard.md, .json and .html."""
    from rlplatform.experiments.scoreboard import make_scoreboard

    board = make_scoreboard(results, metric)
    if as_json:
        print_json(board.to_dict())
        return
    _print_table(f"By {metric}, out of sample", board.short_rows())
    if board.unjudged:
        print(f"not judged: {', '.join(str(run.row['run']) for run in board.unjudged)}")
    note(f"page: {shown(results / 'scoreboard.html')}")


def _print_table(title: str, rows: list[dict[str, str]]) -> None:
    """Names are folded where they are too long, never cut: one must be able to type them."""
    table = Table(title=title, box=box.SIMPLE_HEAD, show_edge=False, title_justify="left", padding=(0, 1, 0, 0))
    for heading in rows[0] if rows else ():
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row.values()))
    Console().print(table)
