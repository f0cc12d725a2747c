import json
import os
import shutil

import pyarrow.fs as pafs
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from envs.errors import ConfigError
from rlplatform.experiments.storage import (
    MARKER,
    Place,
    StorageError,
    fetch,
    is_remote,
    local_results_dir,
    store,
    stored,
    stored_afterwards,
)


class Bucket(MemoryFileSystem):
    """An object store in memory: no rename, and it remembers the order in which files came."""

    cachable = False
    fails_after = None

    def __init__(self):
        super().__init__()
        self.store, self.pseudo_dirs, self.order = {}, [""], []

    def _open(self, path, mode="rb", **kwargs):
        if mode == "wb":
            if self.fails_after is not None and len(self.order) >= self.fails_after:
                raise OSError("the network is gone")
            self.order.append(path.rpartition("/")[2])
        return super()._open(path, mode, **kwargs)


@pytest.fixture
def bucket():
    return Bucket()


@pytest.fixture
def remote(bucket):
    return Place(pafs.PyFileSystem(pafs.FSSpecHandler(bucket)), "/bucket/results", "s3://bucket/results")


@pytest.fixture
def run(tmp_path):
    directory = tmp_path / "here" / "run-1"
    (directory / "policy").mkdir(parents=True)
    (directory / "config.yaml").write_text("name: run\n")
    (directory / "policy" / "weights.safetensors").write_bytes(bytes(range(256)) * 20_000)  # more than one block
    (directory / ".policy.17.tmp").mkdir()
    (directory / ".policy.17.tmp" / "half").write_text("half")
    return directory


def contents(directory):
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


EXPECTED = {"config.yaml", "policy/weights.safetensors"}


def test_a_run_goes_into_a_directory_whole_with_the_marker_and_without_temporary_files(run, tmp_path):
    assert store(run, str(tmp_path / "nfs")) == f"{tmp_path / 'nfs'}/run-1"
    copy = contents(tmp_path / "nfs" / "run-1")
    assert set(copy) == EXPECTED | {MARKER}
    assert copy["policy/weights.safetensors"] == (run / "policy" / "weights.safetensors").read_bytes()
    listed = json.loads(copy[MARKER])["files"]
    assert listed["config.yaml"]["size"] == 10
    assert os.listdir(tmp_path / "nfs") == ["run-1"]


def test_into_an_object_store_the_marker_comes_last(run, remote, bucket):
    store(run, remote)
    assert bucket.order == ["config.yaml", "weights.safetensors", MARKER]
    assert stored(remote) == ["run-1"]


def test_what_was_stored_comes_back(run, remote, tmp_path):
    store(run, remote)
    back = fetch(remote.child("run-1"), tmp_path / "back")
    assert contents(back) == {name: content for name, content in contents(run).items() if name in EXPECTED}


