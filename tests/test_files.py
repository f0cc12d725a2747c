"""Files and directories appear whole or not at all."""

import json

import numpy as np
import pytest

from rlplatform import files


def test_a_text_replaces_the_one_before_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "note.txt"
    files.write_text(path, "one")
    files.write_text(path, "zwei ½\n")
    assert path.read_text(encoding="utf-8") == "zwei ½\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "note.txt"
    path.write_text("old")

    def half():
        with files.replaced_file(path) as draft:
            draft.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_takes_numpy_scalars_and_refuses_nan(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"x": np.float64(0.5), "n": np.int64(3)})
    assert json.loads(path.read_text()) == {"x": 0.5, "n": 3}
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, {"x": float("nan")})
    with pytest.raises(TypeError, match="object cannot go into JSON"):
        files.write_json(path, {"x": object()})
    assert json.loads(path.read_text())["n"] == 3


def fill(path, content, error=None, **options):
    with files.replaced_directory(path, **options) as directory:
        (directory / "file").write_text(content)
        if error:
            raise error


def test_a_directory_takes_the_place_of_the_one_before(tmp_path):
    path = tmp_path / "deep" / "last"
    fill(path, "one")
    fill(path, "two")
    assert (path / "file").read_text() == "two"
    assert list(path.parent.iterdir()) == [path]


def test_a_directory_that_fails_to_fill_leaves_the_old_one_whole(tmp_path):
    path = tmp_path / "last"
    fill(path, "one")
    with pytest.raises(KeyboardInterrupt):
        fill(path, "two", KeyboardInterrupt())
    assert (path / "file").read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_that_may_not_be_overwritten_stays(tmp_path):
    path = tmp_path / "snapshot"
    fill(path, "one", overwrite=False)
    with pytest.raises(OSError, match="not empty"):
        fill(path, "two", overwrite=False)
    assert (path / "file").read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_put_right(tmp_path):
    path = tmp_path / "last"
    fill(path, "one")
    path.rename(tmp_path / ".last.99.old")  # killed between its two renames
    (tmp_path / ".last.99.tmp").mkdir()
    files.recover_directory(path)
    assert (path / "file").read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]
    files.recover_directory(tmp_path / "never_made")
    assert list(tmp_path.iterdir()) == [path]
