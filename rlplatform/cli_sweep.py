"""The commands `rlplatform sweep` and `rlplatform results`: many trainings, and what came of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from rlplatform.cli_output import log, note, print_json, shown
from rlplatform.cli_resume import chosen_directory, stoppable

if TYPE_CHECKING:  # the rooms take seconds to import; each command imports what it needs
    from rlplatform.experiments.sweep_directory import SweepDirectory
    from rlplatform.experiments.sweep_results import SweepResults

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on standard output; logs go to standard error.")]


def sweep(
    config: Annotated[
        Path,
        typer.Argument(metavar="CONFIG.yaml", help="Settings with a search block; with --resume also a sweep's directory."),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings that replace the file's: search.max_concurrent=4 seed=1"),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the last sweep of this file; trials that have ended are not run again.")
    ] = False,
    num_samples: Annotated[int | None, typer.Option(metavar="N", help="Settings to draw; search.num_samples.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train many settings, compare them on the validation period, judge the winner on the test period.

    Writes results/SWEEP: one run a trial, tables and plots as trials end, and winner/ with a report. Ctrl-C stops;
    --resume goes on, also after a kill.
    """
    from rlplatform.experiments.progress import TrainingProgress
    from rlplatform.experiments.search import load_sweep
    from rlplatform.experiments.sweep import new_sweep, run_sweep
    from rlplatform.experiments.sweep_directory import SweepDirectory

    wanted = list(overrides or []) + ([] if num_samples is None else [f"search.num_samples={num_samples}"])
    directory = chosen_directory(SweepDirectory, config, wanted, resume, load_sweep, new_sweep)
    note(f"sweep directory: {shown(directory.path)}")
    with stoppable("sweep", directory):
        results = run_sweep(directory, TrainingProgress(log).phase)
    _print_results(directory, results, as_json)


def results(
    sweep_dir: Annotated[Path, typer.Argument(metavar="SWEEP_DIR", help="Such as results/SWEEP.")],
    as_json: JsonOption = False,
) -> None:
    """The table of a sweep, running or ended: settings ranked by the mean over their seeds. Rewrites its tables and plots."""
    from rlplatform.experiments.sweep_directory import SweepDirectory
    from rlplatform.experiments.sweep_results import SweepResults

    directory = SweepDirectory.open(sweep_dir)
    found = SweepResults.of(directory)
    found.write(directory)
    _print_results(directory, found, as_json)


def _print_results(directory: SweepDirectory, found: SweepResults, as_json: bool) -> None:
    if as_json:
        print_json(found.to_dict() | {"sweep": str(directory.path)})
        return
    console = Console()
    console.print(found.to_rich())
    trials = ", ".join(f"{count} {status}" for status, count in found.statuses.items())
    print(f"trials: {trials}" if trials else "No trial has begun yet.")
    for trial, error in found.errors().items():
        print(f"- {trial}: {error}")
    for line in found.overfitting_lines():
        print(line)
    winner = found.manifest.get("winner")
    if winner:
        print(f"winner {winner['trial']}, on the test period: {winner['verdict']}")
        print(f"report: {shown(directory.winner / 'report' / 'report.md')}")
    print(f"tables and plots: {shown(directory.path)}")
