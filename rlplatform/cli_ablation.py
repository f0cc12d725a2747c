"""The command `rlplatform ablation`: the same training in several arms and seeds, who is better than the first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlplatform.cli_output import log, note, print_json, print_table, shown
from rlplatform.cli_resume import chosen_directory, stoppable


def ablation(
    config: Annotated[
        Path,
        typer.Argument(metavar="CONFIG.yaml", help="Settings with an ablation block; with --resume also its directory."),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings that replace the file's: ablation.max_concurrent=2"),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the last one of this file; finished trainings are not run again.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output; logs go to standard error.")] = False,
) -> None:
    """Train every arm with every seed and hold each arm against the first, on the same days and costs.

    Writes results/ABLATION: one run an arm and seed, ablation.json, ablation.md and a plot. Ctrl-C stops; --resume goes on,
    also after a kill.
    """
    from rlplatform.evaluation.ablation_report import TEST
    from rlplatform.experiments.ablation import new_ablation, run_ablation
    from rlplatform.experiments.ablation_config import AblationDirectory, load_ablation
    from rlplatform.experiments.progress import TrainingProgress

    directory = chosen_directory(AblationDirectory, config, list(overrides or []), resume, load_ablation, new_ablation)
    note(f"ablation directory: {shown(directory.path)}")
    with stoppable("ablation", directory):
        result = run_ablation(directory, TrainingProgress(log).note)
    if as_json:
        print_json(result.to_dict() | {"ablation": str(directory.path)})
        return
    print_table(f"Sharpe ratios, arm by arm, against {result.reference}", result.rows())
    print_table("Test, means over seeds", result.figures())
    for edge in result.edges[TEST].values():
        print(f"- {edge.sentence}")
    print(result.sentence)
    print(f"report: {shown(directory.path / 'ablation.md')}")
