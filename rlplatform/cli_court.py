"""The commands `rlplatform compare`, `scoreboard` and `benchmark`: policies against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from rlplatform.cli_output import note, print_json, print_table, shown

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
    print_table("Each pair", found.pair_rows())
    print_table("What each Sharpe ratio proves", found.evidence_rows())
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
    print_table(f"By {metric}, out of sample", board.short_rows())
    if board.unjudged:
        print(f"not judged: {', '.join(str(run.row['run']) for run in board.unjudged)}")
    note(f"page: {shown(results / 'scoreboard.html')}")


def benchmark(
    bench: Annotated[Path, typer.Argument(metavar="BENCH.yaml", help="See docs/JUDGING.md.")],
    check: Annotated[bool, typer.Option("--check", help="Exit code 1 when a run or file of weights fails the gate.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Runs, baselines and another system's daily weights on the same days and costs, each against one of them."""
    from rlplatform.experiments.benchmark_directory import write_bench
    from rlplatform.experiments.benchmarking import load_bench, run_bench

    config = load_bench(bench)
    table = run_bench(config, lambda phase: note(f"{phase} …"))
    directory = write_bench(config, table)
    if as_json:
        print_json(table.to_dict() | {"directory": str(directory)})
    else:
        console = Console()
        console.print(table.table.to_rich())
        print_table(f"Against {table.against}", table.edge_rows())
        for line in table.to_dict()["notes"]:
            print(f"- {line}")
        if check:
            for name, gate in table.gates.items():
                print("\n".join(f"{name}: {line}" for line in gate.lines()))
        console.print(table.sentence, markup=False, highlight=False, soft_wrap=not console.is_terminal)
    note(f"results: {shown(directory)}")
    if check and not table.passed:
        raise typer.Exit(1)
