from dataclasses import replace

import numpy as np
import pytest
import ray
import torch
from numpy.testing import assert_array_equal
from torch.testing import assert_close

from envs.normalizer import ObservationNormalizer
from rlplatform.algorithms.ppo import PPOTrainingConfig, build_ppo
from rlplatform.algorithms.rollout import Rollout, joined
from rlplatform.algorithms.vector_env_runner import VectorEnvRunner
from rlplatform.models.gru import GRUConfig
from rlplatform.models.mlp import MLPConfig
from tests.algorithms.counting import ACTIONS, CountingEnv, Schedule, register
from tests.algorithms.toys import RecallVectorEnv

TRAINING = PPOTrainingConfig(num_envs_per_env_runner=5, rollout_length=12, minibatch_size=10)
GRU = GRUConfig(embedding_size=8, hidden_size=8, max_seq_len=6, normalize_observations=False)
MLP = MLPConfig(layers=(8,), normalize_observations=False)
kinds = pytest.mark.parametrize("kind", ["native", "sync"])
models = pytest.mark.parametrize("model", [GRU, MLP], ids=lambda m: m.kind)


@pytest.fixture(scope="module")
def names(ray_session):
    return register()


def runner(name, model=GRU, training=TRAINING, seed=0, worker_index=0, evaluation=False, **settings) -> VectorEnvRunner:
    config = build_ppo(training, model, name, settings, seed=seed)
    config.in_evaluation = evaluation
    return VectorEnvRunner(config=config, worker_index=worker_index)


def whole(rollouts: list[Rollout], column: str) -> torch.Tensor:
    return torch.cat([getattr(r, column) for r in rollouts])


def standing(obs) -> tuple[int, int, int]:
    """(account, episode, step) of an observation of CountingEnv."""
    return tuple((obs * 4).int().tolist())


# --- what stands in the rows -----------------------------------------------------------------------------------------------


@kinds
@pytest.mark.parametrize("actions", ACTIONS)
def test_every_row_says_what_happened_after_its_observation(names, kind, actions):
    source = runner(names[kind], actions=actions)
    rollouts = [source.sample()[0] for _ in range(3)]
    obs, first, done, reward = (whole(rollouts, name) for name in ("obs", "first", "done", "reward"))
    assert obs.shape == (36, 5, 3)
    schedule = Schedule()
    for b in range(5):
        account, episode, step = standing(obs[0, b])
        assert step == 0
        for t in range(36):
            assert standing(obs[t, b]) == (account, episode, step)
            assert first[t, b] == (step == 0)
            assert reward[t, b] == step + 1
            assert done[t, b] == (step + 1 == schedule.length(account, episode))
            episode, step = (episode + 1, 0) if done[t, b] else (episode, step + 1)
    space = ACTIONS[actions]
    assert all(space.contains(action.numpy()[()]) for action in whole(rollouts, "actions").flatten(0, 1))


@kinds
@models
def test_values_and_bootstraps_are_those_of_each_episode_read_alone(names, kind, model):
    source = runner(names[kind], model)
    rollouts = [source.sample()[0] for _ in range(3)]
    obs, params, value, after, done = (whole(rollouts, n) for n in ("obs", "params", "value", "next_value", "done"))
    network, schedule, seen = source.module.actor_critic, Schedule(), {"terminated": 0, "truncated": 0}
    for b in range(5):
        start = 0
        for t in torch.nonzero(done[:, b])[:, 0].tolist():
            account, episode, step = standing(obs[t, b])
            last = torch.tensor([account, episode, step + 1]) / 4  # the observation that the autoreset took away
            alone = network(torch.cat([obs[start : t + 1, b], last[None]])[None], network.initial_state(1))
            assert_close(params[start : t + 1, b], alone.params[0, :-1])
            assert_close(value[start : t + 1, b], alone.value[0, :-1])
            assert_close(after[start:t, b], alone.value[0, 1:-1])
            terminated = schedule.terminates(account, episode)
            assert_close(after[t, b], torch.tensor(0.0) if terminated else alone.value[0, -1])
            seen["terminated" if terminated else "truncated"] += 1
            start = t + 1
    assert min(seen.values()) > 10


@models
def test_the_last_row_bootstraps_from_the_observation_that_follows_it(names, model):
    source = runner(names["native"], model, base=100)
    first, second = source.sample()[0], source.sample()[0]
    assert_close(first.next_value[-1], second.value[0])


