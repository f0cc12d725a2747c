"""Fixtures: the shared real prices, and a small folder of files to spoil."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real prices, which are not part of the project."""
    path = Path(os.environ.get("RLPLATFORM_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (path / "equities").is_dir():
        pytest.skip(f"real prices are not at {path}; set RLPLATFORM_SHARED_DATA to their folder")
    return path


@pytest.fixture
def bars() -> pd.DataFrame:
    """Four sessions around a weekend, with a dividend of 1 % paid between the second and the third."""
    return pd.DataFrame(
        {
            "date": ["2020-03-12", "2020-03-13", "2020-03-16", "2020-03-17"],
            "open": [100.0, 102.0, 98.0, 99.0],
            "high": [103.0, 104.0, 101.0, 102.0],
            "low": [99.0, 100.0, 97.0, 98.0],
            "close": [101.0, 103.0, 100.0, 101.0],
            "adj_close": [99.99, 101.97, 100.0, 101.0],
            "volume": [1000, 2000, 3000, 0],
        }
    )


@pytest.fixture
def write(tmp_path: Path):
    """Write tables as <name>.csv into one folder and return it."""

    def write(**tables: pd.DataFrame) -> str:
        for name, table in tables.items():
            table.to_csv(tmp_path / f"{name}.csv", index=False)
        return str(tmp_path)

    return write
