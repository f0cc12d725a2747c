"""A dataset that is read while it is learnt from gives the minibatches, and the losses, of one that lies in memory."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns

from envs.errors import ConfigError
from envs.spaces import Simplex
from rlplatform.algorithms.cql import CQLTrainingConfig, build_cql
from rlplatform.algorithms.discrete_cql import DiscreteCQLTrainingConfig, build_discrete_cql
from rlplatform.algorithms.imitation import BCTrainingConfig, MARWILTrainingConfig, build_bc, build_marwil
from rlplatform.algorithms.iql import IQLTrainingConfig, build_iql
from rlplatform.algorithms.minibatches import RETURNS, TAIL_DISCOUNT, Minibatches, training_table
from rlplatform.algorithms.offline_data import register_episodes, register_shards
from rlplatform.algorithms.offline_stream import StreamedMinibatches, dealt
from rlplatform.models.gru import GRUConfig
from rlplatform.models.mlp import MLPConfig
from rlplatform.offline.errors import DatasetError
from tests.algorithms.stored import stored
from tests.algorithms.test_imitation import noise
from tests.algorithms.test_offline_data import numbered

DISCRETE, SIMPLEX = gym.spaces.Discrete(200), Simplex(3)
MLP, GRU = MLPConfig(layers=(8,)), GRUConfig(embedding_size=8, hidden_size=8, max_seq_len=4)
LENGTHS = (9, 14, 30, 7, 5, 21, 3, 12)
SMALL = {"batch_size": 32, "steps_per_iteration": 5}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Eight numbered episodes in four files of 23, 37, 26 and 15 rows."""
    return stored(tmp_path_factory.mktemp("numbered") / "set", numbered(LENGTHS), DISCRETE)


def stream(shards, buffer_rows=40, batch_size=8, length=1, seed=0, shard=0, learners=1):
    return StreamedMinibatches(shards, None, 0.9, buffer_rows, batch_size, length, seed, shard, learners).open()


def taken(source, number, *names):
    source.turn_to(number)
    return source.columns(source.rows(number), (Columns.OBS, Columns.ACTIONS, *names))


def test_shards_are_dealt_out_into_tables_of_about_the_wanted_size():
    tables = dealt(np.array([10, 10, 10, 10, 10, 10]), 20, np.random.default_rng(0))
    assert [len(table) for table in tables] == [2, 2, 2]
    assert sorted(np.concatenate(tables)) == list(range(6))
    assert all((np.diff(table) > 0).all() for table in tables)  # a table stands in the dataset's order
    assert len(dealt(np.array([10, 10]), 10_000, np.random.default_rng(0))) == 1
    assert len(dealt(np.array([1_000, 1, 1]), 10, np.random.default_rng(0))) <= 3  # a shard is never cut


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.integers(1, 500), min_size=1, max_size=30), buffer_rows=st.integers(1, 600), seed=st.integers(0, 3))
def test_no_table_is_much_larger_than_was_wanted(rows, buffer_rows, seed):
    tables = dealt(np.array(rows), buffer_rows, np.random.default_rng(seed))
    assert sorted(np.concatenate(tables)) == list(range(len(rows)))
    assert max(sum(rows[shard] for shard in table) for table in tables) <= buffer_rows + max(rows)


@settings(max_examples=15, deadline=None)
@given(
    batch_size=st.integers(1, 40),
    length=st.sampled_from([1, 4]),
    learners=st.integers(1, 3),
    buffer_rows=st.sampled_from([1, 40, 60, 10_000]),
    seed=st.integers(0, 3),
)
def test_an_epoch_uses_every_row_exactly_once(shards, batch_size, length, learners, buffer_rows, seed):
    sources = [stream(shards, buffer_rows, batch_size, length, seed, shard, learners) for shard in range(learners)]
    number = 0
    for epoch in range(2):
        used = []
        while sources[0].turn_to(number)[0] == epoch:
            for source in sources:
                batch = taken(source, number)
                mask = batch.get(Columns.LOSS_MASK, torch.ones(len(batch[Columns.OBS]), dtype=torch.bool))
                assert mask.numel() <= max(batch_size, length)
                assert mask.numel() > 0 or source.size == 1  # one row for several learners
                assert_array_equal(batch[Columns.OBS][mask][:, 0], batch[Columns.ACTIONS][mask])
                used += batch[Columns.ACTIONS][mask].tolist()
            number += 1
        assert sorted(used) == list(range(sum(LENGTHS)))


