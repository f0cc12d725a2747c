"""The commands `rlplatform report`, `explain` and `stress`: what is known of a run, why it decided so, what it loses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlplatform.cli_output import note, print_json, print_table, shown

RunArgument = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Such as results/RUN.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on standard output; logs go to standard error.")]
SEEN = ("scenario", "portfolio", "median", "5 %", "worst", "deepest fall")  # of the table, in a terminal of 80 columns


def report(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run, or a walk-forward.")],
    as_json: JsonOption = False,
) -> None:
    """One self-contained HTML page about a run or a walk-forward: report/report.html, no network, for desk and phone."""
    from rlplatform.experiments.reporting import report_run

    page = report_run(run_dir, lambda phase: note(f"{phase} …"))
    print_json({"page": str(page)}) if as_json else print(shown(page))


def explain(
    run_dir: RunArgument,
    permutations: Annotated[int, typer.Option(metavar="N", help="Drawn where the groups are too many to ask them all.")] = 32,
    seed: Annotated[int, typer.Option(help="Of that draw.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """What moved the policy's weights, by groups of what it sees; which asset and year its return, cost and risk came from."""
    from rlplatform.evaluation.shapley import ExplainConfig
    from rlplatform.experiments.explaining import explain_run

    found = explain_run(run_dir, ExplainConfig(permutations=permutations, seed=seed), lambda phase: note(f"{phase} …"))
    if as_json:
        print_json(found.to_dict())
        return
    print_table("Effect of what it sees on the weights it asks for", found.decisions.rows(most=4))
    print(found.decisions.sentence)
    print_table("Where return and risk came from", found.result.rows())
    print_table("Year by year, % of the whole period's return", found.result.year_rows(most=5))
    print(found.result.sentence)
    note(f"figures: {shown(run_dir / 'report')}")


def stress(
    run_dir: RunArgument,
    paths: Annotated[int, typer.Option(metavar="N", help="Of each kind of scenario.")] = 20,
    bars: Annotated[int, typer.Option(metavar="N", help="Length of the drawn ones.")] = 252,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    scenarios: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="Also paths of block_bootstrap, regime_garch or transformer, fitted on training days."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """What the policy and simple rules lose in drawn, calm, choppy, crisis, 2008-like and 2020-like markets."""
    from rlplatform.evaluation.stress import StressConfig
    from rlplatform.experiments.stressing import stress_run

    settings = StressConfig(paths=paths, bars=bars, seed=seed)
    found = stress_run(run_dir, settings, lambda phase: note(f"{phase} …"), scenarios)
    if as_json:
        print_json(found.to_dict())
        return
    print_table("Total return by scenario", [{name: row[name] for name in SEEN} for row in found.table()])
    print(found.sentence)
    for line in found.notes:
        note(line)