def test_states_stand_before_the_first_row_of_each_sequence(names):
    source = runner(names["native"])
    rollouts = [source.sample()[0] for _ in range(2)]
    assert rollouts[0].states.shape == (2, 5, 8)
    network = source.module.actor_critic
    for r in rollouts:
        for k, rows in enumerate((slice(0, 6), slice(6, 12))):
            out = network.forward_sequence(r.obs[rows], r.first[rows], r.states[k])
            assert_close(out.value, r.value[rows])
            assert_close(network.head.distribution(out.params).log_prob(r.actions[rows]), r.log_prob[rows])


def test_a_policy_without_memory_has_a_state_of_no_width_before_each_step(names):
    (r,) = runner(names["native"], MLP).sample()
    assert r.states.shape == (12, 5, 0)
    assert r.segment_length == 1


@models
def test_gymnasiums_own_vector_env_gives_the_same_rollout(names, model):
    native, sync = (joined([runner(names[kind], model).sample()[0]]) for kind in ("native", "sync"))
    for name in ("obs", "first", "actions", "value", "reward", "done", "next_value", "states"):
        assert_close(getattr(native, name), getattr(sync, name))


# --- normalising -----------------------------------------------------------------------------------------------------------


def test_statistics_move_before_each_step_of_the_first_call_and_after_all_others(toy_env):
    source = runner(toy_env, replace(GRU, normalize_observations=True), toy="recall")
    raw, step = [], source.env.step
    source.env.step = lambda actions: raw.append(source._obs) or step(actions)
    first, second, third = (source.sample()[0] for _ in range(3))
    statistics = ObservationNormalizer(4)
    for t in range(12):
        statistics.update(raw[t])
        assert_array_equal(first.obs[t], statistics.normalize(raw[t]))
    for start, r in ((12, second), (24, third)):
        assert_array_equal(r.obs, statistics.normalize(np.stack(raw[start : start + 12])))
        statistics.update(np.stack(raw[start : start + 12]))
    assert source._normalizer().count == 36 * 5


def test_evaluation_does_not_move_the_statistics(toy_env):
    source = runner(toy_env, replace(GRU, normalize_observations=True), toy="recall")
    source.sample()
    source.sample(explore=False, num_timesteps=60)
    assert source._normalizer().count == 60


def test_observations_of_any_type_reach_a_policy_that_does_not_normalise(names):
    source = runner(names["native"])
    reset = source.env.reset
    source.env.reset = lambda **kwargs: (reset(**kwargs)[0].astype(np.float64), {})
    assert source.sample()[0].obs.dtype == torch.float32


# --- ways of sampling ------------------------------------------------------------------------------------------------------


def test_timesteps_are_rounded_up_to_whole_steps_of_all_accounts(names):
    assert len(runner(names["native"]).sample(num_timesteps=11)[0]) == 15


def test_without_exploring_the_mode_is_taken_and_runs_are_equal(names):
    source = runner(names["native"], actions="box")
    (r,) = source.sample(explore=False, num_timesteps=30)
    head = source.module.actor_critic.head
    assert_close(r.actions, head.distribution(r.params).mode())


def test_episodes_are_sampled_from_fresh_environments_until_enough_have_ended(names):
    source = runner(names["native"], training=replace(TRAINING, metrics_window=4))
    source.sample()
    rollouts = source.sample(num_episodes=12, explore=False)
    assert rollouts[0].first[0].all()
    assert sum(int(r.done.sum()) for r in rollouts) >= 12
    metrics = source.get_metrics()
    # Lengths are 3, 4 and 5 in turn; all of them, and nothing of the training before, are in this mean.
    lengths = whole(rollouts, "reward")[whole(rollouts, "done")]
    assert metrics["episode_len_mean"].peek() == pytest.approx(lengths.mean())


def test_training_after_an_evaluation_begins_new_episodes_with_other_numbers(toy_env):
    source = runner(toy_env, toy="recall")
    (before,) = source.sample()
    source.sample(num_episodes=5, explore=False)
    (after,) = source.sample()
    assert after.first[0].all()
    assert not torch.equal(after.obs, before.obs)


