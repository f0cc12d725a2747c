import json

import numpy as np
import pytest

from rlplatform.offline.behaviour import make_behaviour
from rlplatform.offline.collecting import collect
from rlplatform.offline.errors import DatasetError
from rlplatform.offline.manifest import file_sha256, read_manifest
from rlplatform.offline.reading import read_dataset
from rlplatform.offline.writing import write_dataset
from tests.offline.datasets import POLICIES, plan_of, small_dataset, trading_env


def bytes_of(directory):
    return {str(path.relative_to(directory)): file_sha256(path) for path in sorted(directory.rglob("*")) if path.is_file()}


def shards_of(env, calls, stop_at=None, count=3):
    behaviour = make_behaviour(POLICIES["pair"], env.task)

    def shard(number):
        if number == stop_at:
            raise KeyboardInterrupt
        calls.append(number)
        return collect(env, behaviour, (0, number))

    return [lambda n=n: shard(n) for n in range(count)]


@pytest.mark.parametrize("format", ["json", "parquet", "parquet_episodes"])
def test_an_interrupted_collection_goes_on_and_ends_with_the_same_bytes(tmp_path, format):
    env, calls = trading_env("pair"), []
    plan = plan_of(env, POLICIES["pair"], format)
    write_dataset(tmp_path / "whole", plan, shards_of(env, []))
    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "cut", plan, shards_of(env, calls, stop_at=2))
    assert not (tmp_path / "cut" / "dataset.json").exists()
    with pytest.raises(DatasetError, match="interrupted: give the same command again"):
        read_dataset(tmp_path / "cut")
    (tmp_path / "cut" / "shards" / ".shard-00002.json.123.tmp").write_text("half a li")  # what SIGKILL leaves
    write_dataset(tmp_path / "cut", plan, shards_of(env, calls))
    assert calls == [0, 1, 2]  # no finished shard was made again
    assert bytes_of(tmp_path / "cut") == bytes_of(tmp_path / "whole")


def test_a_whole_dataset_is_left_alone_and_other_settings_are_refused(tmp_path):
    env, calls = trading_env("pair"), []
    plan = plan_of(env, POLICIES["pair"], "json")
    first = write_dataset(tmp_path / "set", plan, shards_of(env, calls))
    assert write_dataset(tmp_path / "set", plan, shards_of(env, calls)) == first
    assert calls == [0, 1, 2]
    other = plan_of(env, "uniform", "json")
    with pytest.raises(DatasetError, match="holds another dataset"):
        write_dataset(tmp_path / "set", other, shards_of(env, []))
    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "cut", plan, shards_of(env, [], stop_at=1))
    with pytest.raises(DatasetError, match="unfinished dataset of other settings"):
        write_dataset(tmp_path / "cut", other, shards_of(env, []))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(DatasetError, match="not empty and holds no dataset"):
        write_dataset(tmp_path / "mine", plan, shards_of(env, []))


def test_the_manifests_figures_are_those_of_its_rows(tmp_path):
    written, manifest = small_dataset(tmp_path / "set", "pair")
    assert (manifest.episodes, manifest.rows) == (8, written.num_rows)
    for name in ("mean", "std", "min", "max"):
        assert manifest.rewards[name] == pytest.approx(float(getattr(written.rewards.astype(np.float64), name)()))
    assert manifest.episode_return["mean"] == pytest.approx(written.returns().mean())
    assert manifest.episode_return["q50"] == pytest.approx(np.median(written.returns()))
    # Rewards are log growth in percent, so an episode's return is its wealth's logarithm.
    grown = np.expm1(written.returns() / 100)
    assert manifest.total_return["mean"] == pytest.approx(grown.mean(), abs=1e-5)
    assert manifest.total_return["max"] == pytest.approx(grown.max(), abs=1e-5)
    assert [record.sha256 for record in manifest.files] == [file_sha256(tmp_path / "set" / r.name) for r in manifest.files]
    assert read_manifest(tmp_path / "set") == manifest


def test_episodes_of_two_datasets_have_different_numbers(tmp_path):
    for policy in ("uniform", "momentum+noise:0.1"):
        small_dataset(tmp_path / policy, "pair", policy=policy)
    ids = [json.loads(line)["eps_id"][0] for path in tmp_path.rglob("*.json") if "shard" in path.name for line in path.open()]
    assert len(set(ids)) == len(ids) == 16
    assert max(ids) < 2**53


def test_what_could_not_be_read_is_not_written(tmp_path):
    env = trading_env("pair")
    episodes = collect(env, make_behaviour(POLICIES["pair"], env.task), (0,))
    episodes.actions[3] = 2.0
    plan = plan_of(env, POLICIES["pair"], "json")
    with pytest.raises(DatasetError, match=r"made what cannot be written: actions at step 3 are \[2.0, 2.0\], outside Box"):
        write_dataset(tmp_path / "set", plan, [lambda: episodes])
    assert not list((tmp_path / "set" / "shards").iterdir())
