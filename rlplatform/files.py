"""Writing files whole: to a temporary name beside the place, then renamed, so that nothing is ever half written.

A process that is killed while it writes leaves only hidden names behind (`.<name>.<pid>.tmp`, `.<name>.<pid>.old`);
`recover_directory` clears them away.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """A temporary path to write; it takes the place of `path` when the block ends well, and leaves no trace else."""
    temporary = _beside(path, "tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` in one step."""
    with replaced_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Replace `path` by `content` in one step. numpy scalars become numbers; NaN is refused, JSON does not know it."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False, default=_number) + "\n")


def directory_sha256(directory: Path) -> str:
    """Hash of every file below a directory, with its name: the same content at another place has the same."""
    digest = hashlib.sha256()
    for file in sorted(path for path in directory.rglob("*") if path.is_file()):
        digest.update(str(file.relative_to(directory)).encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _number(value: Any) -> float | int | bool:
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot go into JSON")


@contextmanager
def replaced_directory(path: Path, overwrite: bool = True) -> Iterator[Path]:
    """A fresh directory to fill; it takes the place of `path` when the block ends well, and leaves no trace when it does not.

    Args:
        overwrite: an existing `path` gives way; else only an empty one does.

    Raises:
        OSError: `path` is there, is not empty, and may not be overwritten.
    """
    temporary, old = _beside(path, "tmp"), _beside(path, "old")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if overwrite and path.exists():
            path.replace(old)
        temporary.replace(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def recover_directory(path: Path) -> None:
    """Put right what a killed `replaced_directory(path)` left: the old content returns if the new had not taken its place."""
    if not path.exists():
        for old in sorted(path.parent.glob(f".{path.name}.*.old"))[:1]:
            old.replace(path)
    for leftover in (*path.parent.glob(f".{path.name}.*.old"), *path.parent.glob(f".{path.name}.*.tmp")):
        shutil.rmtree(leftover, ignore_errors=True)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.{suffix}")
