"""The device runner on the CPU: the same rollouts as the vector runner, without its branches."""

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch

from envs import make, make_vec
from envs.catalog import CATALOG, DEMO_ASSETS, demo_tape
from rlplatform.algorithms.device_env_runner import DeviceEnvRunner, EpisodeSums
from rlplatform.algorithms.export import policy_from
from rlplatform.algorithms.ppo import PPOTrainingConfig, build_ppo, training_device
from rlplatform.algorithms.registration import register_trading_env
from rlplatform.models.gru import GRUConfig
from rlplatform.models.mlp import MLPConfig

SMALL = {"num_envs_per_env_runner": 16, "rollout_length": 32, "minibatch_size": 128, "num_epochs": 1}


def algorithm_on(env_id: str, runner: type | None, ray_session, model=None, **episode):
    settings = CATALOG[env_id][0]()
    settings = dataclasses.replace(settings, episode=dataclasses.replace(settings.episode, **episode))
    makers = partial(_single, settings), partial(_vector, settings)
    name = register_trading_env(env_id, demo_tape(DEMO_ASSETS[env_id]), *makers)
    config = build_ppo(PPOTrainingConfig(**SMALL), model or GRUConfig(normalize_observations=False), name, seed=3)
    if runner is not None:
        config.env_runners(env_runner_cls=runner)
    return config.build_algo()


def _single(settings, tape, **_):
    return make(settings, tape)


def _vector(settings, tape, num_envs, **options):
    return make_vec(settings, tape, num_envs, **options)


def test_means_of_two_ended_episodes_by_hand():
    sums = EpisodeSums()
    sums.add(torch.tensor([True, False]), {"total": torch.tensor([2.0, 100.0])})
    sums.add(torch.tensor([False, True]), {"total": torch.tensor([100.0, 4.0])})
    assert sums.means() == (2, {"total": 3.0})


@pytest.mark.parametrize("env_id", CATALOG)
def test_it_rolls_out_what_the_vector_runner_rolls_out(env_id, ray_session):
    rollouts = []
    for runner in (None, DeviceEnvRunner):
        algorithm = algorithm_on(env_id, runner, ray_session, length_bars=20, random_start=False)
        try:
            algorithm.env_runner.set_state({"rl_module": {"default_policy": _weights(algorithm)}})
            rollouts.append(algorithm.env_runner.sample(num_timesteps=16 * 32, explore=False, force_reset=True)[0])
        finally:
            algorithm.stop()
    theirs, ours = rollouts
    assert ours.done.sum() == theirs.done.sum() >= 16  # an episode of 20 bars ended inside
    for column in ("obs", "first", "reward", "done", "value", "next_value", "states", "log_prob"):
        a, b = getattr(ours, column), getattr(theirs, column)
        torch.testing.assert_close(a.double(), b.double(), rtol=1e-4, atol=1e-4, msg=lambda text, c=column: f"{c}: {text}")


def _weights(algorithm):
    """The same numbers for both: RLlib seeds its modules by how much it has drawn before."""
    generator = np.random.default_rng(0)
    state = algorithm.env_runner.module.get_state()
    return {name: 0.2 * generator.standard_normal(np.shape(array)).astype(np.float32) for name, array in state.items()}


@pytest.mark.parametrize("model", [GRUConfig(), MLPConfig()], ids=["gru", "mlp"])
def test_it_trains_reports_episodes_and_leaves_a_policy_with_its_statistics(model, ray_session):
    algorithm = algorithm_on("MultiAssetRegime-v0", DeviceEnvRunner, ray_session, model, length_bars=20)
    try:
        for _ in range(3):
            result = algorithm.train()
        assert result["env_runners"]["num_env_steps_sampled_lifetime"] == 3 * 16 * 32
        assert result["env_runners"]["episode_len_mean"] == pytest.approx(20, abs=8)  # first episodes are staggered
        assert {"alpha", "trading_cost", "total_return"} <= set(result["env_runners"]["episode"])
        policy = policy_from(algorithm)
        assert policy.normalizer.count == 3 * 16 * 32 + 16  # and the first reset, before anything was known
        assert np.isfinite(policy.normalizer.mean).all()
    finally:
        algorithm.stop()


def test_the_observations_a_learner_gets_are_those_the_policy_saw(ray_session):
    algorithm = algorithm_on("Portfolio-v0", DeviceEnvRunner, ray_session, GRUConfig(), length_bars=20)
    try:
        algorithm.train()
        rollout = algorithm.env_runner.sample()[0]
        network = algorithm.env_runner.module.actor_critic
        with torch.no_grad():
            out = network.forward_sequence(rollout.obs, rollout.first, rollout.states[0])
        torch.testing.assert_close(out.params, rollout.params, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(out.value, rollout.value, rtol=1e-4, atol=1e-5)
    finally:
        algorithm.stop()


def test_asking_for_a_gpu_where_there_is_none_says_so_and_goes_on(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with caplog.at_level("WARNING"):
        assert training_device(PPOTrainingConfig(device="cuda")) == "cpu"
    assert "torch sees no GPU here" in caplog.text


def test_auto_takes_the_gpu_for_local_sampling_only(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert training_device(PPOTrainingConfig()) == "cuda"
    assert training_device(PPOTrainingConfig(num_env_runners=2)) == "cpu"
    assert training_device(PPOTrainingConfig(fast=False)) == "cpu"
