"""Checkpoints: whole or not there, checked before they are read, with the one before kept.

```
checkpoints/last/             rllib/  policy/  standing.json  checksums.json
checkpoints/last.previous/    the one before; takes its place where `last` is damaged
checkpoints/last.damaged/     what could not be used, for whoever wants to know why
```
Checksums find damage: a disk's, a copy's, a cut. They do not find malice, for who can change a file can change its
checksum too; against that stands `check_trusted`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from envs.errors import ConfigError, PlatformError
from rlplatform.files import recover_directory, replaced_directory, write_json

CHECKSUMS_FILE = "checksums.json"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class CheckpointError(PlatformError):
    """A checkpoint that cannot be used, or could not be written."""


@contextmanager
def new_checkpoint(directory: Path) -> Iterator[Path]:
    """A fresh directory to fill; it gets its checksums and takes the place of `directory`, which becomes the previous one.

    A kill leaves either the old one or the new one as `directory`, or, between the last two renames, the old one as
    `<name>.previous`; `recover_checkpoint` puts that right.

    Raises:
        CheckpointError: the disk is full or fails; the checkpoint of before is untouched.
    """
    try:
        with replaced_directory(directory) as temporary:
            yield temporary
            seal(temporary)
            _make_way(directory)
    except OSError as error:
        raise CheckpointError(_unwritten(directory, error)) from error


def _unwritten(directory: Path, error: OSError) -> str:
    run, reason = directory.parent.parent, error.strerror or (str(error).strip().splitlines() or [type(error).__name__])[-1]
    first = "Free some disk" if error.errno in DISK_FULL else "Put that right"
    if directory.exists() or previous(directory).exists():
        then = f"The one before is whole. {first}, then go on from it: rlplatform train --resume {run}"
    else:
        then = f"There is none before it. {first}, then start anew: rlplatform train {run / 'config.yaml'}"
    return f"checkpoint {directory} could not be written: {reason}. {then}"


def _make_way(directory: Path) -> None:
    if directory.exists():
        shutil.rmtree(previous(directory), ignore_errors=True)
        directory.replace(previous(directory))


def previous(directory: Path) -> Path:
    """Where the checkpoint before this one is kept."""
    return directory.with_name(f"{directory.name}.previous")


def seal(directory: Path) -> None:
    """Write checksums.json: the sha256 of every file below `directory`; last of all files, so that it also says "complete"."""
    files = {name: _sha256(path) for name, path in _files(directory).items() if name != CHECKSUMS_FILE}
    write_json(directory / CHECKSUMS_FILE, {"algorithm": "sha256", "files": files})


def defect(directory: Path) -> str | None:
    """What is wrong with a checkpoint, in a few words; None for a good one."""
    if not directory.is_dir():
        return "is not there"
    try:
        expected = dict(json.loads((directory / CHECKSUMS_FILE).read_text(encoding="utf-8"))["files"])
        found = _files(directory)
    except FileNotFoundError:
        return f"has no {CHECKSUMS_FILE}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"has an unreadable {CHECKSUMS_FILE} ({type(error).__name__})"
    found.pop(CHECKSUMS_FILE, None)
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            return f"lacks {name}"
        if name not in expected:
            return f"holds {name}, which {CHECKSUMS_FILE} does not list"
        if found[name].is_symlink():
            return f"has a link in place of {name}"
        if _sha256(found[name]) != expected[name]:
            return f"is damaged: {name} is not what was written (sha256)"
    return None


def good_checkpoint(directory: Path, say: Callable[[str], None] = lambda line: None) -> Path:
    """`directory` if it is good, else the one before it if that is. Changes nothing on the disk.

    Args:
        say: is told, in one line, when the newest could not be used.

    Raises:
        CheckpointError: neither is.
    """
    wrong = defect(directory)
    if wrong is None:
        return directory
    before = defect(previous(directory))
    if before is not None:
        raise CheckpointError(
            f"checkpoint {directory} {wrong}, and the one before, {previous(directory).name}, {before}. "
            f"Train anew: rlplatform train {directory.parent.parent / 'config.yaml'}"
        )
    say(f"checkpoint {directory} {wrong}; using the one before it, {previous(directory).name}.")
    return previous(directory)


def recover_checkpoint(directory: Path, say: Callable[[str], None] = lambda line: None) -> bool:
    """Put right what a kill or a failing disk left, before a run goes on: afterwards `directory` is good or not there.

    Where it is damaged it becomes `<name>.damaged` and the previous one takes its place.

    Args:
        say: is told, in one line, what was put right.

    Returns:
        Whether there is a checkpoint.
    """
    recover_directory(directory)
    wrong, before = defect(directory), defect(previous(directory))
    if wrong is None:
        return True
    if not directory.exists() and before == "is not there":
        return False  # there never was one
    if directory.exists():
        aside = directory.with_name(f"{directory.name}.damaged")
        shutil.rmtree(aside, ignore_errors=True)
        directory.replace(aside)
    if before is not None:
        say(f"checkpoint {directory} {wrong}, and the one before {before}; it is left out.")
        return False
    previous(directory).replace(directory)
    say(f"checkpoint {directory} {wrong}; going on from the one before it.")
    return True


def check_trusted(checkpoint: Path, run: Path, trust_pickle: bool = False) -> Path:
    """The place of a Ray checkpoint that may be loaded.

    Ray's checkpoints are pickle: to load one is to run whatever code its maker put in. So only a run's own are loaded, and
    others when the caller says so. A policy (safetensors and JSON) may come from anywhere.

    Args:
        checkpoint: a directory of `new_checkpoint`, or its `rllib`.
        run: the run directory that wants to load it.
        trust_pickle: the user vouches for whoever made it.

    Returns:
        `checkpoint`, links followed.

    Raises:
        ConfigError: it lies outside the run, also by way of a link, and nobody vouches for it.
    """
    place, home = Path(checkpoint).resolve(), (Path(run) / "checkpoints").resolve()
    if trust_pickle:
        return place
    inside = home.is_relative_to(Path(run).resolve()) and place.is_relative_to(home)
    links = [path for path in place.rglob("*") if path.is_symlink()] if inside else []
    if not inside or links:
        where = f"has a link in it, {links[0].name}" if links else f"lies outside {home}"
        raise ConfigError(
            f"Ray checkpoint {checkpoint} {where}. It holds pickle, which runs code when it is loaded. Use the policy beside "
            "it, which does not; or, if you trust whoever made it, allow it with trust_pickle."
        )
    return place


def _files(directory: Path) -> dict[str, Path]:
    """Every file and every link below a directory, by its name from there."""
    paths = (path for path in directory.rglob("*") if path.is_symlink() or not path.is_dir())
    return {path.relative_to(directory).as_posix(): path for path in sorted(paths)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
