"""What a runner carries from one rollout to the next: another one that is given it goes on as the first does, bit for bit."""

import json
import random
from collections import deque
from functools import partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from envs import make, make_vec
from envs.catalog import DEMO_ASSETS, demo_tape
from envs.guard_regime import RegimeGuardConfig
from envs.guards import GuardsConfig, LossShutdownConfig
from envs.pair_leverage import PairLeverageConfig
from envs.portfolio import PortfolioConfig
from envs.regime import RegimeConfig
from envs.trading_config import EpisodeConfig
from rlplatform.algorithms.connectors import NormalizeObservations
from rlplatform.algorithms.device_env_runner import DeviceEnvRunner
from rlplatform.algorithms.ppo import PPOTrainingConfig, build_ppo
from rlplatform.algorithms.process_random import random_state, set_random_state
from rlplatform.algorithms.registration import register_trading_env
from rlplatform.algorithms.sampling_state import episodes_of, table_of
from rlplatform.algorithms.transitions import ReplayEnvRunner
from rlplatform.algorithms.vector_env_runner import VectorEnvRunner
from rlplatform.models.gru import GRUConfig
from rlplatform.models.mlp import MLPConfig
from tests.algorithms.counting import register

EPISODE = EpisodeConfig(length_bars=9)
WORLDS = {
    "portfolio": PortfolioConfig(episode=EPISODE),
    "regime": RegimeConfig(episode=EPISODE, guards=GuardsConfig(regime=RegimeGuardConfig(trailing_bars=3))),
    "pair": PairLeverageConfig(episode=EPISODE, shutdown=LossShutdownConfig(loss_limit=0.001)),
}
MODELS = {
    "gru": GRUConfig(embedding_size=8, hidden_size=8, max_seq_len=4),
    "mlp": MLPConfig(layers=(8,), normalize_observations=False),
}
RUNNERS = pytest.mark.parametrize("kind", [VectorEnvRunner, DeviceEnvRunner, ReplayEnvRunner])


def runner(kind, world, model, seed):
    settings = WORLDS[world]
    makers = partial(_single, settings), partial(_vector, settings)
    name = register_trading_env(settings.id, demo_tape(DEMO_ASSETS[settings.id], num_bars=200), *makers)
    training = PPOTrainingConfig(num_envs_per_env_runner=5, rollout_length=12, minibatch_size=10)
    return kind(config=build_ppo(training, MODELS[model], name, seed=seed), worker_index=0)


def _single(settings, tape, **_):
    return make(settings, tape)


def _vector(settings, tape, num_envs, **options):
    return make_vec(settings, tape, num_envs, **options)


def columns(rollout):
    return {name: value.numpy() for name, value in vars(rollout).items()}


@RUNNERS
@pytest.mark.parametrize(("world", "model"), [("portfolio", "gru"), ("regime", "mlp"), ("pair", "gru")])
def test_a_runner_goes_on_from_the_state_of_another(kind, world, model, ray_session):
    first, other = runner(kind, world, model, seed=1), runner(kind, world, model, seed=2)
    assert first.sampling_state() is None  # before the first rollout
    for _ in range(3):
        first.sample()
    other.sample()
    other.set_state(first.get_state())  # what RLlib restores: weights, statistics
    state, episodes = first.sampling_state(), list(first._ended)
    assert episodes  # some ended, so the window has something to say
    theirs = [columns(first.sample()[0]) for _ in range(2)]
    said = first.get_metrics()
    other.set_sampling_state(state)
    assert list(other._ended) == episodes
    for rollout in theirs:
        ours = columns(other.sample()[0])
        for name, values in rollout.items():
            assert_array_equal(ours[name], values, err_msg=name)
    heard = other.get_metrics()
    for name in ("episode_return_mean", "episode_len_mean"):
        assert heard[name].peek() == said[name].peek()


def test_a_runner_with_environments_other_than_ours_cannot_say_where_it_stands(ray_session):
    config = build_ppo(PPOTrainingConfig(num_envs_per_env_runner=5, minibatch_size=10), MODELS["gru"], register()["sync"])
    other = VectorEnvRunner(config=config, worker_index=0)
    other.sample()
    assert other.sampling_state() is None


def test_figures_of_episodes_survive_whichever_of_them_are_known():
    episodes = deque([{"a": 1.5, "b": float("nan")}, {"a": 0.1 + 0.2}, {"c": -1.0}])
    table = table_of(episodes)
    assert table["names"] == ["a", "b", "c"]
    assert table["known"].tolist() == [[True, True, False], [True, False, False], [False, False, True]]
    back = episodes_of(table)
    assert [list(episode) for episode in back] == [["a", "b"], ["a"], ["c"]]
    assert (back[1]["a"], back[2]["c"]) == (0.1 + 0.2, -1.0)
    assert episodes_of(table_of([])) == []


def test_draws_go_on_where_they_were():
    before = random_state()
    try:
        state = random_state()
        drawn = random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.randperm(9).tolist()  # noqa: NPY002
        set_random_state(state)
        again = random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.randperm(9).tolist()  # noqa: NPY002
        assert again == drawn
    finally:
        set_random_state(before)


def test_statistics_go_on_with_the_rounding_they_were_added_up_with():
    """Sums of three contributions depend on the order of additions; the next update must start from the same last bits."""
    rng = np.random.default_rng(0)
    first = connector()
    first.set_state({name: connector_state(rng) for name in "ab"})
    for _ in range(5):
        first.learn(rng.normal(size=(7, 3)))
    plain, exact = connector(), connector()
    plain.set_state(first.get_state())
    exact.set_exact_state(json_round_trip(first.exact_state()))
    assert exact.contributor == first.contributor != plain.contributor
    more = rng.normal(size=(7, 3))
    for each in (first, exact):
        each.learn(more)
    assert_array_equal(exact.normalizer.mean, first.normalizer.mean)
    assert_array_equal(exact.normalizer.m2, first.normalizer.m2)
    assert exact.get_state().keys() == first.get_state().keys()


def connector():
    from gymnasium.spaces import Box

    return NormalizeObservations(Box(-9, 9, (3,)), Box(-1, 1, (1,)))


def connector_state(rng):
    made = connector()
    made.learn(rng.normal(size=(11, 3)))
    (state,) = made.get_state().values()
    return state


def json_round_trip(state):
    return json.loads(json.dumps(state, default=lambda array: array.tolist()))
