"""Arrays in memory become minibatches: nothing is lost, nothing doubled, nothing crosses an episode's end."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from ray.rllib.algorithms.bc import BCConfig
from ray.rllib.core.columns import Columns

from envs.errors import ConfigError
from envs.normalizer import ObservationNormalizer
from rlplatform.algorithms.minibatches import END_ROW, RETURNS, TAIL_DISCOUNT, Minibatches, training_table
from rlplatform.algorithms.offline_data import EpisodesData, register_episodes, use_episodes
from rlplatform.models.gru import GRUConfig
from rlplatform.models.mlp import MLPConfig
from rlplatform.models.rl_module import module_settings
from rlplatform.offline.episodes import Episodes


def numbered(lengths, terminated=None, seed=0) -> Episodes:
    """Observation and action of row i are i; the last observation of episode e is −1 − e; every reward is 1."""
    lengths = np.asarray(lengths)
    rows = int(lengths.sum())
    return Episodes(
        lengths=lengths,
        obs=np.arange(rows, dtype=np.float32)[:, None],
        last_obs=-1 - np.arange(len(lengths), dtype=np.float32)[:, None],
        actions=np.arange(rows),
        rewards=np.ones(rows, np.float32),
        terminated=np.zeros(len(lengths), bool) if terminated is None else np.asarray(terminated),
        log_prob=np.full(rows, np.nan, np.float32),
        extras={"spread_bps": np.arange(rows, dtype=np.float32) / 10},
    )


def test_a_table_is_the_episodes_one_after_the_other_each_with_its_last_observation():
    table = training_table(numbered([2, 3], [True, False]), None, gamma=0.5)
    assert_array_equal(table[Columns.OBS][:, 0], [0, 1, -1, 2, 3, 4, -2])
    assert_array_equal(table[Columns.LOSS_MASK], [1, 1, 0, 1, 1, 1, 0])
    assert_array_equal(table["is_first"], [1, 0, 0, 1, 0, 0, 0])
    assert_array_equal(table[Columns.ACTIONS], [0, 1, 1, 2, 3, 4, 4])
    assert_array_equal(table[Columns.TERMINATEDS], [0, 1, 0, 0, 0, 0, 0])
    assert_array_equal(table[Columns.TRUNCATEDS], [0, 0, 0, 0, 0, 1, 0])
    assert_allclose(table["spread_bps"], [0, 0.1, 0, 0.2, 0.3, 0.4, 0])


def test_returns_end_with_the_episode_and_the_tail_is_discounted_by_the_steps_left():
    table = training_table(numbered([2, 3], [True, False]), None, gamma=0.5)
    assert_allclose(table[RETURNS], [1.5, 1, 0, 1.75, 1.5, 1, 0])
    assert_allclose(table[TAIL_DISCOUNT], [0, 0, 0, 0.125, 0.25, 0.5, 0])
    assert_array_equal(table[END_ROW][[0, 1, 3, 4, 5]], [2, 2, 6, 6, 6])


def test_sequences_are_filled_up_with_rows_that_no_loss_counts():
    table = training_table(numbered([2, 3]), None, gamma=0.5, length=4)
    assert len(table[Columns.OBS]) == 8
    assert_array_equal(table[Columns.LOSS_MASK], [1, 1, 0, 1, 1, 1, 0, 0])
    assert_array_equal(table["is_first"], [1, 0, 0, 1, 0, 0, 0, 1])


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    batch_size=st.integers(1, 40),
    length=st.sampled_from([1, 3, 8]),
    shards=st.integers(1, 3),
    seed=st.integers(0, 3),
)
def test_an_epoch_uses_every_row_exactly_once(lengths, batch_size, length, shards, seed):
    episodes = numbered(lengths)
    table = training_table(episodes, None, gamma=0.9, length=length)
    sources = [Minibatches(table, batch_size, length, seed, shard, shards).open() for shard in range(shards)]
    for epoch in range(2):
        used = []
        for number in range(epoch * sources[0].per_epoch, (epoch + 1) * sources[0].per_epoch):
            for source in sources:
                batch = source.columns(source.rows(number), (Columns.OBS, Columns.ACTIONS))
                mask = batch.get(Columns.LOSS_MASK, torch.ones(len(batch[Columns.OBS]), dtype=torch.bool))
                assert mask.numel() <= max(batch_size, length)
                assert_array_equal(batch[Columns.OBS][mask][:, 0], batch[Columns.ACTIONS][mask])
                used += batch[Columns.ACTIONS][mask].tolist()
        assert sorted(used) == list(range(episodes.num_rows))


def test_the_next_observation_is_that_of_the_same_episode():
    source = Minibatches(training_table(numbered([2, 3]), None, 0.9), batch_size=5).open()
    batch = source.columns(source.rows(0), (Columns.OBS, Columns.NEXT_OBS))
    following = dict(zip(batch[Columns.OBS][:, 0].tolist(), batch[Columns.NEXT_OBS][:, 0].tolist(), strict=True))
    assert following == {0: 1, 1: -1, 2: 3, 3: 4, 4: -2}


def test_minibatches_depend_on_the_seed_and_the_number_alone():
    table = training_table(numbered([50]), None, 0.9)
    one, same, other = (Minibatches(table, 8, seed=seed).open() for seed in (1, 1, 2))
    assert one.per_epoch == 7
    same.rows(3)  # whatever was asked before
    for number in (0, 5, 9):
        assert_array_equal(one.rows(number), same.rows(number))
    assert not np.array_equal(one.rows(0), other.rows(0))
    assert not np.array_equal(one.rows(0), one.rows(7))  # the next epoch has another order


def data_of(episodes, model, seed=0, batch_size=16) -> EpisodesData:
    config = BCConfig().debugging(seed=seed).rl_module(model_config=module_settings(model))
    return EpisodesData(use_episodes(config, register_episodes(episodes, gym.spaces.Discrete(99)), 1))


def test_observations_are_normalised_by_the_rows_of_the_dataset(ray_session):
    episodes = numbered([40, 60])
    data = data_of(episodes, MLPConfig(layers=(4,)))
    assert data.normalizer.count == 100  # decisions only: the last observations teach nothing
    assert data.normalizer.frozen
    assert_allclose(data.normalizer.mean, [49.5])
    source = data.sample(16)[0].open()
    assert_allclose(source.table[Columns.OBS][source.table[Columns.LOSS_MASK]].mean(), 0, atol=1e-6)
    by_hand = ObservationNormalizer(1)
    by_hand.update(episodes.obs)
    assert_array_equal(source.table[Columns.OBS][40], by_hand.normalize(episodes.last_obs[0]))


def test_a_model_that_does_not_normalise_gets_observations_as_they_are(ray_session):
    data = data_of(numbered([5]), MLPConfig(layers=(4,), normalize_observations=False))
    assert data.normalizer is None
    assert_array_equal(data.sample(4)[0].open().table[Columns.OBS][:5, 0], np.arange(5))


def test_a_model_with_memory_gets_sequences(ray_session):
    source = data_of(numbered([20]), GRUConfig(embedding_size=4, hidden_size=4, max_seq_len=7)).sample(14)[0].open()
    assert source.rows(0).shape == (2, 7)


def test_the_same_content_has_the_same_name(ray_session):
    space = gym.spaces.Discrete(99)
    names = [register_episodes(numbered(lengths), space).name for lengths in ([2, 3], [2, 3], [3, 2])]
    assert names[0] == names[1] != names[2]
    assert len(names[0]) == len("episodes@") + 12


def test_a_dataset_nobody_registered_says_what_to_do(ray_session):
    config = BCConfig().offline_data(input_=["episodes@000000000000"])
    with pytest.raises(ConfigError, match="register it first"):
        EpisodesData(config)


def test_an_empty_dataset_is_refused(ray_session):
    with pytest.raises(ConfigError, match="no episode"):
        register_episodes(numbered([3]).select(np.array([], dtype=int)), gym.spaces.Discrete(3))


def test_more_learners_than_sequences_are_refused(ray_session):
    with pytest.raises(ConfigError, match="3 learners share 5 rows"):
        data_of(numbered([5]), GRUConfig(embedding_size=4, hidden_size=4, max_seq_len=8)).sample(8, num_shards=3)
