"""Each file format: what goes in comes out, here and in RLlib's own readers."""

import json
import pickle

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal

from rlplatform.offline.errors import DatasetError
from rlplatform.offline.json_lines import _text, pack, unpack
from rlplatform.offline.parquet_episodes import read_item
from rlplatform.offline.reading import read_dataset
from tests.offline.datasets import POLICIES, assert_same_episodes, small_dataset

FORMATS = ("json", "parquet", "parquet_episodes")


def shard_of(directory, manifest):
    return directory / manifest.files[0].name


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("case", POLICIES)
def test_what_is_written_is_read_back_to_the_last_bit(tmp_path, format, case):
    written, manifest = small_dataset(tmp_path / "set", case, format)
    read, again = read_dataset(tmp_path / "set")
    assert_same_episodes(written, read)
    assert again.rows == manifest.rows == written.num_rows
    assert manifest.files[0].bytes == shard_of(tmp_path / "set", manifest).stat().st_size


def test_compressed_json_holds_the_same(tmp_path):
    written, _ = small_dataset(tmp_path / "set", compress=True)
    assert_same_episodes(written, read_dataset(tmp_path / "set")[0])


@settings(max_examples=100, deadline=None)
@given(
    arrays(
        np.float32,
        st.tuples(st.integers(1, 5), st.integers(1, 4)),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    )
)
def test_text_gives_every_float32_back_and_keeps_it_a_float(values):
    read = json.loads(_text(values))
    assert_array_equal(np.array(read, np.float32), values)
    assert all(isinstance(number, float) for row in read for number in row)


def test_json_refuses_what_it_cannot_hold():
    with pytest.raises(DatasetError, match=r"NaN or infinite"):
        _text(np.array([np.nan], np.float32))


def test_a_packed_column_that_is_more_than_an_array_is_not_opened():
    class Trap:
        def __reduce__(self):
            return (eval, ("1",))  # not print: Ray puts its own in the place of that

    import base64

    import lz4.frame

    trapped = base64.b64encode(lz4.frame.compress(pickle.dumps(Trap()))).decode()
    with pytest.raises(DatasetError, match=r"builtins.eval, which is no part of an array"):
        unpack(trapped)
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert_array_equal(unpack(pack(values)), values)


def test_an_episode_that_is_a_pickle_is_not_opened():
    import msgpack

    item = msgpack.packb({"rewards": {b"nd": True, b"kind": b"O", b"type": "|O", b"shape": [1], b"data": b"x"}})
    with pytest.raises(DatasetError, match=r"pickled array, which can run code"):
        read_item(item)
    with pytest.raises(DatasetError, match=r"is no episode of RLlib's"):
        read_item(b"\x93\x01\x02")


def test_parquet_fields_say_their_unit(tmp_path):
    _, manifest = small_dataset(tmp_path / "set", format="parquet")
    schema = pq.read_schema(shard_of(tmp_path / "set", manifest))
    assert schema.field("spread_bps").metadata[b"unit"] == b"bp of price"
    assert schema.metadata[b"env_id"] == b"Portfolio-v0"


# RLlib's own readers


@pytest.mark.parametrize("compress", [False, True])
def test_rllibs_json_reader_reads_the_same_numbers(tmp_path, compress):
    from ray.rllib.offline.json_reader import JsonReader

    written, manifest = small_dataset(tmp_path / "set", "regime", compress=compress)
    paths = [str(tmp_path / "set" / record.name) for record in manifest.files]
    batches = list(JsonReader(paths).read_all_files())
    assert len(batches) == len(written)
    columns = {"obs": written.obs, "new_obs": written.next_obs(), "actions": written.actions, "rewards": written.rewards}
    columns |= {
        "action_logp": written.log_prob,
        "terminateds": written.is_last & np.repeat(written.terminated, written.lengths),
    }
    for name, expected in columns.items():
        assert_allclose(np.concatenate([batch[name] for batch in batches]), expected, rtol=1e-6, err_msg=name)


