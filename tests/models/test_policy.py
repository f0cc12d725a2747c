import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from safetensors.torch import save_file

from envs.errors import ConfigError, ShapeError
from envs.normalizer import ObservationNormalizer
from rlplatform.models.actor_critic import ActorCritic
from rlplatform.models.gru import GRUConfig
from rlplatform.models.heads import CategoricalHead, LogisticNormalHead
from rlplatform.models.mlp import MLPConfig
from rlplatform.models.policy import Policy

D = 6


def fresh_policy(config=None, head=None, normalize=True, seed=0):
    torch.manual_seed(seed)
    normalizer = None
    if normalize:
        normalizer = ObservationNormalizer(D)
        normalizer.update(np.random.default_rng(seed).normal(5, 3, size=(100, D)))
    return Policy(ActorCritic(config or GRUConfig(), D, head or LogisticNormalHead(4)), normalizer, "Portfolio-v0")


def observations(steps=5, batch=3):
    return np.random.default_rng(1).normal(5, 3, size=(steps, batch, D)).astype(np.float32)


def play(policy, obs):
    state, actions = policy.initial_state(obs.shape[1]), []
    for row in obs:
        action, state, _ = policy.act(row, state)
        actions.append(action)
    return np.stack(actions)


def test_act_decides_for_a_batch_and_says_how_sure_it_is():
    policy = fresh_policy()
    action, state, extra = policy.act(observations()[0], policy.initial_state(3))
    assert action.shape == (3, 4)
    assert state.shape == (3, 128)
    assert extra["entropy"].shape == extra["value"].shape == (3,)
    np.testing.assert_allclose(action.sum(-1), 1, rtol=1e-6)


def test_a_discrete_policy_gives_integers():
    policy = fresh_policy(MLPConfig(), CategoricalHead(16))
    action, _, extra = policy.act(observations()[0], policy.initial_state(3))
    assert np.issubdtype(action.dtype, np.integer)
    np.testing.assert_allclose(extra["entropy"], np.log(16), rtol=1e-3)


def test_the_memory_of_a_gru_matters_and_that_of_one_account_is_its_own():
    policy, obs = fresh_policy(), observations()
    together = play(policy, obs)
    np.testing.assert_allclose(play(policy, obs[:, 1:2])[:, 0], together[:, 1], rtol=1e-5)
    assert not np.allclose(play(policy, obs[-1:])[0], together[-1], rtol=1e-6)


def test_samples_differ_from_the_mode_and_follow_their_generator():
    policy, obs = fresh_policy(), observations()[0]
    mode, _, _ = policy.act(obs, policy.initial_state(3))
    draws = [
        policy.act(obs, policy.initial_state(3), deterministic=False, generator=torch.Generator().manual_seed(2))[0]
        for _ in range(2)
    ]
    assert_array_equal(draws[0], draws[1])
    assert not np.allclose(draws[0], mode)


def test_acting_neither_learns_statistics_nor_gradients():
    policy = fresh_policy()
    before = policy.normalizer.count
    _, state, _ = policy.act(observations()[0], policy.initial_state(3))
    assert policy.normalizer.count == before
    assert policy.normalizer.frozen
    assert not state.requires_grad


@pytest.mark.parametrize("config", [GRUConfig(hidden_size=16), MLPConfig(layers=(8, 8))], ids=lambda c: c.kind)
@pytest.mark.parametrize("head", [LogisticNormalHead(4, True), CategoricalHead(3)], ids=lambda h: h.kind)
@pytest.mark.parametrize("normalize", [True, False])
def test_a_saved_policy_acts_the_same(tmp_path, config, head, normalize):
    policy = fresh_policy(config, head, normalize)
    policy.save(tmp_path / "policy")
    loaded = Policy.load(tmp_path / "policy")
    assert loaded.describe() == policy.describe()
    assert_array_equal(play(loaded, observations()), play(policy, observations()))


LOAD_WITHOUT_RAY = """
import sys, numpy as np
class NoRay:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("ray", "pickle5", "pandas"):
            raise ImportError(name)
sys.meta_path.insert(0, NoRay())
from rlplatform.models.policy import Policy
policy = Policy.load(sys.argv[1])
obs, state, actions = np.load(sys.argv[2]), None, []
state = policy.initial_state(obs.shape[1])
for row in obs:
    action, state, _ = policy.act(row, state)
    actions.append(action)
np.save(sys.argv[3], np.stack(actions))
assert "ray" not in sys.modules
"""


def test_a_saved_policy_acts_the_same_where_ray_cannot_be_imported(tmp_path):
    policy = fresh_policy()
    policy.save(tmp_path)
    np.save(tmp_path / "obs.npy", observations())
    arguments = [str(tmp_path), str(tmp_path / "obs.npy"), str(tmp_path / "actions.npy")]
    subprocess.run([sys.executable, "-c", LOAD_WITHOUT_RAY, *arguments], check=True)
    assert_array_equal(np.load(tmp_path / "actions.npy"), play(policy, observations()))


def test_saving_leaves_two_files_and_the_readable_one_tells_the_truth(tmp_path):
    fresh_policy(seed=0).save(tmp_path)
    policy = fresh_policy(seed=1)
    policy.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["policy.json", "policy.safetensors"]
    text = json.loads((tmp_path / "policy.json").read_text())
    assert text == policy.describe()
    assert (text["env_id"], text["action_head"]) == (
        "Portfolio-v0",
        {"kind": "logistic_normal", "num_weights": 4, "leverage": False},
    )


def test_a_save_that_breaks_off_leaves_the_old_policy_whole(tmp_path, monkeypatch):
    old = fresh_policy(seed=0)
    old.save(tmp_path)

    def out_of_disk(*args, **kwargs):
        raise OSError("no space left")

    monkeypatch.setattr("rlplatform.models.policy.save_file", out_of_disk)
    with pytest.raises(OSError, match="no space"):
        fresh_policy(MLPConfig(), seed=1).save(tmp_path)
    assert_array_equal(play(Policy.load(tmp_path), observations()), play(old, observations()))


def test_mistakes_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"does not exist\. Give the directory"):
        Policy.load(tmp_path)
    (tmp_path / "policy.safetensors").write_bytes(b"not a policy")
    with pytest.raises(ConfigError, match="is damaged"):
        Policy.load(tmp_path)
    save_file({"a": torch.zeros(1)}, tmp_path / "policy.safetensors")
    with pytest.raises(ConfigError, match="policy format None; this version reads 1"):
        Policy.load(tmp_path)
    policy = fresh_policy()
    with pytest.raises(ShapeError, match=r"shape \(6,\); expected \(B, 6\)"):
        policy.act(np.zeros(6, np.float32), policy.initial_state(1))
