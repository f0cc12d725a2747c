"""docs/OFFLINE.md and the committed sample say what is true."""

import re

import numpy as np
import pytest

from rlplatform.offline.behaviour_config import KINDS
from rlplatform.offline.columns import COLUMNS
from rlplatform.offline.coverage import check_dataset
from rlplatform.offline.reading import read_dataset
from tests.conftest import REPOSITORY

TEXT = (REPOSITORY / "docs" / "OFFLINE.md").read_text(encoding="utf-8")
SAMPLE = REPOSITORY / "offline_data" / "planted_momentum"


def snippet(heading):
    return re.search(rf"## {heading}\n.*?```python\n(.*?)```", TEXT, re.S).group(1)


def test_the_pandas_snippet_runs_and_sees_our_numbers(monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)
    names = {}
    exec(compile(snippet("Plain pandas"), "docs/OFFLINE.md", "exec"), names)
    episodes, manifest = read_dataset(SAMPLE)
    np.testing.assert_array_equal(names["obs"].to_numpy(np.float32), episodes.obs)
    assert list(names["obs"].columns) == list(manifest.observation_names)
    np.testing.assert_allclose(names["rows"].groupby("eps_id")["rewards"].sum(), episodes.returns(), rtol=1e-5)
    assert "turnover" in capsys.readouterr().out


def test_the_d3rlpy_snippet_runs_where_it_is_installed(monkeypatch):
    pytest.importorskip("d3rlpy")
    monkeypatch.chdir(REPOSITORY)
    exec(compile(snippet("d3rlpy"), "docs/OFFLINE.md", "exec"), {})


def test_the_sample_is_whole_and_small():
    report = check_dataset(SAMPLE)
    assert report.ok
    assert (report.episodes, report.rows) == (2, 512)
    assert sum(path.stat().st_size for path in SAMPLE.rglob("*") if path.is_file()) < 100 * 1024


@pytest.mark.parametrize("name", COLUMNS)
def test_the_table_of_columns_is_the_schema(name):
    column = COLUMNS[name]
    shown = column.meaning.replace("|", r"\|") + " (N)" * column.per_asset
    unit = column.unit.replace("|", r"\|")
    assert f"| {name} | {shown} | {unit} | {'yes' if column.known else 'no'} |" in TEXT


def test_every_behaviour_is_named():
    for kind in KINDS:
        assert kind in TEXT
