"""Whether a dataset is learnt from in memory or from its files, and that the log says so."""

import logging
from dataclasses import replace

import pytest

from envs.errors import ConfigError
from rlplatform.experiments import learning_data as module
from rlplatform.experiments.learning_data import free_memory, learning_data, learns_from_memory, table_bytes
from rlplatform.experiments.logged_data import DatasetConfig
from rlplatform.offline.episodes import Episodes
from rlplatform.offline.manifest import read_manifest
from rlplatform.offline.shards import EpisodeShards
from tests.conftest import REPOSITORY

SAMPLE = REPOSITORY / "offline_data" / "planted_momentum"
GIB = 2**30


@pytest.fixture
def machine(monkeypatch):
    """Sets what is free [bytes]."""

    def having(memory, store):
        monkeypatch.setattr(module, "free_memory", lambda: memory)
        monkeypatch.setattr(module, "object_store_bytes", lambda: store)

    return having


def sized(rows):
    """The sample's manifest, as if it had so many rows."""
    return replace(read_manifest(SAMPLE), rows=rows)


def test_a_row_of_the_table_is_its_numbers_and_forty_bytes():
    manifest = sized(1_000)
    width = 6 + 2 + len(manifest.columns)  # observations, cash and one weight, columns
    assert table_bytes(manifest) == 1_000 * (4 * width + 40)


@pytest.mark.parametrize(
    ("memory", "store", "expected"),
    [(8, 2, True), (7.9, 2, False), (8, 1.9, False), (1_000, 1_000, True)],
)
def test_auto_needs_four_tables_in_half_of_memory_and_one_in_half_of_the_store(machine, memory, store, expected):
    manifest = sized(1)
    manifests = [replace(manifest, rows=GIB // table_bytes(manifest))]  # a table of one GiB
    machine(memory * GIB, store * GIB)
    config = DatasetConfig(paths=("x",))
    assert learns_from_memory(config, manifests) is expected
    assert learns_from_memory(replace(config, in_memory=True), manifests) is True
    assert learns_from_memory(replace(config, in_memory=False), manifests) is False


def test_the_log_says_which_way_was_taken_and_why(machine, caplog):
    machine(10 * 2**20, GIB)
    with caplog.at_level(logging.INFO):
        learns_from_memory(DatasetConfig(paths=("logged",)), [sized(100_000)])
        learns_from_memory(DatasetConfig(paths=("logged",)), [sized(100)])
    first, second = caplog.messages
    assert first.startswith("logged: read from its files while it is learnt from (100,000 rows, a table of 1")
    assert first.endswith("free: memory 10.0 MiB, object store 1.00 GiB)")
    assert second.startswith("logged: learnt from in memory (100 rows")
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_both_ways_bring_the_same_episodes(machine):
    machine(GIB, GIB)
    paths = (str(SAMPLE),)
    memory, files = (learning_data(DatasetConfig(paths=paths, in_memory=how)) for how in ("auto", False))
    assert isinstance(memory.learnt, Episodes)
    assert isinstance(files.learnt, EpisodeShards)
    assert (len(memory.learnt), memory.learnt.num_rows) == (len(files.learnt), files.learnt.num_rows) == (2, 512)
    assert memory.action_space == files.action_space
    assert memory.held_out is files.held_out is None


def test_a_machine_has_free_memory():
    assert GIB // 16 < free_memory() < 2**50


def test_a_buffer_holds_a_row_at_least():
    with pytest.raises(ConfigError, match="buffer_rows = 0; expected at least 1"):
        DatasetConfig(paths=("x",), buffer_rows=0)