def test_random_actions_come_from_the_space_and_from_the_seed(names):
    first, second = (runner(names["native"], actions="simplex").sample(random_actions=True)[0].actions for _ in range(2))
    assert_close(first.sum(-1), torch.ones(12, 5))
    assert torch.equal(first, second)


def test_force_reset_begins_all_episodes_anew(names):
    source = runner(names["native"])
    assert not source.sample(num_timesteps=55)[0].done[-1].all()
    assert source.sample(force_reset=True)[0].first[0].all()


def test_each_runner_draws_its_own_numbers_and_the_same_ones_again(toy_env):
    def obs(**kwargs):
        return runner(toy_env, toy="recall", **kwargs).sample()[0].obs

    everyone = [obs(), obs(worker_index=1), obs(worker_index=2), obs(evaluation=True), obs(seed=1)]
    for i, left in enumerate(everyone):
        assert not any(torch.equal(left, right) for right in everyone[i + 1 :])
    assert torch.equal(everyone[1], obs(worker_index=1))


# --- metrics ---------------------------------------------------------------------------------------------------------------


@kinds
def test_episode_metrics_count_whole_episodes_across_calls(names, kind):
    source = runner(names[kind])
    rollouts = [source.sample()[0] for _ in range(3)]
    metrics = source.get_metrics()
    lengths = whole(rollouts, "reward")[whole(rollouts, "done")]  # the reward is the number of the step
    assert metrics["episode_len_mean"].peek() == pytest.approx(lengths.mean())
    assert metrics["episode_return_mean"].peek() == pytest.approx((lengths * (lengths + 1) / 2).mean())
    assert metrics["episode"]["steps"].peek() == pytest.approx(lengths.mean())
    assert set(metrics["episode"]) == {"steps"}
    assert metrics["num_env_steps_sampled"].peek() == metrics["num_env_steps_sampled_lifetime"].peek() == 180
    assert metrics["num_episodes"].peek() == len(lengths)


def test_the_mean_is_over_the_last_episodes_and_stands_until_new_ones_end(names):
    source = runner(names["native"], training=replace(TRAINING, metrics_window=4))
    (r,) = source.sample()
    last = r.reward[r.done][-4:]
    assert source.get_metrics()["episode_len_mean"].peek() == pytest.approx(last.mean())
    source.sample(num_timesteps=5, force_reset=False)
    assert "episode_len_mean" in source.get_metrics()


# --- trouble ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def loose_wire(monkeypatch):
    """The 22nd step of any account raises, once."""
    step, calls = CountingEnv.step, []

    def failing(env, action):
        calls.append(env)
        if len(calls) == 22:
            raise RuntimeError("a wire came loose")
        return step(env, action)

    monkeypatch.setattr(CountingEnv, "step", failing)


def test_a_failing_environment_is_named_and_the_next_call_begins_anew(names, loose_wire):
    source = runner(names["native"])
    with pytest.raises(RuntimeError, match="a wire came loose"):
        source.sample()
    (r,) = source.sample()
    assert r.first[0].all()
    assert len(r) == 60


def test_failing_environments_are_made_anew_where_the_config_says_so(names, loose_wire):
    source = runner(names["native"])
    source.config.restart_failed_sub_environments = True
    before = source.env
    (r,) = source.sample()
    assert source.env is not before
    assert len(r) == 60
    assert r.first[0].all()
    metrics = source.get_metrics()
    assert metrics["num_env_step_failures"].peek() == 1
    assert metrics["num_env_steps_sampled_lifetime"].peek() == 60


# --- elsewhere -------------------------------------------------------------------------------------------------------------


def test_a_remote_runner_gives_the_rollout_that_a_local_one_gives(names):
    config = build_ppo(TRAINING, GRU, names["native"])
    remote = ray.remote(num_cpus=0)(VectorEnvRunner).remote(config=config, worker_index=3)
    (there,) = ray.get(remote.sample.remote())
    (here,) = runner(names["native"], worker_index=3).sample()
    assert_close(there.obs, here.obs)
    assert there.next_value.shape == (12, 5)
    ray.kill(remote)


def test_a_toy_of_fixed_length_bootstraps_at_its_end(toy_env):
    (r,) = runner(toy_env, toy="recall").sample(num_timesteps=5 * 2 * RecallVectorEnv.length)
    assert_array_equal(torch.nonzero(r.done[:, 0])[:, 0], [19, 39])
    assert (r.next_value[19] != 0).all()
