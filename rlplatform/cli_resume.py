"""What sweeps and walk-forwards share as commands: begin or go on, and stop on Ctrl-C with word of how to go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from rlplatform.cli_output import note, shown

if TYPE_CHECKING:
    from rlplatform.experiments.results_directory import BlockDirectory

D = TypeVar("D", bound="BlockDirectory")
INTERRUPTED = 130


def chosen_directory(
    directories: type[D],
    config: Path,
    overrides: Sequence[str],
    resume: bool,
    load: Callable[[Path, Sequence[str]], Any],
    begin: Callable[[Any], D],
) -> D:
    """A new directory, or the one to go on with.

    Args:
        config: settings, or with `resume` also a directory.
        load: reads settings.
        begin: checks them and makes the directory.
    """
    if not config.is_dir():
        settings = load(config, overrides)
        return directories.newest_of(settings) if resume else begin(settings)
    if not resume:
        raise typer.BadParameter(
            f"{config} is a directory. Go on with that {directories.KIND} by --resume, or give a CONFIG.yaml."
        )
    if overrides:
        raise typer.BadParameter(f"--resume {config} with {overrides[0]}: a {directories.KIND} goes on as it began.")
    return directories.open(config)


@contextmanager
def stoppable(command: str, directory: BlockDirectory) -> Iterator[None]:
    """Ctrl-C ends the command, not the work: it can be taken up again."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        note(f"stopped. Go on with: rlplatform {command} --resume {shown(directory.path)}")
        raise typer.Exit(INTERRUPTED) from None
