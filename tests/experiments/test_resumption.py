"""What stands beside RLlib's checkpoint: a tree of arrays and plain values, without pickle, for its own run only."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from rlplatform.algorithms.process_random import random_state, set_random_state
from rlplatform.experiments import resumption
from rlplatform.experiments.resumption import ARRAYS, VALUES, load_sampling, restore_sampling, save_sampling


def settings(seed=3, num_envs=2, dataset=None):
    return SimpleNamespace(seed=seed, dataset=dataset, training=SimpleNamespace(num_envs_per_env_runner=num_envs))


class Runners:
    """An EnvRunnerGroup of runners that answer from a list."""

    def __init__(self, states):
        self.runners = [SimpleNamespace(worker_index=index, state=state) for index, state in states.items()]

    def num_remote_env_runners(self):
        return len([runner for runner in self.runners if runner.worker_index])

    def foreach_env_runner(self, function, **_):
        return [function(runner) for runner in self.runners]


@pytest.fixture
def algorithm(monkeypatch):
    """Makes one with remote runners that stand at these states, by worker index."""
    monkeypatch.setattr(resumption, "_sampling_state", lambda runner: (runner.worker_index, runner.state))

    def algorithm(states):
        return SimpleNamespace(env_runner_group=Runners(states), learner_group=SimpleNamespace(is_local=True))

    return algorithm


STATE = {
    "env": {
        "accounts": {"row": np.array([7, 9]), "sums/turnover": np.array([0.5, 1.5])},
        "draws": {"state": {"inc": 1 << 127}},
    },
    "obs": np.zeros((2, 3), dtype=np.float32).T,  # not contiguous
    "normalizer": None,
}


def test_arrays_and_values_come_back_as_they_were(algorithm, tmp_path):
    save_sampling(algorithm({1: STATE, 2: STATE | {"normalizer": {"total": None}}}), settings(), tmp_path)
    tree = load_sampling(tmp_path, settings())
    first, second = tree["runners"]["1"], tree["runners"]["2"]
    assert first["env"]["accounts"]["row"].tolist() == [7, 9]
    assert first["env"]["accounts"]["row"].dtype == np.int64
    assert first["env"]["accounts"]["sums/turnover"].tolist() == [0.5, 1.5]
    assert first["env"]["draws"] == {"state": {"inc": 1 << 127}}
    assert (first["obs"].shape, first["obs"].dtype) == ((3, 2), np.float32)
    assert (first["normalizer"], second["normalizer"]) == (None, {"total": None})
    assert {path.name for path in tmp_path.iterdir()} == {ARRAYS, VALUES}
    assert "array" not in json.dumps(json.loads((tmp_path / VALUES).read_text()))


def test_the_driver_s_draws_go_on(algorithm, tmp_path):
    before = random_state()
    try:
        save_sampling(algorithm({}), settings(), tmp_path)
        drawn = np.random.rand(3)  # noqa: NPY002
        restore_sampling(algorithm({}), load_sampling(tmp_path, settings()))
        assert_array_equal(np.random.rand(3), drawn)  # noqa: NPY002
    finally:
        set_random_state(before)


def test_each_runner_gets_what_was_its_own_and_a_new_one_nothing(algorithm, tmp_path):
    save_sampling(algorithm({1: STATE | {"who": 1}, 2: STATE | {"who": 2}}), settings(), tmp_path)
    later, given = algorithm(dict.fromkeys((2, 3, 1))), {}
    for runner in later.env_runner_group.runners:
        runner.set_sampling_state = lambda state, index=runner.worker_index: given.update({index: state["who"]})
    before = random_state()
    try:
        restore_sampling(later, load_sampling(tmp_path, settings()))
    finally:
        set_random_state(before)
    assert given == {1: 1, 2: 2}


@pytest.mark.parametrize("other", [{"seed": 4}, {"num_envs": 3}], ids=str)
def test_another_run_s_draws_are_not_taken_over(algorithm, tmp_path, other):
    """Members of a population have seeds of their own; one that takes over another's weights must not repeat its draws."""
    save_sampling(algorithm({}), settings(), tmp_path)
    assert load_sampling(tmp_path, settings(**other)) is None


def test_where_a_runner_cannot_say_nothing_is_written_and_nothing_read(algorithm, tmp_path):
    save_sampling(algorithm({1: STATE, 2: None}), settings(), tmp_path)
    assert not list(tmp_path.iterdir())
    assert load_sampling(tmp_path, settings()) is None


def test_training_on_a_dataset_has_draws_but_no_runners(algorithm, tmp_path):
    save_sampling(algorithm({0: None}), settings(dataset="logs"), tmp_path)
    assert load_sampling(tmp_path, settings(dataset="logs"))["runners"] == {}