@pytest.mark.parametrize("length", [1, 4])
def test_with_all_shards_in_one_table_the_minibatches_are_those_of_memory(shards, length):
    memory = Minibatches(training_table(numbered(LENGTHS), None, 0.9, length), 16, length, seed=5).open()
    source = stream(shards, 10_000, 16, length, seed=5)
    assert source.per_epoch == memory.per_epoch
    for number in (0, 3, memory.per_epoch, 3 * memory.per_epoch + 2):
        ours, theirs = (taken(one, number, Columns.NEXT_OBS, RETURNS, TAIL_DISCOUNT) for one in (source, memory))
        for name in theirs:
            assert_array_equal(ours[name], theirs[name], err_msg=name)


def test_returns_and_what_follows_are_those_of_the_whole_episode(shards):
    episodes = numbered(LENGTHS)
    known = dict(zip(episodes.actions.tolist(), episodes.returns_to_go(0.9), strict=True))
    following = dict(zip(episodes.actions.tolist(), episodes.next_obs()[:, 0], strict=True))
    source = stream(shards)
    for number in range(source.per_epoch):
        batch = taken(source, number, Columns.NEXT_OBS, RETURNS)
        for action, value, after in zip(*(batch[n] for n in (Columns.ACTIONS, RETURNS, Columns.NEXT_OBS)), strict=True):
            assert float(value) == pytest.approx(known[int(action)])
            assert float(after[0]) == following[int(action)]


def test_a_minibatch_is_a_function_of_the_seed_and_its_number(shards):
    one, later, other = stream(shards, seed=1), stream(shards, seed=1), stream(shards, seed=2)
    numbers = [0, 1, 9, 17, 33]
    forward = [taken(one, number)[Columns.ACTIONS].tolist() for number in numbers]
    assert forward[::-1] == [taken(later, number)[Columns.ACTIONS].tolist() for number in numbers[::-1]]
    assert forward != [taken(other, number)[Columns.ACTIONS].tolist() for number in numbers]
    first, second = ({tuple(map(tuple, one._dealt(epoch)[0]))} for epoch in (0, 1))
    assert first != second  # shards meet others in the next epoch


def test_no_more_than_two_tables_are_in_memory(shards, monkeypatch):
    source, read = stream(shards, 30), []
    monkeypatch.setattr(source, "_made", lambda which, make=source._made: read.append(list(which)) or make(which))
    number = 0
    while source.turn_to(number)[0] == 0:
        number += 1
    source._reader.shutdown()
    tables = len(source._counts(0))
    assert tables >= 3
    assert len(read) == tables + 2  # each once, the first of the next epoch, and the one that comes after it


def test_a_file_that_changes_under_a_training_is_refused(tmp_path):
    kept = stored(tmp_path / "set", numbered([5, 6, 7]), DISCRETE, per_shard=1)
    other = stored(tmp_path / "other", numbered([5, 6, 8]), DISCRETE, per_shard=1)
    (tmp_path / "other" / other.shards[2].record.name).replace(tmp_path / "set" / kept.shards[2].record.name)
    with pytest.raises(DatasetError, match=r"shard-00002\.parquet was changed while a training reads it"):
        kept.read([2])


BUILDS = {
    "bc": (build_bc, BCTrainingConfig(**SMALL), MLP, "discrete"),
    "bc_gru": (build_bc, BCTrainingConfig(**SMALL), GRU, "discrete"),
    "marwil": (build_marwil, MARWILTrainingConfig(**SMALL), MLP, "discrete"),
    "marwil_gru": (build_marwil, MARWILTrainingConfig(**SMALL), GRU, "simplex"),
    "cql": (build_cql, CQLTrainingConfig(**SMALL, cloning_steps=3), MLP, "simplex"),
    "iql": (build_iql, IQLTrainingConfig(**SMALL), MLP, "simplex"),
    "discrete_cql": (build_discrete_cql, DiscreteCQLTrainingConfig(**SMALL), MLP, "discrete"),
    "discrete_cql_gru": (build_discrete_cql, DiscreteCQLTrainingConfig(**SMALL), GRU, "discrete"),
}
SPACES = {"discrete": gym.spaces.Discrete(4), "simplex": SIMPLEX}


