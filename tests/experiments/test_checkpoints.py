"""Checkpoints: whole, checked, with a predecessor, and no code from strangers."""

import errno
import shutil
from pathlib import Path

import pytest

from envs.errors import ConfigError
from rlplatform.experiments import checkpoints
from rlplatform.experiments.checkpoints import (
    CheckpointError,
    check_trusted,
    defect,
    good_checkpoint,
    new_checkpoint,
    previous,
    recover_checkpoint,
    seal,
)


@pytest.fixture
def last(tmp_path):
    return tmp_path / "run" / "checkpoints" / "last"


def write(directory, content):
    with new_checkpoint(directory) as temporary:
        (temporary / "rllib").mkdir()
        (temporary / "rllib" / "state.pkl").write_bytes(content)
        (temporary / "standing.json").write_text("{}")


def content(directory):
    return (directory / "rllib" / "state.pkl").read_bytes()


def names(directory):
    return sorted(path.name for path in directory.parent.iterdir())


def damage(directory):
    path = directory / "rllib" / "state.pkl"
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def test_a_checkpoint_is_checked_and_the_one_before_is_kept(last):
    for text in (b"one", b"two", b"three"):
        write(last, text)
    assert (content(last), content(previous(last))) == (b"three", b"two")
    assert defect(last) is defect(previous(last)) is None
    assert names(last) == ["last", "last.previous"]


@pytest.mark.parametrize(
    ("harm", "found"),
    [
        (lambda d: (d / "rllib/state.pkl").write_bytes(b"tWo"), r"is damaged: rllib/state.pkl is not what was written"),
        (lambda d: (d / "standing.json").unlink(), "lacks standing.json"),
        (lambda d: (d / "more.pkl").write_bytes(b""), "holds more.pkl, which checksums.json does not list"),
        (lambda d: (d / "checksums.json").unlink(), "has no checksums.json"),
        (lambda d: (d / "checksums.json").write_text('{"fil'), "has an unreadable checksums.json"),
        (lambda d: (d / "checksums.json").write_text('{"files": 3}'), "has an unreadable checksums.json"),
        (lambda d: shutil.rmtree(d), "is not there"),
    ],
)
def test_a_damaged_newest_checkpoint_is_reported_in_one_line_and_the_one_before_is_used(last, harm, found):
    write(last, b"one")
    write(last, b"two")
    harm(last)
    assert found in defect(last)
    lines = []
    assert good_checkpoint(last, lines.append) == previous(last)
    assert len(lines) == 1
    assert found in lines[0]
    assert recover_checkpoint(last, lines.append)
    assert (content(last), defect(last)) == (b"one", None)
    assert len(lines) == 2
    assert "going on from the one before it" in lines[1]


def test_a_link_in_place_of_a_file_is_a_defect_even_with_the_same_content(last, tmp_path):
    write(last, b"one")
    (tmp_path / "elsewhere").write_bytes(b"one")
    (last / "rllib" / "state.pkl").unlink()
    (last / "rllib" / "state.pkl").symlink_to(tmp_path / "elsewhere")
    assert defect(last) == "has a link in place of rllib/state.pkl"


def test_a_good_checkpoint_is_used_without_a_word(last):
    write(last, b"one")
    lines = []
    assert good_checkpoint(last, lines.append) == last
    assert recover_checkpoint(last, lines.append)
    assert lines == []


def test_after_a_damaged_one_the_next_save_does_not_push_out_the_good_one(last):
    write(last, b"one")
    write(last, b"two")
    damage(last)
    recover_checkpoint(last)
    assert names(last) == ["last", "last.damaged"]
    write(last, b"three")
    assert (content(last), content(previous(last))) == (b"three", b"one")


def test_two_damaged_ones_leave_none_and_say_so(last):
    write(last, b"one")
    write(last, b"two")
    damage(last)
    damage(previous(last))
    with pytest.raises(
        CheckpointError, match=r"and the one before, last.previous, is damaged: .* Train anew: rlplatform train"
    ):
        good_checkpoint(last)
    lines = []
    assert not recover_checkpoint(last, lines.append)
    assert not last.exists()
    assert len(lines) == 1


