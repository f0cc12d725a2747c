"""The commands `rlplatform scenarios …`: laws of joint returns, and what of history they keep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlplatform.cli_output import note, print_json, print_table, shown

scenarios_app = typer.Typer(help="Scenario models: further histories to train on and to be stressed by.", no_args_is_help=True)


@scenarios_app.callback()
def _group() -> None:
    pass


@scenarios_app.command("check")
def scenarios_check(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG.yaml", help="Settings of a training; its prices and split are used.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings that replace the file's.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="block_bootstrap, regime_garch or transformer; the file's, or all, if not given."),
    ] = None,
    paths: Annotated[int, typer.Option(metavar="N", min=2, help="Generated, each as long as the training period.")] = 12,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the figures go; results/NAME-scenarios if not given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output; logs go to standard error.")] = False,
) -> None:
    """Stylised facts of the training days and of histories generated from them, with bands: PASS or FAIL.

    A FAIL says what a policy cannot learn from that model. Writes one PNG a model and scenarios.json.
    """
    from rlplatform.experiments.config import load_config
    from rlplatform.experiments.scenario_checking import check_scenarios

    found = check_scenarios(load_config(config, overrides or ()), model, paths, seed, out, lambda text: note(f"{text} …"))
    if as_json:
        print_json(found.to_dict())
        return
    for checked in found.models:
        print_table(f"{checked.name}: {found.bars:,} days, {found.paths} histories", checked.table())
        print(checked.sentence)
    note(f"figures: {shown(found.directory)}")
