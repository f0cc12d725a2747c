"""Snapshot: a folder of downloaded prices with a hash per file, written once and never changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from envs.errors import MarketDataError
from rlplatform.files import replaced_directory, write_json

MANIFEST = "snapshot.json"


def write_snapshot(path: Path, tables: Mapping[str, pd.DataFrame], request: Mapping[str, object]) -> Path:
    """One CSV per symbol and `snapshot.json`; whole or not at all.

    Args:
        path: the folder to make.
        tables: symbol → bars with columns date, open, high, low, close, adj_close, volume.
        request: what was asked for, kept in the manifest.

    Raises:
        MarketDataError: `path` exists and is not empty.
    """
    try:
        with replaced_directory(path, overwrite=False) as building:
            for symbol, table in tables.items():
                table.to_csv(building / f"{symbol}.csv", index=False)
            files = {file.name: hash_file(file) for file in sorted(building.iterdir())}
            write_json(building / MANIFEST, {"request": dict(request), "files": files})
    except OSError as error:
        raise MarketDataError(f"{path} cannot be written: {error}. Choose a folder that does not exist yet.") from error
    return path


def read_manifest(path: Path) -> dict | None:
    """The manifest of the snapshot at `path`, or None where there is none.

    Raises:
        MarketDataError: `snapshot.json` cannot be read.
    """
    file = path / MANIFEST
    if not file.is_file():
        return None
    try:
        manifest = json.loads(file.read_text())
        return {"request": dict(manifest["request"]), "files": dict(manifest["files"])}
    except (ValueError, KeyError, TypeError) as error:
        raise MarketDataError(f"{file} is no snapshot manifest: {error!r}. Download the snapshot again.") from error


def verify_snapshot(path: Path) -> None:
    """Hold every file of a snapshot against its hash; a folder without `snapshot.json` is no snapshot and passes.

    Raises:
        MarketDataError: a file has changed or is missing.
    """
    manifest = read_manifest(path)
    for name, expected in (manifest["files"] if manifest else {}).items():
        file = path / name
        if not file.is_file():
            raise MarketDataError(f"{file} is missing; {MANIFEST} lists it. Download the snapshot again.")
        found = hash_file(file)
        if found != expected:
            raise MarketDataError(
                f"{file} has changed since the download: its sha256 begins {found[:12]}, {MANIFEST} says {expected[:12]}. "
                "Download the snapshot again, or delete snapshot.json if the change is yours."
            )


def hash_file(file: Path) -> str:
    """sha256 of a file's bytes."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