def test_where_there_never_was_a_checkpoint_there_is_nothing_to_say(last):
    lines = []
    assert not recover_checkpoint(last, lines.append)
    assert lines == []


def test_a_full_disk_leaves_the_one_before_whole_and_says_so(last):
    """/dev/full refuses every write as a full disk does."""
    write(last, b"one")
    run = last.parent.parent
    message = f"could not be written: No space left on device. The one before is whole. Free some disk, .* --resume {run}$"

    def fill():
        with new_checkpoint(last) as temporary:
            (temporary / "weights").symlink_to("/dev/full")
            (temporary / "weights").write_bytes(b"x" * 100_000)

    with pytest.raises(CheckpointError, match=message):
        fill()
    assert (content(last), defect(last)) == (b"one", None)
    assert names(last) == ["last"]


def test_a_full_disk_at_the_first_checkpoint_says_that_there_is_none(last):
    with (
        pytest.raises(CheckpointError, match=r"There is none before it. Free some disk, then start anew"),
        new_checkpoint(last),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert names(last) == []


def test_an_error_that_is_not_the_disks_passes_and_leaves_the_one_before(last):
    write(last, b"one")

    def stop():
        with new_checkpoint(last) as temporary:
            (temporary / "half").write_text("")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert (content(last), names(last)) == (b"one", ["last"])


@pytest.mark.parametrize("step", range(6))
def test_a_kill_at_any_step_of_the_exchange_loses_at_most_the_new_one(last, monkeypatch, step):
    """Every rename and removal of a save is a place to be killed at."""
    write(last, b"one")
    write(last, b"two")
    calls = []

    class Killed(BaseException):
        pass

    def dying(function):
        def call(*arguments, **options):
            calls.append(function)
            if len(calls) > step:  # the dead do not tidy up either
                raise Killed
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(Path, "replace", dying(Path.replace))
    monkeypatch.setattr(checkpoints.shutil, "rmtree", dying(shutil.rmtree))
    with pytest.raises(Killed):
        write(last, b"three")
    monkeypatch.undo()
    assert recover_checkpoint(last)
    assert defect(last) is None
    assert content(last) == (b"three" if step == 5 else b"two")
    assert not [name for name in names(last) if name.startswith(".")]


# Pickle of strangers


def test_a_ray_checkpoint_is_loaded_from_the_runs_own_directory_only(last, tmp_path):
    write(last, b"one")
    run, other = last.parent.parent, tmp_path / "other"
    assert check_trusted(last / "rllib", run) == (last / "rllib").resolve()
    shutil.copytree(run, other)
    foreign = other / "checkpoints" / "last" / "rllib"
    with pytest.raises(ConfigError, match=r"lies outside .* It holds pickle, which runs code .* or, if you trust whoever"):
        check_trusted(foreign, run)
    assert check_trusted(foreign, run, trust_pickle=True) == foreign.resolve()


@pytest.mark.parametrize(
    "linked", ["checkpoints", "checkpoints/last", "checkpoints/last/rllib", "checkpoints/last/rllib/state.pkl"]
)
def test_a_link_does_not_make_a_strangers_checkpoint_ones_own(last, tmp_path, linked):
    write(last, b"one")
    run = last.parent.parent
    other = shutil.copytree(run, tmp_path / "other")
    if (run / linked).is_dir():
        shutil.rmtree(run / linked)
    else:
        (run / linked).unlink()
    (run / linked).symlink_to(other / linked)
    with pytest.raises(ConfigError, match=r"lies outside|has a link in it, state.pkl"):
        check_trusted(last / "rllib", run)


def test_dots_do_not_lead_out_of_the_run(last, tmp_path):
    write(last, b"one")
    write(tmp_path / "other" / "checkpoints" / "last", b"two")
    run = last.parent.parent
    with pytest.raises(ConfigError, match="lies outside"):
        check_trusted(run / "checkpoints" / ".." / ".." / "other" / "checkpoints" / "last", run)


def test_sealing_again_takes_the_present_content_for_the_right_one(last):
    write(last, b"one")
    damage(last)
    assert defect(last) is not None
    seal(last)
    assert defect(last) is None