@pytest.fixture(scope="module")
def logged(tmp_path_factory, ray_session):
    """actions → (episodes, the same in files)."""
    folder, found = tmp_path_factory.mktemp("logged"), {}
    for kind, space in SPACES.items():
        episodes = noise(LENGTHS, kind)
        found[kind] = episodes, stored(folder / kind, episodes, space)
    return found


def trained(build, training, model, data, iterations=3):
    algorithm = build(training, model, data, seed=3).build_algo()
    torch.manual_seed(7)
    losses = []
    for _ in range(iterations):
        result = algorithm.train()["learners"][DEFAULT_MODULE_ID]
        losses.append([float(value) for name, value in sorted(result.items()) if name.endswith("loss")])
    weights, data = algorithm.learner_group.get_weights()[DEFAULT_MODULE_ID], algorithm.offline_data
    algorithm.stop()
    return losses, weights, data


QUICK = ("bc", "marwil_gru", "cql", "discrete_cql_gru")


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in BUILDS])
def test_the_losses_are_those_of_memory_on_the_same_batches(logged, name):
    build, training, model, kind = BUILDS[name]
    episodes, shards = logged[kind]
    memory = trained(build, training, model, register_episodes(episodes, SPACES[kind]))
    streamed = trained(build, training, model, register_shards(shards, 10_000, SPACES[kind]))
    assert_allclose(streamed[0], memory[0], rtol=1e-5, atol=1e-5)
    assert_allclose(streamed[2].normalizer.mean, memory[2].normalizer.mean)
    assert streamed[2].normalizer.count == sum(LENGTHS)
    assert streamed[2].episodes is None


@pytest.mark.parametrize("name", ["marwil", pytest.param("discrete_cql_gru", marks=pytest.mark.slow)])
def test_a_restored_training_goes_on_in_the_middle_of_an_epoch(logged, name, tmp_path):
    build, training, model, kind = BUILDS[name]
    if name == "marwil":  # values behind the end are the critic's at the beginning of a table, or at a restore
        training = MARWILTrainingConfig(**SMALL, bootstrap=False)
    data = register_shards(logged[kind][1], 40, SPACES[kind])
    whole = build(training, model, data).build_algo()
    whole.train()
    path = whole.save_to_path(tmp_path / "checkpoint")
    resumed = build(training, model, data).build_algo()
    resumed.restore_from_path(path)
    left, right = (one.learner_group._learner for one in (whole, resumed))
    assert left._position == right._position == 5
    assert left.minibatches._place(5)[:3] != (0, 0, 0)
    for one in (whole, resumed):
        one.train()
    if model.kind != "gru":  # states are replayed anew, with the weights of now
        for name, value in whole.learner_group.get_weights()[DEFAULT_MODULE_ID].items():
            assert_array_equal(resumed.learner_group.get_weights()[DEFAULT_MODULE_ID][name], value, err_msg=name)
    assert_array_equal(left.minibatches.rows(9), right.minibatches.rows(9))
    for one in (whole, resumed):
        one.stop()


def test_more_learners_than_rows_of_a_shard_are_refused(logged, tmp_path):
    shards = stored(tmp_path / "set", numbered([40, 2]), DISCRETE, per_shard=1)
    config = build_bc(BCTrainingConfig(**SMALL), GRU, register_shards(shards, 40, DISCRETE))
    data = config.offline_data_class(config)
    with pytest.raises(ConfigError, match=r"3 learners share shards/shard-00001\.parquet of 2 rows"):
        data.sample(32, num_shards=3)


@pytest.mark.slow
def test_two_learners_share_each_minibatch_and_stay_equal(logged):
    shards = logged["discrete"][1]
    training = MARWILTrainingConfig(**SMALL, num_learners=2)
    algorithm = build_marwil(training, GRU, register_shards(shards, 40, SPACES["discrete"])).build_algo()
    for _ in range(2):
        algorithm.train()
    left, right = algorithm.learner_group.foreach_learner(
        lambda learner: {name: p.detach().numpy() for name, p in learner.module[DEFAULT_MODULE_ID].named_parameters()}
    )
    algorithm.stop()
    for name, value in left.get().items():
        assert_array_equal(right.get()[name], value, err_msg=name)