def test_a_copy_that_broke_off_does_not_count(run, remote, bucket, tmp_path):
    bucket.fails_after = 1
    with pytest.raises(StorageError, match=r"s3://bucket/results/run-1 cannot be read or written: .*network is gone"):
        store(run, remote)
    assert stored(remote) == []
    with pytest.raises(StorageError, match="never finished"):
        fetch(remote.child("run-1"), tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_second_copy_that_breaks_off_does_not_leave_the_first_ones_marker_on_a_mixture(run, remote, bucket):
    store(run, remote)
    bucket.fails_after = len(bucket.order) + 1
    (run / "config.yaml").write_text("name: other\n")
    with pytest.raises(StorageError):
        store(run, remote)
    assert stored(remote) == []


def test_a_directory_keeps_the_earlier_copy_when_the_next_breaks_off(run, tmp_path, monkeypatch):
    store(run, str(tmp_path / "nfs"))
    before = contents(tmp_path / "nfs" / "run-1")
    (run / "config.yaml").write_text("name: other\n")
    monkeypatch.setattr("rlplatform.experiments.storage._copy_in", _full)
    with pytest.raises(StorageError):
        store(run, str(tmp_path / "nfs"))
    assert contents(tmp_path / "nfs" / "run-1") == before
    assert os.listdir(tmp_path / "nfs") == ["run-1"]


def _full(*_):
    raise OSError(28, "No space left on device")


def test_files_that_the_run_has_no_more_go_from_its_copy(run, remote, tmp_path):
    store(run, remote)
    shutil.rmtree(run / "policy")
    store(run, remote)
    assert set(contents(fetch(remote.child("run-1"), tmp_path / "back"))) == {"config.yaml"}
    assert not any(path.endswith(".safetensors") for path in remote.filesystem.handler.fs.store)


def test_a_changed_byte_is_found(run, tmp_path):
    store(run, str(tmp_path / "nfs"))
    path = tmp_path / "nfs" / "run-1" / "policy" / "weights.safetensors"
    path.write_bytes(b"x" + path.read_bytes()[1:])
    with pytest.raises(StorageError, match=r"weights.safetensors is not what was stored"):
        fetch(str(tmp_path / "nfs" / "run-1"), tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_marker_cannot_write_outside_the_directory(run, tmp_path):
    store(run, str(tmp_path / "nfs"))
    (tmp_path / "nfs" / "evil").write_text("evil")
    marker = tmp_path / "nfs" / "run-1" / MARKER
    marker.write_text(json.dumps({"files": {"../evil": {"size": 4, "sha256": ""}}}))
    with pytest.raises(StorageError, match="lies outside"):
        fetch(str(tmp_path / "nfs" / "run-1"), tmp_path / "back")


def test_a_run_that_was_written_there_in_the_first_place_is_left_alone(run):
    before = contents(run)
    assert store(run, str(run.parent)) == f"{run.parent}/run-1"
    assert contents(run) == before


def test_a_file_uri_is_a_directory_too(run, tmp_path):
    store(run, f"file://{tmp_path}/nfs")
    assert stored(f"file://{tmp_path}/nfs") == ["run-1"]


def test_s3_and_gs_are_understood_and_only_a_uri_is_remote():
    assert Place.of("s3://bucket/results?region=eu-central-1").path == "bucket/results"
    assert Place.of("gs://bucket/results/").path == "bucket/results"
    assert [is_remote(path) for path in ("results", "/nfs/results", "s3://bucket/results")] == [False, False, True]
    assert str(local_results_dir("s3://bucket/results")) == "results"


@pytest.mark.parametrize("uri", ["s3://key:hunter2@bucket/results", "s3://bucket/results?secret_key=hunter2"])
def test_credentials_in_a_uri_are_refused_and_not_repeated(uri):
    with pytest.raises(ConfigError, match="has credentials in it") as raised:
        Place.of(uri)
    assert "hunter2" not in str(raised.value)


def test_other_schemes_are_refused():
    with pytest.raises(ConfigError, match=r"ftp://… is no storage; expected a path, or one of s3://, gs://, file://"):
        Place.of("ftp://host/results")


def test_a_place_that_cannot_be_written_says_so(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be read or written"):
        store(run, str(tmp_path / "file"))


# After a block


def test_what_a_failed_block_left_is_stored_and_its_error_goes_on(run, tmp_path):
    notes, there = [], f"file://{tmp_path}/bucket"
    with pytest.raises(KeyError, match="broken"), stored_afterwards(run, there, notes.append):
        raise KeyError("broken")
    assert notes == [f"ended by KeyError; what there is stands at {there}/run-1"]
    assert fetch(f"{there}/run-1", tmp_path / "back").joinpath("config.yaml").read_text() == "name: run\n"


def test_where_it_cannot_be_stored_the_block_s_own_error_is_the_one_that_is_raised(run, tmp_path):
    (tmp_path / "bucket").write_text("a file")
    notes = []
    with pytest.raises(KeyError, match="broken"), stored_afterwards(run, f"file://{tmp_path}/bucket", notes.append):
        raise KeyError("broken")
    assert len(notes) == 1
    assert notes[0].startswith("ended by KeyError, and what there is could not be stored: ")
    with pytest.raises(StorageError), stored_afterwards(run, f"file://{tmp_path}/bucket", notes.append):
        pass


def test_a_directory_of_this_machine_is_not_copied(run, tmp_path):
    with stored_afterwards(run, str(tmp_path / "elsewhere"), None):
        pass
    assert not (tmp_path / "elsewhere").exists()
