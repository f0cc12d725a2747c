"""The commands `rlplatform lookahead` and `rlplatform guards ab`: what an experiment must prove."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlplatform.cli_output import print_json, print_rows

CHECK_FAILED = 1

guards_app = typer.Typer(help="Guards: what they change.", no_args_is_help=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on standard output; logs go to standard error.")]


def lookahead(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="Settings of the experiment.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings that replace the file's: data.path=DIR")
    ] = None,
    cuts: Annotated[int, typer.Option(min=1, help="Days after which prices are changed; each takes about a second.")] = 6,
    seed: Annotated[int, typer.Option(min=0, help="Of the changed prices.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Prove that no feature, scaler or environment peeks at later prices; exit code 1 names what does, and its row."""
    from rlplatform.experiments.config import load_config
    from rlplatform.experiments.lookahead import prove

    proof = prove(load_config(config, overrides or ()), cuts=cuts, seed=seed)
    if as_json:
        print_json(proof.to_dict())
    else:
        failed = {finding.check for finding in proof.findings}
        rows = [{"check": name, "values": f"{n:,}", "clean": name not in failed} for name, n in proof.checks.items()]
        print_rows(f"Prices changed after {', '.join(proof.cuts)}", rows)
        for finding in proof.findings:
            print(f"- {finding}")
        print("No value moved: nothing looks ahead." if proof.clean else f"{len(failed)} check(s) found a look-ahead.")
    if not proof.clean:
        raise typer.Exit(CHECK_FAILED)


@guards_app.command("ab")
def guards_ab(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Such as results/RUN.")],
    as_json: JsonOption = False,
) -> None:
    """The same policy with and without guards over its test period, and window by window."""
    from rlplatform.experiments.guards_ab import compare_guards
    from rlplatform.experiments.run_directory import RunDirectory

    comparison = compare_guards(RunDirectory.open(run_dir))
    if as_json:
        print_json(comparison.to_dict())
        return
    print_rows("Guards: the same policy with and without", comparison.figure_rows())
    for line in comparison.lines():
        print(line)