def rllib_config(manifest, **offline):
    import gymnasium as gym
    from ray.rllib.algorithms.bc import BCConfig

    obs_space = gym.spaces.Box(-1e3, 1e3, (manifest.obs_size,), np.float32)
    config = BCConfig().environment(observation_space=obs_space, action_space=manifest.space)
    config.offline_data(input_=["unused"], dataset_num_iters_per_learner=1, **offline)
    config.training(train_batch_size_per_learner=16)
    return config, (obs_space, manifest.space)


def prelearner(manifest, **offline):
    from ray.rllib.offline.offline_prelearner import OfflinePreLearner

    config, spaces = rllib_config(manifest, **offline)
    spec = config.get_multi_rl_module_spec(spaces={"default_policy": spaces})
    config.rl_module(rl_module_spec=spec)
    return OfflinePreLearner(config=config, spaces=spaces)


def assert_rllib_episodes(episodes, written):
    by_id = sorted(episodes, key=lambda episode: int(episode.id_))
    assert [len(episode) for episode in by_id] == written.lengths.tolist()
    for number, episode in enumerate(by_id):
        ours = written.select(np.array([number]))
        observations = np.concatenate([ours.obs, ours.last_obs])
        assert_allclose(np.array(episode.get_observations().tolist()), observations, rtol=1e-6)
        assert_allclose(np.stack(episode.get_actions().tolist()), ours.actions, rtol=1e-6)
        assert_allclose(episode.get_rewards(), ours.rewards, rtol=1e-6)
        assert (episode.is_terminated, episode.is_truncated) == (ours.terminated[0], not ours.terminated[0])
        assert_allclose(episode.get_extra_model_outputs("action_logp"), ours.log_prob, rtol=1e-6)


@pytest.mark.parametrize("case", ["pair", "regime"])
@pytest.mark.parametrize("compress", [False, True])
def test_rllibs_new_stack_reads_json_episodes(tmp_path, ray_session, case, compress):
    import ray.data

    written, manifest = small_dataset(tmp_path / "set", case, compress=compress)
    learner = prelearner(manifest, input_read_sample_batches=True)
    batches = ray.data.read_json(str(tmp_path / "set" / "shards")).iter_batches(batch_size=None, batch_format="numpy")
    episodes = [
        episode for batch in batches for episode in learner._map_sample_batch_to_episode(batch, to_numpy=True)["episodes"]
    ]
    assert_rllib_episodes(episodes, written)


def test_rllibs_new_stack_reads_parquet_episodes(tmp_path, ray_session):
    mnp = pytest.importorskip("msgpack_numpy")
    import msgpack
    from ray.rllib.env.single_agent_episode import SingleAgentEpisode

    written, manifest = small_dataset(tmp_path / "set", "pair", "parquet_episodes")
    items = [item for record in manifest.files for item in pq.read_table(tmp_path / "set" / record.name)["item"].to_pylist()]
    episodes = [SingleAgentEpisode.from_state(msgpack.unpackb(item, object_hook=mnp.decode)) for item in items]
    assert_rllib_episodes(episodes, written)
    batch = prelearner(manifest, input_read_episodes=True)({"item": items})  # and RLlib's whole pipeline takes them
    assert any(np.isin(np.asarray(batch["default_policy/rewards"]), written.rewards))


def test_rllibs_new_stack_reads_parquet_rows(tmp_path, ray_session):
    import ray.data

    written, manifest = small_dataset(tmp_path / "set", "pair", "parquet")
    batches = list(ray.data.read_parquet(str(tmp_path / "set" / "shards")).iter_batches(batch_size=None, batch_format="numpy"))
    learner = prelearner(manifest)
    steps = [step for batch in batches for step in learner._map_to_episodes(batch)["episodes"]]
    assert len(steps) == written.num_rows
    order = {tuple(action): number for number, action in enumerate(written.actions.tolist())}  # drawn, so no two alike
    following = written.next_obs()
    for step in steps:
        obs, after = np.array(step.get_observations())
        row = order[tuple(step.get_actions()[0].tolist())]
        assert_allclose(obs, written.obs[row])
        assert_allclose(after, following[row])
        assert_allclose(step.get_rewards()[0], written.rewards[row])
